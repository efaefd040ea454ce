"""What the families of buildings share: looks, textures, tower caps, battlements, clocks."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import ImageDraw

from cli.demo.raster import Texture
from cli.demo.solids import Parts
from cli.demo.textures import MATERIALS, Wall, facade, plain
from cli.demo.windows import WINDOW_SHAPES, Colour, Look

WALLS: tuple[Colour, ...] = (
    (164, 92, 72), (196, 178, 148), (214, 200, 178), (150, 146, 140), (188, 150, 106), (206, 162, 140), (178, 184, 172),
)  # fmt: skip
ROOFS: tuple[Colour, ...] = ((134, 72, 54), (86, 90, 98), (98, 140, 122), (112, 94, 76))
ACCENTS: tuple[Colour, ...] = (
    (158, 52, 44), (44, 86, 132), (206, 160, 60), (60, 112, 84), (92, 62, 104), (236, 232, 222), (50, 46, 48),
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Kit:
    """The textures that a family draws from."""

    look: Look
    rng: np.random.Generator
    wall: Texture
    roof: Texture
    stone: Texture
    accent: Texture


Built = tuple[Parts, float, float]  # the parts, their height and width in metres


def draw_look(rng: np.random.Generator, sibling: Look | None = None) -> Look:
    """A random look; a sibling's material, wall and roof are kept, its windows and ornaments are not."""
    pick: Callable[[tuple[Colour, ...]], Colour] = lambda colours: colours[int(rng.integers(len(colours)))]  # noqa: E731
    base = pick(WALLS) if sibling is None else sibling.wall
    r, g, b = (float(c + rng.normal(0, 5)) for c in base)
    pale = float(rng.uniform(0.85, 1.15))
    return Look(
        material=str(rng.choice(MATERIALS)) if sibling is None else sibling.material,
        wall=(r, g, b),
        trim=(225 * pale, 216 * pale, 198 * pale) if rng.random() < 0.7 else (r * 0.6, g * 0.6, b * 0.6),
        roof=pick(ROOFS) if sibling is None else sibling.roof,
        accent=pick(ACCENTS),
        window=str(rng.choice(WINDOW_SHAPES)),
        window_wide=float(rng.uniform(0.3, 0.66)),
        window_tall=float(rng.uniform(0.45, 0.72)),
        storey_m=float(rng.choice([2.8, 3.4, 4.2, 5.2])),
        bay_m=float(rng.choice([2.0, 2.6, 3.4, 4.4])),
        course=int(rng.integers(3)),
        hood=int(rng.integers(4)),
        frieze=int(rng.integers(5)),
        corner=int(rng.integers(3)),
        seed=int(rng.integers(2**31)),
    )


def make_kit(look: Look) -> Kit:
    """The textures of a look; its seed also settles the proportions of the building."""
    rng = np.random.default_rng(look.seed)
    return Kit(
        look,
        rng,
        plain(look.material, look.wall, (10, 10), rng),
        plain("tile" if rng.random() < 0.7 else "plaster", look.roof, (6, 6), rng),
        plain("plaster", look.trim, (4, 8), rng),
        plain("plaster", look.accent, (4, 4), rng),
    )


def add_cap(parts: Parts, kit: Kit, foot: tuple[float, float, float], width: float) -> float:
    """A roof for a tower of that width, one of six kinds; returns its height."""
    kind = int(kit.rng.integers(6))
    x, y, z = foot
    if kind == 0:
        height = width * float(kit.rng.uniform(0.8, 1.3))
        parts.hip(foot, (width * 1.1, height, width * 1.1), kit.roof)
    elif kind == 1:
        height = width * float(kit.rng.uniform(1.8, 2.6))
        parts.hip(foot, (width, height, width), kit.roof)
    elif kind == 2:
        height = width * 0.75
        parts.dome(foot, width * 0.5, height, kit.roof, onion=0.35)
        height *= 1.35
    elif kind == 3:
        add_battlements(parts, kit, foot, (width * 1.12, width * 1.12))
        height = 1.4
    elif kind == 4:
        parts.box(foot, (width * 0.6, width * 0.7, width * 0.6), kit.stone)
        parts.hip((x, y + width * 0.7, z), (width * 0.75, width * 0.8, width * 0.75), kit.roof)
        height = width * 1.5
    else:
        parts.hip(foot, (width * 1.1, width * 0.45, width * 1.1), kit.roof, top=0.5)
        parts.drum((x, y + width * 0.45, z), width * 0.2, width * 0.5, kit.accent)
        parts.drum((x, y + width * 0.95, z), width * 0.26, width * 0.6, kit.roof, top_radius=0.02)
        height = width * 1.55
    parts.drum((x, y + height, z), 0.16, 1.6, kit.accent, top_radius=0.04)
    return height + 1.2


def add_battlements(parts: Parts, kit: Kit, foot: tuple[float, float, float], size: tuple[float, float]) -> None:
    """A crenellated parapet."""
    step = float(kit.rng.uniform(0.9, 1.6))
    skins = []
    for width in size:
        wall = Wall(kit.look.material, kit.look.wall, (width, 1.6), kit.rng)
        wall.bar((0, 0, width, 0.25), kit.look.trim)
        for i in range(int(width / step / 2) + 1):
            x = (2 * i + 0.9) * step
            wall.hole([(x, 0.8), (x + step, 0.8), (x + step, 1.7), (x, 1.7)])
        skins.append(wall.done())
    x, y, z = foot
    w, d = size
    for sign in (-1.0, 1.0):
        parts.quad((x - w / 2, y, z + sign * d / 2), (w, 0, 0), (0, 1.6, 0), skins[0], both_sides=True)
        parts.quad((x + sign * w / 2, y, z - d / 2), (0, 0, d), (0, 1.6, 0), skins[1], both_sides=True)


def rose(kit: Kit, radius: float) -> Texture:
    """A rose window or clock on a round plate with a see-through rim."""
    wall = Wall("plaster", kit.look.trim, (2 * radius, 2 * radius), kit.rng)
    turn = np.linspace(0, 2 * np.pi, 33)
    wall.panes.paste(0, (0, 0, *wall.panes.size))
    ring = [(radius * (1 + float(np.cos(t))), radius * (1 + float(np.sin(t)))) for t in turn]
    h, s = wall.panes.height, wall.scale
    ImageDraw.Draw(wall.panes).polygon([(x * s, h - y * s) for x, y in ring], fill=255)
    wall.disc((radius, radius), radius * 0.86, (60, 66, 84) if kit.rng.random() < 0.6 else kit.look.accent)
    n = int(kit.rng.integers(4, 11))
    for i in range(n):
        t, w = 2 * np.pi * i / n, 0.09 * radius
        c, d = float(np.cos(t)), float(np.sin(t))
        far = 0.86 * radius
        wall.polygon(
            [
                (radius - w * d, radius + w * c),
                (radius + w * d, radius - w * c),
                (radius + far * c + w * d, radius + far * d - w * c),
                (radius + far * c - w * d, radius + far * d + w * c),
            ],
            kit.look.trim,
        )  # fmt: skip
    wall.disc((radius, radius), radius * float(kit.rng.uniform(0.2, 0.4)), kit.look.trim)
    return wall.done()


def add_tower(parts: Parts, kit: Kit, foot: tuple[float, float, float], size: tuple[float, float]) -> float:
    """A square tower in tiers with a belfry and a cap; returns its total height."""
    x, y, z = foot
    width, height = size
    body = facade(kit.look, (width, height * 0.75))
    parts.box(foot, (width, height * 0.75, width), body)
    belfry = Wall(kit.look.material, kit.look.wall, (width, height * 0.25), kit.rng)
    n, h = int(kit.rng.integers(1, 4)), height * 0.25
    for i in range(n):
        a, b = width * (i + 0.2) / n, width * (i + 0.8) / n
        belfry.window((a, h * 0.12, b, h * 0.8), kit.look, "arch")
    belfry.bar((0, h - 0.5, width, h), kit.look.trim)
    belfry.bar((0, 0, width, 0.35), kit.look.accent)
    parts.box((x, y + height * 0.75, z), (width * 1.02, h, width * 1.02), belfry.done(), lid=kit.roof)
    return height + add_cap(parts, kit, (x, y + height, z), width)


def merlons(kit: Kit, length: float) -> Texture:
    """Battlements on a wall of this length in metres."""
    wall = Wall(kit.look.material, kit.look.wall, (length, 1.4), kit.rng)
    for i in range(int(length / 1.8)):
        wall.hole([(i * 1.8, 0.7), (i * 1.8 + 0.9, 0.7), (i * 1.8 + 0.9, 1.5), (i * 1.8, 1.5)])
    return wall.done()


def arch_points(x0: float, x1: float, spring: float, rise: float) -> list[tuple[float, float]]:
    """The outline of an arched opening from the ground."""
    turn = np.linspace(np.pi, 0, 15)
    middle, half = (x0 + x1) / 2, (x1 - x0) / 2
    bow = [(middle + half * float(np.cos(t)), spring + rise * float(np.sin(t))) for t in turn]
    return [(x0, -0.1), *bow, (x1, -0.1)]
