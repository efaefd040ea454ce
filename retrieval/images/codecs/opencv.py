"""Images as OpenCV decodes them, where Pillow refuses; run in a process of its own, whose stderr is read."""

import importlib
import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from retrieval.errors import UnreadableError
from retrieval.extras import install_hint
from retrieval.images.codecs.how import How
from retrieval.images.codecs.pillow import UNKNOWN, Opened, reason_of
from retrieval.images.codecs.pixels import scaled_16_bit

_KINDS = (
    *((b"BM", "BMP"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"II+\0", "TIFF"), (b"MM\0+", "TIFF")),
    *((b"\0\0\0\x0cjP  ", "JPEG2000"), (b"\xff\x4f\xff\x51", "JPEG2000"), (b"\x59\xa6\x6a\x95", "SUN")),
    *((b"#?RADIANCE", "Radiance HDR"), (b"#?RGBE", "Radiance HDR"), (b"GIF8", "GIF"), (b"RIFF", "WEBP")),
    *((b"P1", "PPM"), (b"P2", "PPM"), (b"P3", "PPM"), (b"P4", "PPM"), (b"P5", "PPM"), (b"P6", "PPM"), (b"P7", "PPM")),
)
_RADIANCE = "Radiance HDR"
_RADIANCE_SIZE = re.compile(rb"\n[-+]([XY]) (\d{1,9}) [-+][XY] (\d{1,9})\n")
_HEADER_BYTES = 100_000
_PROBE_BYTES = 1 << 20


def kind_of(data: bytes) -> str:
    """Format of data that OpenCV is asked about; '' = none. JPEG and PNG are mended for Pillow instead."""
    return next((name for start, name in _KINDS if data.startswith(start)), "")


def load_opencv() -> Any:
    """The module cv2; None where it is not installed."""
    try:
        return importlib.import_module("cv2")
    except ImportError:
        return None


def open_with_opencv(data: bytes, how: How, printed: Callable[[], str]) -> Opened:
    """The image, decoded. printed: what was written to stderr since it was called last.

    OpenCV gives a file that is cut short grey or black where it ends; what it decodes must therefore stay the same
    whatever follows the file, and it must not have told of an error. Raises UnreadableError with the reason.
    """
    kind, cv2 = kind_of(data), load_opencv()
    if kind == _RADIANCE:
        _require_radiance(data, how, cv2)
    if cv2 is None or not kind:
        raise UnreadableError(UNKNOWN)
    printed()
    cv2.setNumThreads(1)
    pixels = _decoded(cv2, data, kind)
    told = printed()
    if "error" in told.lower():
        raise UnreadableError(f"broken {kind}: {reason_of(ValueError(_last_error(told)))}")
    rng = random.Random(0)
    for tail in (bytes(_PROBE_BYTES), rng.randbytes(_PROBE_BYTES)):
        if not np.array_equal(pixels, _decoded(cv2, data + tail, kind), equal_nan=pixels.dtype.kind == "f"):
            raise UnreadableError(f"broken {kind}: cut short")
    printed()
    how.limits.require_size(pixels.shape[1], pixels.shape[0])
    return Opened(_as_image(pixels), 1)  # OpenCV turns a TIFF upright; what else it is asked about has no EXIF


def _decoded(cv2: Any, data: bytes, kind: str) -> Any:
    """(h, w), (h, w, 3) or (h, w, 4) pixels, blue first."""
    flags = cv2.IMREAD_COLOR if kind == _RADIANCE else cv2.IMREAD_UNCHANGED
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise UnreadableError(f"broken {kind}: {reason_of(error)}") from error
    if pixels is None:
        raise UnreadableError(f"broken {kind}: OpenCV cannot decode it")
    if kind == "BMP" and pixels.ndim == 3 and not pixels[:, :, 3:].any():
        return pixels[:, :, :3]  # a fourth byte that nothing is in, not an image of which nothing is to be seen
    return pixels


def _as_image(pixels: Any) -> Image.Image:
    """uint8 as it is, 16 bits scaled, and other numbers stretched from their least to their greatest."""
    if pixels.dtype == np.uint16:
        pixels = scaled_16_bit(pixels)
    elif pixels.dtype != np.uint8:
        finite = pixels[np.isfinite(pixels)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        scale = 255 / (high - low) if high > low else 0.0
        filled = np.where(np.isfinite(pixels), pixels, low).astype(np.float64)
        pixels = np.rint((filled - low) * scale).astype(np.uint8)
    if pixels.ndim == 2:
        return Image.fromarray(pixels)
    order = [2, 1, 0, 3][: pixels.shape[2]]
    return Image.fromarray(np.ascontiguousarray(pixels[:, :, order]))


def _require_radiance(data: bytes, how: How, cv2: Any) -> None:
    size = _RADIANCE_SIZE.search(data[:_HEADER_BYTES])
    if size is None:
        raise UnreadableError("broken Radiance HDR: no size")
    first, second = int(size[2]), int(size[3])
    how.limits.require_size(*((first, second) if size[1] == b"X" else (second, first)))
    if cv2 is None:
        raise UnreadableError(f"Radiance HDR needs {install_hint('local')}")


def _last_error(told: str) -> str:
    return [line for line in told.splitlines() if "error" in line.lower()][-1]
