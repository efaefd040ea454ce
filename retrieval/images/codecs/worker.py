"""A process that decodes images for another one, with limits on its memory and time; run as a script.

A job is a line of JSON and the file's bytes; the answer is a line of JSON and, where an image was asked for, its
pixels in RGB, row by row.
"""

import json
import os
import signal
import struct
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from retrieval.arrays import UInt8Array
from retrieval.errors import RefusedError, UnreadableError
from retrieval.images.codecs.how import How
from retrieval.images.codecs.jpeg import JPEG_START, is_ended, mend_jpeg
from retrieval.images.codecs.limited import READY
from retrieval.images.codecs.opencv import kind_of, load_opencv, open_with_opencv
from retrieval.images.codecs.orientation import orientation_in, orientation_in_xmp
from retrieval.images.codecs.pillow import UNKNOWN, Opened, decode_opened, open_image, reason_of
from retrieval.images.limits import Limits
from retrieval.own_process import limit_memory

_STRIP_BYTES = 1 << 24  # of an answer that is made at once
_PNG = b"\x89PNG\r\n\x1a\n"
# Whose header may tell another size than their pixels have in the end: an icon's, or one of several images'.
_SIZED_BY_HEADER = frozenset(("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM", "HEIF"))
_BITFIELDS = (3, 6)  # BI_BITFIELDS and BI_ALPHABITFIELDS
_MASKS_AT = 54
_HEADER_WITH_ALPHA = 56
_BYTES_A_PIXEL = 24
_START = b"\x89PNG\r\n\x1a\n"
_PIXELS = frozenset((b"IHDR", b"PLTE", b"IDAT", b"IEND"))
_XMP = b"XML:com.adobe.xmp\0"
_MAX_INFLATED_BYTES = 16_000_000  # of a profile with tables for printing, or of XMP that holds a thumbnail


class _Printed:
    """Text that this process writes to stderr: libraries written in C print there what they find wrong."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the process lives
        os.dup2(self._file.fileno(), 2)

    def __call__(self) -> str:
        """Text written since the last call."""
        self._file.seek(0)
        text = self._file.read().decode(errors="replace")
        self._file.seek(0)
        self._file.truncate()
        return text


def main() -> None:
    """Says that it is ready, then does jobs until there are no more."""
    jobs, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    printed = _Printed()
    os.dup2(2, 1)  # nothing else may get between the answers
    if hasattr(signal, "SIGINT"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to hear
    Image.init()
    answers.write(READY)
    answers.flush()
    while line := jobs.readline():
        job = json.loads(line)
        data = jobs.read(job["n_bytes"])
        _alarm(job["limits"]["max_seconds"])
        _answer(job, data, answers, printed)
        _alarm(0)


def _answer(job: Mapping[str, Any], data: bytes, answers: BinaryIO, printed: _Printed) -> None:
    how = How(job["side"], job["measured"], Limits(**job["limits"]), job["colors"])
    image: Image.Image | None = None
    said: dict[str, Any] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if kind_of(data):
                load_opencv()  # before memory is limited: its code is no part of what an image takes
            limit_memory(how.limits.max_memory)
            if job["only_size"]:
                said = {"size": measure_thoroughly(data, how, printed)}
            else:
                image = decode_thoroughly(data, how, printed)
                said = {"size": image.size}
        except UnreadableError as error:
            said = {"reason": str(error)}
        except Exception as error:  # what a library raises of a kind that nobody foresaw
            said = {"reason": f"broken picture: {reason_of(error)}"}
        finally:
            limit_memory(None)
    said["warnings"] = [" ".join(str(warning.message).split()) for warning in caught] + printed().splitlines()[:1]
    answers.write(json.dumps(said).encode() + b"\n")
    if image is not None:
        n_rows = max(1, _STRIP_BYTES // (3 * image.width))
        for top in range(0, image.height, n_rows):
            answers.write(image.crop((0, top, image.width, min(image.height, top + n_rows))).tobytes())
    answers.flush()


def _alarm(seconds: int) -> None:
    """Ends this process when the time is over, whatever it does then."""
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def decode_thoroughly(data: bytes, how: How, printed: Callable[[], str]) -> Image.Image:
    """The image in RGB. printed: what was written to stderr since it was called last.

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
        opened = open_image(data, how)
    except RefusedError:
        raise
    except UnreadableError as error:
        try:
            return _opened_otherwise(data, how, printed).size
        except UnreadableError as other:
            raise (other if str(error) == UNKNOWN else error) from None
    if opened.image.format in _SIZED_BY_HEADER:
        return opened.size
    return decode_opened(opened, how, shrink=False).size


def _open(data: bytes, how: How) -> Opened:
    if data.startswith(JPEG_START) and not is_ended(data):
        return _mended_jpeg(data, how)
    opened = open_image(data, how)
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
    opened = open_image(mended.data, how)
    if mended.profile:
        opened.image.info["icc_profile"] = mended.profile
    return Opened(opened.image, orientation_in(mended.exif) or 1, opened.n_scans, opened.fixed_memory)


def _mended_png(data: bytes, how: How) -> Opened:
    mended = mend_png(data)
    opened = open_image(mended.data, how)
    if mended.profile:
        opened.image.info["icc_profile"] = mended.profile
    return Opened(opened.image, mended.orientation)


def has_bitfields(data: bytes) -> bool:
    """A BMP that says where its colours stand."""
    if not data.startswith(b"BM") or len(data) < _MASKS_AT + 16:
        return False
    bits, compression = struct.unpack_from("<HI", data, 28)
    return int.from_bytes(data[14:18], "little") >= 40 and bits in (16, 32) and compression in _BITFIELDS


def open_bitfields(data: bytes, limits: Limits) -> Image.Image:
    """The image in RGB or RGBA. Raises UnreadableError: over a limit, cut short."""
    header, width, height, _, bits, compression = struct.unpack_from("<IiiHHI", data, 14)
    n_rows, start = abs(height), int.from_bytes(data[10:14], "little")
    stride = (width * bits + 31) // 32 * 4
    if width < 1 or n_rows < 1:
        raise UnreadableError("broken BMP: no picture in it")
    limits.require_size(width, n_rows)
    limits.require_memory((width, n_rows), width * n_rows * _BYTES_A_PIXEL)
    if len(data) < start + stride * n_rows:
        raise UnreadableError("broken BMP: cut short")
    rows = np.frombuffer(data, f"<u{bits // 8}", stride * n_rows * 8 // bits, start).reshape(n_rows, -1)[:, :width]
    masks = struct.unpack_from("<4I", data, _MASKS_AT)
    n_channels = 4 if (header >= _HEADER_WITH_ALPHA or compression == _BITFIELDS[1]) and masks[3] else 3
    pixels = np.stack([_channel(rows, mask) for mask in masks[:n_channels]], axis=-1)
    if n_channels == 4 and not pixels[:, :, 3].any():  # nobody means an image of which nothing is to be seen
        pixels = pixels[:, :, :3]
    return Image.fromarray(np.ascontiguousarray(pixels if height < 0 else pixels[::-1]))


def _channel(values: Any, mask: int) -> UInt8Array:
    """uint8, its greatest value 255."""
    if not mask:
        return np.zeros(values.shape, np.uint8)
    shift = (mask & -mask).bit_length() - 1
    greatest = mask >> shift
    stored = (values.astype(np.uint32) & np.uint32(mask)) >> np.uint32(shift)
    scaled: UInt8Array = np.rint(stored * (255 / greatest)).astype(np.uint8)
    return scaled


@dataclass(frozen=True, slots=True)
class MendedPng:
    """data: pixels, palette and transparency alone. orientation: 1 to 8. profile: b'' where there is none."""

    data: bytes
    orientation: int
    profile: bytes


def mend_png(data: bytes) -> MendedPng:
    """A PNG without its texts, profile, colours and resolution, which may be broken or too large.

    What can still be read of these counts: the orientation in EXIF or XMP, and the colour profile.
    """
    kept, orientation, profile, at = [_START], 0, b"", len(_START)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind, content = data[at + 4 : at + 8], data[at + 8 : end - 4]
        sound = zlib.crc32(data[at + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")
        if kind in _PIXELS or (kind == b"tRNS" and sound):
            kept.append(data[at:end])
        elif kind == b"eXIf":
            orientation = orientation or orientation_in(content)
        elif kind == b"iCCP":
            profile = profile or _profile(content)
        elif kind == b"iTXt" and content.startswith(_XMP):
            orientation = orientation or orientation_in_xmp(_xmp(content))
        at = end
    return MendedPng(b"".join(kept), orientation or 1, profile)


def _profile(content: bytes) -> bytes:
    """name, 0, method, compressed profile."""
    return _inflated(content.partition(b"\0")[2][1:])


def _xmp(content: bytes) -> bytes:
    """keyword, 0, compressed or not, method, language, 0, translated keyword, 0, text."""
    flags, rest = content[len(_XMP) : len(_XMP) + 2], content[len(_XMP) + 2 :]
    text = rest.partition(b"\0")[2].partition(b"\0")[2]
    return _inflated(text) if flags[:1] == b"\1" else text


def _inflated(compressed: bytes) -> bytes:
    """b'' for what is broken or too large."""
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(compressed, _MAX_INFLATED_BYTES)
    except zlib.error:
        return b""
    return content if inflater.eof else b""


if __name__ == "__main__":
    main()
