"""Fonts for text drawn with Pillow: one that has the letters, and text cut to a width."""

from functools import lru_cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Files that common systems have, by what they cover; Pillow looks for them in the system's font folders.
_CANDIDATES = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansArabic-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "Arial Unicode.ttf",
    "Arial.ttf",
    "arial.ttf",
    "PingFang.ttc",
    "msyh.ttc",
    "msgothic.ttc",
    "malgun.ttf",
    "Nirmala.ttf",
)
_ELLIPSIS = "..."
_NO_GLYPH = "\U0010ffff"  # a code point without a character


def font_for(text: str, size: int) -> Font:
    """The built-in font, or the first of the system's that has every letter of the text; else the built-in one."""
    built_in = ImageFont.load_default(size=size)
    if has_letters(built_in, text):
        return built_in
    for name in _CANDIDATES:
        font = _system_font(name, size)
        if font is not None and has_letters(font, text):
            return font
    return built_in


def has_letters(font: Font, text: str) -> bool:
    """Whether the font draws each letter otherwise than a code point that no font has."""
    if not isinstance(font, ImageFont.FreeTypeFont):
        return text.isascii()
    letters = {letter for letter in text if not letter.isspace()}
    return all(_has_letter(font, letter) for letter in letters)


def elide(text: str, font: Font, width: float) -> str:
    """The text, cut with three dots where it is wider than `width` pixels; white space becomes single spaces."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    low, high = 0, len(text)  # the longest beginning that fits
    while low < high:
        middle = (low + high + 1) // 2
        if font.getlength(text[:middle].rstrip() + _ELLIPSIS) <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + _ELLIPSIS


@lru_cache(maxsize=64)
def _system_font(name: str, size: int) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


def _has_letter(font: ImageFont.FreeTypeFont, letter: str) -> bool:
    drawn, missing = font.getmask(letter), font.getmask(_NO_GLYPH)
    return drawn.size != missing.size or bytes(drawn) != bytes(missing)
