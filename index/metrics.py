"""Measures of a set of answers: GAP, top-k, mAP@100, precision and recall, and their bootstrap intervals.

GAP, mAP@100, precision@k and the first position are those of the Google Landmarks challenges (Weyand et al.,
"Google Landmarks Dataset v2", CVPR 2020, section 5, and the metrics code published with it).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.arrays import BoolArray, FloatArray, IntArray, LongArray, ObjArray, read_only
from retrieval.errors import LmrError
from retrieval.shown import Labels
from retrieval.texts import Texts

LIST_LENGTH = 100  # images of a retrieval list that count; the challenge's limit
N_RESAMPLES = 1000  # the Monte Carlo error of a 95 % bound is then about a twelfth of the interval's width
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Truths:
    """The true landmarks of each query as flat pairs; a query without a pair is a non-landmark.

    query: (t,) int64 ascending; landmark: (t,) int32 codes, not negative.
    """

    query: LongArray
    landmark: IntArray
    n_queries: int

    def __post_init__(self) -> None:
        if self.query.shape != self.landmark.shape or self.query.ndim != 1:
            raise ValueError(f"query {self.query.shape} and landmark {self.landmark.shape} must be flat, equal")
        if len(self.query) and (self.query.min() < 0 or self.query.max() >= self.n_queries):
            raise ValueError(f"query must lie in [0, {self.n_queries})")
        if np.any(np.diff(self.query) < 0) or np.any(self.landmark < 0):
            raise ValueError("query must ascend and landmark must not be negative")
        object.__setattr__(self, "query", read_only(self.query))
        object.__setattr__(self, "landmark", read_only(self.landmark))

    @property
    def known(self) -> BoolArray:
        """(n_queries,) bool: the query shows at least one landmark."""
        known = np.zeros(self.n_queries, dtype=np.bool_)
        known[self.query] = True
        return known

    @property
    def first(self) -> IntArray:
        """(n_queries,) int32: the first landmark of each query, -1 where it shows none."""
        first = np.full(self.n_queries, -1, dtype=np.int32)
        first[self.query[::-1]] = self.landmark[::-1]
        return first

    def between(self, start: int, stop: int) -> "Truths":
        """Those of successive queries, numbered from 0."""
        part = slice(*np.searchsorted(self.query, [start, stop]))
        return Truths(self.query[part] - start, self.landmark[part], stop - start)

    def holds(self, query: LongArray, landmark: IntArray) -> BoolArray:
        """For each pair, whether that landmark is one of that query's; False for landmark -1."""
        width = 1 + max(int(self.landmark.max(initial=0)), int(np.max(landmark, initial=0)))
        pairs = self.query * width + self.landmark
        found: BoolArray = np.isin(np.asarray(query, np.int64) * width + landmark, pairs) & (landmark >= 0)
        return found


def make_truths(landmarks: Iterable[Iterable[int]]) -> Truths:
    """Truths from one collection of landmark codes per query, empty for a non-landmark; -1 is left out."""
    lists = [[code for code in codes if code >= 0] for codes in landmarks]
    counts = np.array([len(codes) for codes in lists], dtype=np.int64)
    flat = np.array([code for codes in lists for code in codes], dtype=np.int32)
    return Truths(np.repeat(np.arange(len(lists), dtype=np.int64), counts), flat, len(lists))


def truths_of(labels: Labels, landmarks: Sequence[str]) -> tuple[Truths, tuple[str, ...]]:
    """Truths in the codes of these landmarks, and what all codes mean, those of further landmarks too."""
    query, code, names = labels.coded(landmarks)
    return Truths(query, code, len(labels)), names


def ranking(confidence: FloatArray, image_id: Texts | ObjArray) -> LongArray:
    """Order of predictions: confidence descending, equal ones by image_id ascending as text.

    confidence: (n,) any key that grows with the confidence, such as its logit. Raises ValueError for NaN.
    """
    key = np.asarray(confidence, dtype=np.float64)
    if np.isnan(key).any():
        raise ValueError(f"confidence[{int(np.flatnonzero(np.isnan(key))[0])}] is NaN")
    order: LongArray = np.argsort(-key, kind="stable").astype(np.int64)
    same = key[order][1:] == key[order][:-1]
    if not same.any():
        return order
    tied = np.concatenate([same, [False]]) | np.concatenate([[False], same])
    # Only tied predictions are compared by name: sorting 117,703 names takes longer than all the rest.
    members = order[tied]
    members = members[np.argsort(image_id[members], kind="stable")]
    order[tied] = members[np.argsort(-key[members], kind="stable")]
    return order


def gap(confidence: FloatArray, correct: BoolArray, n_landmark_queries: int, image_id: Texts | ObjArray) -> float:
    """Global average precision (micro average precision) of the answered predictions.

    confidence, correct, image_id: (n,), one entry per answered query; blank predictions are left out by the
    caller. correct is False for every prediction of a non-landmark query. n_landmark_queries: queries that
    show at least one landmark, answered or not. Raises LmrError if there are none.
    """
    if n_landmark_queries == 0:
        raise LmrError("GAP needs at least one query with a known landmark; all of these queries are blank")
    right = np.asarray(correct, dtype=np.bool_)[ranking(confidence, image_id)]
    if int(right.sum()) > n_landmark_queries:
        raise ValueError(f"{int(right.sum())} right predictions of {n_landmark_queries} landmark queries")
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    return float(np.sum(precision[right]) / n_landmark_queries)


def first_right_rank(query: LongArray, landmark: IntArray, truths: Truths) -> LongArray:
    """Rank (from 1) of each query's first right landmark among its votes, 0 where no vote is right.

    query, landmark: (v,) the votes, ordered by query and then from best to worst.
    """
    rank = np.zeros(truths.n_queries, dtype=np.int64)
    position = np.arange(len(query)) - np.searchsorted(query, query) + 1
    right = truths.holds(query, landmark)
    # Written backwards, so that the first of several right votes stays.
    rank[query[right][::-1]] = position[right][::-1]
    return rank


def top_k_accuracy(first_rank: LongArray | IntArray, truths: Truths, k: int) -> float:
    """Share of the landmark queries with a right landmark among their k best; a blank answer is wrong.

    first_rank: (n_queries,) as `first_right_rank` gives. NaN without landmark queries.
    """
    known = truths.known
    return _mean((first_rank[known] > 0) & (first_rank[known] <= k))


def mean_landmark_accuracy(landmark: IntArray, correct: BoolArray) -> float:
    """Mean over landmarks of the share of a landmark's queries that were answered rightly.

    landmark: (n,) true landmark of each query, -1 = none, not counted. NaN without landmark queries.
    """
    return _mean(landmark_accuracies(landmark, correct)[2])


def landmark_accuracies(landmark: IntArray, correct: BoolArray) -> tuple[LongArray, LongArray, FloatArray]:
    """The landmarks that queries show, how many show each, and the share of them that were answered rightly.

    landmark: (n,) true landmark of each query, -1 = none, not counted. Returns three (m,), by landmark.
    """
    known = landmark >= 0
    shown, group = np.unique(landmark[known], return_inverse=True)
    n_queries = np.bincount(group)
    n_right = np.bincount(group, weights=np.asarray(correct, np.float64)[known])
    return shown.astype(np.int64), n_queries, n_right / n_queries


def list_hits(retrieved: LongArray, relevant: BoolArray) -> BoolArray:
    """The places of the lists that hold a true image which was not in the list before.

    retrieved: (q, k) image numbers, -1 = end of the list; relevant: (q, k), the image is a true one.
    A repeated image keeps its place, but is no second hit.
    """
    hits: BoolArray = relevant & (retrieved >= 0)
    order = np.argsort(retrieved, axis=1, kind="stable")
    in_order = np.take_along_axis(retrieved, order, axis=1)
    repeated = np.zeros(retrieved.shape, dtype=np.bool_)
    repeated[:, 1:] = in_order[:, 1:] == in_order[:, :-1]
    again = np.zeros_like(repeated)
    np.put_along_axis(again, order, repeated, axis=1)
    return hits & ~again


def map_at_100(hits: BoolArray, n_true: LongArray) -> float:
    """Mean average precision of lists of at most 100 images, as of `average_precision`."""
    return _mean(average_precision(hits, n_true))


def average_precision(hits: BoolArray, n_true: LongArray) -> FloatArray:
    """(q,) float64: average precision of lists of at most 100 images; a query without true images counts 0.

    hits: (q, k) as `list_hits` gives; n_true: (q,) true images of each query, the divisor up to 100.
    """
    hits = hits[:, :LIST_LENGTH]
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    found: FloatArray = np.sum(precision * hits, axis=1) / np.clip(n_true, 1, LIST_LENGTH)
    return found


def precision_at_k(hits: BoolArray, k: int) -> float:
    """Mean share of true images among the first k; the divisor stays k beyond the end of a list."""
    return _mean(np.sum(hits[:, :k], axis=1) / k)


def first_hit_position(hits: BoolArray) -> LongArray:
    """Position (from 1) of each list's first true image, 101 if there is none in the first 100."""
    hits = hits[:, :LIST_LENGTH]
    if hits.shape[1] == 0:
        return np.full(len(hits), LIST_LENGTH + 1, dtype=np.int64)
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, LIST_LENGTH + 1).astype(np.int64)


def bootstrap_interval(
    measure: Callable[[LongArray], float],
    n_queries: int,
    seed: int,
    n_resamples: int = N_RESAMPLES,
) -> tuple[float, float]:
    """Percentile interval of a measure over queries drawn with replacement (Efron 1979).

    measure: the value for these query numbers, (n_queries,) int64 with repeats; resamples for which it is NaN
    are left out. (nan, nan) where none is left.
    """
    rng = np.random.default_rng(seed)
    values = np.array([measure(rng.integers(0, n_queries, n_queries)) for _ in range(n_resamples)])
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def wilson_interval(n_right: int, n: int) -> tuple[float, float] | None:
    """95 % interval of a share of which n_right of n were seen (Wilson 1927); None for n = 0."""
    if n == 0:
        return None
    z = 1.959964
    share, spread = n_right / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * float(np.sqrt(share * (1 - share) / n + spread / (4 * n)))
    return centre - half if n_right else 0.0, centre + half if n_right < n else 1.0


def gap_interval(
    confidence: FloatArray, correct: BoolArray, known: BoolArray, image_id: Texts, seed: int
) -> tuple[float, float]:
    """95 % bootstrap interval of `gap` over queries; the order of the ranks is the same in every resample.

    confidence, correct, known, image_id: (q,) of all queries; confidence -inf = not answered.
    """
    answered = np.flatnonzero(confidence > -np.inf)
    ranked = answered[ranking(confidence[answered], image_id.select(answered))]

    def gap_of(drawn: LongArray) -> float:
        right = np.repeat(correct[ranked], np.bincount(drawn, minlength=len(known))[ranked])
        precision = np.cumsum(right) / np.arange(1, len(right) + 1)
        n_landmark_queries = int(known[drawn].sum())
        return float(precision[right].sum() / n_landmark_queries) if n_landmark_queries else float("nan")

    return bootstrap_interval(gap_of, len(known), seed)


def _mean(values: FloatArray | BoolArray) -> float:
    """The mean, NaN for nothing, without numpy's warning."""
    return float(np.mean(values)) if len(values) else float("nan")
