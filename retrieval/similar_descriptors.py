"""Descriptors that are nearly the same: groups of them, exactly, by comparing all with all in blocks."""

from collections.abc import Callable

import numpy as np

from retrieval.arrays import FloatArray, LongArray
from retrieval.near_duplicates import components

_BLOCK_ROWS, _BLOCK_COLUMNS = 1024, 16384  # 64 MiB of similarities at a time
_PAIRS_AT_ONCE = 1 << 22


def similar_groups(
    vectors: FloatArray, min_similarity: float, on_rows: Callable[[int], None] = lambda _: None
) -> LongArray:
    """(n,) the number of each row's group, when rows of an inner product of min_similarity or more are joined.

    vectors: (n, d), of unit length. on_rows: is called with the number of rows just compared. The work grows with n
    squared; it takes memory for the vectors in float32 once more.
    """
    n = len(vectors)
    unit = np.ascontiguousarray(vectors, dtype=np.float32)
    joined = np.zeros((0, 2), dtype=np.int64)
    found: list[LongArray] = []
    for start in range(0, n, _BLOCK_ROWS):
        rows = unit[start : start + _BLOCK_ROWS]
        for column in range(start, n, _BLOCK_COLUMNS):
            one, other = np.nonzero(rows @ unit[column : column + _BLOCK_COLUMNS].T >= min_similarity)
            found.append(np.stack([one + start, other + column], axis=1))
            if sum(map(len, found)) > _PAIRS_AT_ONCE:
                joined, found = _chain(np.concatenate([joined, *found]), n), []
        on_rows(len(rows))
    return components(np.concatenate([joined, *found]), n)


def _chain(pairs: LongArray, n: int) -> LongArray:
    """At most n - 1 pairs that join the same rows."""
    group = components(pairs, n)
    order = np.argsort(group, kind="stable")
    same = group[order[:-1]] == group[order[1:]]
    return np.stack([order[:-1][same], order[1:][same]], axis=1)
