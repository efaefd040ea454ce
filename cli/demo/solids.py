"""Building blocks: boxes, gables, hips, columns, domes and spires put together into a solid."""

from dataclasses import replace

import numpy as np

from cli.demo.raster import Patch, Round, Solid, Texture
from retrieval.arrays import FloatArray

Point = tuple[float, float, float]


def _vector(x: float, y: float, z: float) -> FloatArray:
    return np.array([x, y, z], dtype=np.float64)


class Parts:
    """A building being put together. Metres; x to the right, y up, z towards the viewer of the front."""

    def __init__(self) -> None:
        self._patches: list[Patch] = []
        self._rounds: list[Round] = []

    def solid(self) -> Solid:
        """Everything so far."""
        return Solid(tuple(self._patches), tuple(self._rounds))

    def quad(
        self, origin: Point, across: Point, up: Point, skin: Texture, repeat: tuple[float, float] = (1.0, 1.0),
        top: float = 1.0, both_sides: bool = False,
    ) -> None:  # fmt: skip
        """One flat piece."""
        self._patches.append(Patch(_vector(*origin), _vector(*across), _vector(*up), skin, repeat, top, both_sides))

    def box(
        self, foot: Point, size: Point, front: Texture, side: Texture | None = None, lid: Texture | None = None
    ) -> None:
        """A box; foot is the middle of its floor, size is width, height, depth. No lid: an open top."""
        x, y, z = foot
        w, h, d = size
        flank = side or front
        self.quad((x - w / 2, y, z + d / 2), (w, 0, 0), (0, h, 0), front)
        self.quad((x + w / 2, y, z - d / 2), (-w, 0, 0), (0, h, 0), front)
        self.quad((x + w / 2, y, z + d / 2), (0, 0, -d), (0, h, 0), flank)
        self.quad((x - w / 2, y, z - d / 2), (0, 0, d), (0, h, 0), flank)
        if lid is not None:
            self.quad((x - w / 2, y + h, z + d / 2), (w, 0, 0), (0, 0, -d), lid, (w / 6, d / 6))

    def gable(self, foot: Point, size: Point, skin: Texture, wall: Texture, along: str = "z") -> None:
        """A saddle roof over a box of that width and depth; its ridge runs along z or x."""
        x, y, z = foot
        w, h, d = size
        tile = (max(w, d) / 6, float(np.hypot(w / 2, h)) / 6)
        if along == "z":
            self.quad((x + w / 2, y, z + d / 2), (0, 0, -d), (-w / 2, h, 0), skin, tile)
            self.quad((x - w / 2, y, z - d / 2), (0, 0, d), (w / 2, h, 0), skin, tile)
            self.quad((x - w / 2, y, z + d / 2), (w, 0, 0), (0, h, 0), wall, top=0.0)
            self.quad((x + w / 2, y, z - d / 2), (-w, 0, 0), (0, h, 0), wall, top=0.0)
        else:
            self.quad((x - w / 2, y, z + d / 2), (w, 0, 0), (0, h, -d / 2), skin, tile)
            self.quad((x + w / 2, y, z - d / 2), (-w, 0, 0), (0, h, d / 2), skin, tile)
            self.quad((x + w / 2, y, z + d / 2), (0, 0, -d), (0, h, 0), wall, top=0.0)
            self.quad((x - w / 2, y, z - d / 2), (0, 0, d), (0, h, 0), wall, top=0.0)

    def hip(self, foot: Point, size: Point, skin: Texture, top: float = 0.0) -> None:
        """A roof that leans in on all four sides; top = 0 is a pyramid, 0.7 a mansard."""
        x, y, z = foot
        w, h, d = size
        lean_x, lean_z = w * (1 - top) / 2, d * (1 - top) / 2
        across_tile, along_tile = (w / 6, h / 6), (d / 6, h / 6)
        self.quad((x - w / 2, y, z + d / 2), (w, 0, 0), (0, h, -lean_z), skin, across_tile, top)
        self.quad((x + w / 2, y, z - d / 2), (-w, 0, 0), (0, h, lean_z), skin, across_tile, top)
        self.quad((x + w / 2, y, z + d / 2), (0, 0, -d), (-lean_x, h, 0), skin, along_tile, top)
        self.quad((x - w / 2, y, z - d / 2), (0, 0, d), (lean_x, h, 0), skin, along_tile, top)
        if top > 0:
            low = (x - w * top / 2, y + h, z + d * top / 2)
            self.quad(low, (w * top, 0, 0), (0, 0, -d * top), skin, (w * top / 6, d * top / 6))

    def drum(
        self, foot: Point, radius: float, height: float, skin: Texture, repeat: tuple[float, float] = (1.0, 1.0),
        top_radius: float | None = None,
    ) -> None:  # fmt: skip
        """A cylinder, or a cone or taper when the top radius differs."""
        change = ((radius if top_radius is None else top_radius) - radius) / height
        profile = (radius * radius, 2 * radius * change, change * change)
        self._rounds.append(Round(_vector(*foot), height, profile, skin, repeat))

    def dome(self, foot: Point, radius: float, height: float, skin: Texture, onion: float = 0.0) -> None:
        """Half an ellipsoid; onion > 0 starts below its equator, so that it bulges."""
        below = height * onion
        full = height + below
        scale = (radius / height) ** 2
        # radius**2 = R**2 (1 - ((s - below) / height)**2)
        profile = (radius**2 - scale * below**2, 2 * scale * below, -scale)
        self._rounds.append(Round(_vector(*foot), full, profile, skin, (4.0, 1.0)))

    def columns(self, start: Point, end: Point, n: int, radius: float, height: float, skin: Texture) -> None:
        """n columns in a row from start to end."""
        for t in np.linspace(0, 1, n):
            x, y, z = (float(a + (b - a) * t) for a, b in zip(start, end, strict=True))
            self.drum((x, y, z), radius, height, skin, top_radius=radius * 0.86)

    def figure(self, foot: Point, height: float, skin: Texture, pose: int) -> None:
        """A statue: a robed figure in one of four poses."""
        x, y, z = foot
        self.drum(foot, height * 0.2, height * 0.55, skin, top_radius=height * 0.1)
        self.dome((x, y + height * 0.5, z), height * 0.14, height * 0.3, skin, onion=0.5)
        self.dome((x, y + height * 0.86, z), height * 0.075, height * 0.09, skin, onion=0.9)
        if pose % 2:
            self.drum((x + height * 0.2, y + height * 0.5, z), height * 0.035, height * 0.75, skin)
        if pose >= 2:
            self.drum((x - height * 0.17, y + height * 0.35, z), height * 0.11, height * 0.3, skin)


def placed(solid: Solid, at: Point, yaw_rad: float) -> Solid:
    """The same solid turned about its own axis and moved."""
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T
    move = np.array(at)
    patches = tuple(
        replace(p, origin=p.origin @ turn + move, across=p.across @ turn, up=p.up @ turn) for p in solid.patches
    )
    rounds = tuple(replace(r, centre=r.centre @ turn + move) for r in solid.rounds)
    return Solid(patches, rounds)
