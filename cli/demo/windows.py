"""What a building looks like, and its windows drawn small with their frames, sills and hoods."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[float, float, float]  # 0 to 255

WINDOW_SHAPES = ("plain", "arch", "pointed", "twin", "round", "cross", "segment", "triple")


@dataclass(frozen=True, slots=True)
class Look:
    """What a building is made of, and how its windows are built."""

    material: str
    wall: Colour
    trim: Colour
    roof: Colour
    accent: Colour
    window: str
    window_wide: float  # share of a bay
    window_tall: float  # share of a storey
    storey_m: float
    bay_m: float
    course: int  # string courses: 0 none, 1 every storey, 2 under windows as well
    hood: int  # 0 none, 1 lintel, 2 little gable, 3 shutters
    frieze: int  # pattern under the eaves, 0 none
    corner: int  # 0 plain, 1 quoins, 2 pilasters between bays
    seed: int


def fill(colour: Colour, gain: float = 1.0) -> tuple[int, int, int]:
    """The colour, brighter or darker, for Pillow."""
    r, g, b = (int(np.clip(c * gain, 0, 255)) for c in colour)
    return r, g, b


@lru_cache(maxsize=256)
def stamp(look: Look, shape: str, size: tuple[int, int]) -> tuple[Image.Image, Image.Image, Image.Image]:
    """A window of size (w, h) pixels: its image, where its glass is and where it covers the wall."""
    width, height = size
    margin = max(width // 4, 2)
    k = 3  # drawn larger, for smooth edges
    full = ((width + 2 * margin) * k, (height + 2 * margin) * k)
    box = (margin * k, margin * k, (margin + width) * k, (margin + height) * k)
    frame, glass, cover = Image.new("RGB", full, fill(look.trim)), Image.new("L", full, 0), Image.new("L", full, 0)
    pen, light, area = (ImageDraw.Draw(i) for i in (frame, glass, cover))
    edge = max(width * k // 10, k)
    grown = (box[0] - edge, box[1] - edge, box[2] + edge, box[3] + edge)
    for outline in _outlines(shape, grown):
        area.polygon(outline, fill=255)
    for outline in _outlines(shape, box):
        pen.polygon(outline, fill=(44, 52, 64))
        light.polygon(outline, fill=255)
    _mullions(pen, box, shape, look.trim)
    _hood(pen, area, look, (box, margin * k))
    small = (full[0] // k, full[1] // k)
    binary: Callable[[int], int] = lambda v: 255 if v > 127 else 0  # noqa: E731
    return frame.resize(small, Image.Resampling.BOX), glass.resize(small).point(binary), cover.resize(small)


def _outlines(shape: str, box: tuple[float, float, float, float]) -> list[list[tuple[float, float]]]:
    """Polygons of the opening within a box x0, y0 (top), x1, y1."""
    x0, y0, x1, y1 = box
    w = x1 - x0
    if shape in ("twin", "triple"):
        n = 2 if shape == "twin" else 3
        step = w / n
        return [p for i in range(n) for p in _outlines("arch", (x0 + i * step, y0, x0 + (i + 0.8) * step, y1))]
    if shape == "round":
        r, cx, cy = min(w, y1 - y0) / 2, (x0 + x1) / 2, (y0 + y1) / 2
        turn = np.linspace(0, 2 * np.pi, 24)
        return [[(cx + r * float(np.cos(t)), cy + r * float(np.sin(t))) for t in turn]]
    rise = {"arch": 0.5, "pointed": 0.85, "segment": 0.22}.get(shape, 0.0) * w
    rise = min(rise, 0.7 * (y1 - y0))
    top = []
    for t in np.linspace(-1, 1, 15):
        drop = 1 - np.sqrt(1 - t * t) if shape != "pointed" else np.abs(t) ** 1.6
        top.append((float((x0 + x1) / 2 + t * w / 2), float(y0 + rise * drop)))
    return [[(x0, y1), *top, (x1, y1)]]


def _mullions(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], shape: str, trim: Colour) -> None:
    x0, y0, x1, y1 = box
    paint, wide = fill(trim, 0.9), max((x1 - x0) // 12, 2)
    if shape in ("plain", "cross", "segment", "pointed"):
        pen.line([((x0 + x1) / 2, y0), ((x0 + x1) / 2, y1)], fill=paint, width=wide)
    if shape in ("cross", "arch", "round"):
        pen.line([(x0, (y0 + y1) / 2), (x1, (y0 + y1) / 2)], fill=paint, width=wide)
    if shape == "round":
        pen.line([((x0 + x1) / 2, y0), ((x0 + x1) / 2, y1)], fill=paint, width=wide)


def _hood(
    pen: ImageDraw.ImageDraw, area: ImageDraw.ImageDraw, look: Look, place: tuple[tuple[int, int, int, int], int]
) -> None:
    (x0, y0, x1, y1), margin = place
    sill = [x0 - margin // 2, y1, x1 + margin // 2, y1 + margin // 2]
    pen.rectangle(sill, fill=fill(look.trim, 1.1))
    area.rectangle(sill, fill=255)
    if look.hood == 1:
        lintel = [x0 - margin // 2, y0 - margin * 2 // 3, x1 + margin // 2, y0 - margin // 4]
        pen.rectangle(lintel, fill=fill(look.accent))
        area.rectangle(lintel, fill=255)
    elif look.hood == 2:
        gable = [(x0 - margin * 0.6, y0 - margin * 0.2), (x1 + margin * 0.6, y0 - margin * 0.2)]
        peak = ((x0 + x1) / 2, y0 - margin * 0.95)
        pen.polygon([*gable, peak], fill=fill(look.trim, 1.1))
        area.polygon([*gable, peak], fill=255)
    elif look.hood == 3:
        for left in (x0 - margin * 0.95, x1 + margin * 0.15):
            shutter = [left, y0, left + margin * 0.8, y1]
            pen.rectangle(shutter, fill=fill(look.accent))
            area.rectangle(shutter, fill=255)
