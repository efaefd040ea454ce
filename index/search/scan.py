"""Batches of vectors compared with many others by matrix products.

Exact search keeps the maximum of each group of GROUP rows of a block, one number a query: so the products of a block
are read once and forgotten, and what is selected from is small. The rows of the groups with the largest maxima are
proposed; no row of another group scores above the bound that is given with them.
"""

from collections.abc import Callable, Iterator

import numpy as np

from retrieval.arrays import FloatArray, LongArray

GROUP = 32  # rows whose maximum is kept together
MORE_GROUPS = (
    4  # proposed beyond k: the k best rows lie in the k groups of the largest maxima, but for rounding and ties
)
ROWS = 1 << 13  # of a block, a multiple of GROUP: its products with 1,024 queries are 32 MiB
QUERIES = 1 << 10  # asked together
CHOSEN_FROM = 1 << 21  # maxima that are put in order together, which takes 12 bytes for each


def propose_groups(
    queries: FloatArray, n_rows: int, blocks: Callable[[int], Iterator[tuple[int, FloatArray]]], n_groups: int
) -> tuple[LongArray, FloatArray]:
    """Rows (q, n_groups * GROUP), -1 = none, and (q,) float32 the most that any other row scores, before rounding.

    queries: (q, d) float32. blocks: gives (first row, vectors float32) of successive blocks of that many rows.
    """
    n_of_block = -(-min(ROWS, n_rows) // GROUP)
    n_all = sum(-(-min(ROWS, n_rows - start) // GROUP) for start in range(0, n_rows, ROWS))
    maxima = np.empty((len(queries), n_all), dtype=np.float32)
    products = np.empty((len(queries), n_of_block * GROUP), dtype=np.float32)
    done = 0
    for _, block in blocks(ROWS):
        n = -(-len(block) // GROUP)
        found = products[:, : n * GROUP]
        found[:, len(block) :] = -np.inf
        np.matmul(queries, block.T, out=found[:, : len(block)])
        np.max(found.reshape(len(queries), GROUP, n), axis=1, out=maxima[:, done : done + n])
        done += n
    if n_groups >= n_all:
        chosen, bound = np.broadcast_to(np.arange(n_all), (len(queries), n_all)), np.full(len(queries), -np.inf)
    else:
        chosen, bound = _largest(maxima, n_groups)
    return _rows_of(chosen, n_rows), bound.astype(np.float32)


def _largest(maxima: FloatArray, n: int) -> tuple[LongArray, FloatArray]:
    """(q, n) places of the n largest of each line, in no order, and (q,) the next one; some lines at a time."""
    chosen = np.empty((len(maxima), n), dtype=np.int64)
    bound = np.empty(len(maxima), dtype=np.float32)
    step = max(1, CHOSEN_FROM // maxima.shape[1])
    for start in range(0, len(maxima), step):
        part = maxima[start : start + step]
        order = np.argpartition(-part, n, axis=1)[:, : n + 1]
        bound[start : start + step] = np.take_along_axis(part, order[:, n:], axis=1)[:, 0]
        chosen[start : start + step] = order[:, :n]
    return chosen, bound


def _rows_of(groups: LongArray, n_rows: int) -> LongArray:
    """Rows (q, g * GROUP) of groups (q, g), -1 beyond the end: member i of group j of a block is row j + i * n."""
    per_block = ROWS // GROUP
    start = groups // per_block * ROWS
    n = np.minimum(-(-(n_rows - start) // GROUP), per_block)
    rows = (start + groups % per_block)[..., None] + np.arange(GROUP) * n[..., None]
    inside = rows < np.minimum(start + ROWS, n_rows)[..., None]
    return np.where(inside, rows, -1).reshape(len(groups), -1)


def nearest_centroid(vectors: FloatArray, centroids: FloatArray) -> LongArray:
    """(n,) int64: the centroid with the largest inner product, the first of equal ones; vectors: (n, d)."""
    nearest = np.empty(len(vectors), dtype=np.int64)
    for start in range(0, len(vectors), ROWS):
        part = slice(start, start + ROWS)
        nearest[part] = np.argmax(vectors[part].astype(np.float32, copy=False) @ centroids.T, axis=1)
    return nearest
