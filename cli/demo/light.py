"""Light and weather: sun, sky, shadows, haze, night, and how a camera turns them into an image."""

from dataclasses import dataclass

import numpy as np

from cli.demo.raster import Camera, Frame, Solid, look_at
from cli.demo.textures import noise
from retrieval.arrays import FloatArray, UInt8Array

SHADOW_PX = 160
SUN_AWAY_M = 120.0
TIMES = ("day", "golden", "overcast", "dusk", "night")
_LINEAR = ((np.arange(256) / 255.0) ** 2.2).astype(np.float32)
_CURVE = np.clip(np.round(255 * (np.arange(4097) / 4096.0) ** (1 / 2.2)), 0, 255).astype(np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Light:
    """Colours are linear RGB (3,) float32. lit: share of windows with a lamp on. haze_m: distance to 63 % haze."""

    time: str
    sun: FloatArray
    sun_colour: FloatArray
    sky_colour: FloatArray
    zenith: FloatArray
    horizon: FloatArray
    flood: FloatArray
    lit: float
    haze_m: float
    cloud: float


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """What the scene stands on: two tiles (h, w, 3) uint8, near and beyond the edge, and the hills' colour."""

    near: UInt8Array
    far: UInt8Array
    edge_m: float
    hills: FloatArray
    ridge: FloatArray
    clouds: FloatArray


def _rgb(r: float, g: float, b: float) -> FloatArray:
    return np.array([r, g, b], dtype=np.float32)


def draw_light(rng: np.random.Generator, time: str, camera: Camera) -> Light:
    """A random light of a time of the day; the sun is rarely straight behind what the camera sees."""
    low, high = {"day": (25, 62), "golden": (7, 18), "overcast": (40, 70), "dusk": (4, 9), "night": (30, 60)}[time]
    facing = float(np.arctan2(-camera.axes[2, 0], -camera.axes[2, 2]))
    up, around = np.radians(rng.uniform(low, high)), facing + rng.uniform(-1.9, 1.9)
    sun = np.array([np.cos(up) * np.sin(around), np.sin(up), np.cos(up) * np.cos(around)])
    haze = float(rng.choice([60.0, 160.0, 400.0, 900.0], p=[0.02, 0.08, 0.3, 0.6]))
    cloud = float(rng.uniform(-0.4, 1.2))
    table = {
        "day": (_rgb(1.25, 1.17, 1.02), _rgb(0.36, 0.42, 0.52), _rgb(0.13, 0.28, 0.62), _rgb(0.6, 0.72, 0.88), 0.0),
        "golden": (_rgb(1.3, 0.82, 0.42), _rgb(0.3, 0.3, 0.38), _rgb(0.2, 0.3, 0.55), _rgb(0.95, 0.66, 0.42), 0.05),
        "overcast": (_rgb(0.12, 0.12, 0.12), _rgb(0.62, 0.65, 0.7), _rgb(0.6, 0.63, 0.68), _rgb(0.75, 0.77, 0.8), 0.1),
        "dusk": (_rgb(0.25, 0.14, 0.12), _rgb(0.2, 0.22, 0.36), _rgb(0.06, 0.09, 0.24), _rgb(0.75, 0.36, 0.25), 0.45),
        "night": (
            _rgb(0.03, 0.04, 0.07),
            _rgb(0.035, 0.045, 0.08),
            _rgb(0.008, 0.012, 0.04),
            _rgb(0.05, 0.06, 0.1),
            0.5,
        ),
    }
    sun_colour, sky, zenith, horizon, lit = table[time]
    flood = _rgb(0.0, 0.0, 0.0)
    if time in ("dusk", "night"):
        flood = _rgb(0.75, 0.5, 0.26) * float(rng.uniform(0.5, 1.2)) * (0.6 if time == "dusk" else 1.0)
        if rng.random() < 0.25:
            flood = flood[::-1].copy()
    tint = np.exp(rng.normal(0, 0.08, 3)).astype(np.float32)
    return Light(time, sun, sun_colour, sky * tint, zenith * tint, horizon * tint, flood, lit, haze, cloud)


def cloud_tile(rng: np.random.Generator, n: int = 256) -> FloatArray:
    """Noise (n, n) float32 with a 1 / f spectrum that continues over its edges; mean 0, spread 1."""
    fx, fy = np.fft.rfftfreq(n)[None, :] * n, np.fft.fftfreq(n)[:, None] * n
    f = np.sqrt(fx * fx + fy * fy)
    spectrum = rng.standard_normal(f.shape) + 1j * rng.standard_normal(f.shape)
    tile = np.fft.irfft2(spectrum / np.maximum(f, 1.5) ** 1.5 * (f > 0))
    return np.asarray(tile / tile.std(), dtype=np.float32)


def draw_ground(rng: np.random.Generator, clouds: FloatArray) -> Ground:
    """Paving, grass, gravel or water, with hills behind."""
    n = 128
    grain = noise(rng, n, n, 8)[..., None]
    grass = np.array([70, 104, 50]) * rng.uniform(0.7, 1.3, 3)
    kind = int(rng.integers(4))
    if kind == 0:
        tile = grass + 12 * grain
    elif kind == 1:
        y, x = np.mgrid[:n, :n]
        joint = ((y % 16 < 1) | ((x + 8 * (y // 16 % 2)) % 16 < 1))[..., None]
        tile = np.where(joint, 110, 160) * rng.uniform(0.8, 1.1, 3) + 7 * grain
    elif kind == 2:
        tile = np.array([150, 138, 118]) * rng.uniform(0.8, 1.1, 3) + 16 * grain
    else:
        tile = np.array([84, 86, 90]) * rng.uniform(0.8, 1.2) + 6 * grain
    beyond = grass + 10 * grain if rng.random() < 0.7 else np.array([96, 116, 130]) + 4 * grain
    size = 256
    ridge = np.interp(np.arange(size), np.linspace(0, size, 9), rng.uniform(0, 1, 9) ** 1.5)
    ridge += 0.12 * np.interp(np.arange(size), np.linspace(0, size, 65), rng.uniform(-1, 1, 65))
    return Ground(
        np.clip(tile, 0, 255).astype(np.uint8),
        np.clip(beyond, 0, 255).astype(np.uint8),
        float(rng.uniform(25, 90)),
        _LINEAR[np.clip(grass * 0.8, 0, 255).astype(np.uint8)],
        np.asarray(ridge * rng.uniform(0.0, 0.16), dtype=np.float32),
        clouds,
    )


def lay_ground(frame: Frame, ground: Ground, rays: FloatArray) -> None:
    """Fill the frame with the ground plane, below everything else."""
    height = np.float32(frame.camera.position[1])
    down = -rays[..., 1]
    at = np.nonzero(down > 1e-3)
    depth = height / down[at]
    x = rays[..., 0][at] * depth + np.float32(frame.camera.position[0])
    z = rays[..., 2][at] * depth + np.float32(frame.camera.position[2])
    n = ground.near.shape[0]
    index = (np.floor(x * 12).astype(np.int32) % n) * n + np.floor(z * 12).astype(np.int32) % n
    inside = x * x + z * z < ground.edge_m**2
    fine = np.where(inside[:, None], ground.near.reshape(-1, 3)[index], ground.far.reshape(-1, 3)[index])
    near_mean, far_mean = ground.near.mean(axis=(0, 1)), ground.far.mean(axis=(0, 1))
    smooth = np.where(inside[:, None], near_mean, far_mean)
    blend = np.clip(depth / 45, 0, 1)[:, None]
    frame.colour[at] = np.concatenate(
        [fine * (1 - blend) + smooth * blend, np.full((depth.size, 1), 255)], axis=1
    ).astype(np.uint8)
    frame.nearness[at] = 1 / depth
    frame.lambert[at] = max(float(frame.sun[1]), 0.0)
    frame.upward[at] = 1.0


def shadow(frame: Frame, solids: list[Solid], rays: FloatArray) -> FloatArray:
    """1 where something stands between a pixel and the sun, else 0; (h, w) float32."""
    target = np.array([0.0, 8.0, 0.0])
    reach = 40.0
    sun = look_at(target + frame.sun * SUN_AWAY_M, target, SHADOW_PX * SUN_AWAY_M / (2 * reach), (SHADOW_PX, SHADOW_PX))
    seen = Frame(sun, frame.sun)
    seen.draw(solids)
    depth = np.zeros_like(frame.nearness)
    np.divide(1.0, frame.nearness, out=depth, where=frame.nearness > 0)
    axes = sun.axes.astype(np.float32)
    offset = ((frame.camera.position - sun.position) @ sun.axes.T).astype(np.float32)
    right, down, ahead = ((rays @ axes[i]) * depth + offset[i] for i in range(3))
    scale = np.float32(sun.focal) / ahead
    x = (right * scale + SHADOW_PX / 2).astype(np.int32)
    y = (down * scale + SHADOW_PX / 2).astype(np.int32)
    ok = (x >= 0) & (x < SHADOW_PX) & (y >= 0) & (y < SHADOW_PX) & (frame.nearness > 0)
    blocker = seen.nearness[np.where(ok, y, 0), np.where(ok, x, 0)]
    return np.asarray((ok & (blocker * (ahead - np.float32(0.9)) > 1)).astype(np.float32))


def develop(frame: Frame, scene: tuple[Light, Ground], rays: FloatArray, shade: FloatArray) -> FloatArray:
    """Linear colours (h, w, 3) float32 of the frame under the light."""
    light, ground = scene
    depth = 1 / np.maximum(frame.nearness, np.float32(1e-5))
    y = rays[..., 1] * depth + np.float32(frame.camera.position[1])
    albedo = _LINEAR[frame.colour[..., :3]]
    direct = (frame.lambert * (1 - shade))[..., None]
    open_sky = (0.62 + 0.38 * frame.upward)[..., None]
    low = 1 - 0.45 * np.exp(-np.maximum(y, 0) / 0.6) * (frame.upward < 0.9)
    glow = np.exp(-np.maximum(y, 0) / 14.0)[..., None] * (1.05 - 0.8 * frame.upward)[..., None]
    colour = albedo * (direct * light.sun_colour + open_sky * low[..., None] * light.sky_colour + glow * light.flood)
    pane = frame.colour[..., 3]
    glass = (pane > 0) & (pane < 250)
    if glass.any():
        on = (pane[glass].astype(np.float32) * 0.618) % 1.0 < light.lit
        colour[glass] = 0.5 * colour[glass] + 0.22 * light.horizon
        colour[glass] += on[:, None] * _rgb(0.75, 0.5, 0.2) * (1.0 if light.time in ("dusk", "night") else 0.25)
    air = 1 - np.exp(-depth / np.float32(light.haze_m))[..., None]
    colour = colour * (1 - air) + light.horizon * air
    empty = frame.nearness <= 0
    colour[empty] = _sky(light, ground, rays[empty])
    return np.asarray(colour)


def _sky(light: Light, ground: Ground, rays: FloatArray) -> FloatArray:
    flat = np.sqrt(rays[:, 0] ** 2 + rays[:, 2] ** 2)
    steep = rays[:, 1] / np.maximum(flat, 1e-6)
    t = np.clip(steep / 0.9, 0, 1)[:, None] ** 0.6
    colour = light.horizon * (1 - t) + light.zenith * t
    n = ground.clouds.shape[0]
    lift = np.maximum(steep, 0.02)
    i = (rays[:, 0] / (flat * lift) * 14).astype(np.int32) % n
    j = (rays[:, 2] / (flat * lift) * 14).astype(np.int32) % n
    cover = np.clip((ground.clouds[i, j] + light.cloud - 0.5) * 0.7, 0, 0.9) * np.clip(steep * 6, 0, 1)
    colour = colour * (1 - cover[:, None]) + (0.75 * light.horizon + 0.55 * light.sky_colour) * cover[:, None]
    turn = np.arctan2(rays[:, 0], rays[:, 2]) * (len(ground.ridge) / (2 * np.pi))
    hill = steep < ground.ridge[turn.astype(np.int32) % len(ground.ridge)]
    far = np.float32(1 - np.exp(-220 / light.haze_m))
    hills = ground.hills * (light.sky_colour + 0.4 * light.sun_colour) * (1 - far) + light.horizon * far
    return np.asarray(np.where(hill[:, None], hills, colour), dtype=np.float32)


def expose(linear: FloatArray, gain: FloatArray, rng: np.random.Generator, n_levels: float) -> UInt8Array:
    """Film: gain per channel, soft shoulder, sensor noise of n_levels, gamma; (h, w, 3) uint8."""
    bright = linear * gain
    bright = bright / (1 + 0.25 * bright) * 1.2
    image = _CURVE[np.clip(bright * 4096, 0, 4096).astype(np.int16)]
    if n_levels <= 0:
        return image
    grain = rng.normal(0, n_levels, image.shape[:2])[..., None]
    return np.clip(image + grain, 0, 255).astype(np.uint8)
