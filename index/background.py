"""How much a descriptor resembles pictures that show no landmark: c(q) of a query, b(i) of an index row.

The query's term is the score normalisation of SSCD (Pizzi et al., "A Self-Supervised Descriptor for Image Copy
Detection", CVPR 2022, section 3.4); the row's is that of the first place of Kaggle's Landmark Recognition 2020.
"""

import numpy as np

from retrieval.arrays import FloatArray, LongArray
from retrieval.errors import LmrError

BLOCK_BYTES = 1 << 26  # of similarities held at once


def background_similarity(
    vectors: FloatArray, background: FloatArray, m: int, *, own_row: LongArray | None = None
) -> FloatArray:
    """Mean of each vector's m largest similarities to the background, (n,) float32.

    vectors: (n, d), background: (b, d), unit length. Where the background has fewer than m rows, the mean of those
    there are. own_row: (n,) the background row that is the vector itself and is left out, -1 = none.
    Raises ValueError for an empty background: without one there is no such similarity. LmrError where leaving the
    vector itself out leaves nothing.
    """
    if m < 1:
        raise ValueError(f"m must be at least 1, not {m}")
    if len(background) == 0:
        raise ValueError("the background has no rows")
    if vectors.ndim != 2 or background.ndim != 2 or vectors.shape[1] != background.shape[1]:
        raise ValueError(f"vectors {vectors.shape} and background {background.shape} must be (n, d) and (b, d)")
    if own_row is not None and len(background) == 1 and np.any(own_row == 0):
        raise LmrError("the only background picture cannot be compared with itself; add pictures without a landmark")
    columns = np.ascontiguousarray(background, dtype=np.float32).T
    mean = np.empty(len(vectors), dtype=np.float32)
    step = max(1, BLOCK_BYTES // (4 * len(background)))
    for start in range(0, len(vectors), step):
        part = slice(start, start + step)
        similarity = vectors[part].astype(np.float32, copy=False) @ columns
        mean[part] = _mean_of_largest(similarity, m, None if own_row is None else own_row[part])
    return mean


def _mean_of_largest(similarity: FloatArray, m: int, own_row: LongArray | None) -> FloatArray:
    """Mean of the m largest of each line of (n, b); own_row: (n,) column that is left out, -1 = none."""
    n_there = np.full(len(similarity), similarity.shape[1])
    if own_row is not None:
        left_out = np.flatnonzero(own_row >= 0)
        similarity[left_out, own_row[left_out]] = -np.inf
        n_there[left_out] -= 1
    m = min(m, similarity.shape[1])
    largest = -np.partition(-similarity, m - 1, axis=1)[:, :m]
    mean: FloatArray = np.where(np.isfinite(largest), largest, 0).sum(axis=1) / np.minimum(m, n_there)
    return mean
