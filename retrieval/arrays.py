"""Names for the array types that pass between the rooms."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int32]
LongArray = NDArray[np.int64]
UInt8Array = NDArray[np.uint8]
BoolArray = NDArray[np.bool_]
ObjArray = NDArray[np.object_]


class Matrix(Protocol):
    """Vectors (n, d) that are read where they are asked for; an array is one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: Any, /) -> Any:
        """Those of these rows: a slice, or an array of row numbers."""


A = TypeVar("A", bound=NDArray[Any])


def read_only(array: A) -> A:
    """The same values as an array that refuses to be written to; the given array stays as it is."""
    view = array.view()
    view.flags.writeable = False
    return view


def object_array(values: Sequence[Any]) -> ObjArray:
    """A flat object array, also of tuples."""
    return np.fromiter(values, dtype=object, count=len(values))


def row_numbers(at: Any, n: int) -> LongArray:
    """The rows that a slice, a mask or numbers mean in an array of n rows, from 0 up. Raises IndexError."""
    if isinstance(at, slice):
        return np.arange(*at.indices(n))
    rows = np.asarray(at)
    if rows.dtype == np.bool_:
        if rows.shape != (n,):
            raise IndexError(f"a mask of {rows.shape} does not fit {n:,} rows")
        return np.flatnonzero(rows)
    rows = rows.astype(np.int64, copy=False)
    if rows.size and not (-n <= rows.min() and rows.max() < n):
        raise IndexError(f"rows {rows.min():,} to {rows.max():,} do not lie in {n:,}")
    return np.where(rows < 0, rows + n, rows)


def is_run(rows: LongArray) -> bool:
    """Tells whether each row follows the one before."""
    return bool(len(rows)) and bool(rows[-1] - rows[0] == len(rows) - 1) and bool((np.diff(rows) == 1).all())
