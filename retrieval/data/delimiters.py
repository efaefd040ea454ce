"""What separates the columns of a table: commas, or what its header alone is separated by."""

import csv
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_NAMES = {";": "semicolons", "\t": "tabs", "|": "bars"}
_TOLD = re.compile(r"sep=(.?)")  # what Excel understands in a first line, and writes there
_MAX_LINES = 64  # of a header, whose names may hold line breaks
_MAX_LETTERS = 1 << 20


@dataclass(frozen=True, slots=True)
class Head:
    """How a table begins. n_rows: that stand before its data, blank ones not counted. names: of its columns."""

    delimiter: str
    n_rows: int
    names: list[str]

    def notes(self, source: str) -> list[str]:
        """A line where the columns are not separated by commas."""
        return [f"{source}: columns separated by {_NAMES[self.delimiter]}"] if self.delimiter in _NAMES else []


def read_head(text: Iterable[str]) -> Head:
    """The head of a table of these lines; without names where it is empty.

    The header is separated by commas unless it holds two columns by one other character and no two by commas. Raises
    csv.Error where it can be read in no way.
    """
    lines = _first_lines(text)
    first = _tried_row(lines, ",")
    told = _TOLD.fullmatch("".join(first[:1])) if len(first) < 3 and not any(first[1:]) else None
    if told is not None and (delimiter := told[1] or ",") in (",", *_NAMES):
        return Head(delimiter, 2, _first_row(lines, delimiter, 1))
    found = [Head(other, 1, names) for other in _NAMES if len(names := _tried_row(lines, other)) > 1]
    if len(found) == 1 and len(_tried_row(lines, ",")) < 2:
        return found[0]
    return Head(",", 1, _first_row(lines, ",", 0))


def _first_lines(text: Iterable[str]) -> list[str]:
    """As many as a header may have, from the first that is not blank."""
    lines: list[str] = []
    n_letters = 0
    for line in itertools.islice(itertools.dropwhile(lambda line: not line.strip("\r\n"), text), _MAX_LINES):
        lines.append(line)
        n_letters += len(line)
        if n_letters > _MAX_LETTERS:
            break
    return lines


def _first_row(lines: Sequence[str], delimiter: str, number: int) -> list[str]:
    """The row of that number among those that are not blank, from 0; empty when there is none."""
    rows = (row for row in csv.reader(lines, delimiter=delimiter, strict=True) if row)
    return next((row for at, row in enumerate(rows) if at == number), [])


def _tried_row(lines: Sequence[str], delimiter: str) -> list[str]:
    try:
        return _first_row(lines, delimiter, 0)
    except csv.Error:
        return []
