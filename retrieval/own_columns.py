"""A user's own columns: what a table says of its images beyond what lmr reads, kept as text, by name."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from retrieval.arrays import BoolArray, LongArray
from retrieval.data.header.names import LATITUDE as LATITUDE  # the names under which coordinates are kept
from retrieval.data.header.names import LONGITUDE as LONGITUDE
from retrieval.files.digest import update_json
from retrieval.texts import Texts

OwnColumns = Mapping[str, Texts]

_NAMES = "own_columns"  # the dataset with the names, and before the number of a column its own


def require_rows(columns: OwnColumns, n: int) -> None:
    """Raises ValueError for a column of another number of rows."""
    for name, texts in columns.items():
        if len(texts) != n:
            raise ValueError(f"column {name} must have {n} rows, got {len(texts)}")


def select_columns(columns: OwnColumns, rows: LongArray | BoolArray) -> OwnColumns:
    """The columns of these rows."""
    return {name: texts.select(rows) for name, texts in columns.items()}


def join_columns(parts: Sequence[tuple[OwnColumns, int]]) -> OwnColumns:
    """Columns of all parts one behind the other, by the order in which their names appear.

    parts: columns, and how many rows they have; a column that one of them does not have is blank there.
    """
    names = dict.fromkeys(name for columns, _ in parts for name in columns)
    return {name: Texts.joined([_or_blank(columns, name, n) for columns, n in parts]) for name in names}


def same_columns(one: OwnColumns, other: OwnColumns) -> bool:
    """Tells whether both say the same of the same rows."""
    return one.keys() == other.keys() and all(texts == other[name] for name, texts in one.items())


def digest_of_columns(columns: OwnColumns) -> str:
    """sha256 (hex) over their names and texts; '' where there are none."""
    if not columns:
        return ""
    total = hashlib.sha256()
    update_json(total, dict(columns))
    return total.hexdigest()


def row_columns(columns: OwnColumns, row: int) -> dict[str, str]:
    """What they say of one row."""
    return {name: texts[row] for name, texts in columns.items()}


def write_columns(file: Any, columns: OwnColumns) -> None:
    """Puts them into an HDF5 file that is being made; nothing where there are none."""
    if not columns:
        return
    from retrieval.files.hdf5 import write_column  # not at the top: it imports h5py, which help does not need

    write_column(file, _NAMES, Texts.of(columns))
    for number, texts in enumerate(columns.values()):
        write_column(file, f"{_NAMES}_{number}", texts)


def read_columns(file: Any, n: int) -> OwnColumns:
    """Those that `write_columns` put into a file, which stay in it. Raises ValueError where they are not of n rows."""
    if _NAMES not in file:
        return {}
    from retrieval.files.hdf5 import read_column

    names = read_column(file, _NAMES)
    return {name: read_column(file, f"{_NAMES}_{number}", n) for number, name in enumerate(names)}


def _or_blank(columns: OwnColumns, name: str, n: int) -> Texts:
    found = columns.get(name)
    return Texts(np.zeros(0, np.uint8), np.zeros(n, np.int64)) if found is None else found
