"""Orientation and resolution of an image, by its EXIF or XMP; read here, as Pillow warns of every broken tag."""

import math
import re
import struct

from PIL import Image

ORIENTATION = 0x0112  # EXIF 2.32, table 4
_RESOLUTION = (0x011A, 0x011B)  # of x and y, rational
_RESOLUTION_UNIT = 0x0128
_PER_INCH = {2: 1.0, 3: 2.54}  # by the unit: inch, centimetre
TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = frozenset((5, 6, 7, 8))

_XMP = re.compile(rb"""tiff:Orientation(?:\s*=\s*["']|>)\s*([1-8])""")
# TIFF 6.0, section 2: the number types of an entry. Writers use other types for the orientation than SHORT.
_FORMATS = {1: "B", 2: "s", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 11: "f", 12: "d", 16: "Q", 17: "q"}
_RATIONALS = {5: "II", 10: "ii"}


def orientation_of(image: Image.Image) -> int:
    """1 to 8, how the stored pixels are turned; 1 also where nothing is said or what is said is broken."""
    if image.format == "TIFF":
        return _of_tiff(image)
    info = image.info
    exif = info.get("exif") or _raw_profile(info.get("Raw profile type exif"))
    told = orientation_in(exif) if isinstance(exif, bytes) else 0
    return told or orientation_in_xmp(info.get("XML:com.adobe.xmp") or info.get("xmp")) or 1


def orientation_in(exif: bytes) -> int:
    """Orientation of an EXIF block or a TIFF file; 0 where it says none."""
    value = _first_numbers(exif, (ORIENTATION,)).get(ORIENTATION, 0)
    return int(value) if value in range(1, 9) else 0


def resolution_in(exif: bytes) -> tuple[float, float] | None:
    """Dots per inch of an EXIF block, in x and y; None where it says none."""
    found = _first_numbers(exif, (*_RESOLUTION, _RESOLUTION_UNIT))
    factor = _PER_INCH.get(int(found.get(_RESOLUTION_UNIT, 2)))
    if factor is None or not all(found.get(tag) for tag in _RESOLUTION):
        return None
    return found[_RESOLUTION[0]] * factor, found[_RESOLUTION[1]] * factor


def _first_numbers(exif: bytes, tags: tuple[int, ...]) -> dict[int, float]:
    """The first number of these entries of the first directory, of those that are there; 0 for what is none."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    found: dict[int, float] = {}
    if order is None:
        return found
    try:
        start = struct.unpack_from(order + "I", exif, 4)[0]
        n_entries = struct.unpack_from(order + "H", exif, start)[0]
        for at in range(start + 2, start + 2 + 12 * n_entries, 12):
            tag, kind, count = struct.unpack_from(order + "HHI", exif, at)
            if tag in tags and tag not in found:
                found[tag] = _value(exif, order, kind, at + 8) if count else 0
    except struct.error:  # it ends before it should
        pass
    return found


def orientation_in_xmp(xmp: object) -> int:
    """Orientation of an XMP packet; 0 where it says none."""
    if isinstance(xmp, str):
        xmp = xmp.encode(errors="replace")
    found = _XMP.search(xmp) if isinstance(xmp, bytes) else None
    return int(found[1]) if found else 0


def _of_tiff(image: Image.Image) -> int:
    """Pillow turns a TIFF itself where its orientation is one plain number, and has the upright size from the start."""
    told = getattr(image, "tag_v2", {}).get(ORIENTATION)
    if told is None or told in TRANSPOSE:
        return 1
    if isinstance(told, bytes):
        told = told[0] if told else 0
    else:
        text = str(told[0] if isinstance(told, tuple) and told else told).strip("\0 ")
        told = int(float(text)) if re.fullmatch(r"[1-8](\.0*)?", text) else 0
    return told if told in TRANSPOSE else 1


def _value(exif: bytes, order: str, kind: int, at: int) -> float:
    """The first number of an entry whose value field is at `at`; 0 for what is no number."""
    if kind in _RATIONALS or kind in (12, 16, 17):
        at = struct.unpack_from(order + "I", exif, at)[0]
    if kind in _RATIONALS:
        above, below = struct.unpack_from(order + _RATIONALS[kind], exif, at)
        value = above / below if below else 0
    else:
        value = struct.unpack_from(order + _FORMATS.get(kind, "H"), exif, at)[0]
    if isinstance(value, bytes):
        value = int(value) if value.isdigit() else 0
    return float(value) if math.isfinite(value) else 0


def _raw_profile(text: object) -> bytes:
    """EXIF that ImageMagick put into a text chunk of a PNG, as hexadecimal lines below three others."""
    if not isinstance(text, str):
        return b""
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return b""
