"""Descriptors of a store that are nearly the same: groups of them, exactly, comparing a block with a block."""

import numpy as np

from retrieval.arrays import LongArray
from retrieval.data.near_duplicates import components
from retrieval.progress import SILENT, Progress
from retrieval.store.blocks import StoreBlocks

_QUERIES_AT_ONCE = 2048  # 64 MiB of similarities with a block of the store
_PAIRS_AT_ONCE = 1 << 22


def similar_groups(
    store: StoreBlocks,
    rows: LongArray,
    min_similarity: float,
    asked: LongArray | None = None,
    progress: Progress = SILENT,
) -> LongArray:
    """Numbers (n,) of the rows' groups, when rows of a cosine similarity of min_similarity or more are joined.

    rows: (n,) of the store. asked: positions in rows, increasing, that are compared with all of them; None: all.
    The work grows with n times the asked ones; the descriptors stay in the file.
    Raises LmrError for descriptors that are zero or not finite.
    """
    n = len(rows)
    positions = np.arange(n) if asked is None else asked
    joined = np.zeros((0, 2), dtype=np.int64)
    found: list[LongArray] = []
    progress.begin("comparing", len(positions), "descriptors")
    for first in range(0, len(positions), _QUERIES_AT_ONCE):
        part = positions[first : first + _QUERIES_AT_ONCE]
        queries = store.vectors(rows[part])
        start = first if asked is None else 0  # earlier ones have been compared with these
        for block, vectors in store.blocks(rows[start:]):
            one, other = np.nonzero(queries @ vectors.T >= min_similarity)
            found.append(np.stack([part[one], start + other], axis=1))
            start += len(block)
            if sum(map(len, found)) > _PAIRS_AT_ONCE:
                joined, found = _chain(np.concatenate([joined, *found]), n), []
        progress.add(len(part))
    progress.end()
    return components(np.concatenate([joined, *found]), n)


def _chain(pairs: LongArray, n: int) -> LongArray:
    """At most n - 1 pairs that join the same rows."""
    group = components(pairs, n)
    order = np.argsort(group, kind="stable")
    same = group[order[:-1]] == group[order[1:]]
    return np.stack([order[:-1][same], order[1:][same]], axis=1)
