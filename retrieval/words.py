"""Text in messages: numbers with their nouns, and texts from data as people may see them."""

import unicodedata
from collections.abc import Sequence

N_NAMED = 3  # things that a message names
MOST_CHARACTERS = 300  # of a value from data that a message shows
# Control characters, format characters (direction overrides, zero width, tags), lone surrogates, line separators.
_ESCAPED = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))


def counted(n: int, noun: str, *, of: int | None = None) -> str:
    """`1 image`, `2,000 images`, `0 queries`; with `of`: `1 of 2 images`, where the second number decides."""
    last = n if of is None else of
    before = "" if of is None else f"{n:,} of "
    return f"{before}{last:,} {noun if last == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """`query` -> `queries`, `box` -> `boxes`, `match` -> `matches`, `epoch` -> `epochs`."""
    if noun.endswith("y") and noun[-2:-1] not in "aeou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "sh", "tch")) else f"{noun}s"


def none_can(n: int, noun: str, *, can: str = "can", whose: str = "the") -> str:
    """`none of the 3 images can`, `the only image cannot`; with `could`: `the only image could not`."""
    if n == 1:
        return f"{whose} only {noun} {'cannot' if can == 'can' else f'{can} not'}"
    return f"none of {whose} {counted(n, noun)} {can}"


def named(names: Sequence[str]) -> str:
    """The first of these names, and how many more there are."""
    more = f" and {len(names) - N_NAMED:,} more" if len(names) > N_NAMED else ""
    return ", ".join(names[:N_NAMED]) + more


def agreeing(n: int, one: str, many: str) -> str:
    """The verb or word that goes with so many things."""
    return one if n == 1 else many


def visible(text: str) -> str:
    """A text from data on one line: what would move the cursor, hide or end the line is escaped."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(letter) if unicodedata.category(letter) in _ESCAPED else letter for letter in text)


def _escape(letter: str) -> str:
    """As in JSON and Python; a byte of a file's name that is not UTF-8 as that byte."""
    number = ord(letter)
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number - 0xDC00:02x}"
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def shortened(value: object) -> str:
    """A value from data within a message, on one line and of bounded length."""
    text = str(value)
    if len(text) > MOST_CHARACTERS:
        return f"{visible(text[:MOST_CHARACTERS])}… ({len(text):,} characters)"
    return visible(text)
