"""Kinds of files, told by their first bytes or, in a folder, by its name."""

import re

IMAGE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".heic", ".heif"),
        *(".avif", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico", ".hdr"),
    )
)
HEAD_BYTES = 64  # of a file that the functions below want to see

_NOT_DATA = frozenset(("__MACOSX", "Thumbs.db", "desktop.ini"))
_HEIC_BRANDS = frozenset((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"))
_IMAGE_STARTS = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*"),
    *(b"\0\0\0\x0cjP  ", b"#?RADIANCE", b"#?RGBE"),
)


def is_heic(head: bytes) -> bool:
    """HEIC or HEIF, by the brands of the `ftyp` box (ISO/IEC 23008-12); AVIF is none."""
    if head[4:8] != b"ftyp":
        return False
    brands = {head[i : i + 4] for i in (8, *range(16, min(int.from_bytes(head[:4], "big"), len(head)), 4))}
    return bool(brands & _HEIC_BRANDS) and not brands & {b"avif", b"avis"}


def is_image(head: bytes) -> bool:
    """One of the common image formats."""
    in_box = (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or head[4:8] == b"ftyp"
    return in_box or head.startswith(_IMAGE_STARTS)


def is_web_page(head: bytes) -> bool:
    """HTML or XML, which is what a server often sends in place of an image."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return start[:1] == b"<" and (start[1:2] in (b"!", b"?") or start[1:2].isalpha())


def is_hidden(name: str) -> bool:
    """The name of a file or folder that is not part of the data."""
    return name.startswith(".") or name in _NOT_DATA


def is_text_name(path: str) -> bool:
    """A path in UTF-8 and without control characters, which can stand in any table."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return not re.search(r"[\0\t\r\n]", path)
