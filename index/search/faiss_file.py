"""The file format of FAISS for rows that are kept as they are: written in blocks, and known to be whole."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from index.search.base import Storage
from retrieval.arrays import FloatArray

# fourcc, d, n, two unused numbers, is_trained, metric (0 = inner product); FAISS, index_write.cpp, write_index_header
_HEAD = struct.Struct("<4siqqqBi")
_UNUSED = 1 << 20
# A scalar quantiser: its type, range statistic and argument, d, bytes of a code, length of what it learnt
_QUANTISER = struct.Struct("<iifQQQ")
_QT_FP16 = 4
_CODES: dict[Storage, bytes] = {"float32": b"IxFI", "float16": b"IxSQ"}
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Outline:
    """What the file says of its rows. start: bytes before the first."""

    storage: Storage
    n: int
    d: int
    start: int

    @property
    def n_bytes(self) -> int:
        """Size of the whole file."""
        return self.start + self.n * self.d * np.dtype(self.storage).itemsize


class RowsFile:
    """A file of rows that is written in blocks, in the format that FAISS gives them.

    The number of rows is written at the end: a file that was left before it is one of no rows.
    """

    def __init__(self, file: BinaryIO, d: int, storage: Storage) -> None:
        self._file, self._d, self._storage, self._n = file, d, storage, 0
        file.write(_header(0, d, storage))

    def write(self, vectors: FloatArray) -> None:
        """Appends rows (n, d). Raises ValueError where the storage cannot hold them."""
        if vectors.ndim != 2 or vectors.shape[1] != self._d:
            raise ValueError(f"vectors must be (n, {self._d}), not {vectors.shape}")
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(vectors, dtype=self._storage)
        if not np.isfinite(stored).all():
            row = self._n + int(np.flatnonzero(~np.isfinite(stored).all(axis=1))[0])
            raise ValueError(f"vectors[{row}] holds NaN or infinity")
        self._file.write(stored.reshape(-1).data)
        self._n += len(vectors)

    def finish(self) -> None:
        """Writes the number of rows."""
        self._file.seek(0)
        self._file.write(_header(self._n, self._d, self._storage))
        self._file.flush()


def read_outline(path: Path) -> Outline | None:
    """What a file of rows says of them, None for any other file. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(_HEAD.size + _QUANTISER.size + _LENGTH.size)
    if len(head) < _HEAD.size + _LENGTH.size:
        return None
    code, d, n, *_, metric = _HEAD.unpack_from(head)
    if code not in _CODES.values() or metric or d < 1 or n < 0:
        return None
    storage: Storage = "float32" if code == _CODES["float32"] else "float16"
    expected = _header(n, d, storage)
    return Outline(storage, n, d, len(expected)) if head.startswith(expected) else None


def is_whole(path: Path) -> bool:
    """Tells whether this is a file of rows that has the size it says."""
    try:
        outline = read_outline(path)
        return outline is not None and path.stat().st_size == outline.n_bytes
    except OSError:
        return False


def _header(n: int, d: int, storage: Storage) -> bytes:
    head = _HEAD.pack(_CODES[storage], d, n, _UNUSED, _UNUSED, 1, 0)
    if storage == "float32":
        return head + _LENGTH.pack(n * d)
    return head + _QUANTISER.pack(_QT_FP16, 0, 0.0, d, 2 * d, 0) + _LENGTH.pack(2 * n * d)
