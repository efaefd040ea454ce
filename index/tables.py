"""CSV files with one row per id, read with line numbers so that every bad row can be named."""

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeVar

import numpy as np

from retrieval.arrays import LongArray, ObjArray
from retrieval.errors import LmrError

SHOWN_PROBLEMS = 10  # bad rows named in one message; the rest is counted

Parsed = TypeVar("Parsed")


@contextmanager
def open_table(path: str | Path) -> Iterator["IdTable"]:
    """Opens a CSV file for one reading; problems of the file itself become LmrError."""
    path = Path(path)
    # A solution names up to thousands of images in one cell; csv stops at 131,072 characters by default.
    limit = csv.field_size_limit(2**31 - 1)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield IdTable(path, _numbered(file))
    except FileNotFoundError as error:
        raise LmrError(f"{path}: there is no such file") from error
    except OSError as error:
        raise LmrError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise LmrError(f"{path} is not a CSV file in UTF-8: {error}") from error
    finally:
        csv.field_size_limit(limit)


class IdTable:
    """The rows of a CSV file with an `id` column, its bad rows gathered into one message."""

    def __init__(self, path: Path, rows: Iterator[tuple[int, list[str]]]) -> None:
        self._path = path
        self._rows = rows
        _, names = next(rows, (1, []))
        names = [name.strip() for name in names]
        self.header = ",".join(names) if names else "empty"
        self.columns = set(names) if len(set(names)) == len(names) else set()
        self._names = names

    def read(self, parse: Callable[[dict[str, str]], Parsed]) -> tuple[ObjArray, list[Parsed], LongArray]:
        """The id of each row, what `parse` made of its cells, and the line it begins on.

        parse: from column -> cell; raises ValueError with the problem of a row.
        Raises LmrError that names the bad rows by line.
        """
        parsed: list[Parsed] = []
        line_of: dict[str, int] = {}
        problems: list[str] = []
        for line, row in self._rows:
            try:
                image_id, cells = self._check(row, line_of)
                line_of[image_id] = line
                parsed.append(parse(cells))
            except ValueError as problem:
                problems.append(f"{self._path}:{line}: {problem}")
        if problems:
            surplus = len(problems) - SHOWN_PROBLEMS
            more = f"; and {surplus} more bad rows" if surplus > 0 else ""
            raise LmrError("; ".join(problems[:SHOWN_PROBLEMS]) + more)
        return object_array(list(line_of)), parsed, np.array(list(line_of.values()), dtype=np.int64)

    def _check(self, row: list[str], line_of: dict[str, int]) -> tuple[str, dict[str, str]]:
        if len(row) != len(self._names):
            raise ValueError(f"{len(row)} cells under a header of {len(self._names)}")
        cells = dict(zip(self._names, row, strict=True))
        image_id = cells["id"].strip()
        if not image_id:
            raise ValueError("id is missing")
        if image_id in line_of:
            raise ValueError(f"id {image_id} was on line {line_of[image_id]} before")
        return image_id, cells


def object_array(values: Sequence[Any]) -> ObjArray:
    """A flat object array, also of tuples."""
    return np.fromiter(values, dtype=object, count=len(values))


def _numbered(file: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Rows with the line each begins on; empty lines are passed over."""
    reader = csv.reader(file)
    before = 0
    for row in reader:
        if row:
            yield before + 1, row
        before = reader.line_num
