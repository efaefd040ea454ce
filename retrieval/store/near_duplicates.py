"""Descriptors of a store that are nearly the same: groups of them, exactly, comparing a block with a block."""

from collections.abc import Iterator

import numpy as np

from retrieval.arrays import LongArray
from retrieval.data.facts_shares import Pieces
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
    pieces: Pieces | None = None,
) -> LongArray:
    """Numbers (n,) of the rows' groups, when rows of a cosine similarity of min_similarity or more are joined.

    rows: (n,) of the store. asked: positions in rows, increasing, that are compared with all of them; None: all.
    pieces: blocks that it has are not compared again. The work grows with n times the asked ones; the
    descriptors stay in the file.
    Raises LmrError for descriptors that are zero or not finite.
    """
    n = len(rows)
    numbers = range(n_blocks(n if asked is None else len(asked)))
    joined = np.zeros((0, 2), dtype=np.int64)
    found: list[LongArray] = []
    for pairs in compared(store, rows, min_similarity, asked, numbers, progress, pieces):
        found.append(pairs)
        if sum(map(len, found)) > _PAIRS_AT_ONCE:
            joined, found = _chain(np.concatenate([joined, *found]), n), []
    return components(np.concatenate([joined, *found]), n)


def n_blocks(n_asked: int) -> int:
    """Blocks that so many asked rows are compared in."""
    return -(-n_asked // _QUERIES_AT_ONCE)


def compared(
    store: StoreBlocks,
    rows: LongArray,
    min_similarity: float,
    asked: LongArray | None,
    numbers: range,
    progress: Progress = SILENT,
    pieces: Pieces | None = None,
) -> Iterator[LongArray]:
    """Pairs of positions (m, 2) that join what each of some blocks of the asked rows joins, as of `similar_groups`.

    numbers: of the blocks.
    """
    positions = np.arange(len(rows)) if asked is None else asked
    parts = [positions[number * _QUERIES_AT_ONCE : (number + 1) * _QUERIES_AT_ONCE] for number in numbers]
    progress.begin("comparing", sum(map(len, parts)), "descriptors")
    for number, part in zip(numbers, parts, strict=True):
        known = None if pieces is None else pieces.read(number)
        if known is None:
            start = number * _QUERIES_AT_ONCE if asked is None else 0  # earlier ones have been compared with these
            pairs = _compare(store, rows, min_similarity, part, start)
            if pieces is not None:
                pairs = _chain(pairs, len(rows))
                pieces.write(number, pairs.astype("<i8").tobytes())
        else:
            pairs = np.frombuffer(known, "<i8").astype(np.int64).reshape(-1, 2)
        yield pairs
        progress.add(len(part))
    progress.end()


def _compare(store: StoreBlocks, rows: LongArray, min_similarity: float, part: LongArray, start: int) -> LongArray:
    """Pairs of the positions of a part with those from a start on."""
    queries = store.vectors(rows[part])
    joined, found = np.zeros((0, 2), dtype=np.int64), list[LongArray]()
    for block, vectors in store.blocks(rows[start:]):
        one, other = np.nonzero(queries @ vectors.T >= min_similarity)
        found.append(np.stack([part[one], start + other], axis=1))
        start += len(block)
        if sum(map(len, found)) > _PAIRS_AT_ONCE:
            joined, found = _chain(np.concatenate([joined, *found]), len(rows)), []
    return np.concatenate([joined, *found])


def _chain(pairs: LongArray, n: int) -> LongArray:
    """At most n - 1 pairs that join the same rows."""
    group = components(pairs, n)
    order = np.argsort(group, kind="stable")
    same = group[order[:-1]] == group[order[1:]]
    return np.stack([order[:-1][same], order[1:][same]], axis=1)
