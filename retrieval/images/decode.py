"""Encoded pictures to RGB pixels, within limits."""

import importlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from retrieval.errors import UnreadableError
from retrieval.extras import install_hint
from retrieval.images.signatures import HEAD_BYTES, is_heic, is_web_page

_WHITE = (255, 255, 255)
_ORIENTATION_TAG = 0x0112  # EXIF 2.32, table 4
_COMMON = frozenset(("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"))  # Pillow's names
_REFUSED = frozenset(("EPS",))  # its plugin runs Ghostscript on the file
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = frozenset(_TRANSPOSE[orientation] for orientation in (5, 6, 7, 8))
_REASON_CHARACTERS = 100  # of what a library says about a broken file


@dataclass(frozen=True, slots=True)
class Limits:
    """Largest picture that is decoded.

    max_pixels: width times height in the file, before any reduction; the default is where Pillow stops too.
    """

    max_bytes: int = 100_000_000
    max_pixels: int = 178_956_970

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")


DEFAULT_LIMITS = Limits()


def decode(data: bytes, min_side: int | None = None, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """The picture in RGB, upright as its EXIF says, transparency on white, 16 bits scaled to 8.

    min_side: pixels that the shorter side needs at least; a JPEG is then decoded at 1/2, 1/4 or 1/8 of its scale
    where that leaves enough. Of an animation the first frame. 32-bit and floating-point pixels have no defined
    white: they are stretched from their minimum to their maximum. Colour profiles are not applied.
    Raises UnreadableError with the reason.
    """
    return decode_needed(data, lambda size: min_side, limits)


def picture_size(data: bytes, limits: Limits = DEFAULT_LIMITS) -> tuple[int, int]:
    """Width and height in the file, upright, from its header alone. Raises UnreadableError with the reason."""
    with _open(data, limits) as picture:
        turned = _transpose(picture) in _SIDEWAYS
        return (picture.height, picture.width) if turned else picture.size


def decode_needed(
    data: bytes, needed: Callable[[tuple[int, int]], int | None], limits: Limits = DEFAULT_LIMITS
) -> Image.Image:
    """As `decode`. needed: from the size in the file to the shorter side wanted; None = full scale."""
    if not data:
        raise UnreadableError("empty file")
    if len(data) > limits.max_bytes:
        raise UnreadableError(f"{len(data):,} bytes, over the limit of {limits.max_bytes:,}")
    name = "picture"
    try:
        with _open(data, limits) as picture:
            name = picture.format or name
            min_side = needed(picture.size)
            if min_side is not None:
                picture.draft(None, (min_side, min_side))
            picture.load()
            return _upright(_to_rgb(picture), picture)
    except UnreadableError:
        raise
    # Pillow raises almost anything for a hostile file: struct.error, SyntaxError, OverflowError, MemoryError.
    except Exception as error:
        raise UnreadableError(f"broken {name}: {_reason(error)}") from error


def _open(data: bytes, limits: Limits) -> Image.Image:
    """The picture with its header read and its size checked, its pixels not read yet.

    Pillow's plugins are called directly: Image.open would warn and raise by a global pixel limit of its own. A few
    plugins (TIFF, WebP) ask that limit too; what they raise is a reason like any other.
    """
    if is_heic(data[:HEAD_BYTES]):
        return _sized(_open_heic(data), limits)
    Image.init()
    broken = ""
    for name in sorted(set(Image.ID) - _REFUSED, key=_order):
        factory, accepts = Image.OPEN[name]
        if not _accepted(accepts, data[:16]):
            continue
        try:
            picture = factory(io.BytesIO(data), "")
        except Exception as error:  # a hostile header, or the data is of another format
            broken = broken or (f"broken {name}: {_reason(error)}" if accepts is not None else "")
            continue
        return _sized(picture, limits)
    if data.startswith((b"#?RADIANCE", b"#?RGBE")):
        return _open_radiance(data, limits)
    if is_web_page(data[:HEAD_BYTES]):
        raise UnreadableError("a web page, not a picture")
    raise UnreadableError(broken or "not a picture in a known format")


def _accepted(accepts: Callable[[bytes], bool | str] | None, start: bytes) -> bool:
    """Whether a plugin may be asked about data that begins so."""
    try:
        return accepts is None or accepts(start.ljust(16, b"\0")) is True
    except Exception:  # a plugin that cannot look at these bytes cannot read them either
        return False


def _order(name: str) -> tuple[bool, bool, str]:
    """Common formats first, those that cannot tell their own files last."""
    return name not in _COMMON, Image.OPEN[name][1] is None, name


def _sized(picture: Image.Image, limits: Limits) -> Image.Image:
    n_pixels = picture.width * picture.height
    if n_pixels > limits.max_pixels:
        raise UnreadableError(
            f"{picture.width} x {picture.height} pixels, over the limit of {limits.max_pixels:,} pixels"
        )
    return picture


def _open_heic(data: bytes) -> Image.Image:
    try:
        pillow_heif = importlib.import_module("pillow_heif")
    except ImportError as error:
        raise UnreadableError(f"HEIC needs {install_hint('heic')}") from error
    picture: Image.Image = pillow_heif.HeifImageFile(io.BytesIO(data))
    return picture


def _open_radiance(data: bytes, limits: Limits) -> Image.Image:
    """Radiance HDR, which OpenCV reads and Pillow does not; clipped to [0, 1]."""
    size = re.search(rb"\n[-+]([XY]) (\d{1,9}) [-+][XY] (\d{1,9})\n", data[:100_000])
    if size is None:
        raise UnreadableError("broken Radiance HDR: no size")
    n_pixels = int(size[2]) * int(size[3])
    if n_pixels > limits.max_pixels:
        raise UnreadableError(f"{n_pixels:,} pixels, over the limit of {limits.max_pixels:,} pixels")
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError as error:
        raise UnreadableError(f"Radiance HDR needs {install_hint('local')}") from error
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise UnreadableError("broken Radiance HDR")
    return Image.fromarray(np.ascontiguousarray(pixels[:, :, ::-1]))


def _to_rgb(picture: Image.Image) -> Image.Image:
    mode = picture.mode
    if mode.startswith("I;16"):
        return _from_16_bit(picture)
    if mode in ("I", "F"):
        return _stretched(picture)
    if mode == "CMYK" and picture.format in ("JPEG", "MPO") and "adobe" not in picture.info:
        # Pillow takes every CMYK JPEG for one of Adobe's, which are stored inverted.
        inverted = np.asarray(picture)
        return Image.fromarray(255 - inverted, mode="CMYK").convert("RGB")
    if picture.has_transparency_data or mode in ("La", "RGBa"):
        layer = picture.convert("RGBA")
        ground = Image.new("RGB", picture.size, _WHITE)
        ground.paste(layer, mask=layer.getchannel("A"))
        return ground
    return picture.convert("RGB")


def _from_16_bit(picture: Image.Image) -> Image.Image:
    """Grey of 16 bits: 65535 becomes 255 (x 1 / 257, rounded); the transparent value, if there is one, white."""
    values = np.asarray(picture).astype(np.uint32)
    grey = ((values + 128) // 257).astype(np.uint8)
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _stretched(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture).astype(np.float64)
    finite = np.isfinite(values)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
    scaled = (np.where(finite, values, low) - low) * (255 / (high - low) if high > low else 0.0)
    return Image.fromarray(np.rint(scaled).astype(np.uint8)).convert("RGB")


def _upright(rgb: Image.Image, picture: Image.Image) -> Image.Image:
    """rgb turned as the EXIF of the picture that it was made from says."""
    transpose = _transpose(picture)
    return rgb if transpose is None else rgb.transpose(transpose)


def _transpose(picture: Image.Image) -> Image.Transpose | None:
    """How to turn a picture upright, by its EXIF; broken EXIF is no reason to refuse."""
    try:
        orientation = picture.getexif().get(_ORIENTATION_TAG)
        return _TRANSPOSE.get(orientation) if isinstance(orientation, int) else None
    except Exception:  # any of what a plugin raises for a hostile header
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    text = " ".join(str(error).split()) or type(error).__name__
    if "not identified" in text:
        return "no picture in it"
    return "cut short" if "truncated" in text.lower() else text[:_REASON_CHARACTERS]
