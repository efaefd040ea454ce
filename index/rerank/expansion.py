"""Rows and queries that borrow from their neighbours: expansion, augmentation and scoring again."""

import numpy as np

from index.rerank.config import Refinement
from index.search.base import Neighbours, SearchIndex
from retrieval.arrays import FloatArray, LongArray

BLOCK_BYTES = 1 << 26  # of neighbours' vectors held at once


def refined_search(
    index: SearchIndex, queries: FloatArray, k: int, refinement: Refinement
) -> tuple[Neighbours, FloatArray]:
    """The best k rows of each query, and the queries (q, d) that were asked, expanded where that is on.

    index: of the augmented rows where that is on. Where rows are scored again there are at most n_rerank of them.
    """
    if refinement.n_expand:
        queries = expand(index, queries, refinement.n_expand, refinement.expand_alpha)
    if refinement.n_rerank:
        return rerank(index, queries, k, refinement), queries
    return index.search(queries, k), queries


def expand(index: SearchIndex, queries: FloatArray, n: int, alpha: float) -> FloatArray:
    """alpha-QE: unit (query + sum over its n nearest rows i of max(s_i, 0)^alpha x_i), (q, d) float32.

    Radenovic, Tolias, Chum: Fine-tuning CNN image retrieval with no human annotation, 2018.
    """
    found = index.search(queries, n)
    return _borrow(index, queries, found.rows, _weights(found, alpha))


def augment(index: SearchIndex, n: int, alpha: float, own: LongArray | None = None) -> FloatArray:
    """Database augmentation: each row expanded as a query by its n nearest other rows, (m, d) float32.

    own: (m,) the rows that are asked for, None = all.
    Turcot and Lowe 2009; the weights of alpha-QE as Gordo et al. 2017 use them.
    """
    own = np.arange(len(index)) if own is None else own
    vectors = index.vectors(own)
    found = index.search(vectors, n + 1)
    weights = _weights(found, alpha)
    is_own = found.rows == own[:, None]
    is_own[~is_own.any(axis=1), -1] = True  # copies of the row took its place
    weights[is_own] = 0
    return _borrow(index, vectors, found.rows, weights)


def rerank(index: SearchIndex, queries: FloatArray, k: int, refinement: Refinement) -> Neighbours:
    """The n_rerank best rows scored again from what they have in common, the best k of them.

    After SuperGlobal (Shao et al. 2023). Each of the rows x_i becomes the mean of itself and, with weight
    rerank_weight * s_ij, of the rows j nearest to it among them: x'_i. The best rows by q . x'_i, one more than
    rerank_neighbours, give by their largest components a second query q', here of unit length so that scores of
    different queries compare. The score is the mean of q . x'_i and q' . x'_i; equal ones are ordered by lower row.
    """
    found = index.search(queries, min(refinement.n_rerank, max(len(index), 1)))
    rows = np.full((len(queries), k), -1, dtype=np.int64)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    for i, (query, top) in enumerate(zip(queries, found.rows, strict=True)):
        top = top[top >= 0]
        if not len(top):
            continue
        score = _score_again(query.astype(np.float64), index.vectors(top).astype(np.float64), refinement)
        score = score.astype(np.float32)
        order = np.lexsort((top, -score))[:k]
        rows[i, : len(order)], scores[i, : len(order)] = top[order], score[order]
    return Neighbours(rows, scores)


def _score_again(query: FloatArray, rows: FloatArray, refinement: Refinement) -> FloatArray:
    """(m,) scores of the rows (m, d) of one query (d,), float64."""
    n = min(refinement.rerank_neighbours, len(rows) - 1)
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -np.inf)
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :n]
    weights = np.zeros_like(similarity)
    borrowed = np.maximum(np.take_along_axis(similarity, nearest, axis=1), 0) * refinement.rerank_weight
    np.put_along_axis(weights, nearest, borrowed, axis=1)
    np.fill_diagonal(weights, 1)
    refined = (weights @ rows) / weights.sum(axis=1, keepdims=True)
    first = refined @ query
    best = np.argsort(-first, kind="stable")[: n + 1]
    second = refined[best].max(axis=0)
    mean: FloatArray = (first + refined @ (second / max(np.linalg.norm(second), np.finfo(np.float64).tiny))) / 2
    return mean


def _weights(found: Neighbours, alpha: float) -> FloatArray:
    """(q, n) float32, how much each neighbour counts; 0 where there is none, or where it points away."""
    return np.where(found.scores > 0, np.maximum(found.scores, 0) ** np.float32(alpha), np.float32(0))


def _borrow(index: SearchIndex, vectors: FloatArray, rows: LongArray, weights: FloatArray) -> FloatArray:
    """Unit (vector + weighted sum of these rows), (n, d) float32, in blocks; a sum of 0 leaves the vector."""
    out = np.empty((len(vectors), index.d), dtype=np.float32)
    step = max(1, BLOCK_BYTES // (4 * index.d * max(1, rows.shape[1])))
    for start in range(0, len(vectors), step):
        part = slice(start, start + step)
        near = index.vectors(np.maximum(rows[part], 0)) if len(index) else np.zeros((*rows[part].shape, index.d))
        summed = vectors[part] + np.einsum("qn,qnd->qd", weights[part], near)
        length = np.linalg.norm(summed, axis=1, keepdims=True)
        out[part] = np.where(length > 0, summed / np.maximum(length, np.finfo(np.float32).tiny), vectors[part])
    return out
