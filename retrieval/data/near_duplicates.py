"""Images that look the same: pairs of perceptual hashes that differ in few bits, exactly and without all pairs."""

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from retrieval.arrays import LongArray
from retrieval.data.request import NEAR_BITS

HASH_BITS = 64
_PAIRS_AT_ONCE = 1 << 22

HashArray = NDArray[np.uint64]


def near_pairs(hashes: HashArray, max_bits: int = NEAR_BITS) -> LongArray:
    """Pairs of rows (m, 2), first < second, sorted, whose hashes (n,) uint64 differ in at most max_bits bits.

    Exact: of max_bits + 1 bands that the 64 bits are cut into, two such hashes have at least one in common (Norouzi
    et al., Fast search in Hamming space with multi-index hashing, 2012), so only rows that share a band are compared.
    Equal hashes are joined in a chain, each with the next, not each with each.
    """
    if not 0 <= max_bits < HASH_BITS:
        raise ValueError(f"max_bits must lie in [0, {HASH_BITS}), got {max_bits}")
    values, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    found = [np.zeros((0, 2), dtype=np.int64)]
    edges = np.linspace(0, HASH_BITS, max_bits + 2).astype(np.uint64)
    for low, high in itertools.pairwise(edges):
        band = (values >> low) & np.uint64((1 << int(high - low)) - 1)
        for one, other in _same(band):
            near = np.bitwise_count(values[one] ^ values[other]) <= max_bits
            found.append(np.stack([first[one[near]], first[other[near]]], axis=1))
    order = np.argsort(group, kind="stable")
    chained = group[order[1:]] == group[order[:-1]]
    found.append(np.stack([order[:-1][chained], order[1:][chained]], axis=1))
    pairs = np.sort(np.concatenate(found), axis=1)
    return np.unique(pairs, axis=0).astype(np.int64)


def components(pairs: LongArray, n: int) -> LongArray:
    """(n,) the number of the group of each row, when the pairs (m, 2) are joined; groups by their lowest row."""
    from scipy.sparse import coo_array  # here, so that the help of commands does not wait for it
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return np.asarray(connected_components(edges, directed=False)[1], dtype=np.int64)


def _same(band: HashArray) -> Iterator[tuple[LongArray, LongArray]]:
    """All pairs of positions with equal values, in blocks of bounded size."""
    order = np.argsort(band, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], band[order[1:]] != band[order[:-1]]]))
    end = np.repeat(np.append(starts[1:], len(band)), np.diff(np.append(starts, len(band))))
    n_after = end - np.arange(len(band)) - 1  # positions after each one in its run
    total = np.concatenate([[0], np.cumsum(n_after)])
    block = 0
    while block < len(band):
        stop = max(block + 1, int(np.searchsorted(total, total[block] + _PAIRS_AT_ONCE, side="right")) - 1)
        counts = n_after[block:stop]
        one = np.repeat(np.arange(block, stop), counts)
        other = one + 1 + np.arange(len(one)) - np.repeat(total[block:stop] - total[block], counts)
        yield order[one], order[other]
        block = stop
