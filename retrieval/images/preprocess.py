"""Decoded images to the network's input: the one preparation that training, embed and query share."""

from typing import Literal

import numpy as np
from PIL import Image

from retrieval.arrays import UInt8Array
from retrieval.images.decode import decode
from retrieval.images.limits import DEFAULT_LIMITS, Limits, scaled_size
from retrieval.images.spec import ImageSpec

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def prepare(data: bytes, spec: ImageSpec, limits: Limits = DEFAULT_LIMITS) -> UInt8Array:
    """The image as (size, size, 3) uint8, resized with antialiasing. Raises UnreadableError with the reason."""
    return np.array(fit(decode_for(data, spec, limits), spec))


def decode_for(data: bytes, spec: ImageSpec, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """The image in RGB with at least the pixels that the spec needs. Raises UnreadableError with the reason."""
    measured: Literal["shorter", "longer"] = "longer" if spec.fit == "pad" else "shorter"
    return decode(data, spec.size, limits, measured=measured, colors=spec.colors)


def fit(image: Image.Image, spec: ImageSpec) -> Image.Image:
    """The RGB image at the spec's size, by the spec's fit."""
    side, resample = spec.size, _RESAMPLING[spec.resample]
    width, height = image.size
    if spec.fit == "squash":
        return image.resize((side, side), resample)
    if spec.fit == "crop":
        short = min(width, height)
        left, top = (width - short) / 2, (height - short) / 2
        return image.resize((side, side), resample, box=(left, top, left + short, top + short))
    scale = side / max(width, height)
    inner = image.resize(scaled_size(image.size, scale), resample)
    ground = Image.new("RGB", (side, side), tuple(round(255 * value) for value in spec.mean))
    ground.paste(inner, ((side - inner.width) // 2, (side - inner.height) // 2))
    return ground
