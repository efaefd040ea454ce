"""Neighbours to votes, and the background similarity that holds them back."""

from dataclasses import dataclass

import numpy as np

from index.search.base import Neighbours, scores_of
from index.vote_rule import VoteRule
from retrieval.arrays import FloatArray, IntArray, LongArray, read_only
from retrieval.errors import LmrError

BLOCK_ROWS = 128  # compared with the background at once
MARGIN = 4  # similarities computed again beyond the m largest: products of BLAS err in their last bits


@dataclass(frozen=True, slots=True)
class Votes:
    """The landmarks that each query's neighbours name, flat: by query, then score descending, then lower label.

    query: (v,) int64; landmark: (v,) int32; score: (v,) float64. evidence: (v,) float64, the largest e(q, i) among the
    neighbours of the landmark, None where neighbours were not verified.
    """

    query: LongArray
    landmark: IntArray
    score: FloatArray
    evidence: FloatArray | None = None

    def __post_init__(self) -> None:
        if not self.query.shape == self.landmark.shape == self.score.shape or self.query.ndim != 1:
            raise ValueError(
                f"query {self.query.shape}, landmark {self.landmark.shape} and score {self.score.shape} must be equal"
            )
        if self.evidence is not None and self.evidence.shape != self.query.shape:
            raise ValueError(f"evidence {self.evidence.shape} must be as query {self.query.shape}")
        for name in ("query", "landmark", "score", "evidence"):
            if (values := getattr(self, name)) is not None:
                object.__setattr__(self, name, read_only(values))

    def __len__(self) -> int:
        return len(self.query)


def vote(
    neighbours: Neighbours,
    landmark: IntArray,
    rule: VoteRule,
    *,
    counts: LongArray | None = None,
    row_background: FloatArray | None = None,
    evidence: FloatArray | None = None,
    weight: float = 0.0,
) -> Votes:
    """Soft maximum of each query's neighbour scores by landmark.

    S(q, c) = tau * log( sum over neighbours i of landmark c of exp(s'(q, i) / tau) / n_c ** r ) with
    s'(q, i) = s(q, i) - beta * b(i) + w * e(q, i).

    landmark: (n_rows,) int32, label of each index row. counts: (n_landmarks,) rows of each landmark, counted from
    `landmark` where not given. row_background: (n_rows,) b(i), needed where beta is not 0. evidence: (q, k) e(q, i) of
    neighbours that were verified, 0 of others; weight: w.
    Padding rows do not vote; only the first rule.k neighbours do. Equal scores are ordered by lower label.
    Raises ValueError if a row lies outside `landmark` or has no label, or if beta has no row_background.
    """
    if rule.beta and row_background is None:
        raise ValueError(f"beta = {rule.beta} needs row_background")
    query, row, score = _flat(neighbours, landmark, rule.k)
    if rule.beta and row_background is not None:
        score = score - rule.beta * row_background[row]
    worth = None
    if evidence is not None:
        worth = evidence[:, : rule.k][neighbours.rows[:, : rule.k] >= 0]
        score = score + weight * worth
    order, start, group_query, group_landmark = _groups(query, landmark[row], neighbours.n_queries)
    score = score[order]
    top = np.maximum.reduceat(score, start) if len(start) else score
    size = np.diff(start, append=len(score))
    total = np.add.reduceat(np.exp((score - np.repeat(top, size)) / rule.tau), start) if len(start) else score
    if counts is None:
        counts = np.bincount(landmark[landmark >= 0])
    soft_maximum = top + rule.tau * (np.log(total) - rule.r * np.log(counts[group_landmark]))
    most = None
    if worth is not None:
        most = np.maximum.reduceat(worth[order], start) if len(start) else worth
    return _ordered(group_query, group_landmark, soft_maximum, most)


def vote_majority(neighbours: Neighbours, landmark: IntArray, k: int) -> Votes:
    """Share of the k neighbours that name each landmark: the plain k-nearest-neighbour classifier, a baseline.

    landmark: (n_rows,) int32. Padding rows do not vote. Raises ValueError if a row lies outside `landmark`.
    """
    query, row, _ = _flat(neighbours, landmark, k)
    _, start, group_query, group_landmark = _groups(query, landmark[row], neighbours.n_queries)
    return _ordered(group_query, group_landmark, np.diff(start, append=len(row)) / k)


def best(votes: Votes, n_queries: int) -> tuple[IntArray, FloatArray]:
    """The first vote of each query: landmark (n_queries,) int32 or -1, score (n_queries,) float64 or -inf."""
    landmark = np.full(n_queries, -1, dtype=np.int32)
    score = np.full(n_queries, -np.inf)
    query, first = np.unique(votes.query, return_index=True)
    landmark[query] = votes.landmark[first]
    score[query] = votes.score[first]
    return landmark, score


def best_evidence(votes: Votes, n_queries: int) -> FloatArray | None:
    """(n_queries,) float64 evidence of the first vote of each query, 0 without one; None where none was verified."""
    if votes.evidence is None:
        return None
    found = np.zeros(n_queries)
    query, first = np.unique(votes.query, return_index=True)
    found[query] = votes.evidence[first]
    return found


def one_row_less(votes: Votes, landmark: IntArray, counts: LongArray, rule: VoteRule) -> Votes:
    """Votes with n_c one lower for each query's own landmark, (q,) -1 = none; S has - tau * r * log(n_c)."""
    own = votes.landmark == landmark[votes.query]
    n_c = counts[votes.landmark[own]]
    score: FloatArray = votes.score.copy()
    score[own] += rule.tau * rule.r * (np.log(n_c) - np.log(n_c - 1))
    order = np.lexsort((votes.landmark, -score, votes.query))
    return Votes(votes.query[order], votes.landmark[order], score[order])


def _flat(neighbours: Neighbours, landmark: IntArray, k: int) -> tuple[LongArray, LongArray, FloatArray]:
    """Query, row and score (float64) of every neighbour that votes, without padding."""
    rows, scores = neighbours.rows[:, :k], neighbours.scores[:, :k]
    real = rows >= 0
    query = np.repeat(np.arange(len(rows), dtype=np.int64), real.sum(axis=1))
    row = rows[real]
    if len(row) and row.max() >= len(landmark):
        raise ValueError(f"neighbour row {int(row.max())} lies outside the {len(landmark)} labels")
    if np.any(landmark[row] < 0):
        raise ValueError(f"neighbour row {int(row[landmark[row] < 0][0])} has no landmark")
    return query, row, scores[real].astype(np.float64)


def _groups(query: LongArray, landmark: IntArray, n_queries: int) -> tuple[LongArray, LongArray, LongArray, IntArray]:
    """Neighbours gathered by query and landmark: their order, each group's start in it, its query and landmark."""
    width = int(landmark.max(initial=0)) + 1
    if n_queries * width >= 2**63:
        raise ValueError(f"{n_queries} queries x {width} landmarks do not fit into int64")
    key = query * width + landmark
    order = np.argsort(key, kind="stable")
    key = key[order]
    start = np.flatnonzero(np.diff(key, prepend=-1))
    group = key[start]
    return order, start, group // width, (group % width).astype(np.int32)


def _ordered(query: LongArray, landmark: IntArray, score: FloatArray, evidence: FloatArray | None = None) -> Votes:
    """Votes from groups that ascend by query, then landmark; the sort is stable, so equal scores keep that order."""
    order = np.lexsort((-score, query))
    return Votes(query[order], landmark[order], score[order], None if evidence is None else evidence[order])


def background_similarity(
    vectors: FloatArray, background: FloatArray, m: int, *, own_row: LongArray | None = None
) -> FloatArray:
    """Mean of each vector's m largest similarities to the background, (n,) float32: c(q) of a query, b(i) of a row.

    The query's term is the score normalisation of SSCD (Pizzi et al., "A Self-Supervised Descriptor for Image Copy
    Detection", CVPR 2022, section 3.4); the row's is that of the first place of Kaggle's Landmark Recognition 2020.

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
    background = np.ascontiguousarray(background, dtype=np.float32)
    mean = np.empty(len(vectors), dtype=np.float32)
    for start in range(0, len(vectors), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        mean[part] = _mean_of_largest(
            vectors[part].astype(np.float32, copy=False), background, m, None if own_row is None else own_row[part]
        )
    return mean


def _mean_of_largest(vectors: FloatArray, background: FloatArray, m: int, own_row: LongArray | None) -> FloatArray:
    """(n,) mean of the m largest similarities; own_row: (n,) row of the background that is left out, -1 = none.

    BLAS sums in an order that depends on the shape and on the place of a row in it, so that it only says which are the
    largest; summed in one path, a vector has the same bits among any others.
    """
    similarity = vectors @ background.T
    n_there = np.full(len(vectors), len(background))
    if own_row is not None:
        left_out = np.flatnonzero(own_row >= 0)
        similarity[left_out, own_row[left_out]] = -np.inf
        n_there[left_out] -= 1
    m, width = min(m, len(background)), min(m + MARGIN, len(background))
    rows = np.argpartition(-similarity, width - 1, axis=1)[:, :width]
    again = np.where(
        np.isfinite(np.take_along_axis(similarity, rows, axis=1)), scores_of(vectors, background[rows]), -np.inf
    )
    largest = -np.sort(-again, axis=1)[:, :m]
    mean: FloatArray = np.where(np.isfinite(largest), largest, 0).sum(axis=1) / np.minimum(m, n_there)
    return mean
