"""What stands about in an image besides the landmark: trees, people, cars, lamp posts, plain houses."""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from cli.demo.buildings import Building, build
from cli.demo.kit import draw_look
from cli.demo.raster import Patch, Texture, texture
from cli.demo.solids import Parts
from cli.demo.textures import MATTE, blank, facade, plain
from retrieval.arrays import FloatArray

SPRITE_TEXELS_PER_M = {"tree": 14, "person": 56, "car": 40, "lamp": 24}
N_SPRITES = {"tree": 12, "person": 10, "car": 8, "lamp": 3}
N_HOUSES = 10


@dataclass(frozen=True, slots=True, eq=False)
class Sprite:
    """A cut-out image and its size in metres."""

    skin: Texture
    width: float
    height: float


@dataclass(frozen=True, slots=True, eq=False)
class Props:
    """A stock of sprites by kind, and of plain houses."""

    sprites: dict[str, tuple[Sprite, ...]]
    houses: tuple[Building, ...]


def make_props(seed: int) -> Props:
    """The stock for one demo set."""
    rng = np.random.default_rng([seed, 7])
    drawers = {"tree": _tree, "person": _person, "car": _car, "lamp": _lamp}
    sprites = {kind: tuple(draw(rng) for _ in range(N_SPRITES[kind])) for kind, draw in drawers.items()}
    return Props(sprites, tuple(_house(rng) for _ in range(N_HOUSES)))


def billboard(sprite: Sprite, at: tuple[float, float], camera: FloatArray) -> Patch:
    """The sprite upright on the ground, turned to the camera."""
    to_camera = np.array([camera[0] - at[0], 0.0, camera[2] - at[1]])
    to_camera /= max(float(np.linalg.norm(to_camera)), 1e-6)
    across = np.array([to_camera[2], 0.0, -to_camera[0]]) * sprite.width
    origin = np.array([at[0], -0.05, at[1]]) - across / 2
    return Patch(origin, across, np.array([0.0, sprite.height, 0.0]), sprite.skin, both_sides=True)


def scaled(sprite: Sprite, gain: float) -> Sprite:
    """The same sprite larger or smaller."""
    return replace(sprite, width=sprite.width * gain, height=sprite.height * gain)


def _sheet(kind: str, width: float, height: float) -> tuple[Image.Image, ImageDraw.ImageDraw, float]:
    scale = SPRITE_TEXELS_PER_M[kind] * 2.0
    sheet = Image.new("RGBA", (round(width * scale), round(height * scale)), (0, 0, 0, 0))
    return sheet, ImageDraw.Draw(sheet), scale


def _sprite(sheet: Image.Image, width: float, height: float) -> Sprite:
    small = np.asarray(sheet.resize((max(sheet.width // 2, 16), max(sheet.height // 2, 16)))).copy()
    small[..., 3] = np.where(small[..., 3] > 110, MATTE, 0)
    return Sprite(texture(small), width, height)


def _tree(rng: np.random.Generator) -> Sprite:
    height = float(rng.uniform(6, 11))
    width = height * float(rng.uniform(0.5, 0.8))
    sheet, pen, k = _sheet("tree", width, height)
    green = np.array([rng.uniform(50, 130), rng.uniform(90, 140), rng.uniform(30, 70)])
    w, h = sheet.size
    pen.polygon([(w * 0.46, h), (w * 0.54, h), (w * 0.52, h * 0.4), (w * 0.49, h * 0.4)], fill=(74, 58, 44, 255))
    conifer, bare = rng.random() < 0.25, rng.random() < 0.15
    if bare:
        _branches(pen, (w / 2, h * 0.75), (-np.pi / 2, h * 0.22), rng)
        return _sprite(sheet, width, height)
    for i in range(150):
        t = i / 150
        if conifer:
            y, spread = h * (0.9 - 0.88 * t), w * 0.5 * (1 - t)
            x = w / 2 + float(rng.uniform(-spread, spread))
        else:
            angle, far = rng.uniform(0, 2 * np.pi), np.sqrt(rng.random())
            x, y = w / 2 + 0.4 * w * far * float(np.cos(angle)), h * (0.38 + 0.3 * far * float(np.sin(angle)))
        r = k * float(rng.uniform(0.25, 0.7))
        shade = np.clip(green * (1.15 - 0.6 * y / h + rng.normal(0, 0.1)), 0, 255).astype(int)
        pen.ellipse([x - r, y - r * 0.8, x + r, y + r * 0.8], fill=(*shade.tolist(), 255))
    return _sprite(sheet, width, height)


def _branches(
    pen: ImageDraw.ImageDraw, start: tuple[float, float], grow: tuple[float, float], rng: np.random.Generator
) -> None:
    angle, length = grow
    end = (start[0] + length * float(np.cos(angle)), start[1] + length * float(np.sin(angle)))
    pen.line([start, end], fill=(84, 70, 58, 255), width=max(int(length / 9), 2))
    if length > 9:
        for turn in (-0.5, 0.0, 0.5):
            _branches(pen, end, (angle + turn + float(rng.normal(0, 0.15)), length * 0.68), rng)


def _person(rng: np.random.Generator) -> Sprite:
    height = float(rng.uniform(1.5, 1.9))
    width = 0.75
    sheet, pen, _ = _sheet("person", width, height)
    w, h = sheet.size
    coat, legs = ((*rng.integers(30, 220, 3).tolist(), 255) for _ in range(2))
    skin = (*(int(v * rng.uniform(0.5, 1.0)) for v in (235, 190, 160)), 255)
    stride = float(rng.uniform(0.05, 0.2))
    for sign in (-1, 1):
        pen.line([(w * 0.5, h * 0.5), (w * (0.5 + sign * stride), h)], fill=legs, width=int(w * 0.16))
        pen.line([(w * 0.5, h * 0.22), (w * (0.5 + sign * 0.26), h * 0.52)], fill=coat, width=int(w * 0.11))
    pen.rounded_rectangle([w * 0.32, h * 0.17, w * 0.68, h * float(rng.uniform(0.54, 0.7))], w * 0.1, fill=coat)
    pen.ellipse([w * 0.4, h * 0.01, w * 0.6, h * 0.15], fill=skin)
    pen.chord([w * 0.39, 0, w * 0.61, h * 0.13], 180, 360, fill=(50, 40, 34, 255))
    return _sprite(sheet, width, height)


def _car(rng: np.random.Generator) -> Sprite:
    width, height = 4.3, 1.5 if rng.random() < 0.7 else 2.1
    sheet, pen, _ = _sheet("car", width, height)
    w, h = sheet.size
    paint = (*rng.integers(30, 230, 3).tolist(), 255)
    pen.rounded_rectangle([0, h * 0.42, w - 1, h * 0.86], h * 0.15, fill=paint)
    a, b = float(rng.uniform(0.12, 0.25)), float(rng.uniform(0.75, 0.9))
    pen.polygon([(w * a, h * 0.45), (w * (a + 0.1), 2), (w * (b - 0.12), 2), (w * b, h * 0.45)], fill=paint)
    pen.polygon(
        [(w * (a + 0.04), h * 0.42), (w * (a + 0.12), h * 0.1), (w * (b - 0.14), h * 0.1), (w * (b - 0.04), h * 0.42)],
        fill=(58, 68, 80, 255),
    )
    for x in (0.2, 0.78):
        r = h * 0.22
        pen.ellipse([w * x - r, h - 2 * r, w * x + r, h - 1], fill=(28, 28, 30, 255))
        pen.ellipse([w * x - r / 2, h - 1.5 * r, w * x + r / 2, h - r / 2], fill=(150, 150, 154, 255))
    return _sprite(sheet, width, height)


def _lamp(rng: np.random.Generator) -> Sprite:
    width, height = 1.2, float(rng.uniform(4.5, 6))
    sheet, pen, _ = _sheet("lamp", width, height)
    w, h = sheet.size
    pen.rectangle([w * 0.46, h * 0.1, w * 0.54, h], fill=(44, 48, 50, 255))
    pen.rectangle([w * 0.4, h * 0.92, w * 0.6, h], fill=(44, 48, 50, 255))
    n = int(rng.integers(1, 4))
    for x in np.linspace(0.5 - 0.18 * (n - 1), 0.5 + 0.18 * (n - 1), n):
        pen.ellipse([w * (x - 0.12), h * 0.03, w * (x + 0.12), h * 0.12], fill=(236, 230, 206, 255))
    pen.line([(w * 0.14, h * 0.13), (w * 0.86, h * 0.13)], fill=(44, 48, 50, 255), width=4)
    return _sprite(sheet, width, height)


def _house(rng: np.random.Generator) -> Building:
    """A plain house without a character of its own."""
    look = blank(draw_look(rng))
    if rng.random() < 0.15:
        return build("modern", look)
    w, h, d = float(rng.uniform(9, 16)), float(rng.uniform(6, 13)), float(rng.uniform(8, 12))
    parts = Parts()
    roof = plain("tile", look.roof, (6, 6), rng)
    parts.box((0, 0, 0), (w, h, d), facade(look, (w, h)), facade(look, (d, h)), roof)
    along, rise = str(rng.choice(["x", "z"])), float(rng.uniform(2, 4))
    if rng.random() < 0.7:
        wall = plain(look.material, look.wall, (w, rise), rng)
        parts.gable((0, h, 0), (w + 0.4, rise, d + 0.4), roof, wall, along)
    return Building(parts.solid(), h + rise, w)
