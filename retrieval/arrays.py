"""Names for the array types that pass between the rooms."""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int32]
LongArray = NDArray[np.int64]
UInt8Array = NDArray[np.uint8]
BoolArray = NDArray[np.bool_]
ObjArray = NDArray[np.object_]

A = TypeVar("A", bound=NDArray[Any])


def read_only(array: A) -> A:
    """The same values as an array that refuses to be written to; the given array stays as it is."""
    view = array.view()
    view.flags.writeable = False
    return view


def object_array(values: Sequence[Any]) -> ObjArray:
    """A flat object array, also of tuples."""
    return np.fromiter(values, dtype=object, count=len(values))
