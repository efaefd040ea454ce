"""CSV files with one row per id, such as submissions and solutions: every row parsed, bad ones named by their line."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from retrieval.arrays import LongArray, ObjArray
from retrieval.data.columns import column_position
from retrieval.data.csv_table import BadRows, CsvTable
from retrieval.data.labels import compose
from retrieval.errors import LmrError

_ID_NAMES = ("id", "image_id")

Parsed = TypeVar("Parsed")


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
