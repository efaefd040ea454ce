"""Text drawn with Pillow: each part of a line in a font that has its letters, cut to a width."""

import subprocess
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, groupby

from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Files that common systems have, by what they cover; Pillow looks for them in the system's font folders.
_CANDIDATES = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansArabic-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
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
_MISSING = "□"  # for what no font has; drawn as such, or as the font's own box
_NO_GLYPH = "\U0010ffff"  # a code point without a character
_SIZE_OF_SEARCH = 16  # any; whether a font has a letter does not depend on it
_FONT_SEARCH_S = 5.0
_VARIATION_SELECTORS = range(0xFE00, 0xFE10)
_INVISIBLE = frozenset(("Cc", "Cf", "Cs", "Co"))  # controls, joiners and direction marks, surrogates, private use


@dataclass(frozen=True, slots=True)
class _Run:
    """A part of a line that one font draws."""

    text: str
    font: Font


def text_width(text: str, size: int) -> float:
    """Width in pixels of a line as `draw_text` draws it."""
    return sum(run.font.getlength(run.text) for run in _runs(text, size))


def draw_text(
    pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, colour: tuple[int, int, int]
) -> None:
    """Draws a line whose left upper corner is `at`; what no font of this system has becomes a box."""
    x, base = float(at[0]), at[1] + _ascent(size)
    for run in _runs(text, size):
        if isinstance(run.font, ImageFont.FreeTypeFont):
            pen.text((x, base), run.text, fill=colour, font=run.font, anchor="ls")
        else:
            pen.text((x, at[1]), run.text, fill=colour, font=run.font)
        x += run.font.getlength(run.text)


def elide(text: str, size: int, width: float) -> str:
    """The text, cut with three dots where it is wider than `width` pixels; white space becomes single spaces."""
    text = " ".join(text.split())
    if text_width(text, size) <= width:
        return text
    low, high = 0, len(text)  # the longest beginning that fits
    while low < high:
        middle = (low + high + 1) // 2
        if text_width(text[:middle].rstrip() + _ELLIPSIS, size) <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + _ELLIPSIS


def has_letters(font: Font, text: str) -> bool:
    """True where the font draws each letter otherwise than a code point that no font has."""
    if not isinstance(font, ImageFont.FreeTypeFont):
        return text.isascii()
    letters = {letter for letter in text if not letter.isspace()}
    return all(_has_letter(font, letter) for letter in letters)


def missing_letters(text: str) -> str:
    """The letters, each once and sorted, that no font on this machine has and a box stands for."""
    letters = {letter for letter in _drawable(text) if not letter.isspace()}
    return "".join(sorted(letter for letter in letters if _font_of(letter, _SIZE_OF_SEARCH) is None))


def _runs(text: str, size: int) -> Iterator[_Run]:
    """The line in parts of one font each; marks and spaces go with the letter before them."""
    fonts: list[tuple[str, Font]] = []
    for letter in _drawable(text):
        joins = fonts and (letter.isspace() or unicodedata.combining(letter))
        if joins and (letter.isspace() or has_letters(fonts[-1][1], letter)):
            fonts.append((letter, fonts[-1][1]))
        else:
            found = _font_of(letter, size)
            fonts.append((_MISSING, _built_in(size)) if found is None else (letter, found))
    for font, letters in groupby(fonts, key=lambda pair: pair[1]):
        yield _Run("".join(letter for letter, _ in letters), font)


def _drawable(text: str) -> str:
    """The text without what has no shape of its own, such as the joiners and variation selectors of emoji."""
    return "".join(
        letter
        for letter in text
        if unicodedata.category(letter) not in _INVISIBLE and ord(letter) not in _VARIATION_SELECTORS
    )


@lru_cache(maxsize=4096)
def _font_of(letter: str, size: int) -> Font | None:
    """The built-in font, or the first of the system's that has the letter; None where there is none."""
    built_in = _built_in(size)
    if has_letters(built_in, letter):
        return built_in
    for name in chain(_CANDIDATES, map(_file_for, letter)):  # fontconfig is asked last
        font = _system_font(name, size) if name else None
        if font is not None and has_letters(font, letter):
            return font
    return None


@lru_cache(maxsize=4096)
def _file_for(letter: str) -> str:
    """The font file that fontconfig knows for a letter; '' without fontconfig or such a font."""
    try:
        told = subprocess.run(
            ["fc-match", "--format=%{file}", f":charset={ord(letter):x}:color=false"],
            capture_output=True,
            timeout=_FONT_SEARCH_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return told.stdout.decode(errors="surrogateescape")


@lru_cache(maxsize=16)
def _built_in(size: int) -> Font:
    return ImageFont.load_default(size=size)


@lru_cache(maxsize=256)
def _system_font(name: str, size: int) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


def _ascent(size: int) -> int:
    font = _built_in(size)
    return font.getmetrics()[0] if isinstance(font, ImageFont.FreeTypeFont) else 0


def _has_letter(font: ImageFont.FreeTypeFont, letter: str) -> bool:
    try:
        drawn, missing = font.getmask(letter), font.getmask(_NO_GLYPH)
    except OSError:  # a font of bitmaps in one size only
        return False
    return drawn.size != missing.size or bytes(drawn) != bytes(missing)
