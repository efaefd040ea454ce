"""Tables with one row per id, and the columns of a table that a manifest leaves out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from retrieval.arrays import LongArray, ObjArray
from retrieval.data.csv_table import BadRows, CsvTable, Table
from retrieval.data.labels import BLANK_WORDS, compose
from retrieval.errors import LmrError

_BLANKS = BLANK_WORDS | {""}
_ID_NAMES = ("id", "image_id")
Parsed = TypeVar("Parsed")


@dataclass(frozen=True, slots=True)
class Blanks:
    """n_rows: of the table. blanks: cells without content by column, in the order of the header."""

    n_rows: int
    blanks: Mapping[str, int]


def count_blanks(table: Table) -> Blanks:
    """Counts the blank cells of each column. Rows with another number of cells than the header are an error before."""
    counts = [0] * len(table.header)
    n_rows = 0
    for rows in table.batches():
        n_rows += len(rows)
        for position, cells in enumerate(zip(*rows, strict=True)):
            counts[position] += sum(map(_BLANKS.__contains__, cells))
    named = dict(zip(table.header, counts, strict=True))
    for images in table.image_columns:
        del named[images]
    return Blanks(n_rows, named)


def read_column(table: Table, name: str) -> ObjArray | None:
    """(n,) the texts of the column of that name, whatever its case; None when there is none."""
    position = column_position(table, name)
    if position is None:
        return None
    return np.array([row[position] for rows in table.batches() for row in rows], dtype=object)


def column_position(table: Table, name: str) -> int | None:
    """Position of the column of that name, whatever its case. Raises LmrError when there are two."""
    found = [position for position, given in enumerate(table.header) if given.lower() == name.lower()]
    if len(found) > 1:
        raise LmrError(f"{table.source}: there are {len(found)} columns {name}; keep one of them")
    return found[0] if found else None


class IdTable:
    """The rows of a CSV file with an `id` column. Raises LmrError as `CsvTable`."""

    def __init__(self, path: str | Path) -> None:
        self._table = CsvTable(path)
        names = ["id" if name.lower() in _ID_NAMES else name.lower() for name in self._table.header]
        self.header = ",".join(self._table.header)
        self.notes = self._table.notes
        self.columns = frozenset(names) if len(set(names)) == len(names) else frozenset()

    def read(
        self, columns: Sequence[str], parse: Callable[[Sequence[str]], Parsed]
    ) -> tuple[ObjArray, list[Parsed], LongArray]:
        """The id of each row, what `parse` made of its cells, and the line it begins on.

        columns: names of the cells that `parse` gets, whatever their case in the file; it raises ValueError with the
        problem of a row. Raises LmrError that names the bad rows by line, and for a file without rows.
        """
        table, bad = self._table, BadRows(self._table.source)
        id_at = next(at for at, name in enumerate(table.header) if name.lower() in _ID_NAMES)
        at = [column_position(table, name) or 0 for name in columns]
        parsed: list[Parsed] = []
        line_of: dict[str, int] = {}
        for line, row in table.numbered(bad):
            image_id = compose(row[id_at].strip())
            try:
                if not image_id:
                    raise ValueError("id is missing")
                if image_id in line_of:
                    raise ValueError(f"id {image_id} is also on line {line_of[image_id]}")
                line_of[image_id] = line
                parsed.append(parse([row[position] for position in at]))
            except ValueError as problem:
                bad.add(line, str(problem))
        bad.refuse_any()
        if not line_of:
            raise LmrError(f"{table.source} holds a header and no rows; there is nothing to score")
        ids: ObjArray = np.array(list(line_of), dtype=object)
        return ids, parsed, np.array(list(line_of.values()), dtype=np.int64)
