"""Decoded pixels of every mode to RGB: upright, on white, scaled to 8 bits, in sRGB; with few copies."""

import io
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from retrieval.arrays import UInt8Array
from retrieval.images.codecs.orientation import TRANSPOSE
from retrieval.images.spec import Colors

_STRIP_PIXELS = 1 << 20  # that are changed at once
_GREY = frozenset(("1", "L", "LA", "La"))
_8_BIT = frozenset(("L", "RGB", "CMYK"))


def to_rgb(image: Image.Image, orientation: int, colors: Colors, factor: int = 1) -> Image.Image:
    """The loaded image in RGB, turned upright.

    orientation: 1 to 8. factor: both sides are divided by it, pixels averaged.
    """
    profile = image.info.get("icc_profile")
    flat = _flat(image)
    if factor > 1:
        flat = flat.reduce(factor)
    if colors == "srgb" and isinstance(profile, bytes):
        flat = to_srgb(flat, profile)
    rgb = flat if flat.mode == "RGB" else flat.convert("RGB")
    transpose = TRANSPOSE.get(orientation)
    return rgb if transpose is None else rgb.transpose(transpose)


def scaled_16_bit(values: Any) -> UInt8Array:
    """uint16 of any shape -> uint8: 65535 becomes 255 (x 1 / 257, rounded)."""
    scaled: UInt8Array = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return scaled


def _flat(image: Image.Image) -> Image.Image:
    """Without transparency and of 8 bits a channel: L, RGB or CMYK."""
    mode = image.mode
    if mode.startswith("I;16"):
        return _from_16_bit(image)
    if mode in ("I", "F"):
        return _stretched(image)
    if mode == "CMYK" and image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        # Pillow takes every CMYK JPEG for one of Adobe's, which are stored inverted.
        return Image.fromarray(255 - np.asarray(image), mode="CMYK")
    if image.has_transparency_data or mode in ("La", "RGBa"):
        return _on_white(image)
    if mode == "LAB":
        return from_lab(image)
    return image if mode in _8_BIT else image.convert("L" if mode == "1" else "RGB")


def _on_white(image: Image.Image) -> Image.Image:
    ground = Image.new("L" if image.mode in _GREY else "RGB", image.size, "white")
    for top, strip in _strips(image):
        layer = strip.convert("RGBA")
        ground.paste(layer.convert(ground.mode), (0, top), layer.getchannel("A"))
    return ground


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Grey of 16 bits; the transparent value, if there is one, white."""
    transparent = image.info.get("transparency")

    def scaled(values: Any) -> UInt8Array:
        grey = scaled_16_bit(values)
        if isinstance(transparent, int):
            grey[values == transparent] = 255
        return grey

    return _by_strips(image, scaled)


def _stretched(image: Image.Image) -> Image.Image:
    """Numbers without a defined white: from their smallest finite one, which becomes black, to their largest."""
    strips = (np.asarray(strip) for _, strip in _strips(image))
    ends = [(found.min(), found.max()) for v in strips if (found := v[np.isfinite(v)]).size]
    low, high = (float(min(lo for lo, _ in ends)), float(max(hi for _, hi in ends))) if ends else (0.0, 0.0)
    scale = 255 / (high - low) if high > low else 0.0

    def scaled(values: Any) -> UInt8Array:
        deep = values.astype(np.float64)
        return np.rint((np.where(np.isfinite(deep), deep, low) - low) * scale).astype(np.uint8)

    return _by_strips(image, scaled)


def _by_strips(image: Image.Image, scaled: Callable[[Any], UInt8Array]) -> Image.Image:
    grey = Image.new("L", image.size)
    for top, strip in _strips(image):
        grey.paste(Image.fromarray(scaled(np.asarray(strip))), (0, top))
    return grey


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The first row and the pixels of one strip after the other."""
    n_rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, n_rows):
        yield top, image.crop((0, top, image.width, min(image.height, top + n_rows)))


_KEPT = 64  # profiles whose conversion is kept; a camera has one or two
_STEPS = 9  # of each channel, in the colours by which a profile is told from sRGB
_SAME = 3  # of 255: the most by which sRGB profiles of different makers differ
# Pillow's mode of what a profile describes (ICC.1:2022, table 19), and the modes of images that it may stand for
_SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """An image of mode RGB, L or CMYK in sRGB, by its profile; the same where that is sRGB, broken or of another kind.

    Relative colorimetric, the black point adapted, as photo programs do.
    """
    if image.mode == "L" and _transform(profile, "RGB") is not None:  # grey pixels may have a profile of colours
        image = image.convert("RGB")
    transform = _transform(profile, image.mode)
    return image if transform is None else _applied(transform, image)


def from_lab(image: Image.Image) -> Image.Image:
    """An image of mode LAB as RGB."""
    return _applied(_lab(), image)


def _applied(transform: Any, image: Image.Image) -> Image.Image:
    converted = transform.apply(image)
    assert isinstance(converted, Image.Image)
    converted.info.clear()  # the profile of sRGB, which needs no saying
    return converted


@lru_cache(_KEPT)
def _transform(profile: bytes, mode: str) -> Any:
    """Transform from the profile's colours to sRGB; None where none is needed. Kept by the profile's own bytes."""
    try:
        opened = ImageCms.getOpenProfile(io.BytesIO(profile))
        if _SPACES.get(opened.profile.xcolor_space.strip()) != mode:
            return None
        transform = ImageCms.buildTransform(
            opened,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return None if _changes_nothing(transform, mode) else transform
    except Exception:  # a broken profile: what lcms and Pillow raise for it is of any kind
        return None


@lru_cache(1)
def _lab() -> Any:
    return ImageCms.buildTransform(
        ImageCms.createProfile("LAB"),
        ImageCms.createProfile("sRGB"),
        "LAB",
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )


def _changes_nothing(transform: Any, mode: str) -> bool:
    """True for a profile of sRGB, by what becomes of colours all over the cube."""
    if mode == "CMYK":
        return False
    steps = np.linspace(0, 255, _STEPS).round().astype(np.uint8)
    if mode == "L":
        colours = np.repeat(steps[None, :, None], 3, axis=2)
        given = Image.fromarray(np.ascontiguousarray(colours[:, :, 0]))
    else:
        colours = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(_STEPS, -1, 3)
        given = Image.fromarray(colours)
    became = np.asarray(transform.apply(given)).astype(int)
    return bool(np.abs(became - colours).max() <= _SAME)
