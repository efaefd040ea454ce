"""Copies of one picture: equal files, nearly equal perceptual hashes, nearly equal descriptors."""

import numpy as np

from retrieval.arrays import BoolArray, FloatArray, LongArray, ObjArray
from retrieval.near_duplicates import HashArray, components, near_pairs

# Plain and nearly plain pictures have equal hashes whatever they show; their descriptors then have to agree too.
HASH_SIMILARITY = 0.5
_PAIRS_AT_ONCE = 4096  # whose descriptors are held at a time


def equal_files(sha256: ObjArray) -> LongArray:
    """Pairs of rows (m, 2) with equal digests (n,), each row with the first one."""
    _, first, group = np.unique(sha256.astype(str), return_index=True, return_inverse=True)
    rows = np.arange(len(sha256))
    others = first[group] != rows
    return np.stack([first[group][others], rows[others]], axis=1).astype(np.int64)


def equal_looks(hashes: HashArray, max_bits: int, vectors: FloatArray) -> LongArray:
    """Pairs of rows (m, 2) whose hashes (n,) nearly agree, and their descriptors (n, d) too where both have one.

    A descriptor of zeros stands for none.
    """
    pairs = near_pairs(hashes, max_bits)
    alike = [_agree(vectors, pairs[i : i + _PAIRS_AT_ONCE]) for i in range(0, len(pairs), _PAIRS_AT_ONCE)]
    kept: LongArray = pairs[np.concatenate([np.zeros(0, dtype=np.bool_), *alike])]
    return kept


def copies_to_leave_out(pairs: LongArray, preference: LongArray) -> LongArray:
    """(n,) of each row the row that is kept in its place, -1 where the row itself is kept.

    pairs: (m, 2) of copies. preference: (n,) all different; of a group of copies the row with the lowest is kept.
    """
    n = len(preference)
    group = components(pairs, n)
    order = np.lexsort((preference, group))
    first = order[np.searchsorted(group[order], np.arange(group.max(initial=-1) + 1))]
    kept = first[group]
    return np.where(kept == np.arange(n), -1, kept).astype(np.int64)


def _agree(vectors: FloatArray, pairs: LongArray) -> BoolArray:
    """(m,) whether the descriptors of the pairs (m, 2) agree, or one has none."""
    one, other = vectors[pairs[:, 0]], vectors[pairs[:, 1]]
    alike: BoolArray = np.einsum("md,md->m", one, other) >= HASH_SIMILARITY
    return alike | ~one.any(axis=1) | ~other.any(axis=1)
