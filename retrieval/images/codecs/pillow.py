"""Images as Pillow decodes them, by a list of its plugins that is ours."""

import importlib
import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from retrieval.errors import RefusedError, UnreadableError
from retrieval.extras import install_hint
from retrieval.images.codecs.how import How
from retrieval.images.codecs.jpeg import Jpeg, is_refined, require_whole, scans_and_memory
from retrieval.images.codecs.orientation import SIDEWAYS, orientation_of, resolution_in
from retrieval.images.codecs.pixels import to_rgb
from retrieval.images.limits import memory_of
from retrieval.images.signatures import HEAD_BYTES, is_heic, is_web_page

# What is common comes first, what cannot tell its own files last. Not asked: EPS, which runs Ghostscript on the file,
# WMF, which has Windows draw it, and BUFR, GRIB, HDF5 and MPEG, of which Pillow knows only the name.
PLUGINS = (
    *("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM", "ICO", "QOI", "PSD", "DDS", "ICNS"),
    *("SGI", "SUN", "DIB", "CUR", "PCX", "DCX", "BLP", "FITS", "FLI", "FTEX", "GBR", "MCIDAS", "MSP", "PIXAR"),
    *("XBM", "XPM", "XVTHUMB", "IM", "IMT", "IPTC", "PCD", "SPIDER", "TGA"),
)
# Decoded by C code whose memory and time follow from the header.
PREDICTABLE = frozenset(("JPEG", "PNG", "WEBP", "BMP"))
UNKNOWN = "not a picture in a known format"
_REASON_CHARACTERS = 100  # of what a library says about a broken file
_WEBP_BYTES_A_PIXEL = 12  # two canvases of the decoder and what it hands over; of 60 megapixels 16.1 to 17.2 in all
_RGB_BYTES_A_PIXEL = 4
MOST_DPI = 100_000  # stated by a file; more is a mistake


@dataclass(frozen=True, slots=True)
class Opened:
    """An image with its header read.

    orientation: 1 to 8, how it has to be turned. n_scans: passes over all of its pixels. fixed_memory: bytes that its
    decoder takes at any scale. is_doubtful: it would be decoded without a word although it is cut short.
    """

    image: Image.Image
    orientation: int
    n_scans: int = 1
    fixed_memory: int = 0
    is_doubtful: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, upright."""
        width, height = self.image.size
        return (height, width) if self.orientation in SIDEWAYS else (width, height)


def open_image(data: bytes, how: How, only: frozenset[str] = frozenset(PLUGINS)) -> Opened:
    """The image with its header read and its size within the limits. only: the plugins that are asked.

    Pillow's plugins are called directly: Image.open would warn and raise by a global pixel limit of its own. A few
    plugins (TIFF, WebP) ask that limit too; what they raise is a reason like any other.
    Raises UnreadableError with the reason.
    """
    return _sized(_opened(data, how, only), how, data)


def header_of(data: bytes, how: How, only: frozenset[str]) -> Opened:
    """As `open_image`, of the beginning of a file: it is not asked whether the image is whole."""
    image = _opened(data, how, only)
    how.limits.require_size(*image.size)
    return Opened(image, orientation_of(image))


def dpi_of(image: Image.Image) -> float | None:
    """Dots per inch that a file states, the lower of both directions; None where it says nothing of use."""
    stated = image.info.get("dpi")
    if image.format == "JPEG" and stated is None and isinstance(exif := image.info.get("exif"), bytes):
        stated = resolution_in(exif)
    try:
        dpi = min(map(float, stated)) if isinstance(stated, tuple) else math.nan
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return dpi if 1 <= dpi <= MOST_DPI else None


def _opened(data: bytes, how: How, only: frozenset[str]) -> Image.Image:
    if is_web_page(data[:HEAD_BYTES]):
        raise RefusedError("a web page, not a picture")
    if is_heic(data[:HEAD_BYTES]):
        return _open_heic(data)
    Image.init()
    broken = ""
    for name in PLUGINS:
        if name not in only or name not in Image.OPEN:
            continue
        factory, accepts = Image.OPEN[name]
        if not _accepted(accepts, data[:16]):
            continue
        try:
            if name == "WEBP":
                _require_webp(data, how)
            image = Jpeg(io.BytesIO(data), "") if name == "JPEG" else factory(io.BytesIO(data), "")
        except RefusedError:
            raise
        except Exception as error:  # a hostile header, or the data is of another format
            broken = broken or (f"broken {name}: {reason_of(error)}" if accepts is not None else "")
            continue
        return image
    raise UnreadableError(broken or UNKNOWN)


def decode_opened(opened: Opened, how: How, *, shrink: bool) -> Image.Image:
    """The pixels in RGB. shrink: also what its decoder cannot reduce is made smaller, to save memory and time later.

    Raises UnreadableError with the reason.
    """
    image = opened.image
    try:
        reduce_scale(image, how)
        factor = how.factor(image.size) if shrink else 1
        how.limits.require_memory(opened.size, memory_to_decode(opened, shrunk=factor > 1))
        image.load()
        pixels = to_rgb(image, opened.orientation, how.colors, factor)
        pixels.info.clear()  # Pillow would write comments of the file into what is made of its pixels
        return pixels
    except RefusedError:
        raise
    # Pillow raises almost anything for a hostile file: struct.error, SyntaxError, OverflowError, MemoryError.
    except Exception as error:
        raise UnreadableError(f"broken {image.format or 'picture'}: {reason_of(error)}") from error


def reduce_scale(image: Image.Image, how: How) -> None:
    """Has a JPEG decoded at 1/2, 1/4 or 1/8 of its scale where that leaves enough."""
    needed = how.shorter_side(image.size)
    if needed is not None:
        image.draft(None, (needed, needed))


def memory_to_decode(opened: Opened, *, shrunk: bool) -> int:
    """Bytes that decoding takes at the scale that is set, as far as the header tells."""
    return memory_of(opened.image, shrunk=shrunk) + opened.fixed_memory


def reason_of(error: Exception) -> str:
    """One short line of what a library says about a broken file."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError) or re.search("out of memory|insufficient memory|bad_alloc", text, re.IGNORECASE):
        return "not enough memory to decode it"
    if "not identified" in text:
        return "no picture in it"
    return "cut short" if "truncated" in text.lower() else text[:_REASON_CHARACTERS]


def _accepted(accepts: Callable[[bytes], bool | str] | None, start: bytes) -> bool:
    """True where a plugin may be asked about data that begins so."""
    try:
        return accepts is None or accepts(start.ljust(16, b"\0")) is True
    except Exception:  # a plugin that cannot look at these bytes cannot read them either
        return False


def _sized(image: Image.Image, how: How, data: bytes) -> Opened:
    how.limits.require_size(*image.size)
    n_scans, fixed, is_doubtful = 1, 0, False
    if isinstance(image, Jpeg):
        n_scans, fixed = scans_and_memory(image, data)
        is_doubtful = not (require_whole(image, data) or is_refined(data))
    elif image.format == "WEBP":
        fixed = image.width * image.height * _WEBP_BYTES_A_PIXEL
    return Opened(image, orientation_of(image), n_scans, fixed, is_doubtful)


def _require_webp(data: bytes, how: How) -> None:
    """Asks the limits before the decoder is made, which holds two canvases of the size that the header says."""
    width, height = _webp_size(data)
    how.limits.require_size(width, height)
    how.limits.require_memory((width, height), width * height * (_WEBP_BYTES_A_PIXEL + _RGB_BYTES_A_PIXEL))


def _webp_size(data: bytes) -> tuple[int, int]:
    """Size of the canvas (RFC 9649, section 2.5 to 2.7); (1, 1) where there is none, as the decoder will say."""
    kind, head = data[12:16], data[20:30]
    if len(head) < 10:
        return 1, 1
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[4:7], "little"), 1 + int.from_bytes(head[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        return int.from_bytes(head[6:8], "little") & 0x3FFF, int.from_bytes(head[8:10], "little") & 0x3FFF
    return 1, 1


def _open_heic(data: bytes) -> Image.Image:
    try:
        pillow_heif = importlib.import_module("pillow_heif")
    except ImportError as error:
        raise RefusedError(f"HEIC needs {install_hint('heic')}") from error
    try:
        image: Image.Image = pillow_heif.HeifImageFile(io.BytesIO(data))
    except Exception as error:
        raise UnreadableError(f"broken HEIF: {reason_of(error)}") from error
    return image
