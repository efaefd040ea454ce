"""FAISS as a tool: its files and its process-wide switches."""

import contextlib
import functools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from index.search.config import Storage
from retrieval.arrays import FloatArray
from retrieval.errors import LmrError
from retrieval.files.atomic import write_error
from retrieval.files.utf8_path import utf8_path

# fourcc, d, n, two unused numbers, is_trained, metric (0 = inner product); FAISS, index_write.cpp, write_index_header
_HEAD = struct.Struct("<4siqqqBi")
_UNUSED = 1 << 20
# A scalar quantiser: its type, range statistic and argument, d, bytes of a code, length of what it learnt
_QUANTISER = struct.Struct("<iifQQQ")
_QT_FP16 = 4
_CODES: dict[Storage, bytes] = {"float32": b"IxFI", "float16": b"IxSQ"}
_LENGTH = struct.Struct("<Q")

BLAS_FROM_QUERIES = 8  # batches from this size use BLAS: scripts/bench/search_threshold.py


def read_faiss(path: Path, *, is_mapped: bool) -> Any:
    """A FAISS index. is_mapped: its codes stay in the file, which several processes then share.

    FAISS reads beyond the end of a mapped file that was cut short: the size must be known to be right.
    Raises LmrError for a file that is missing or damaged.
    """
    if not path.is_file():
        raise LmrError(f"{path}: there is no such file; run lmr build-index")
    from index.search.library import faiss

    try:
        with utf8_path(path) as place:
            return faiss.read_index(place, faiss.IO_FLAG_MMAP_IFC if is_mapped else 0)
    except MemoryError:
        raise LmrError(
            f"{path}: there is not enough memory for it, or it is damaged; lmr info `verify` tells"
        ) from None
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError), path.open("rb"):
            raise LmrError(f"{path}: damaged or cut short; run lmr build-index again") from None
        raise LmrError(f"{path} cannot be read; the file itself may be whole") from error


def write_faiss(index: Any, path: Path) -> None:
    """Writes a FAISS index. Raises LmrError where that is not possible."""
    from index.search.library import faiss

    try:
        with utf8_path(path, is_new=True) as place:
            faiss.write_index(index, place)
    except OSError as error:
        raise write_error(path, error) from error
    except RuntimeError as error:
        reason = str(error).rsplit(": ", 1)[-1].strip()
        raise LmrError(f"{path}: the index cannot be written ({reason}); free space or choose another folder") from None


def is_inner_product(index: Any) -> bool:
    """Tells whether larger is nearer in this FAISS index."""
    from index.search.library import faiss

    return bool(index.metric_type == faiss.METRIC_INNER_PRODUCT)


@contextlib.contextmanager
def faiss_switches(d: int, threads: int | None) -> Iterator[None]:
    """Process-wide switches of FAISS, put back at the end; only speed depends on them.

    d: length of the vectors. threads: of the CPU, None = FAISS's own choice.
    """
    from index.search.library import faiss

    before = faiss.cvar.distance_compute_blas_threshold, faiss.omp_get_max_threads()
    faiss.cvar.distance_compute_blas_threshold = BLAS_FROM_QUERIES * (d if counts_products() else 1)
    faiss.omp_set_num_threads(before[1] if threads is None else threads)
    try:
        yield
    finally:
        faiss.cvar.distance_compute_blas_threshold = before[0]
        faiss.omp_set_num_threads(before[1])


@contextlib.contextmanager
def limited_blas(threads: int | None) -> Iterator[None]:
    """At most that many threads for matrix products of numpy, None = its own choice; put back at the end."""
    if threads is None:
        yield
        return
    import threadpoolctl

    with threadpoolctl.threadpool_limits(threads, user_api="blas"):
        yield


@functools.cache
def counts_products() -> bool:
    """True where FAISS compares its own threshold, before it is set here, with queries * d.

    Newer versions do (128,000); older ones compare theirs (20) with the number of queries.
    """
    from index.search.library import faiss

    return bool(faiss.cvar.distance_compute_blas_threshold > 1000)


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

    @property
    def header(self) -> bytes:
        """The bytes before the first row."""
        return _header(self.n, self.d, self.storage)


class RowsFile:
    """A file of rows that is written in blocks, in the format that FAISS gives them.

    The number of rows is written at the end: a file that was left before it is one of no rows.
    largest_norm: length of the longest row so far, as it is stored.
    """

    def __init__(self, file: BinaryIO, d: int, storage: Storage) -> None:
        self._file, self._d, self._storage, self._n = file, d, storage, 0
        self.largest_norm = 0.0
        file.write(_header(0, d, storage))

    def write(self, vectors: FloatArray) -> None:
        """Appends rows (n, d). Raises ValueError where the storage cannot hold them."""
        if vectors.ndim != 2 or vectors.shape[1] != self._d:
            raise ValueError(f"vectors must be (n, {self._d}), not {vectors.shape}")
        stored = as_stored(vectors, self._storage, self._n)
        self._file.write(stored.reshape(-1).data)
        self._n += len(vectors)
        if len(stored):
            self.largest_norm = max(self.largest_norm, largest_norm(stored))

    def copy(self, stored: FloatArray) -> None:
        """Appends rows (n, d) of another file of the same storage as they are."""
        if stored.ndim != 2 or stored.shape[1] != self._d or stored.dtype != np.dtype(self._storage):
            raise ValueError(f"rows must be (n, {self._d}) {self._storage}, not {stored.shape} {stored.dtype}")
        self._file.write(np.ascontiguousarray(stored).reshape(-1).data)
        self._n += len(stored)

    def finish(self) -> None:
        """Writes the number of rows."""
        self._file.seek(0)
        self._file.write(_header(self._n, self._d, self._storage))
        self._file.flush()


def as_stored(vectors: FloatArray, storage: Storage, first: int) -> FloatArray:
    """Rows (n, d) in the type that they are stored in. first: the number of the first, for the message.

    Raises ValueError for what that cannot hold.
    """
    with np.errstate(over="ignore"):
        stored: FloatArray = np.ascontiguousarray(vectors, dtype=storage)
    if not np.isfinite(stored).all():
        row = first + int(np.flatnonzero(~np.isfinite(stored).all(axis=1))[0])
        raise ValueError(f"vectors[{row}] holds NaN or infinity")
    return stored


def largest_norm(vectors: FloatArray) -> float:
    """Length of the longest of these rows, n > 0."""
    rows = vectors.astype(np.float32, copy=False)
    return float(np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64)).max())


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
