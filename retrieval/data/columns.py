"""What a table holds beside the columns of a manifest: blank cells by column, and single further columns."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from retrieval.arrays import ObjArray
from retrieval.data.csv_table import Table
from retrieval.data.labels import BLANK_WORDS
from retrieval.errors import LmrError

_BLANKS = BLANK_WORDS | {""}


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
    for pictures in table.picture_columns:
        del named[pictures]
    return Blanks(n_rows, named)


def read_column(table: Table, name: str) -> ObjArray | None:
    """(n,) the texts of the column of that name, whatever its case; None when there is none."""
    position = column_position(table, name)
    if position is None:
        return None
    return np.array([row[position] for rows in table.batches() for row in rows], dtype=object)


def column_position(table: Table, name: str) -> int | None:
    """Where the column of that name is, whatever its case. Raises LmrError when there are two."""
    found = [position for position, given in enumerate(table.header) if given.lower() == name.lower()]
    if len(found) > 1:
        raise LmrError(f"{table.source}: there are {len(found)} columns {name}; keep one of them")
    return found[0] if found else None
