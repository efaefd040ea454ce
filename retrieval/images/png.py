"""A PNG without the chunks that only describe it (PNG, third edition, sections 5 and 11)."""

import zlib
from dataclasses import dataclass

from retrieval.images.orientation import orientation_in, orientation_in_xmp

_START = b"\x89PNG\r\n\x1a\n"
_PIXELS = frozenset((b"IHDR", b"PLTE", b"IDAT", b"IEND"))
_XMP = b"XML:com.adobe.xmp\0"
_MAX_INFLATED_BYTES = 16_000_000  # of a profile with tables for printing, or of XMP that holds a thumbnail


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
