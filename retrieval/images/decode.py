"""Encoded images to RGB pixels, within limits."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from retrieval.errors import RefusedError, UnreadableError
from retrieval.images import noise
from retrieval.images.codecs.how import How
from retrieval.images.codecs.jpeg import JPEG_START, is_ended
from retrieval.images.codecs.limited import decode_in_worker, measure_in_worker
from retrieval.images.codecs.pillow import (
    PREDICTABLE,
    Opened,
    decode_opened,
    dpi_of,
    header_of,
    memory_to_decode,
    open_image,
    reduce_scale,
)
from retrieval.images.limits import DEFAULT_LIMITS, Limits
from retrieval.images.spec import Colors

# What is decoded in this process: the other images, by far the fewest, go to one whose memory and time are limited.
_MAX_BYTES_HERE = 16_000_000  # of a file; headers with millions of segments take their time
_MAX_MEMORY_HERE = 128_000_000
_HEADS = (1 << 16, 1 << 20)  # bytes in which the header of nearly every image lies
_MAX_SCANS_HERE = 64  # a progressive JPEG has ten or so; each goes over all pixels


def decode(
    data: bytes,
    min_side: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    *,
    measured: Literal["shorter", "longer"] = "shorter",
    colors: Colors = "srgb",
) -> Image.Image:
    """The image in RGB, upright as its EXIF says, transparency on white, 16 bits scaled to 8, in sRGB.

    min_side: pixels that the measured side needs at least; a JPEG is then decoded at 1/2, 1/4 or 1/8 of its scale
    where that leaves enough, and what takes much memory is made smaller too. colors: `as-stored` leaves the colour
    profile out of account. Of an animation the first frame. 32-bit and floating-point pixels have no defined white:
    they are stretched from their minimum to their maximum.
    Raises UnreadableError with the reason.
    """
    limits.require_file(len(data))
    how = How(min_side, measured, limits, colors)
    with noise.decoding():
        opened = _open_here(data, how)
        if opened is not None and not opened.is_doubtful:
            reduce_scale(opened.image, how)
            if memory_to_decode(opened, shrunk=False) <= _MAX_MEMORY_HERE:
                try:
                    return decode_opened(opened, how, shrink=False)
                except RefusedError:
                    raise
                except UnreadableError:  # more is tried elsewhere
                    pass
        return decode_in_worker(data, how)


def image_size(data: bytes, limits: Limits = DEFAULT_LIMITS) -> tuple[int, int]:
    """Width and height, upright, as `decode` gives them at full scale. Raises UnreadableError with the reason."""
    limits.require_file(len(data))
    how = How(limits=limits)
    with noise.decoding():
        opened = _open_here(data, how)
        return measure_in_worker(data, how) if opened is None else opened.size


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of an image says. width, height: upright. dpi: dots per inch, None where it says none."""

    width: int
    height: int
    dpi: float | None


def read_header(read: Callable[[int], bytes], limits: Limits = DEFAULT_LIMITS) -> Header:
    """The header of an encoded image. read: gives its first n bytes; more are asked for only where they are needed.

    Raises UnreadableError with the reason.
    """
    for n_bytes in _HEADS:
        data = read(n_bytes)
        with noise.decoding(), contextlib.suppress(UnreadableError):
            found = header_of(data, How(limits=limits), PREDICTABLE)
            return Header(*found.size, dpi_of(found.image))
        if len(data) < n_bytes:
            break
    return Header(*image_size(read(limits.max_bytes), limits), None)


def _open_here(data: bytes, how: How) -> Opened | None:
    """The image with its header read; None where another process has to look. Raises RefusedError."""
    if len(data) > _MAX_BYTES_HERE or (data.startswith(JPEG_START) and not is_ended(data)):
        return None
    try:
        opened = open_image(data, how, PREDICTABLE)
    except RefusedError:
        raise
    except UnreadableError:
        return None
    return opened if opened.n_scans <= _MAX_SCANS_HERE else None
