"""Neighbours and the protocol of everything that finds them."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from index.search.config import Storage
from retrieval.arrays import FloatArray, LongArray, read_only

HALVES = 1 << 15  # float16 numbers made float32 at a time: 128 KiB of those stay in the cache of a core
MARGIN = 10  # rows fetched beyond k; on 200,000 random rows none of 256 queries then needs a second search

_EXPONENT = np.int16(0x7C00)  # bits of a float16
# Bits of a float32 that a float16 has: the sign, 5 of the exponent, 10 of the fraction.
_OF_HALF = np.int32(-0x70002000)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The best rows of each query, best first; rows -1 and scores -inf where there were fewer than k.

    rows: (q, k) int64; scores: (q, k) float32. Equal scores are ordered by lower row.
    """

    rows: LongArray
    scores: FloatArray

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or self.rows.shape != self.scores.shape:
            raise ValueError(f"rows {self.rows.shape} and scores {self.scores.shape} must be equal (q, k)")
        if self.rows.dtype != np.int64 or self.scores.dtype != np.float32:
            raise ValueError(f"rows and scores must be int64 and float32, not {self.rows.dtype}, {self.scores.dtype}")
        object.__setattr__(self, "rows", read_only(self.rows))
        object.__setattr__(self, "scores", read_only(self.scores))

    @property
    def n_queries(self) -> int:
        """Number of queries, q."""
        return len(self.rows)

    @property
    def k(self) -> int:
        """Neighbours of each query, padding among them."""
        return int(self.rows.shape[1])

    def ordered(self, order: LongArray) -> "Neighbours":
        """The same neighbours of each query in another order, (q, k) places."""
        return Neighbours(np.take_along_axis(self.rows, order, axis=1), np.take_along_axis(self.scores, order, axis=1))


class SearchIndex(Protocol):
    """Rows among which the nearest are found.

    Kinds differ only in which rows they propose: scores are always computed from the stored rows, in one float32
    path, and equal ones are ordered by lower row.
    """

    @property
    def d(self) -> int:
        """Length of the vectors."""

    @property
    def storage(self) -> Storage:
        """Storage dtype of the rows."""

    def __len__(self) -> int: ...

    def vectors(self, rows: LongArray) -> FloatArray:
        """The stored vectors of these rows, (..., d) float32."""

    def search(self, queries: FloatArray, k: int) -> Neighbours:
        """The k rows with the largest inner product for each query; queries: (q, d) float.

        Raises ValueError for another d, NaN or infinity, or k < 1.
        """

    def choose(self, queries: FloatArray, proposed: LongArray, k: int) -> Neighbours:
        """The best k of the rows that are proposed for each query, (q, c) with -1 = none and c >= k."""


def checked_queries(queries: FloatArray, d: int, k: int) -> FloatArray:
    """The queries (q, d) as contiguous float32. Raises ValueError for another d, NaN or infinity, or k < 1."""
    if queries.ndim != 2 or queries.shape[1] != d:
        raise ValueError(f"queries must be (q, {d}), not {queries.shape}")
    bad = np.flatnonzero(~np.isfinite(queries).all(axis=1))
    if len(bad):
        raise ValueError(f"queries[{bad[0]}] holds NaN or infinity")
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    return np.ascontiguousarray(queries, dtype=np.float32)


def scores_of(queries: FloatArray, vectors: FloatArray) -> FloatArray:
    """Inner products of each query (q, d) with its own candidates (q, c, d), (q, c) float32: the one path of scores."""
    scores: FloatArray = np.einsum("qd,qcd->qc", queries, vectors)
    return scores


def to_float32(stored: FloatArray) -> FloatArray:
    """Stored vectors (..., d) as float32.

    The bits of a float16, spread as a float32 has them, are its value times 2^-112, exactly; multiplying that back
    takes a third of the time of numpy's own conversion.
    """
    if stored.dtype != np.float16 or not _keeps_small_numbers():
        return stored.astype(np.float32, copy=False)
    halves = np.ascontiguousarray(stored).reshape(-1).view(np.int16)
    made = np.empty(len(halves), dtype=np.float32)
    for start in range(0, len(halves), HALVES):
        half, whole = halves[start : start + HALVES], made[start : start + HALVES]
        if (half & _EXPONENT).max() == _EXPONENT:  # NaN or infinity
            whole[:] = half.view(np.float16)
            continue
        bits = whole.view(np.int32)
        np.copyto(bits, half)
        bits <<= 13
        bits &= _OF_HALF
        whole *= np.float32(2.0**112)
    return made.reshape(stored.shape)


def _keeps_small_numbers() -> bool:
    """False where this thread takes float32 numbers below 2^-126 for 0, as some libraries make it."""
    return bool(np.array([1], np.int32).view(np.float32)[0] * np.float32(2.0**112) > 0)


def best(rows: LongArray, scores: FloatArray, k: int) -> tuple[LongArray, FloatArray]:
    """The k best of each line, score descending, then row ascending."""
    order = np.lexsort((rows, -scores), axis=-1)[:, :k]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)


def step_of(n_numbers: int, block_bytes: int) -> int:
    """Number of things of that many float32 numbers each that fit into one block."""
    return max(1, block_bytes // (4 * max(1, n_numbers)))
