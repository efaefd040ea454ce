"""Procedural buildings: a family gives the silhouette, a look the walls, windows and roofs."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cli.demo.raster import Solid, Texture
from cli.demo.solids import Parts
from cli.demo.textures import MATERIALS, WINDOW_SHAPES, Colour, Look, Wall, blank, facade, plain

WALLS: tuple[Colour, ...] = (
    (164, 92, 72), (196, 178, 148), (214, 200, 178), (150, 146, 140), (188, 150, 106), (206, 162, 140), (178, 184, 172),
)  # fmt: skip
ROOFS: tuple[Colour, ...] = ((134, 72, 54), (86, 90, 98), (98, 140, 122), (112, 94, 76))
ACCENTS: tuple[Colour, ...] = (
    (158, 52, 44), (44, 86, 132), (206, 160, 60), (60, 112, 84), (92, 62, 104), (236, 232, 222), (50, 46, 48),
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Building:
    """A solid with what a photographer has to know about it.

    height, width: metres. front_only: seen from the front half (a wall without much of a side).
    """

    solid: Solid
    family: str
    height: float
    width: float


@dataclass(frozen=True, slots=True, eq=False)
class Kit:
    """The textures that a family draws from."""

    look: Look
    rng: np.random.Generator
    wall: Texture
    roof: Texture
    stone: Texture
    accent: Texture


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


def build(family: str, look: Look) -> Building:
    """The building of a family with a look; the look's seed settles its proportions."""
    rng = np.random.default_rng(look.seed)
    kit = Kit(
        look,
        rng,
        plain(look.material, look.wall, (10, 10), rng),
        plain("tile" if rng.random() < 0.7 else "plaster", look.roof, (6, 6), rng),
        plain("plaster", look.trim, (4, 8), rng),
        plain("plaster", look.accent, (4, 4), rng),
    )
    parts, height, width = FAMILIES[family](kit)
    return Building(parts.solid(), family, height, width)


Built = tuple[Parts, float, float]


def _cap(parts: Parts, kit: Kit, foot: tuple[float, float, float], width: float) -> float:
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
        _battlements(parts, kit, foot, (width * 1.12, width * 1.12))
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


def _battlements(parts: Parts, kit: Kit, foot: tuple[float, float, float], size: tuple[float, float]) -> None:
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


def _rose(kit: Kit, radius: float) -> Texture:
    """A rose window or clock on a round plate with a see-through rim."""
    wall = Wall("plaster", kit.look.trim, (2 * radius, 2 * radius), kit.rng)
    turn = np.linspace(0, 2 * np.pi, 33)
    wall.panes.paste(0, (0, 0, *wall.panes.size))
    ring = [(radius * (1 + float(np.cos(t))), radius * (1 + float(np.sin(t)))) for t in turn]
    h, s = wall.panes.height, wall.scale
    from PIL import ImageDraw

    ImageDraw.Draw(wall.panes).polygon([(x * s, h - y * s) for x, y in ring], fill=255)
    wall.disc((radius, radius), radius * 0.86, (60, 66, 84) if kit.rng.random() < 0.6 else kit.look.accent)
    n = int(kit.rng.integers(4, 11))
    for i in range(n):
        t, w = 2 * np.pi * i / n, 0.09 * radius
        c, d = float(np.cos(t)), float(np.sin(t))
        far = 0.86 * radius
        wall.polygon(
            [(radius - w * d, radius + w * c), (radius + w * d, radius - w * c),
             (radius + far * c + w * d, radius + far * d - w * c), (radius + far * c - w * d, radius + far * d + w * c)],
            kit.look.trim,
        )  # fmt: skip
    wall.disc((radius, radius), radius * float(kit.rng.uniform(0.2, 0.4)), kit.look.trim)
    return wall.done()


def _tower(parts: Parts, kit: Kit, foot: tuple[float, float, float], size: tuple[float, float]) -> float:
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
    return height + _cap(parts, kit, (x, y + height, z), width)


def _cathedral(kit: Kit) -> Built:
    rng, parts = kit.rng, Parts()
    w, h, d = float(rng.uniform(10, 15)), float(rng.uniform(10, 15)), float(rng.uniform(20, 30))
    side = facade(blank(kit.look), (d, h), storeys=2)
    front = facade(kit.look, (w, h), door="pointed", storeys=int(rng.integers(2, 4)))
    parts.box((0, 0, 0), (w, h, d), front, side)
    rise = w * float(rng.uniform(0.45, 0.85))
    parts.gable((0, h, 0), (w + 0.6, rise, d), kit.roof, kit.wall)
    r = w * float(rng.uniform(0.16, 0.24))
    parts.quad((-r, h * 0.95 - r, d / 2 + 0.15), (2 * r, 0, 0), (0, 2 * r, 0), _rose(kit, r))
    tw, th = w * float(rng.uniform(0.32, 0.45)), h * float(rng.uniform(1.3, 1.9))
    plan = int(rng.integers(3))
    places = [[-1.0, 1.0], [0.0], [float(rng.choice([-1.0, 1.0]))]][plan]
    top = 0.0
    state = rng.bit_generator.state
    for sign in places:
        rng.bit_generator.state = state  # twin towers are twins
        z = d / 2 - tw / 2 if plan != 1 else -d / 4
        top = _tower(parts, kit, (sign * (w / 2 + tw / 2 - 0.5), 0, z), (tw, th))
    return parts, max(top, h + rise), w + 2 * tw


def _temple(kit: Kit) -> Built:
    rng, parts = kit.rng, Parts()
    w, h, d = float(rng.uniform(16, 24)), float(rng.uniform(7, 10)), float(rng.uniform(14, 20))
    for i in range(3):
        grow = (3 - i) * 1.2
        parts.box((0, i * 0.5, 0), (w + grow, 0.5, d + grow + 5), kit.stone, lid=kit.stone)
    parts.box((0, 1.5, -1), (w, h, d), facade(kit.look, (w, h), door="plain"), lid=kit.roof)
    n, pw = int(rng.integers(4, 9)), w * float(rng.uniform(0.5, 0.95))
    front = d / 2 + 2
    parts.columns((-pw / 2 + 0.7, 1.5, front), (pw / 2 - 0.7, 1.5, front), n, 0.55, h - 0.8, kit.stone)
    beam = facade(blank(kit.look), (pw + 1, 1.2), storeys=1)
    beam = plain("panel", kit.look.trim, (pw, 1.2), rng) if rng.random() < 0.7 else beam
    parts.box((0, h + 0.7, front - 1.2), (pw + 0.6, 1.2, 3.2), beam)
    rise = pw * float(rng.uniform(0.14, 0.24))
    parts.gable((0, h + 1.9, front - 1.2), (pw + 1.0, rise, 3.4), kit.roof, kit.accent)
    top = h + 1.9 + rise
    plan = int(rng.integers(4))
    if plan:
        r, drum = w * float(rng.uniform(0.2, 0.32)), float(rng.uniform(2, 5))
        parts.drum((0, h + 1.5, -1), r, drum, facade(kit.look, (r * 6.28, drum), storeys=1))
        tall = r * float(rng.uniform(0.7, 1.25))
        parts.dome((0, h + 1.5 + drum, -1), r * 1.04, tall, kit.roof, onion=0.3 if plan == 3 else 0.0)
        lift = h + 1.5 + drum + tall * (1.3 if plan == 3 else 1.0)
        parts.drum((0, lift - 0.4, -1), r * 0.16, r * 0.4, kit.stone)
        parts.drum((0, lift - 0.4 + r * 0.4, -1), r * 0.2, r * 0.5, kit.accent, top_radius=0.03)
        top = lift + r * 0.9
    return parts, top, w + 3


def _campanile(kit: Kit) -> Built:
    rng, parts = kit.rng, Parts()
    w, h = float(rng.uniform(5, 7.5)), float(rng.uniform(20, 30))
    parts.box((0, 0, 0), (w * 1.5, 3.5, w * 1.5), facade(kit.look, (w * 1.5, 3.5), door="arch"), lid=kit.roof)
    if rng.random() < 0.7:
        r = w * 0.3
        face = _rose(kit, r)
        for quarter in range(4):
            c, s = float(np.cos(quarter * np.pi / 2)), float(np.sin(quarter * np.pi / 2))
            away, y = w / 2 + 0.12, h * 0.66
            parts.quad((s * away - c * r, y, c * away + s * r), (2 * r * c, 0, -2 * r * s), (0, 2 * r, 0), face)
    return parts, _tower(parts, kit, (0, 0, 0), (w, h)), w * 1.8


def _lighthouse(kit: Kit) -> Built:
    rng, parts = kit.rng, Parts()
    r, h = float(rng.uniform(2.6, 4)), float(rng.uniform(16, 26))
    look = kit.look
    wall = Wall(look.material, look.wall, (r * 5, h), rng)
    bands, style = int(rng.integers(2, 6)), int(rng.integers(3))
    for i in range(bands):
        y0, y1 = h * (i + 0.3) / bands, h * (i + 0.8) / bands
        if style == 0:
            wall.bar((0, y0, r * 5, y1), look.accent)
        elif style == 1:
            wall.polygon([(0, y0), (r * 5, y0 + h / bands), (r * 5, y1 + h / bands), (0, y1)], look.accent)
        else:
            for k in range(6):
                wall.bar((r * (k + 0.5 * (i % 2)) * 0.83, y0, r * (k + 0.5 * (i % 2) + 0.5) * 0.83, y1), look.accent)
    for i in range(3):
        for k in range(3):
            x = r * (0.6 + 1.6 * k)
            wall.window((x, h * (0.15 + 0.28 * i), x + 0.8, h * (0.15 + 0.28 * i) + 1.6), look)
    parts.drum((0, 0, 0), r, h, wall.done(), top_radius=r * float(rng.uniform(0.55, 0.95)))
    parts.drum((0, h, 0), r * 1.15, 0.6, kit.stone)
    parts.drum((0, h + 0.6, 0), r * 0.6, 2.4, facade(look, (r * 3.8, 2.4), storeys=1))
    cone = rng.random() < 0.5
    if cone:
        parts.drum((0, h + 3, 0), r * 0.8, r * 1.2, kit.roof, top_radius=0.05)
    else:
        parts.dome((0, h + 3, 0), r * 0.7, r * 0.7, kit.roof)
    w = float(rng.uniform(7, 11))
    parts.box((r + w * 0.4, 0, 0), (w, 4, 6), facade(look, (w, 4)), facade(look, (6, 4)))
    parts.gable((r + w * 0.4, 4, 0), (w, 2.6, 6.6), kit.roof, kit.wall, along="x")
    return parts, h + 3 + r, r * 2 + w


def _palace(kit: Kit) -> Built:
    rng, parts = kit.rng, Parts()
    w, h, d = float(rng.uniform(26, 38)), float(rng.uniform(9, 14)), float(rng.uniform(10, 14))
    door = str(rng.choice(["arcade", "arch", "plain"]))
    parts.box((0, 0, 0), (w, h, d), facade(kit.look, (w, h), door=door), facade(blank(kit.look), (d, h)), kit.roof)
    mansard = float(rng.choice([0.0, 0.75, 0.85]))
    if mansard:
        parts.hip((0, h, 0), (w + 0.8, 3.2, d + 0.8), kit.roof, top=mansard)
    else:
        parts.gable((0, h, 0), (w + 0.6, 3.6, d + 0.8), kit.roof, kit.wall, along="x")
    cw, ch = w * float(rng.uniform(0.2, 0.32)), h * float(rng.uniform(1.1, 1.45))
    parts.box((0, 0, 1.2), (cw, ch, d), facade(kit.look, (cw, ch), door="arch"), kit.wall)
    plan = int(rng.integers(4))
    top = ch
    if plan == 0:
        parts.gable((0, ch, 1.2), (cw + 0.6, cw * 0.3, d), kit.roof, kit.accent)
        top += cw * 0.3
    elif plan == 1:
        parts.dome((0, ch, 1.2), cw * 0.48, cw * 0.5, kit.roof)
        top += cw * 0.5
    else:
        top += _cap(parts, kit, (0, ch, 1.2), cw * 0.9)
    if rng.random() < 0.6:
        ew, eh = w * 0.14, h * float(rng.uniform(1.05, 1.35))
        pavilion = facade(kit.look, (ew, eh))
        for sign in (-1, 1):
            parts.box((sign * (w / 2 - ew / 4), 0, 0.6), (ew, eh, d + 1.2), pavilion, kit.wall)
            parts.hip((sign * (w / 2 - ew / 4), eh, 0.6), (ew + 0.6, ew * 0.8, d + 1.8), kit.roof, top=0.3)
    return parts, top, w


def _castle(kit: Kit) -> Built:
    rng, parts = kit.rng, Parts()
    w, h, d = float(rng.uniform(18, 28)), float(rng.uniform(7, 10)), float(rng.uniform(14, 20))
    gate = facade(kit.look, (w, h), door="arch")
    parts.box((0, 0, 0), (w, h, d), gate, facade(blank(kit.look), (d, h)), kit.stone)
    _battlements(parts, kit, (0, h, 0), (w, d))
    r, th = float(rng.uniform(2.2, 3.4)), h * float(rng.uniform(1.2, 1.8))
    round_towers, cones = rng.random() < 0.6, rng.random() < 0.5
    tower = facade(blank(kit.look), (r * (6.28 if round_towers else 2), th))
    for sx in (-1, 1):
        for sz in (-1, 1):
            foot = (sx * w / 2, 0.0, sz * d / 2)
            lift = (foot[0], th, foot[2])
            if round_towers:
                parts.drum(foot, r, th, tower)
                if cones:
                    parts.drum(lift, r * 1.2, r * 2.4, kit.roof, top_radius=0.05)
                else:
                    parts.drum(lift, r * 1.15, 1.4, _merlons(kit, r * 7))
            else:
                parts.box(foot, (2 * r, th, 2 * r), tower, lid=kit.stone)
                _battlements(parts, kit, lift, (2 * r + 0.4, 2 * r + 0.4))
    kw, kh = w * float(rng.uniform(0.3, 0.45)), h * float(rng.uniform(1.6, 2.4))
    kx = float(rng.choice([-0.22, 0.0, 0.22])) * w
    parts.box((kx, 0, -d * 0.1), (kw, kh, kw), facade(kit.look, (kw, kh)), lid=kit.stone)
    return parts, kh + _cap(parts, kit, (kx, kh, -d * 0.1), kw * 0.95), w + 2 * r


def _merlons(kit: Kit, length: float) -> Texture:
    wall = Wall(kit.look.material, kit.look.wall, (length, 1.4), kit.rng)
    for i in range(int(length / 1.8)):
        wall.hole([(i * 1.8, 0.7), (i * 1.8 + 0.9, 0.7), (i * 1.8 + 0.9, 1.5), (i * 1.8, 1.5)])
    return wall.done()


def _arch_points(x0: float, x1: float, spring: float, rise: float) -> list[tuple[float, float]]:
    """The outline of an arched opening from the ground."""
    turn = np.linspace(np.pi, 0, 15)
    middle, half = (x0 + x1) / 2, (x1 - x0) / 2
    bow = [(middle + half * float(np.cos(t)), spring + rise * float(np.sin(t))) for t in turn]
    return [(x0, -0.1), *bow, (x1, -0.1)]


def _gate(kit: Kit) -> Built:
    """A triumphal arch."""
    rng, parts = kit.rng, Parts()
    w, h, d = float(rng.uniform(14, 20)), float(rng.uniform(13, 18)), float(rng.uniform(5, 7))
    wall = Wall(kit.look.material, kit.look.wall, (w, h), rng)
    main, spring = w * float(rng.uniform(0.26, 0.36)), h * float(rng.uniform(0.3, 0.42))
    openings = [(w / 2 - main / 2, w / 2 + main / 2, spring)]
    if rng.random() < 0.5:
        openings += [(w * 0.08, w * 0.25, spring * 0.65), (w * 0.75, w * 0.92, spring * 0.65)]
    wall.bar((0, h * 0.72, w, h * 0.75), kit.look.trim)
    wall.bar((0, h - 0.6, w, h), kit.look.trim)
    n, style = int(rng.integers(3, 8)), int(rng.integers(3))
    for i in range(n):
        x = w * (i + 0.5) / n
        if style == 0:
            wall.bar((x - 0.35 * w / n, h * 0.79, x + 0.35 * w / n, h * 0.92), kit.look.accent)
        elif style == 1:
            wall.disc((x, h * 0.855), min(0.32 * w / n, h * 0.08), kit.look.accent)
        else:
            wall.window((x - 0.2 * w / n, h * 0.78, x + 0.2 * w / n, h * 0.94), kit.look)
    for x0, x1, start in openings:
        rise = (x1 - x0) / 2
        wall.polygon(_arch_points(x0 - 0.5, x1 + 0.5, start, rise + 0.5), kit.look.trim)
        wall.hole(_arch_points(x0, x1, start, rise))
        for x in (x0, x1):
            parts.quad((x - w / 2, 0, d / 2), (0, 0, -d), (0, start + rise * 0.3, 0), kit.wall, both_sides=True)
    parts.box((0, 0, 0), (w, h, d), wall.done(), facade(blank(kit.look), (d, h)), kit.stone)
    for x in [x0 - 0.9 for x0, _, _ in openings[:1]] + [x1 + 0.9 for _, x1, _ in openings[:1]]:
        parts.drum((x - w / 2, 0, d / 2 + 0.7), 0.55, h * 0.72, kit.stone)
    top = h
    if rng.random() < 0.7:
        pose = int(rng.integers(4))
        for x in [[0.0], [-w * 0.35, w * 0.35], [-w * 0.35, 0.0, w * 0.35]][int(rng.integers(3))]:
            parts.figure((x, h, 0), 4.0, kit.accent, pose)
        top += 4
    return parts, top, w


def _monument(kit: Kit) -> Built:
    """An obelisk, a column with a statue, or a statue on a high pedestal."""
    rng, parts = kit.rng, Parts()
    base, n = float(rng.uniform(5, 8)), int(rng.integers(2, 5))
    for i in range(n):
        side = base * (1.6 - 0.5 * i / n)
        parts.box((0, 0.45 * i, 0), (side, 0.45, side), kit.stone, lid=kit.stone)
    y, p = 0.45 * n, base * float(rng.uniform(0.55, 0.8))
    ph = p * float(rng.uniform(0.6, 1.3))
    panel = facade(kit.look, (p, ph), storeys=1)
    parts.box((0, y, 0), (p, ph, p), panel, lid=kit.stone)
    y += ph
    plan, tall = int(rng.integers(3)), float(rng.uniform(11, 18))
    if plan == 0:
        skin = facade(kit.look, (p * 0.6, tall))
        parts.hip((0, y, 0), (p * 0.6, tall, p * 0.6), skin, top=0.6)
        parts.hip((0, y + tall, 0), (p * 0.36, p * 0.4, p * 0.36), kit.accent)
        return parts, y + tall + p * 0.4, base * 1.6
    if plan == 1:
        wall = Wall(kit.look.material, kit.look.wall, (p * 1.6, tall), rng)
        for i in range(int(rng.integers(3, 9))):
            wall.polygon(
                [(0, i * 2.4), (p * 1.6, i * 2.4 + 2.4), (p * 1.6, i * 2.4 + 3.2), (0, i * 2.4 + 0.8)], kit.look.accent
            )
        parts.drum((0, y, 0), p * 0.25, tall, wall.done(), top_radius=p * 0.2)
        parts.box((0, y + tall, 0), (p * 0.6, 0.7, p * 0.6), kit.stone, lid=kit.stone)
        y += tall + 0.7
    size = 4.5 if plan == 1 else tall * 0.55
    parts.figure((0, y, 0), size, kit.accent if rng.random() < 0.5 else kit.stone, int(rng.integers(4)))
    for sx in (-1, 1):
        if rng.random() < 0.6:
            parts.figure((sx * base * 0.62, 0.45 * n, base * 0.5), 2.6, kit.stone, int(rng.integers(4)))
    return parts, y + size, base * 1.8


def _hall(kit: Kit) -> Built:
    """A town hall: stepped or plain gables, dormers, a clock tower."""
    rng, parts = kit.rng, Parts()
    w, h, d = float(rng.uniform(16, 24)), float(rng.uniform(9, 13)), float(rng.uniform(12, 16))
    door = str(rng.choice(["arcade", "arch", "pointed"]))
    parts.box((0, 0, 0), (w, h, d), facade(kit.look, (w, h), door=door), facade(blank(kit.look), (d, h)))
    rise = w * float(rng.uniform(0.3, 0.5))
    if rng.random() < 0.6:
        steps = int(rng.integers(4, 8))
        front = Wall(kit.look.material, kit.look.wall, (w, rise + 1), rng)
        for i in range(steps):
            x, y = w / 2 * i / steps, (rise + 1) * (i + 1) / steps
            for a, b in ((x, x + w / 2 / steps), (w - x - w / 2 / steps, w - x)):
                front.hole([(a, y), (b, y), (b, rise + 2), (a, rise + 2)])
        for b in range(-1, 2):
            front.window((w / 2 + b * w * 0.14 - 0.6, 0.6, w / 2 + b * w * 0.14 + 0.6, rise * 0.5), kit.look)
        parts.gable((0, h, -0.2), (w - 0.6, rise, d), kit.roof, kit.wall)
        parts.quad((-w / 2, h, d / 2 + 0.05), (w, 0, 0), (0, rise + 1, 0), front.done(), both_sides=True)
    else:
        parts.gable((0, h, 0), (w + 0.6, rise * 0.8, d + 0.8), kit.roof, kit.wall, along="x")
        dormer = facade(kit.look, (2.2, 2.4), storeys=1)
        for x in np.linspace(-0.36, 0.36, int(rng.integers(2, 5))) * w:
            parts.box((float(x), h, d / 2 - 1.6), (2.2, 2.4, 2.4), dormer, kit.roof)
            parts.gable((float(x), h + 2.4, d / 2 - 1.6), (2.6, 1.5, 2.6), kit.roof, kit.accent)
    place = int(rng.integers(4))
    if place == 3:
        return parts, h + rise + 1, w
    tw, th = w * float(rng.uniform(0.2, 0.28)), h * float(rng.uniform(1.7, 2.4))
    x = (-w / 2 + tw / 2, 0.0, w / 2 + tw * 0.6)[place]
    z = d / 2 - tw / 2 + 0.8 if place else -d / 4
    r = tw * 0.32
    parts.quad((x - r, th * 0.58, z + tw / 2 + 0.2), (2 * r, 0, 0), (0, 2 * r, 0), _rose(kit, r))
    return parts, _tower(parts, kit, (x, 0, z), (tw, th)), w + tw


def _pagoda(kit: Kit) -> Built:
    rng, parts = kit.rng, Parts()
    n, w, step = int(rng.integers(3, 7)), float(rng.uniform(9, 13)), float(rng.uniform(3, 4.2))
    shrink, eaves = float(rng.uniform(0.78, 0.9)), float(rng.uniform(1.25, 1.6))
    y = 0.8
    parts.box((0, 0, 0), (w * 1.4, 0.8, w * 1.4), kit.stone, lid=kit.stone)
    for i in range(n):
        skin = facade(kit.look, (w, step), door="arch" if i == 0 else "", storeys=1)
        parts.box((0, y, 0), (w, step, w), skin)
        y += step
        parts.box((0, y - 0.3, 0), (w * eaves, 0.3, w * eaves), kit.accent)
        parts.hip((0, y, 0), (w * eaves, step * 0.45, w * eaves), kit.roof, top=0.5)
        y += step * 0.3
        w *= shrink
    parts.drum((0, y, 0), 0.35, 4, kit.accent, top_radius=0.05)
    return parts, y + 4, w / shrink**n * 1.4


def _viaduct(kit: Kit) -> Built:
    """An aqueduct or bridge with one to three tiers of arches."""
    rng, parts = kit.rng, Parts()
    w, d, tiers, n = float(rng.uniform(38, 50)), 4.5, int(rng.integers(1, 4)), int(rng.integers(4, 8))
    y, top_of = 0.0, float(rng.uniform(4.5, 8))
    for tier in range(tiers):
        bays, h = n * (2 if tier == tiers - 1 and tiers > 1 else 1), top_of * (0.75**tier)
        wall = Wall(kit.look.material, kit.look.wall, (w, h), rng)
        step = w / bays
        for i in range(bays):
            x0, x1 = step * (i + 0.16), step * (i + 0.84)
            rise = min((x1 - x0) / 2, h * 0.55)
            spring = h * 0.88 - rise
            wall.polygon(_arch_points(x0 - 0.3, x1 + 0.3, spring, rise + 0.3), kit.look.trim)
            wall.hole(_arch_points(x0, x1, spring, rise))
            for x in (x0, x1):
                parts.quad((x - w / 2, y, d / 2), (0, 0, -d), (0, h * 0.75, 0), kit.wall, both_sides=True)
        wall.bar((0, h - 0.4, w, h), kit.look.trim)
        parts.box((0, y, 0), (w, h, d), wall.done(), kit.wall, kit.stone)
        y += h
        d *= 0.9
    parts.box((0, y, 0), (w, 0.9, d), facade(kit.look, (w, 0.9), storeys=1))
    if rng.random() < 0.5:
        _battlements(parts, kit, (0, y + 0.9, 0), (w, d))
    for sign in (-1, 1) if rng.random() < 0.5 else ():
        _tower(parts, kit, (sign * w * 0.32, y, 0), (d, 6))
    return parts, y + 3, w * 0.8


def _modern(kit: Kit) -> Built:
    """Stacked volumes with curtain walls."""
    rng, parts = kit.rng, Parts()
    y, w = 0.0, float(rng.uniform(10, 15))
    is_round = rng.random() < 0.4
    for _ in range(int(rng.integers(2, 5))):
        h = float(rng.uniform(5, 11))
        skin = facade(kit.look, (w * (3 if is_round else 1), h), door="plain" if y == 0 else "")
        x, z = (0.0, 0.0) if is_round else (float(v) for v in rng.uniform(-1.5, 1.5, 2))
        if is_round:
            parts.drum((x, y, z), w / 2, h, skin, top_radius=w / 2 * float(rng.uniform(0.75, 1.15)))
            parts.drum((x, y + h - 0.4, z), w * 0.6, 0.5, kit.accent)
        else:
            parts.box((x, y, z), (w, h, w), skin, lid=kit.stone)
        y += h
        w *= float(rng.uniform(0.65, 1.1))
    plan = int(rng.integers(3))
    if plan == 0:
        parts.drum((0, y, 0), 0.6, 9, kit.accent, top_radius=0.08)
        y += 8
    elif plan == 1:
        parts.dome((0, y, 0), w * 0.45, w * 0.45, kit.roof)
        y += w * 0.4
    else:
        parts.hip((0, y, 0), (w, w * 0.8, w), kit.roof)
        y += w * 0.7
    return parts, y, 16.0


FAMILIES: dict[str, Callable[[Kit], Built]] = {
    "cathedral": _cathedral,
    "temple": _temple,
    "campanile": _campanile,
    "lighthouse": _lighthouse,
    "palace": _palace,
    "castle": _castle,
    "gate": _gate,
    "monument": _monument,
    "hall": _hall,
    "pagoda": _pagoda,
    "viaduct": _viaduct,
    "modern": _modern,
}
