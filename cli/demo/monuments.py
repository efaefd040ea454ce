"""Families of monuments: cathedral, temple, gate, obelisk or statue, pagoda, viaduct."""

from cli.demo.kit import Built, Kit, add_battlements, add_tower, arch_points, rose
from cli.demo.solids import Parts
from cli.demo.textures import Wall, blank, facade, plain


def cathedral(kit: Kit) -> Built:
    """A cathedral."""
    rng, parts = kit.rng, Parts()
    w, h, d = float(rng.uniform(10, 15)), float(rng.uniform(10, 15)), float(rng.uniform(20, 30))
    side = facade(blank(kit.look), (d, h), storeys=2)
    front = facade(kit.look, (w, h), door="pointed", storeys=int(rng.integers(2, 4)))
    parts.box((0, 0, 0), (w, h, d), front, side)
    rise = w * float(rng.uniform(0.45, 0.85))
    parts.gable((0, h, 0), (w + 0.6, rise, d), kit.roof, kit.wall)
    r = w * float(rng.uniform(0.16, 0.24))
    parts.quad((-r, h * 0.95 - r, d / 2 + 0.15), (2 * r, 0, 0), (0, 2 * r, 0), rose(kit, r))
    tw, th = w * float(rng.uniform(0.32, 0.45)), h * float(rng.uniform(1.3, 1.9))
    plan = int(rng.integers(3))
    places = [[-1.0, 1.0], [0.0], [float(rng.choice([-1.0, 1.0]))]][plan]
    top = 0.0
    state = rng.bit_generator.state
    for sign in places:
        rng.bit_generator.state = state  # twin towers are twins
        z = d / 2 - tw / 2 if plan != 1 else -d / 4
        top = add_tower(parts, kit, (sign * (w / 2 + tw / 2 - 0.5), 0, z), (tw, th))
    return parts, max(top, h + rise), w + 2 * tw


def temple(kit: Kit) -> Built:
    """A temple on steps."""
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


def gate(kit: Kit) -> Built:
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
        wall.polygon(arch_points(x0 - 0.5, x1 + 0.5, start, rise + 0.5), kit.look.trim)
        wall.hole(arch_points(x0, x1, start, rise))
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


def monument(kit: Kit) -> Built:
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


def pagoda(kit: Kit) -> Built:
    """A pagoda of several storeys."""
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


def viaduct(kit: Kit) -> Built:
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
            wall.polygon(arch_points(x0 - 0.3, x1 + 0.3, spring, rise + 0.3), kit.look.trim)
            wall.hole(arch_points(x0, x1, spring, rise))
            for x in (x0, x1):
                parts.quad((x - w / 2, y, d / 2), (0, 0, -d), (0, h * 0.75, 0), kit.wall, both_sides=True)
        wall.bar((0, h - 0.4, w, h), kit.look.trim)
        parts.box((0, y, 0), (w, h, d), wall.done(), kit.wall, kit.stone)
        y += h
        d *= 0.9
    parts.box((0, y, 0), (w, 0.9, d), facade(kit.look, (w, 0.9), storeys=1))
    if rng.random() < 0.5:
        add_battlements(parts, kit, (0, y + 0.9, 0), (w, d))
    for sign in (-1, 1) if rng.random() < 0.5 else ():
        add_tower(parts, kit, (sign * w * 0.32, y, 0), (d, 6))
    return parts, y + 3, w * 0.8
