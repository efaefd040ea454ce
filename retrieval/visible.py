"""Texts from data as people may see them, wherever that is."""

import unicodedata

# Control characters, format characters (direction overrides, zero width, tags), lone surrogates, line separators.
_ESCAPED = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))


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
