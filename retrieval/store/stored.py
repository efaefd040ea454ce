"""Descriptors of a store that stay in its file: read where they are asked for, and compared with their digests."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.arrays import BoolArray, FloatArray, LongArray, ObjArray, UInt8Array, is_run, row_numbers
from retrieval.errors import LmrError
from retrieval.files.hdf5 import pack_texts, read_error
from retrieval.files.hdf5_digests import Digests
from retrieval.store.file import damage_named
from retrieval.store.layout import DONE
from retrieval.texts import Texts

BLOCK_ROWS = 8192


@dataclass(frozen=True, slots=True)
class StoredVectors:
    """Descriptors of rows of a finished store, (n, d) as they are stored; indexed as an array is.

    image_id, state: of the whole store. offset: of its first descriptor in the file, bytes. digests: None in a store
    that carries none. identity: tells the file from one that takes its place. rows: (n,) of the store, None = all.
    """

    source: Path
    image_id: Texts
    state: UInt8Array
    dtype: np.dtype[Any]
    d: int
    offset: int
    digests: Digests | None
    identity: tuple[int, ...]
    rows: LongArray | None = None

    def __len__(self) -> int:
        return len(self.state) if self.rows is None else len(self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return len(self), self.d

    def __getitem__(self, at: Any) -> FloatArray:
        """The descriptors of these of the rows, in memory of their own.

        Raises LmrError for what is not as it was written, for zero, NaN or infinity in a row that is DONE, and where
        the file was changed since it was opened.
        """
        places = self._places(at)
        return self._read(np.atleast_1d(places)).reshape(*np.shape(places), self.d)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:] if dtype is None else self[:].astype(dtype)

    def select(self, rows: LongArray | BoolArray) -> "StoredVectors":
        """Those of some of the rows."""
        return StoredVectors(
            self.source,
            self.image_id,
            self.state,
            self.dtype,
            self.d,
            self.offset,
            self.digests,
            self.identity,
            self._places(rows),
        )

    def _places(self, at: Any) -> LongArray:
        """Rows of the store."""
        rows = row_numbers(at, len(self))
        return rows if self.rows is None else self.rows[rows]

    def _read(self, rows: LongArray) -> FloatArray:
        if not len(rows):
            return np.empty((0, self.d), self.dtype)
        if self.digests is not None:
            with damage_named(self.source):
                self.digests.require_rows(rows, self.dtype.itemsize * self.d)
        try:
            if file_identity(self.source) != self.identity:
                raise LmrError(f"{self.source} was changed while it was read; run the command again")
            in_file = np.memmap(self.source, self.dtype, "r", self.offset, (len(self.state), self.d))
        except OSError as error:
            raise read_error(self.source, error) from error
        found = np.array(in_file[rows[0] : rows[-1] + 1] if is_run(rows) else in_file[rows])
        done = np.flatnonzero(self.state[rows] == DONE)
        require_directions(found[done], self.image_id.select(rows[done]), str(self.source))
        return found


def open_vectors(path: Path, file: Any, digests: Digests | None) -> StoredVectors:
    """The descriptors of an opened store. file: its HDF5 file."""
    vectors = file["vectors"]
    return StoredVectors(
        source=path,
        image_id=pack_texts(file["image_id"], is_utf8=True),
        state=file["state"][:],
        dtype=vectors.dtype,
        d=vectors.shape[1],
        offset=vectors.id.get_offset() or 0,
        digests=digests,
        identity=file_identity(path),
    )


def file_identity(path: Path) -> tuple[int, ...]:
    """Tells a file from another one in its place, and from itself when it was changed. Raises OSError."""
    known = path.stat()
    return known.st_dev, known.st_ino, known.st_size, known.st_mtime_ns


def to_unit(vectors: FloatArray, image_id: Texts | ObjArray, source: str) -> FloatArray:
    """The descriptors (n, d) of these images (n,) in float32 and of unit length, in memory of their own.

    Raises LmrError for zero, NaN or infinity. source: the store, for the message.
    """
    unit = np.array(vectors, dtype=np.float32)
    unit /= require_directions(unit, image_id, source)[:, None]
    return unit


def require_directions(vectors: FloatArray, image_id: Texts | ObjArray, source: str) -> FloatArray:
    """The lengths (n,) float32 of descriptors (n, d). Raises LmrError for zero, NaN or infinity."""
    vectors = vectors.astype(np.float32, copy=False)
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if len(bad):
        raise LmrError(f"{source}: the descriptor of {image_id[bad[0]]} is zero or not finite; embed it again")
    return np.asarray(norms)
