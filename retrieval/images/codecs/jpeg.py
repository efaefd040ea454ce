"""Markers of a JPEG: its scans, where they end, and whether all of them are whole (ITU T.81, annex B)."""

import hashlib
import io
import random
import re
from dataclasses import dataclass, field

from PIL import JpegImagePlugin

from retrieval.errors import UnreadableError

JPEG_START = b"\xff\xd8\xff"
_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_ARITHMETIC = b"\xff\xc9"
_SOS, _DRI, _APP1, _APP2 = 0xDA, 0xDD, 0xE1, 0xE2
_FRAMES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
# Kept of a file that is mended: tables, frames, scans, and the two segments that say how colours are stored.
_NEEDED = frozenset((0xC4, 0xCC, 0xDB, 0xDC, _DRI, _SOS, 0xE0, 0xEE, *_FRAMES))
_OTHERS = frozenset((0xFE, *range(0xE0, 0xF0)))
_ANY_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # that ends the coded data of a scan
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_PADDING = re.compile(rb"(?:\x00{16,}|\xff+)\Z")  # of a file that was made longer than what came to be in it
_PROBE_BYTES = 4096
# What a decoder reads ahead, as bits that no code begins with: it makes at most two blocks of them.
_READ_AHEAD = b"\xff\x00" * 8


class Jpeg(JpegImagePlugin.JpegImageFile):
    """A JPEG whose further images and resolution are left alone, as is the EXIF that Pillow would read them from."""

    def _read_dpi_from_exif(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class _Scan:
    """components: their ids. first, last: frequencies. n_restarts: in it.

    high: from which bit on it refines what scans before it gave, 0 = it is the first. low: bits left for later scans.
    """

    components: bytes
    first: int
    last: int
    high: int
    low: int
    n_restarts: int
    restart_interval: int


@dataclass(slots=True)
class _Markers:
    """Facts that the markers tell.

    needed: the file up to its end marker, without what only describes it. profile: numbered parts of the ICC profile.
    layout: component -> its blocks in a group, (horizontal, vertical).
    """

    needed: list[bytes] = field(default_factory=lambda: [_SOI])
    exif: bytes = b""
    profile: list[tuple[int, bytes]] = field(default_factory=list)
    ended: bool = False
    progressive: bool = False
    restart_interval: int = 0
    size: tuple[int, int] = (0, 0)
    layout: dict[int, tuple[int, int]] = field(default_factory=dict)
    scans: list[_Scan] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class MendedJpeg:
    """data: the image alone, with its end marker. exif, profile: b'' where there is none."""

    data: bytes
    exif: bytes
    profile: bytes


def scans_and_memory(image: Jpeg, data: bytes) -> tuple[int, int]:
    """Number of scans of a JPEG, and the bytes that libjpeg keeps of its coefficients where there are several."""
    layers = image.layer
    if _only_scan(image, data):
        return 1, 0
    shares = [max(1, layer[1]) * max(1, layer[2]) for layer in layers] or [1]
    return data.count(b"\xff\xda"), 2 * image.width * image.height * sum(shares) // max(shares)


def _only_scan(image: Jpeg, data: bytes) -> int:
    """Offset of the header of the scan that holds all components; 0 where there are several scans.

    The image's header is read, and nothing behind it.
    """
    assert image.fp is not None
    start = image.fp.tell() - 8 - 2 * len(image.layer)
    return start if "progressive" not in image.info and data[start : start + 2] == b"\xff\xda" else 0


def require_whole(image: Jpeg, data: bytes) -> bool:
    """Has the decoder refuse a scan that ends before its last block, where it would fill in grey without a word.

    The decoder is shown the scan without the end marker, so that one which lacks blocks asks for more.
    False where there are several scans, or a code that is not Huffman's: `mend_jpeg` tells whether those are whole.
    """
    start = _only_scan(image, data)
    end = data.find(_EOI, start)
    if not start or end < 0 or _ARITHMETIC in data[:start]:
        return False
    image.fp = io.BytesIO(data[:end] + _READ_AHEAD)
    return True


def is_ended(data: bytes) -> bool:
    """True for a JPEG that has its end marker. Without one Pillow takes what follows a scan for a part of it."""
    return data.endswith(_EOI) or _walk(data).ended


def is_refined(data: bytes) -> bool:
    """True where all scans of a progressive JPEG are there, and the last adds only bits to what is there already.

    Where that one ends early, the pixels differ by what nobody sees.
    """
    markers = _walk(data)
    return _ends_refined(markers) and _scans_suffice(markers)


def mend_jpeg(data: bytes) -> MendedJpeg:
    """A JPEG whose pixels are whole, without the segments that are not needed, with the end marker that may be missing.

    Every scan must be there to its last block; only the last bits that a progressive JPEG adds to all that is there
    already may end early if an end marker says so. Raises UnreadableError where a scan is cut short.
    """
    markers = _walk(data)
    if not markers.scans:
        raise UnreadableError(f"broken JPEG: {'cut short' if markers.layout else 'no picture in it'}")
    body = b"".join(markers.needed)
    if not markers.ended:
        body = _PADDING.sub(b"", body)
    if not (_scans_suffice(markers) and (_ends_refined(markers) or _is_whole(body))):
        raise UnreadableError("broken JPEG: cut short")
    return MendedJpeg(body + _EOI, markers.exif, b"".join(part for _, part in sorted(markers.profile)))


def _walk(data: bytes) -> _Markers:
    """Every marker up to the end marker, to another image's start, or to what no JPEG has there."""
    found, at = _Markers(), 2
    while marker := _ANY_MARKER.match(data, at):
        code, at = marker[1][0], marker.end()
        if code == 0xD9:
            found.ended = True
            break
        length = int.from_bytes(data[at : at + 2], "big")
        if code not in _NEEDED | _OTHERS or length < 2 or at + length > len(data):
            break
        segment, start = data[at + 2 : at + length], at
        at += length
        if code == _SOS:
            after = _MARKER.search(data, at)
            end = after.start() if after else len(data)
            found.scans.append(_scan(segment, data[at:end], found.restart_interval))
            at = end
        else:
            _note(found, code, segment)
        if code in _NEEDED:
            found.needed.append(bytes((0xFF, code)) + data[start:at])
    return found


def _note(found: _Markers, code: int, segment: bytes) -> None:
    """Notes what a segment says of the scans that follow, or of the image."""
    if code == _DRI:
        found.restart_interval = int.from_bytes(segment[:2], "big")
    elif code in _FRAMES and len(segment) >= 6:
        found.progressive = code in _PROGRESSIVE
        found.size = int.from_bytes(segment[3:5], "big"), int.from_bytes(segment[1:3], "big")
        found.layout = {s[0]: (s[1] >> 4, s[1] & 15) for i in range(segment[5]) if len(s := segment[6 + 3 * i :]) >= 2}
    elif code == _APP1 and segment.startswith(b"Exif\0\0"):
        found.exif = found.exif or segment
    elif code == _APP2 and segment.startswith(b"ICC_PROFILE\0") and len(segment) > 14:
        found.profile.append((segment[12], segment[14:]))


def _scan(header: bytes, coded: bytes, restart_interval: int) -> _Scan:
    n = header[0] if header else 0
    first, last, low = header[1 + 2 * n : 4 + 2 * n].ljust(3, b"\0")
    high, low = low >> 4, low & 15
    return _Scan(header[1 : 1 + 2 * n : 2], first, last, high, low, len(_RESTART.findall(coded)), restart_interval)


def _ends_refined(markers: _Markers) -> bool:
    return markers.ended and markers.progressive and bool(markers.scans) and markers.scans[-1].high > 0


def _scans_suffice(markers: _Markers) -> bool:
    """True where every frequency of every component is brought to its last bit, and no scan lacks a restart."""
    missing = {(one, frequency) for one in markers.layout for frequency in range(64 if markers.progressive else 1)}
    for scan in markers.scans:
        if scan.n_restarts < _restarts_expected(markers, scan):
            return False
        if markers.progressive and scan.low:
            continue
        last = scan.last if markers.progressive else 0
        missing -= {(one, frequency) for one in scan.components for frequency in range(scan.first, last + 1)}
    return bool(markers.scans) and not missing


def _restarts_expected(markers: _Markers, scan: _Scan) -> int:
    if not scan.restart_interval or not scan.components:
        return 0
    widest, tallest = (max(layout[axis] for layout in markers.layout.values()) or 1 for axis in (0, 1))
    width, height = markers.size
    if len(scan.components) == 1:  # its blocks alone, not in groups
        horizontal, vertical = markers.layout.get(scan.components[0], (1, 1))
        width, height = -(-width * horizontal // widest), -(-height * vertical // tallest)
        widest = tallest = 1
    n_units = -(-width // (8 * widest)) * -(-height // (8 * tallest))
    return -(-n_units // scan.restart_interval) - 1


def _is_whole(body: bytes) -> bool:
    """True where the last scan ends before its file does: then what stands behind it changes no pixel."""
    rng = random.Random(0)
    tails = (bytes(_PROBE_BYTES), *(bytes(rng.choices(range(255), k=_PROBE_BYTES)) for _ in range(2)))
    return len({_digest(body + tail + _EOI) for tail in tails}) == 1


def _digest(data: bytes) -> bytes:
    try:
        with Jpeg(io.BytesIO(data), "") as image:
            image.load()
            return hashlib.sha256(image.tobytes()).digest()
    except Exception as error:  # of any kind, from a hostile file
        raise UnreadableError("broken JPEG: cut short") from error
