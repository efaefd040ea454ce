"""JSON texts of any length, value by value in little memory; their objects as cells of a table."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TextIO

from retrieval.data.labels import listed
from retrieval.words import visible

MAX_CHARACTERS = 1 << 26  # of one value: as many bytes as a line of a CSV file may have
_PIECE = 1 << 20
_CUT = 16  # characters before the end of a piece within which a value may only seem broken, as `tru` does
_DEEPEST = 8  # objects within objects whose entries are columns
_SPACE = " \t\r\n"
_TEXT = frozenset((str,))
_SHOWN = 40  # characters of what is no JSON
_OPEN = "Unterminated string"  # how Python's reader says that the text ends within one
_CUT_SHORT = "not JSON: it ends too early"
_TOO_DEEP = "not JSON: nested too deep"


class BrokenJsonError(Exception):
    """A text that is no JSON from some place on; the message is the reason. line: of that place."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


@dataclass(frozen=True, slots=True)
class Twice:
    """Stands for an object in which a key is there twice."""

    key: str


def decode(text: str) -> Any:
    """The value of a whole JSON text, numbers as they are written. Raises BrokenJsonError."""
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise BrokenJsonError(error.lineno, _reason(error)) from error
    except RecursionError as error:
        raise BrokenJsonError(1, _TOO_DEEP) from error


def cells(record: Any, lists: set[str], label: str = "") -> dict[str, str]:
    """The entries of an object as texts: null as blank, lists separated by spaces, those of an inner object as
    `outer.inner`. Raises ValueError with the reason for anything else.

    lists: gets the names of lists. label: the entry whose list is as of `listed`.
    """
    is_plain = isinstance(record, dict) and _TEXT.issuperset(map(type, record.values()))
    if is_plain and "".join(record.values()).isascii():
        return dict(record)  # as most are, in a third of the time
    if isinstance(record, Twice):
        raise ValueError(f"the key {record.key!r} is there twice")
    if not isinstance(record, dict):
        raise ValueError(f'{_shown(record)} where an object is expected, such as {{"path": ..., "label": ...}}')
    return dict(_entries(record, "", 0, lists, label))


def _entries(
    record: Mapping[str, Any], prefix: str, depth: int, lists: set[str], label: str
) -> Iterator[tuple[str, str]]:
    for key, value in record.items():
        if isinstance(value, dict) and depth < _DEEPEST:
            yield from _entries(value, f"{prefix}{key}.", depth + 1, lists, label)
        else:
            name = prefix + key
            if isinstance(value, list):
                lists.add(name)
            yield name, _label_cell(value, key) if name == label else _cell(value, key)


def _label_cell(value: Any, key: str) -> str:
    if not isinstance(value, list):
        return _cell(value, key)
    if nested := [one for one in value if isinstance(one, dict | list)]:
        raise ValueError(f"{key} holds {_shown(nested[0])} in a list, where a label is expected")
    return listed(_cell(one, key) for one in value)


def _cell(value: Any, key: str) -> str:
    if isinstance(value, Twice):
        raise ValueError(f"the key {value.key!r} is there twice")
    if value is None or isinstance(value, bool):
        return "" if value is None else str(value).lower()
    if isinstance(value, list):
        is_flat = not any(isinstance(one, dict | list | Twice) for one in value)
        return " ".join(_cell(one, key) for one in value) if is_flat else _whole(value)
    text = value if isinstance(value, str) else _whole(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{key} holds half of a character (a lone surrogate)") from None
    return text


def _whole(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, default=lambda twice: {twice.key: None})


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else _whole(value)
    return visible(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")


class JsonText:
    """A place in a JSON text, which is read a piece at a time. line: the one it is on, from 1.

    BrokenJsonError, of any method: what comes next is not what it should be.
    """

    def __init__(self, text: TextIO, begun: str = "", line: int = 1) -> None:
        """begun: what was read of it already, from the beginning of this line on."""
        self._text, self._buffer, self._at, self.line = text, begun, 0, line

    def next_letter(self) -> str:
        """The next character that is no white space, which is passed over; '' at the end."""
        while True:
            end = self._at
            while end < len(self._buffer) and self._buffer[end] in _SPACE:
                end += 1
            self._pass(end)
            if end < len(self._buffer):
                return self._buffer[end]
            if not self._fill():
                return ""

    def take(self, letters: str) -> str:
        """Passes over one of these characters and returns it."""
        letter = self.next_letter()
        if letter and letter in letters:
            self._at += 1
            return letter
        found = f"not JSON: {_shown(letter)} where {' or '.join(letters)} is expected"
        raise BrokenJsonError(self.line, found if letter else _CUT_SHORT)

    def value(self) -> Any:
        """The value that comes next, numbers as they are written."""
        if not self.next_letter():
            raise BrokenJsonError(self.line, _CUT_SHORT)
        while True:
            try:
                found, end = _DECODER.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                may_go_on = error.pos > len(self._buffer) - _CUT or error.msg.startswith(_OPEN)
                if may_go_on and self._fill():
                    continue
                self._pass(min(error.pos, len(self._buffer)))
                raise BrokenJsonError(self.line, _reason(error)) from error
            except RecursionError as error:
                raise BrokenJsonError(self.line, _TOO_DEEP) from error
            if end == len(self._buffer) and self._buffer[end - 1] not in '}]"' and self._fill():
                continue  # a number may go on
            self._pass(end)
            return found

    def each_item(self) -> Iterator[tuple[int, Any]]:
        """The line and value of each item of the array that comes next."""
        self.take("[")
        if self.next_letter() == "]":
            self.take("]")
            return
        while True:
            self.next_letter()
            line = self.line
            yield line, self.value()
            if self.take(",]") == "]":
                return

    def each_key(self) -> Iterator[str]:
        """The keys of the object that comes next; the value of each is to be read before the next key."""
        self.take("{")
        if self.next_letter() == "}":
            self.take("}")
            return
        while True:
            if self.next_letter() != '"':
                self.take('"')
            key = self.value()
            self.take(":")
            yield key
            if self.take(",}") == "}":
                return

    def _pass(self, end: int) -> None:
        self.line += self._buffer.count("\n", self._at, end)
        self._at = end

    def _fill(self) -> bool:
        """Reads on, as much again as there is, so that a long value is not tried too often. False at the end."""
        left = len(self._buffer) - self._at
        if left > MAX_CHARACTERS:
            raise BrokenJsonError(self.line, f"a value of more than {MAX_CHARACTERS >> 20} MiB; this is no table")
        piece = self._text.read(max(_PIECE, left))
        self._buffer, self._at = self._buffer[self._at :] + piece, 0
        return bool(piece)


def _reason(error: json.JSONDecodeError) -> str:
    rest = error.doc[error.pos : error.pos + _SHOWN].strip()
    if not rest or error.msg.startswith(_OPEN):
        return _CUT_SHORT
    return f"not JSON: {error.msg[:1].lower()}{error.msg[1:]} at {visible(rest)}"


def _without_twins(pairs: list[tuple[str, Any]]) -> Any:
    content = dict(pairs)
    if len(content) == len(pairs):
        return content
    names = [name for name, _ in pairs]
    return Twice(next(name for name in names if names.count(name) > 1))


_DECODER = json.JSONDecoder(object_pairs_hook=_without_twins, parse_float=str, parse_int=str, parse_constant=str)
