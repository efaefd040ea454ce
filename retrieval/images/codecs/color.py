"""Colours as their ICC profile means them, made sRGB."""

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

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
