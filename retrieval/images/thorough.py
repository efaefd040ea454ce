"""Everything that is tried before a picture is called unreadable, in a process of its own."""

from collections.abc import Callable

from PIL import Image

from retrieval.errors import RefusedError, UnreadableError
from retrieval.images.bmp import has_bitfields, open_bitfields
from retrieval.images.how import How
from retrieval.images.jpeg import JPEG_START, is_ended, mend_jpeg
from retrieval.images.opencv import open_with_opencv
from retrieval.images.orientation import orientation_in
from retrieval.images.pillow import UNKNOWN, Opened, decode_opened, open_picture
from retrieval.images.png import mend_png

_PNG = b"\x89PNG\r\n\x1a\n"
# Whose header may tell another size than their pixels have in the end: an icon's, or one of several pictures'.
_SIZED_BY_HEADER = frozenset(("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM", "HEIF"))


def decode_thoroughly(data: bytes, how: How, printed: Callable[[], str]) -> Image.Image:
    """The picture in RGB. printed: what was written to stderr since it was called last.

    A JPEG or PNG that Pillow refuses is mended where its pixels are whole; OpenCV, where it is installed, is asked
    about other formats. Raises UnreadableError with Pillow's reason.
    """
    try:
        return decode_opened(_open(data, how), how, shrink=True)
    except RefusedError:
        raise
    except UnreadableError as error:
        try:
            return decode_opened(_opened_otherwise(data, how, printed), how, shrink=True)
        except RefusedError:
            raise
        except UnreadableError as other:
            raise (other if str(error) == UNKNOWN else error) from None


def measure_thoroughly(data: bytes, how: How, printed: Callable[[], str]) -> tuple[int, int]:
    """Width and height, upright, of what `decode_thoroughly` gives at full scale."""
    try:
        opened = open_picture(data, how)
    except RefusedError:
        raise
    except UnreadableError as error:
        try:
            return _opened_otherwise(data, how, printed).size
        except UnreadableError as other:
            raise (other if str(error) == UNKNOWN else error) from None
    if opened.picture.format in _SIZED_BY_HEADER:
        return opened.size
    return decode_opened(opened, how, shrink=False).size


def _open(data: bytes, how: How) -> Opened:
    if data.startswith(JPEG_START) and not is_ended(data):
        return _mended_jpeg(data, how)
    opened = open_picture(data, how)
    return _mended_jpeg(data, how) if opened.is_doubtful else opened


def _opened_otherwise(data: bytes, how: How, printed: Callable[[], str]) -> Opened:
    if data.startswith(JPEG_START):
        return _mended_jpeg(data, how)
    if data.startswith(_PNG):
        return _mended_png(data, how)
    if has_bitfields(data):
        return Opened(open_bitfields(data, how.limits), orientation=1)
    return open_with_opencv(data, how, printed)


def _mended_jpeg(data: bytes, how: How) -> Opened:
    mended = mend_jpeg(data)
    opened = open_picture(mended.data, how)
    if mended.profile:
        opened.picture.info["icc_profile"] = mended.profile
    return Opened(opened.picture, orientation_in(mended.exif) or 1, opened.n_scans, opened.fixed_memory)


def _mended_png(data: bytes, how: How) -> Opened:
    mended = mend_png(data)
    opened = open_picture(mended.data, how)
    if mended.profile:
        opened.picture.info["icc_profile"] = mended.profile
    return Opened(opened.picture, mended.orientation)
