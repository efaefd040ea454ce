"""Materials and facades for the rendered buildings: brick, stone, plaster, tiles; windows, doors, friezes."""

from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw

from cli.demo.raster import Texture, texture
from cli.demo.windows import Colour, Look, fill, stamp
from retrieval.arrays import FloatArray, UInt8Array

TEXELS_PER_M = 12.0
MOST_TEXELS = 360
MATTE = 255
FEW_PANES = 249  # panes are numbered 1 to 249


MATERIALS = ("brick", "ashlar", "plaster", "banded", "rubble", "timber", "panel", "tile")


def noise(rng: np.random.Generator, height: int, width: int, cells: int = 4, octaves: int = 4) -> FloatArray:
    """Smooth noise (height, width) float32 with mean 0 and a spread of about 1."""
    total = np.zeros((height, width), dtype=np.float32)
    for octave in range(octaves):
        n = cells * 2**octave
        grid = rng.standard_normal((n + 1, n + 1)).astype(np.float32)
        grid[-1], grid[:, -1] = grid[0], grid[:, 0]
        total += np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)) / 2**octave
    return np.asarray(total / max(float(total.std()), 1e-6))


def _blocks(
    rng: np.random.Generator, shape: tuple[int, int], block: tuple[float, float], joint: float
) -> tuple[FloatArray, FloatArray]:
    """A running bond: the tint of every block (about -1 to 1), and 1 in the joints."""
    y, x = np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)[None, :]
    row = np.floor(y / block[0]).astype(np.int64)
    shifted = x + (row % 2) * (block[1] / 2)
    column = np.floor(shifted / block[1]).astype(np.int64)
    table = rng.uniform(-1, 1, 1021).astype(np.float32)
    joints = (y - row * block[0] < joint) | (shifted - column * block[1] < joint)
    return table[(row * 57 + column * 131) % 1021], joints.astype(np.float32)


def material(kind: str, colour: Colour, shape: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """A wall of the material (h, w, 3) float32 in 0 to 255, TEXELS_PER_M texels a metre."""
    base = np.ones((*shape, 1), dtype=np.float32) * np.asarray(colour, dtype=np.float32)
    stain = noise(rng, *shape)[..., None]
    if kind == "banded":
        y = np.arange(shape[0])[:, None, None]
        base = np.where(y // 9 % 2 == 0, base, 0.45 * base + 20)
        return np.asarray(base + 5 * stain, dtype=np.float32)
    if kind == "timber":
        return np.asarray(_beams(0.75 * base + 60, rng) + 4 * stain, dtype=np.float32)
    sizes = {"brick": (4, 9, 1), "ashlar": (9, 17, 1), "rubble": (6, 7, 2), "panel": (22, 18, 1), "tile": (5, 5, 1)}
    if kind not in sizes:
        return base + 9 * stain
    h, w, joint = sizes[kind]
    tint, joints = _blocks(rng, shape, (h, w), joint)
    spread = {"brick": 20, "ashlar": 12, "rubble": 30, "panel": 8, "tile": 18}[kind]
    pale = np.asarray(colour, dtype=np.float32) * (0.6 if kind in ("rubble", "tile", "panel") else 0.8) + 15
    wall = base + spread * tint[..., None] + 6 * stain
    return np.asarray(np.where(joints[..., None] > 0, pale, wall), dtype=np.float32)


def _beams(base: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Half-timbering: dark posts, rails and braces."""
    h, w = base.shape[:2]
    sheet = Image.new("L", (w, h), 0)
    pen = ImageDraw.Draw(sheet)
    step, lean = int(rng.integers(20, 34)), int(rng.integers(-1, 2))
    for y in range(0, h, 34):
        pen.line([(0, y), (w, y)], fill=255, width=4)
        for x in range(0, w, step):
            pen.line([(x, y), (x + lean * step, y + 34)], fill=255, width=3)
            pen.line([(x, y), (x, y + 34)], fill=255, width=3)
    mask = np.asarray(sheet, dtype=np.float32)[..., None] / 255
    return np.asarray(base * (1 - mask) + np.asarray((70, 48, 34), dtype=np.float32) * mask)


def plain(kind: str, colour: Colour, size_m: tuple[float, float], rng: np.random.Generator) -> Texture:
    """A wall of size_m (width, height) metres without windows."""
    return texture(_opaque(material(kind, colour, _shape(size_m)[0], rng)))


def _shape(size_m: tuple[float, float]) -> tuple[tuple[int, int], float]:
    """Rows and columns of a texture, and its texels per metre, bounded by MOST_TEXELS."""
    scale = min(TEXELS_PER_M, MOST_TEXELS / max(size_m))
    return (max(int(size_m[1] * scale), 16), max(int(size_m[0] * scale), 16)), scale


def _opaque(rgb: FloatArray) -> UInt8Array:
    out = np.full((*rgb.shape[:2], 4), MATTE, dtype=np.uint8)
    out[..., :3] = np.clip(rgb, 0, 255)
    return out


class Wall:
    """A wall being painted: metres from its lower left corner, y upwards."""

    def __init__(self, kind: str, colour: Colour, size_m: tuple[float, float], rng: np.random.Generator) -> None:
        shape, self.scale = _shape(size_m)
        self.size_m = size_m
        self.image = Image.fromarray(_opaque(material(kind, colour, shape, rng))[..., :3])
        self.panes = Image.new("L", self.image.size, MATTE)
        self._pane = int(rng.integers(1, FEW_PANES))

    def bar(self, box_m: tuple[float, float, float, float], colour: Colour, gain: float = 1.0) -> None:
        """A filled rectangle x0, y0, x1, y1 with a shadow line under it."""
        x0, y1, x1, y0 = self._pixels(box_m)
        pen = ImageDraw.Draw(self.image)
        pen.rectangle([x0, y0, x1, y1], fill=fill(colour, gain))
        pen.line([(x0, y1 + 1), (x1, y1 + 1)], fill=fill(colour, 0.45 * gain))

    def polygon(self, points_m: list[tuple[float, float]], colour: Colour) -> None:
        """A filled polygon."""
        h = self.image.height
        points = [(x * self.scale, h - y * self.scale) for x, y in points_m]
        ImageDraw.Draw(self.image).polygon(points, fill=fill(colour))

    def disc(self, centre_m: tuple[float, float], radius_m: float, colour: Colour) -> None:
        """A filled disc."""
        x, y = centre_m[0] * self.scale, self.image.height - centre_m[1] * self.scale
        r = radius_m * self.scale
        ImageDraw.Draw(self.image).ellipse([x - r, y - r, x + r, y + r], fill=fill(colour))

    def window(self, box_m: tuple[float, float, float, float], look: Look, shape: str | None = None) -> None:
        """A window or door opening x0, y0, x1, y1 with its frame, sill and glass."""
        x0, y1, x1, y0 = self._pixels(box_m)
        width, height = max(x1 - x0, 3), max(y1 - y0, 4)
        frame, glass, opening = stamp(look, shape or look.window, (width, height))
        corner = (x0 - (frame.width - width) // 2, y0 - (frame.height - height) // 2)
        self._pane = self._pane * 97 % FEW_PANES + 1
        self.image.paste(frame, corner, opening)
        self.panes.paste(self._pane, corner, glass)

    def hole(self, points_m: list[tuple[float, float]]) -> None:
        """An opening one can see through."""
        h = self.image.height
        points = [(x * self.scale, h - y * self.scale) for x, y in points_m]
        ImageDraw.Draw(self.panes).polygon(points, fill=0)

    def done(self) -> Texture:
        """The painted wall as a texture."""
        return texture(np.dstack([np.asarray(self.image), np.asarray(self.panes)]))

    def _pixels(self, box_m: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
        x0, y0, x1, y1 = (round(v * self.scale) for v in box_m)
        h = self.image.height
        return x0, h - y0, x1, h - y1


def facade(look: Look, size_m: tuple[float, float], *, door: str = "", storeys: int | None = None) -> Texture:
    """A wall with its windows. door: '' none, else the shape of openings on the ground floor ('arcade' = arches)."""
    rng = np.random.default_rng([look.seed, round(size_m[0] * 10), round(size_m[1] * 10), len(door)])
    wall = Wall(look.material, look.wall, size_m, rng)
    width, height = size_m
    n_storeys = storeys or max(round((height - 0.8) / look.storey_m), 1)
    n_bays = max(round(width / look.bay_m), 1)
    tall, wide = (height - 0.8) / n_storeys, width / n_bays
    if look.corner == 2:
        for i in range(n_bays + 1):
            wall.bar((i * wide - 0.25, 0, i * wide + 0.25, height), look.trim, 0.95)
    for s in range(n_storeys):
        if look.course and s:
            wall.bar((0, s * tall - 0.12, width, s * tall + 0.18), look.trim)
        if look.course == 2:
            wall.bar((0, s * tall + tall * 0.14, width, s * tall + tall * 0.2), look.accent)
        for b in range(n_bays):
            middle = (b + 0.5) * wide
            half, foot = look.window_wide * wide / 2, s * tall + tall * (0.9 - look.window_tall)
            shape, top = None, s * tall + tall * 0.9
            if s == 0 and door == "arcade":
                half, foot, shape = wide * 0.36, 0.0, "arch"
            elif s == 0 and door and b == n_bays // 2:
                half, foot, shape = min(wide * 0.42, 1.8), 0.0, door
            wall.window((middle - half, foot, middle + half, top), look, shape)
    if look.corner == 1:
        for y in np.arange(0, height, 0.9):
            for x in (0.0, width - 0.7):
                wall.bar((x, float(y), x + 0.7, float(y) + 0.5), look.trim, 0.97)
    _eaves(wall, look)
    return wall.done()


def _eaves(wall: Wall, look: Look) -> None:
    """Cornice and frieze at the top of a wall."""
    width, height = wall.size_m
    wall.bar((0, height - 0.35, width, height), look.trim, 1.05)
    step, low, high = 1.1, height - 1.0, height - 0.4
    for i in range(int(width / step) + 1 if look.frieze else 0):
        x = i * step
        if look.frieze == 1:
            wall.bar((x, low, x + step / 2, high), look.trim)
        elif look.frieze == 2:
            wall.polygon([(x, low), (x + step / 2, high), (x + step, low)], look.accent)
        elif look.frieze == 3:
            wall.disc((x + step / 2, (low + high) / 2), 0.27, look.accent)
        elif i % 2:
            wall.bar((x, low, x + step, high), look.accent)


def blank(look: Look) -> Look:
    """The same look without ornament, for side walls and annexes."""
    return replace(look, hood=0, frieze=0, corner=0, course=min(look.course, 1))


def draw_pattern(rng: np.random.Generator) -> Texture:
    """Stripes, spots or checks in two colours, for pots and boxes."""
    first, second = (tuple(float(v) for v in rng.uniform(30, 235, 3)) for _ in range(2))
    y, x = np.mgrid[:96, :96]
    n, kind = int(rng.integers(1, 7)), int(rng.integers(5))
    wave = (
        y * n // 48 % 2,
        x * n // 48 % 2,
        (x * n // 48 + y * n // 48) % 2,
        (x * n % 96 - 48) ** 2 + (y * n % 96 - 48) ** 2 < 900,
        noise(rng, 96, 96) > 0.3,
    )[kind]
    rgb = np.where(wave[..., None], np.array(first), np.array(second)) + 5 * noise(rng, 96, 96)[..., None]
    return texture(_opaque(np.asarray(rgb, dtype=np.float32)))
