"""A small software renderer: textured planes and surfaces of revolution into one depth buffer.

Planes are mapped by the inverse of the 3x3 matrix that takes texture coordinates to camera rays, surfaces of
revolution by solving the ray's quadratic; both store 1 / depth, which is linear over a plane's pixels
(Heckbert, Fundamentals of Texture Mapping and Image Warping, 1989).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from retrieval.arrays import FloatArray, UInt8Array

NEAR_M = 0.3  # nearer things are not drawn
SMALLEST_LEVEL_PX = 8


@dataclass(frozen=True, slots=True, eq=False)
class Texture:
    """An image for a surface at halving sizes.

    levels: (h, w, 4) uint8 each; the last channel is 0 for a hole, 1 to 250 for a pane of glass (a number of
    its own, so that panes light up one by one), 255 for everything else.
    """

    levels: tuple[UInt8Array, ...]

    def level(self, texels_per_pixel: float) -> UInt8Array:
        """The level with about as many texels as pixels."""
        wanted = int(np.log2(max(texels_per_pixel, 1.0)) + 0.4)
        return self.levels[min(wanted, len(self.levels) - 1)]


def texture(rgbm: UInt8Array) -> Texture:
    """A texture with all its levels; colours are averaged, the last channel is sampled."""
    levels = [np.ascontiguousarray(rgbm)]
    while min(levels[-1].shape[:2]) >= 2 * SMALLEST_LEVEL_PX:
        fine = levels[-1]
        h, w = fine.shape[0] // 2 * 2, fine.shape[1] // 2 * 2
        blocks = fine[:h, :w].reshape(h // 2, 2, w // 2, 2, 4)
        coarse = blocks.mean(axis=(1, 3)).astype(np.uint8)
        coarse[..., 3] = blocks[:, 0, :, 0, 3]
        levels.append(coarse)
    return Texture(tuple(levels))


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """A flat piece: origin + u * across + v * up for u, v in [0, 1], outside is across x up.

    top: width at v = 1 as a share of the width at v = 0 (0 makes a triangle). repeat: texture tiles in u and v.
    """

    origin: FloatArray
    across: FloatArray
    up: FloatArray
    texture: Texture
    repeat: tuple[float, float] = (1.0, 1.0)
    top: float = 1.0
    both_sides: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """A surface of revolution about a vertical axis: radius**2 = a + b s + c s**2 at height s in [0, height].

    centre: (3,) metres, the middle of its foot. profile: (a, b, c).
    """

    centre: FloatArray
    height: float
    profile: tuple[float, float, float]
    texture: Texture
    repeat: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Solid:
    """Things to draw together."""

    patches: tuple[Patch, ...]
    rounds: tuple[Round, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """A pinhole camera. axes: (3, 3), rows right, down, forward. focal and size in pixels."""

    position: FloatArray
    axes: FloatArray
    focal: float
    size: tuple[int, int]

    def seen(self, points: FloatArray) -> FloatArray:
        """World points (n, 3) in the camera's axes."""
        return np.asarray((points - self.position) @ self.axes.T)

    def rays(self) -> FloatArray:
        """(h, w, 3) float32 world direction of every pixel, one metre deep."""
        x, y = self.ray_steps()
        right, down, forward = self.axes.astype(np.float32)
        return np.asarray(x[None, :, None] * right + y[:, None, None] * down + forward)

    def ray_steps(self) -> tuple[FloatArray, FloatArray]:
        """The sideways and downward slope of the pixel columns and rows, float32."""
        w, h = self.size
        x = (np.arange(w, dtype=np.float32) + np.float32(0.5 - w / 2)) / np.float32(self.focal)
        y = (np.arange(h, dtype=np.float32) + np.float32(0.5 - h / 2)) / np.float32(self.focal)
        return x, y


def look_at(
    position: FloatArray, target: FloatArray, focal: float, size: tuple[int, int], roll_rad: float = 0.0
) -> Camera:
    """A camera at a position that has the target in the middle of the image."""
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, (0.0, 1.0, 0.0))
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(roll_rad), np.sin(roll_rad)
    axes = np.stack([c * right + s * down, c * down - s * right, forward])
    return Camera(np.asarray(position, dtype=np.float64), axes, focal, size)


@dataclass(slots=True, eq=False)
class Frame:
    """What the camera sees, pixel by pixel; filled in by draw.

    nearness: 1 / depth, 0 where nothing is. colour: texels. lambert: cosine to the sun. upward: the normal's
    height.
    """

    camera: Camera
    sun: FloatArray
    nearness: FloatArray = field(init=False)
    colour: UInt8Array = field(init=False)
    lambert: FloatArray = field(init=False)
    upward: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        shape = self.camera.size[::-1]
        self.nearness = np.zeros(shape, dtype=np.float32)
        self.colour = np.zeros((*shape, 4), dtype=np.uint8)
        self.lambert = np.zeros(shape, dtype=np.float32)
        self.upward = np.zeros(shape, dtype=np.float32)

    def draw(self, solids: Sequence[Solid]) -> None:
        """Draw the solids over what is there, nearest wins."""
        _draw_patches(self, [patch for solid in solids for patch in solid.patches])
        for solid in solids:
            for item in solid.rounds:
                _draw_round(self, item)


def _draw_patches(frame: Frame, patches: list[Patch]) -> None:
    if not patches:
        return
    camera = frame.camera
    across_world = np.array([p.across for p in patches])
    up_world = np.array([p.up for p in patches])
    origin = camera.seen(np.array([p.origin for p in patches]))
    across, up = across_world @ camera.axes.T, up_world @ camera.axes.T
    normal = np.cross(across, up)
    facing = -np.einsum("ij,ij->i", normal, origin)
    area = np.linalg.norm(normal, axis=1)
    both = np.array([p.both_sides for p in patches])
    corners = origin[:, None] + np.stack([0 * across, across, up, across + up], axis=1)
    boxes = _boxes(camera, corners)
    width, height = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    use = (both | (facing > 0)) & (np.abs(facing) > 1e-4 * area) & (width > 0) & (height > 0)
    depth = corners[..., 2].mean(axis=1)
    world_normal = np.cross(across_world, up_world) / np.maximum(area, 1e-12)[:, None]
    world_normal *= np.sign(facing)[:, None]
    order = np.flatnonzero(use)
    inverse = np.zeros((len(patches), 3, 3))
    inverse[order] = np.linalg.inv(np.stack([across, up, origin], axis=-1)[order])
    for i in order[np.argsort(depth[order], kind="stable")]:
        _draw_patch(frame, patches[i], inverse[i].astype(np.float32), boxes[i], world_normal[i])


def _boxes(camera: Camera, corners: FloatArray) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Pixel boxes (n, 4) as x0, x1, y0, y1 around corners (n, c, 3) in camera axes; empty if behind."""
    w, h = camera.size
    z = corners[..., 2]
    safe = np.maximum(z, NEAR_M)
    x = corners[..., 0] / safe * camera.focal + w / 2
    y = corners[..., 1] / safe * camera.focal + h / 2
    partly = (z < NEAR_M).any(axis=1)
    hidden = (z < NEAR_M).all(axis=1)
    low_x = np.where(partly, 0, np.clip(np.floor(x.min(axis=1)), 0, w))
    high_x = np.where(partly, w, np.clip(np.ceil(x.max(axis=1)), 0, w))
    low_y = np.where(partly, 0, np.clip(np.floor(y.min(axis=1)), 0, h))
    high_y = np.where(partly, h, np.clip(np.ceil(y.max(axis=1)), 0, h))
    boxes = np.stack([low_x, high_x, low_y, high_y], axis=1).astype(np.int64)
    boxes[hidden] = 0
    return boxes


def _draw_patch(
    frame: Frame, patch: Patch, inverse: FloatArray, box: np.ndarray[tuple[int], np.dtype[np.int64]], normal: FloatArray
) -> None:
    x0, x1, y0, y1 = box.tolist()
    slope_x, slope_y = frame.camera.ray_steps()
    xs, ys = slope_x[x0:x1], slope_y[y0:y1]

    def plane(row: FloatArray) -> FloatArray:
        return np.asarray((row[0] * xs + row[2])[None, :] + (row[1] * ys)[:, None])

    nearness = plane(inverse[2])
    ok = nearness > np.maximum(frame.nearness[y0:y1, x0:x1], 0.0)
    ok &= nearness < 1 / NEAR_M
    v_near = plane(inverse[1])
    ok &= (v_near >= 0) & (v_near <= nearness)
    u_near = plane(inverse[0])
    if patch.top == 1.0:
        ok &= (u_near >= 0) & (u_near <= nearness)
    else:
        half = 0.5 * (nearness - (1 - patch.top) * v_near)
        ok &= np.abs(u_near - 0.5 * nearness) <= half
    at = np.flatnonzero(ok)
    if at.size == 0:
        return
    nearness = nearness.ravel()[at]
    u, v = u_near.ravel()[at] / nearness, v_near.ravel()[at] / nearness
    fine = patch.texture.levels[0].shape
    texels = fine[0] * patch.repeat[1] * fine[1] * patch.repeat[0]
    level = patch.texture.level(float(np.sqrt(texels / max(at.size * 1.0, 1.0))) if at.size > 12 else 16.0)
    texel = _look_up(level, u * np.float32(patch.repeat[0]), v * np.float32(patch.repeat[1]))
    lambert = np.float32(max(float(normal @ frame.sun), 0.0))
    _store(frame, (at // (x1 - x0) + y0, at % (x1 - x0) + x0), nearness, texel, (lambert, np.float32(normal[1])))


def _look_up(level: UInt8Array, u: FloatArray, v: FloatArray) -> UInt8Array:
    h, w = level.shape[:2]
    column = (u * w).astype(np.int32) % w
    row = h - 1 - (v * h).astype(np.int32) % h
    texel: UInt8Array = level.reshape(-1, 4)[row * w + column]
    return texel


def _store(
    frame: Frame,
    at: tuple[np.ndarray[tuple[int], np.dtype[np.int64]], np.ndarray[tuple[int], np.dtype[np.int64]]],
    nearness: FloatArray,
    texel: UInt8Array,
    light: tuple[FloatArray | np.float32, FloatArray | np.float32],
) -> None:
    solid = texel[:, 3] > 0
    lambert, upward = light
    if not solid.all():
        at = (at[0][solid], at[1][solid])
        nearness, texel = nearness[solid], texel[solid]
        if isinstance(lambert, np.ndarray) and isinstance(upward, np.ndarray):
            lambert, upward = lambert[solid], upward[solid]
    frame.nearness[at] = nearness
    frame.colour[at] = texel
    frame.lambert[at] = lambert
    frame.upward[at] = upward


def _draw_round(frame: Frame, item: Round) -> None:
    camera = frame.camera
    a, b, c = item.profile
    ends = np.array([0.0, item.height, float(np.clip(-b / (2 * c), 0, item.height)) if c < 0 else 0.0])
    radius = float(np.sqrt(max((a + b * ends + c * ends**2).max(), 0.0)))
    signs = np.array([[sx * radius, y, sz * radius] for sx in (-1, 1) for y in (0.0, item.height) for sz in (-1, 1)])
    corners = camera.seen(item.centre + signs)
    x0, x1, y0, y1 = _boxes(camera, corners[None])[0].tolist()
    if x1 <= x0 or y1 <= y0:
        return
    slope_x, slope_y = camera.ray_steps()
    right, down, forward = camera.axes
    xs, ys = slope_x[x0:x1].astype(np.float64)[None, :], slope_y[y0:y1].astype(np.float64)[:, None]
    dx, dy, dz = (right[i] * xs + down[i] * ys + forward[i] for i in range(3))
    ox, oy, oz = camera.position - item.centre
    qa = dx * dx + dz * dz - c * dy * dy
    qb = ox * dx + oz * dz - (0.5 * b + c * oy) * dy
    qc = ox * ox + oz * oz - a - b * oy - c * oy * oy
    inside = qb * qb - qa * qc
    root = np.sqrt(np.maximum(inside, 0.0))
    qa = np.where(np.abs(qa) < 1e-9, 1e-9, qa)
    first, second = (-qb - root) / qa, (-qb + root) / qa
    first, second = np.minimum(first, second), np.maximum(first, second)

    def fits(t: FloatArray) -> FloatArray:
        s = oy + t * dy
        return np.asarray((t > NEAR_M) & (s >= 0) & (s <= item.height))

    t = np.where(fits(first), first, np.where(fits(second), second, -1.0))
    nearness = (1.0 / np.where(t > 0, t, np.inf)).astype(np.float32)
    at = np.flatnonzero((inside > 0) & (t > 0) & (nearness > frame.nearness[y0:y1, x0:x1]))
    if at.size:
        hit = np.stack([(o + t * d).ravel()[at] for o, d in ((ox, dx), (oy, dy), (oz, dz))])
        pixel = (at // (x1 - x0) + y0, at % (x1 - x0) + x0)
        _paint_round(frame, item, hit, pixel, nearness.ravel()[at])


def _paint_round(
    frame: Frame,
    item: Round,
    hit: FloatArray,
    pixel: tuple[np.ndarray[tuple[int], np.dtype[np.int64]], np.ndarray[tuple[int], np.dtype[np.int64]]],
    nearness: FloatArray,
) -> None:
    x, s, z = hit
    slope = -(0.5 * item.profile[1] + item.profile[2] * s)
    length = np.maximum(np.sqrt(x * x + z * z + slope * slope), 1e-9)
    lambert = np.maximum((x * frame.sun[0] + slope * frame.sun[1] + z * frame.sun[2]) / length, 0.0)
    u = np.arctan2(x, z) * (0.5 / np.pi) + 0.5
    fine = item.texture.levels[0].shape
    texels = fine[0] * item.repeat[1] * fine[1] * item.repeat[0] / 2
    level = item.texture.level(float(np.sqrt(texels / nearness.size)))
    texel = _look_up(level, u * item.repeat[0], s / item.height * item.repeat[1])
    light = (lambert.astype(np.float32), (slope / length).astype(np.float32))
    _store(frame, pixel, nearness, texel, light)
