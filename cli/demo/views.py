"""One image: where the camera stands, what stands about, which light and weather."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from cli.demo.buildings import FAMILIES, Building, build
from cli.demo.kit import draw_look
from cli.demo.light import TIMES, Light, develop, draw_ground, draw_light, expose, lay_ground, shadow
from cli.demo.props import Props, billboard, scaled
from cli.demo.raster import Camera, Frame, Patch, Solid, look_at
from cli.demo.solids import Parts, placed
from cli.demo.textures import Wall, draw_pattern
from retrieval.arrays import FloatArray

NON_LANDMARK_KINDS = ("generic-building", "street", "landscape", "object")


@dataclass(frozen=True, slots=True)
class ViewSpec:
    """How much images of one landmark differ.

    size_px: longest side. supersampling: rendered pixels per image pixel, along a side. azimuth_deg: the
    camera stands within this angle of the front. fill: how much of the image the landmark takes, from far
    to near. colour_cast, exposure_ev: standard deviations of the white balance (log gain) and the exposure.
    times: share of day, golden hour, overcast, dusk and night. occluders: mean number in front.
    """

    size_px: int = 160
    supersampling: float = 1.25
    azimuth_deg: float = 26.0
    fill: tuple[float, float] = (0.85, 1.12)
    colour_cast: float = 0.08
    exposure_ev: float = 0.35
    times: tuple[float, float, float, float, float] = (0.5, 0.18, 0.2, 0.06, 0.06)
    occluders: float = 0.9

    def __post_init__(self) -> None:
        if self.size_px < 32 or not 1 <= self.supersampling <= 4:
            raise ValueError(f"size_px {self.size_px}, supersampling {self.supersampling}: at least 32, 1 to 4")
        if abs(sum(self.times) - 1) > 1e-6 or min(self.times) < 0:
            raise ValueError(f"times {self.times} do not sum to 1")


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """What the camera looks at, and the camera."""

    camera: Camera
    solids: list[Solid]


def render_building(
    building: Building | None, stock: tuple[Props, FloatArray], spec: ViewSpec, rng: np.random.Generator
) -> Image.Image:
    """An image of a building, or of one that nobody saw before when it is None."""
    props, clouds = stock
    if building is None:
        building = build(str(rng.choice(list(FAMILIES))), draw_look(rng))
    stage = _before(building, props, spec, rng)
    return _photograph(stage, clouds, spec, rng)


def render_other(kind: str, stock: tuple[Props, FloatArray], spec: ViewSpec, rng: np.random.Generator) -> Image.Image:
    """An image that shows no landmark, of one of NON_LANDMARK_KINDS."""
    props, clouds = stock
    if kind == "generic-building":
        return render_building(None, stock, spec, rng)
    stages = {"street": _street, "landscape": _landscape, "object": _object}
    return _photograph(stages[kind](props, spec, rng), clouds, spec, rng)


def _size(spec: ViewSpec, ratio: float) -> tuple[int, int]:
    """Rendered width and height for a ratio of width to height."""
    longest = spec.size_px * spec.supersampling
    w, h = (longest, longest / ratio) if ratio >= 1 else (longest * ratio, longest)
    return round(w), round(h)


def _before(building: Building, props: Props, spec: ViewSpec, rng: np.random.Generator) -> Stage:
    """In front of a building."""
    tall = building.height > 1.15 * building.width
    ratio = float(rng.choice([4 / 3, 1.0, 3 / 4], p=[0.15, 0.35, 0.5] if tall else [0.65, 0.25, 0.1]))
    w, h = _size(spec, ratio)
    view = np.radians(rng.uniform(38, 62))  # along the longest side
    focal = max(w, h) / (2 * np.tan(view / 2))
    azimuth = np.radians(spec.azimuth_deg) * rng.uniform(-1, 1)
    fill = rng.uniform(*spec.fill)
    seen_width = building.width * (0.55 + 0.45 * np.cos(azimuth))
    reach = max(seen_width * focal / w, building.height * focal / h) / fill + building.width * 0.25
    eye = float(rng.uniform(1.6, 4) if rng.random() < 0.75 else rng.uniform(5, 0.7 * building.height + 6))
    position = np.array([np.sin(azimuth) * reach, eye, np.cos(azimuth) * reach])
    shift = rng.normal(0, 0.06, 2) * (building.width, building.height)
    aim = np.array([shift[0], building.height * 0.46 + shift[1], 0.0])
    camera = look_at(position, aim, float(focal), (w, h), float(rng.normal(0, 0.03)))
    away = building.width * 0.75 + 14
    solids = [building.solid, *_houses(props, (azimuth, away), rng), _about(props, camera, building.width, spec, rng)]
    return Stage(camera, solids)


def _houses(props: Props, place: tuple[float, float], rng: np.random.Generator) -> list[Solid]:
    """Other houses behind and beside, seen from an azimuth, at a distance or farther."""
    azimuth, away = place
    out = []
    for _ in range(int(rng.integers(0, 7))):
        angle = azimuth + np.pi + rng.uniform(-1.5, 1.5)
        r = away + rng.uniform(0, 45)
        house = props.houses[int(rng.integers(len(props.houses)))]
        at = (float(np.sin(angle) * r), 0.0, float(np.cos(angle) * r))
        out.append(placed(house.solid, at, float(rng.uniform(0, 2 * np.pi))))
    return out


def _about(props: Props, camera: Camera, width: float, spec: ViewSpec, rng: np.random.Generator) -> Solid:
    """Trees, people, cars and lamps around the place and between it and the camera."""
    patches = []
    eye = camera.position
    reach = float(np.hypot(eye[0], eye[2]))
    toward = np.array([eye[0], eye[2]]) / reach
    beside = np.array([toward[1], -toward[0]])
    for _ in range(int(rng.poisson(spec.occluders))):
        kind = str(rng.choice(["tree", "person", "car", "lamp"], p=[0.4, 0.3, 0.15, 0.15]))
        t = rng.uniform(0.45, 0.85) if kind != "person" else rng.uniform(0.3, 0.8)
        at = toward * reach * (1 - t) + beside * rng.normal(0, 0.28) * reach * t
        patches.append(_put(props, kind, (float(at[0]), float(at[1])), eye, rng))
    for _ in range(int(rng.integers(0, 12))):
        angle, r = rng.uniform(0, 2 * np.pi), width * rng.uniform(0.62, 1.6) + 3
        at = np.array([np.sin(angle), np.cos(angle)]) * r
        if np.linalg.norm(at - eye[[0, 2]]) > 7:
            kind = str(rng.choice(["tree", "person", "car", "lamp"], p=[0.35, 0.45, 0.1, 0.1]))
            patches.append(_put(props, kind, (float(at[0]), float(at[1])), eye, rng))
    return Solid(tuple(patches), ())


def _put(props: Props, kind: str, at: tuple[float, float], eye: FloatArray, rng: np.random.Generator) -> Patch:
    sprites = props.sprites[kind]
    return billboard(scaled(sprites[int(rng.integers(len(sprites)))], float(rng.uniform(0.85, 1.15))), at, eye)


def _street(props: Props, spec: ViewSpec, rng: np.random.Generator) -> Stage:
    """Down a street of plain houses."""
    w, h = _size(spec, float(rng.choice([4 / 3, 3 / 4])))
    half, eye = float(rng.uniform(5, 9)), np.array([rng.uniform(-2, 2), rng.uniform(1.6, 5), 14.0])
    aim = np.array([rng.uniform(-8, 8), rng.uniform(2, 7), -25.0])
    camera = look_at(eye, aim, max(w, h) / float(rng.uniform(0.9, 1.3)), (w, h), float(rng.normal(0, 0.03)))
    solids = []
    for sign in (-1, 1):
        z = 4.0
        while z > -70 and rng.random() < 0.93:
            house = props.houses[int(rng.integers(len(props.houses)))]
            z -= house.width
            solids.append(placed(house.solid, (sign * (half + 6), 0, z + house.width / 2), -sign * np.pi / 2))
    patches = []
    for _ in range(int(rng.integers(4, 16))):
        kind = str(rng.choice(["tree", "person", "car", "lamp"], p=[0.15, 0.4, 0.3, 0.15]))
        at = (float(rng.uniform(-half, half)), float(rng.uniform(-50, 6)))
        patches.append(_put(props, kind, at, eye, rng))
    return Stage(camera, [*solids, Solid(tuple(patches), ())])


def _landscape(props: Props, spec: ViewSpec, rng: np.random.Generator) -> Stage:
    """Trees and hills, sometimes a far house."""
    w, h = _size(spec, float(rng.choice([4 / 3, 1.0, 3 / 4], p=[0.6, 0.2, 0.2])))
    eye = np.array([0.0, rng.uniform(1.6, 14), 30.0])
    aim = np.array([0.0, eye[1] + rng.uniform(-4, 4), 0.0])
    camera = look_at(eye, aim, max(w, h) / float(rng.uniform(0.8, 1.3)), (w, h), float(rng.normal(0, 0.02)))
    patches = []
    for _ in range(int(rng.integers(2, 45))):
        at = (float(rng.uniform(-45, 45)), float(rng.uniform(-80, 18)))
        patches.append(_put(props, "tree" if rng.random() < 0.93 else "person", at, eye, rng))
    solids = [Solid(tuple(patches), ())]
    if rng.random() < 0.3:
        house = props.houses[int(rng.integers(len(props.houses)))]
        solids.append(placed(house.solid, (float(rng.uniform(-30, 30)), 0, -60.0), float(rng.uniform(0, 6))))
    return Stage(camera, solids)


def _object(props: Props, spec: ViewSpec, rng: np.random.Generator) -> Stage:
    """Pots, boxes and balls before a wall."""
    w, h = _size(spec, float(rng.choice([4 / 3, 1.0, 3 / 4])))
    parts = Parts()
    for i in range(int(rng.integers(1, 5))):
        skin = draw_pattern(rng)
        x, z = (0.0, 0.0) if i == 0 else (float(rng.uniform(-5, 5)), float(rng.uniform(-4, 1)))
        r, y = float(rng.uniform(0.8, 2.2)), 0.0
        if rng.random() < 0.3:
            parts.box((x, 0, z), (2 * r, float(rng.uniform(1, 4)), 2 * r), skin, lid=skin)
            continue
        for _ in range(int(rng.integers(1, 4))):
            tall = float(rng.uniform(0.6, 2.4))
            if rng.random() < 0.4:
                parts.dome((x, y, z), r, tall, skin, onion=float(rng.uniform(0, 0.9)))
            else:
                wide = r * float(rng.uniform(0.5, 1.5))
                parts.drum((x, y, z), r, tall, skin, top_radius=wide)
                r = wide
            y += tall
    wall = Wall(str(rng.choice(["plaster", "brick", "panel", "tile"])), _colour(rng), (12, 8), rng)
    back = float(rng.uniform(-9, -5))
    parts.quad((-30, 0, back), (60, 0, 0), (0, 25, 0), wall.done(), (4.0, 3.0))
    eye = np.array([rng.uniform(-5, 5), rng.uniform(2, 7), rng.uniform(7, 12)])
    camera = look_at(eye, np.array([0.0, 1.6, 0.0]), max(w, h) / 1.0, (w, h), float(rng.normal(0, 0.05)))
    return Stage(camera, [parts.solid()])


def _colour(rng: np.random.Generator) -> tuple[float, float, float]:
    r, g, b = (float(v) for v in rng.uniform(60, 230, 3))
    return r, g, b


def _photograph(stage: Stage, clouds: FloatArray, spec: ViewSpec, rng: np.random.Generator) -> Image.Image:
    """Light the stage, render it, and take the image with an imperfect camera."""
    light = draw_light(rng, str(rng.choice(TIMES, p=spec.times)), stage.camera)
    ground = draw_ground(rng, clouds)
    frame = Frame(stage.camera, light.sun)
    rays = stage.camera.rays()
    lay_ground(frame, ground, rays)
    frame.draw(stage.solids)
    dull = light.time in ("overcast", "night")
    shade = np.zeros_like(frame.nearness) if dull else shadow(frame, stage.solids, rays)
    linear = develop(frame, (light, ground), rays, shade)
    return _film(linear, light, spec, rng)


def _film(linear: FloatArray, light: Light, spec: ViewSpec, rng: np.random.Generator) -> Image.Image:
    """Exposure, white balance, saturation, grain, weather and focus."""
    stops = rng.normal(0, spec.exposure_ev) + (0.5 if light.time == "night" else 0.0)
    cast = np.exp(rng.normal(0, spec.colour_cast, 3))
    gain = (2.0**stops * cast / cast.mean()).astype(np.float32)
    saturation = np.float32(0.0 if rng.random() < 0.04 else np.clip(rng.normal(1.0, 0.22), 0.3, 1.5))
    grey = linear.mean(axis=2, keepdims=True)
    linear = np.maximum(grey + saturation * (linear - grey), 0)
    grain = float(rng.choice([0, 3, 8], p=[0.5, 0.35, 0.15]))
    pixels = expose(linear, gain, rng, grain)
    h, w = pixels.shape[:2]
    size = (round(w / spec.supersampling), round(h / spec.supersampling))
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
    if rng.random() < 0.08:
        image = _precipitation(image, rng)
    if rng.random() < 0.12:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.4, 1.1))))
    return image


def _precipitation(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Rain or snow over the finished image."""
    pen = ImageDraw.Draw(image, "RGBA")
    w, h = image.size
    snow, slant = rng.random() < 0.5, float(rng.uniform(-3, 3))
    for _ in range(int(rng.integers(40, 160))):
        x, y = rng.uniform(0, w), rng.uniform(0, h)
        if snow:
            r = rng.uniform(0.4, 1.6)
            pen.ellipse([x - r, y - r, x + r, y + r], fill=(245, 247, 250, 200))
        else:
            pen.line([(x, y), (x + slant, y + 7)], fill=(215, 222, 232, 110))
    return image
