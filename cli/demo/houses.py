"""Families of buildings that people use: bell tower, lighthouse, palace, castle, town hall, modern block."""

import numpy as np

from cli.demo.kit import Built, Kit, add_battlements, add_cap, add_tower, merlons, rose
from cli.demo.solids import Parts
from cli.demo.textures import Wall, blank, facade


def campanile(kit: Kit) -> Built:
    """A bell tower beside a low house, some with a clock on each side."""
    rng, parts = kit.rng, Parts()
    w, h = float(rng.uniform(5, 7.5)), float(rng.uniform(20, 30))
    parts.box((0, 0, 0), (w * 1.5, 3.5, w * 1.5), facade(kit.look, (w * 1.5, 3.5), door="arch"), lid=kit.roof)
    if rng.random() < 0.7:
        r = w * 0.3
        face = rose(kit, r)
        for quarter in range(4):
            c, s = float(np.cos(quarter * np.pi / 2)), float(np.sin(quarter * np.pi / 2))
            away, y = w / 2 + 0.12, h * 0.66
            parts.quad((s * away - c * r, y, c * away + s * r), (2 * r * c, 0, -2 * r * s), (0, 2 * r, 0), face)
    return parts, add_tower(parts, kit, (0, 0, 0), (w, h)), w * 1.8


def lighthouse(kit: Kit) -> Built:
    """A lighthouse."""
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


def palace(kit: Kit) -> Built:
    """A palace."""
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
        top += add_cap(parts, kit, (0, ch, 1.2), cw * 0.9)
    if rng.random() < 0.6:
        ew, eh = w * 0.14, h * float(rng.uniform(1.05, 1.35))
        pavilion = facade(kit.look, (ew, eh))
        for sign in (-1, 1):
            parts.box((sign * (w / 2 - ew / 4), 0, 0.6), (ew, eh, d + 1.2), pavilion, kit.wall)
            parts.hip((sign * (w / 2 - ew / 4), eh, 0.6), (ew + 0.6, ew * 0.8, d + 1.8), kit.roof, top=0.3)
    return parts, top, w


def castle(kit: Kit) -> Built:
    """A castle."""
    rng, parts = kit.rng, Parts()
    w, h, d = float(rng.uniform(18, 28)), float(rng.uniform(7, 10)), float(rng.uniform(14, 20))
    gate = facade(kit.look, (w, h), door="arch")
    parts.box((0, 0, 0), (w, h, d), gate, facade(blank(kit.look), (d, h)), kit.stone)
    add_battlements(parts, kit, (0, h, 0), (w, d))
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
                    parts.drum(lift, r * 1.15, 1.4, merlons(kit, r * 7))
            else:
                parts.box(foot, (2 * r, th, 2 * r), tower, lid=kit.stone)
                add_battlements(parts, kit, lift, (2 * r + 0.4, 2 * r + 0.4))
    kw, kh = w * float(rng.uniform(0.3, 0.45)), h * float(rng.uniform(1.6, 2.4))
    kx = float(rng.choice([-0.22, 0.0, 0.22])) * w
    parts.box((kx, 0, -d * 0.1), (kw, kh, kw), facade(kit.look, (kw, kh)), lid=kit.stone)
    return parts, kh + add_cap(parts, kit, (kx, kh, -d * 0.1), kw * 0.95), w + 2 * r


def hall(kit: Kit) -> Built:
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
    parts.quad((x - r, th * 0.58, z + tw / 2 + 0.2), (2 * r, 0, 0), (0, 2 * r, 0), rose(kit, r))
    return parts, add_tower(parts, kit, (x, 0, z), (tw, th)), w + tw


def modern(kit: Kit) -> Built:
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
