"""Thresholds on the logit, measured on held-out queries, and the curves behind them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from index.calibration import AtPrecision, Curves, KindCurves, KindFigures, ReliabilityBin, Threshold
from index.confidence import sigmoid
from index.metrics import ranking
from retrieval.arrays import BoolArray, FloatArray, LongArray, ObjArray, read_only
from retrieval.errors import LmrError
from retrieval.texts import Texts, to_texts

BOUND_LEVEL = 0.9  # one-sided confidence of a bound on the precision
KEPT_GAP = 0.999  # share of the GAP without a threshold
MAX_POINTS = 200  # of a stored curve
N_BINS = 10  # of the reliability
AT_PRECISION = (0.95, 0.99)  # at which it is told what verification turns away


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The answers to held-out queries.

    logit: (n,) float64, -inf = no answer. correct: (n,) bool, False for every non-landmark. known: (n,) bool, the
    query shows a landmark, whether or not the index holds it. image_id: a column, or an array of strings to pack.
    kind: (n,) str or None. weight: how often a
    non-landmark counts, for another share of them than here (see `non_landmark_weight`), None = as it is.
    """

    logit: FloatArray
    correct: BoolArray
    known: BoolArray
    image_id: Texts
    kind: ObjArray | None = None
    weight: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_id", to_texts(self.image_id))
        for name in ("logit", "correct", "known", "image_id", "kind"):
            values = getattr(self, name)
            if values is not None:
                if values.shape != (len(self.logit),):
                    raise ValueError(f"{name} has shape {values.shape}, logit {self.logit.shape}")
                if name != "image_id":
                    object.__setattr__(self, name, read_only(values))
        if np.any(self.correct & ~self.known):
            raise ValueError("a non-landmark query cannot be answered rightly")
        if not self.known.any():
            raise LmrError("thresholds need at least one query with a known landmark; all of these are blank")
        if not np.any(self.logit > -np.inf):
            raise LmrError("thresholds need at least one query with an answer; none of these found a neighbour")

    @property
    def weights(self) -> FloatArray:
        """(n,) float64: how often each query counts."""
        return np.where(self.known, 1.0, 1.0 if self.weight is None else self.weight)


def non_landmark_weight(n_landmark_queries: int, n_non_landmarks: int, share: float) -> float:
    """The weight of each non-landmark at which they are this share of all queries.

    Raises LmrError for a share outside [0, 1), or where there are no non-landmarks to count.
    """
    if not 0 <= share < 1:
        raise LmrError(f"non-landmark share {share}: give a number from 0 to below 1")
    if share and not n_non_landmarks:
        raise LmrError(f"non-landmark share {share}: there are no non-landmarks among the queries; add some")
    return share / (1 - share) * n_landmark_queries / n_non_landmarks if share else 0.0


@dataclass(frozen=True, slots=True)
class Sweep:
    """The figures of answering down to each distinct logit, from the highest to the lowest; (t,) each.

    expected_gap: the GAP if each answer were right as far as its confidence says. precision: share of the answers that
    are right, bound: its lower bound (see `precision_bound`). expected: mean confidence of the answers, error: its
    standard error, were each right with its confidence. n_answers, n_wrong: with weights, non-landmarks count as often
    as these say.
    """

    logit: FloatArray
    gap: FloatArray
    expected_gap: FloatArray
    precision: FloatArray
    bound: FloatArray
    expected: FloatArray
    error: FloatArray
    n_answers: FloatArray
    n_wrong: FloatArray


def sweep(held: HeldOut) -> Sweep:
    """The figures at every distinct logit of the answers."""
    order, gap = _gap_by_rank(held)
    logit, weights, confidence = held.logit[order], held.weights[order], sigmoid(held.logit[order])
    last = np.flatnonzero(np.append(logit[1:] != logit[:-1], True))
    right = np.cumsum(held.correct[order], dtype=np.int64)[last]
    known = np.cumsum(held.known[order], dtype=np.int64)[last]
    n_answers = np.cumsum(weights)[last]
    some = np.maximum(n_answers, np.finfo(np.float64).tiny)
    hoped = np.cumsum(weights * confidence)[last]
    return Sweep(
        logit=logit[last],
        gap=gap[last],
        expected_gap=np.cumsum(np.diff(hoped, prepend=0.0) * hoped / some) / int(held.known.sum()),
        precision=right / some,
        bound=precision_bound(held, right, known, last + 1 - known),
        expected=hoped / some,
        error=np.sqrt(np.cumsum(weights**2 * confidence * (1 - confidence))[last]) / some,
        n_answers=n_answers,
        n_wrong=n_answers - right,
    )


def precision_bound(
    held: HeldOut,
    right: FloatArray | LongArray,
    known: FloatArray | LongArray,
    false: FloatArray | LongArray,
    *,
    times: float = 1.0,
) -> FloatArray:
    """Lower bound of the precision, at 90 %, elementwise.

    right: right answers of `known` answers to landmark queries, beside `false` ones to non-landmarks. times: as if
    everything had been seen this often. The bound is the one-sided 90 % one of Clopper and Pearson (1934). Where
    non-landmarks have a weight, a share of them that was never seen to be answered would count as certain; there two
    bounds at 95 % are put together, the lower one on the right answers to landmark queries and the upper one on the
    share of non-landmarks answered (Bonferroni: both hold with 90 %).
    """
    right, known, false = (times * np.asarray(values, dtype=np.float64) for values in (right, known, false))
    if held.weight is None:
        return clopper_pearson_lower(right, known + false)
    level = (1 + BOUND_LEVEL) / 2
    n_false = times * float((~held.known).sum())
    most_false = n_false * (1 - clopper_pearson_lower(n_false - false, np.full_like(false, n_false), level))
    bound: FloatArray = clopper_pearson_lower(right, known, level) * known
    bound /= known + held.weight * most_false + (known == 0)
    return bound


def clopper_pearson_lower(
    right: FloatArray | LongArray, n: FloatArray | LongArray, level: float = BOUND_LEVEL
) -> FloatArray:
    """Lower bound of a share of which `right` of `n` were seen, 0 for none; one-sided, elementwise."""
    from scipy.special import betaincinv

    right = np.asarray(right, dtype=np.float64)
    some = np.maximum(right, np.finfo(np.float64).tiny)
    bound: FloatArray = np.where(right > 0, betaincinv(some, n - right + 1, 1 - level), 0.0)
    return bound


def weighted_gap(held: HeldOut) -> float:
    """GAP where non-landmarks count by their weight; without one, `index.metrics.gap`."""
    return float(_gap_by_rank(held)[1][-1])


def _gap_by_rank(held: HeldOut) -> tuple[LongArray, FloatArray]:
    """Answered queries in the order of their confidence, and the GAP of answering up to each."""
    answered = np.flatnonzero(held.logit > -np.inf)
    order = answered[ranking(held.logit[answered], held.image_id.select(answered))]
    right = held.correct[order]
    answers = np.cumsum(held.weights[order])
    precision = np.divide(np.cumsum(right), answers, out=np.zeros(len(order)), where=right)
    return order, np.cumsum(precision) / int(held.known.sum())


def gap_threshold(held: HeldOut, kept: float = KEPT_GAP) -> Threshold:
    """The highest threshold that keeps this share of the GAP without one; the lowest logit where GAP is 0.

    Of the GAP that was measured, and of the one that the confidences expect: below the last right answer of these
    queries others have right answers too.
    """
    found = sweep(held)
    enough = (found.gap >= kept * found.gap[-1]) & (found.expected_gap >= kept * found.expected_gap[-1])
    first = int(np.argmax(enough)) if found.gap[-1] > 0 else -1
    return threshold_at(held, found, float(found.logit[first]), reached=True)


def threshold_at(held: HeldOut, found: Sweep, logit: float, *, reached: bool, **told: Any) -> Threshold:
    """The threshold at any logit, with the figures of the answers at or above it. told: further fields."""
    at = np.array([logit])
    everyone = np.ones(len(held.known), dtype=np.bool_)
    answered = held.logit >= logit
    recall, false = _rates(held, everyone, at)
    kinds = []
    for name, members in _kinds(held):
        rates = [None if values is None else values[0] for values in _rates(held, members, at)]
        kinds.append(KindFigures(name, int(members.sum()), int((members & held.known).sum()), *rates))
    i = int((found.logit >= logit).sum()) - 1
    return Threshold(
        logit=logit,
        confidence=float(sigmoid(at)[0]),
        reached=reached,
        gap=float(found.gap[i]) if i >= 0 else 0.0,
        precision=float(found.precision[i]) if i >= 0 else None,
        precision_bound=float(found.bound[i]) if i >= 0 else 0.0,
        recall=recall[0] if recall else 0.0,
        false_answer_rate=false[0] if false else None,
        kinds=tuple(kinds),
        named=float((answered & held.known).sum() / held.known.sum()),
        expected_precision=float(found.expected[i]) if i >= 0 else None,
        n_answers=int(answered.sum()),
        n_wrong=int((answered & ~held.correct).sum()),
        **told,
    )


def with_and_without(verified: HeldOut, plain: HeldOut) -> tuple[AtPrecision, ...]:
    """What verification gains at some precisions: at the lowest thresholds where the answers still have them."""
    rows = []
    for precision in AT_PRECISION:
        (recall, away), (plain_recall, plain_away) = (_at_precision(held, precision) for held in (verified, plain))
        rows.append(AtPrecision(precision, plain_recall, recall, plain_away, away))
    return tuple(rows)


def _at_precision(held: HeldOut, precision: float) -> tuple[float, float | None]:
    """Recall, and the share of non-landmarks turned away, None without any."""
    found = sweep(held)
    enough = np.flatnonzero(found.precision >= precision)
    answered = held.logit >= (found.logit[enough[-1]] if len(enough) else np.inf)
    n_other = int((~held.known).sum())
    recall = float((answered & held.correct).sum() / held.known.sum())
    return recall, float((~answered & ~held.known).sum() / n_other) if n_other else None


def curves(held: HeldOut, max_points: int = MAX_POINTS) -> Curves:
    """GAP, precision, recall and false answers against the threshold, over all and per kind."""
    found = sweep(held)
    last = len(found.logit) - 1
    points = np.unique(np.linspace(0, last, min(max_points, last + 1)).round().astype(np.int64))
    threshold = found.logit[points]
    recall, false = _rates(held, np.ones(len(held.known), dtype=np.bool_), threshold)
    return Curves(
        logit=_floats(threshold),
        confidence=_floats(sigmoid(threshold)),
        gap=_floats(found.gap[points]),
        precision=_floats(found.precision[points]),
        recall=recall or (),
        false_answer_rate=false,
        kinds=tuple(KindCurves(name, *_rates(held, members, threshold)) for name, members in _kinds(held)),
    )


def reliability(held: HeldOut) -> tuple[ReliabilityBin, ...]:
    """Confidence against the share of right answers, in bins of equal width; non-landmarks count by their weight."""
    answered = held.logit > -np.inf
    confidence = sigmoid(held.logit[answered])
    right, weight = held.correct[answered].astype(np.float64), held.weights[answered]
    number = np.minimum((confidence * N_BINS).astype(np.int64), N_BINS - 1)
    n_queries = np.bincount(number, minlength=N_BINS)
    total = np.bincount(number, weight, N_BINS)
    sums = [np.bincount(number, weight * values, N_BINS) for values in (confidence, right)]
    bins = []
    for i in range(N_BINS):
        means = [float(values[i] / total[i]) if total[i] > 0 else None for values in sums]
        bins.append(ReliabilityBin(i / N_BINS, (i + 1) / N_BINS, int(n_queries[i]), *means))
    return tuple(bins)


def _rates(
    held: HeldOut, members: BoolArray, threshold: FloatArray
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Recall and false answer rate of these queries at each threshold, None where none of them counts for it."""
    n_known, n_other = int((members & held.known).sum()), int((members & ~held.known).sum())
    right = _at_or_above(held.logit[members & held.correct], threshold)
    false = _at_or_above(held.logit[members & ~held.known], threshold)
    return _floats(right / n_known) if n_known else None, _floats(false / n_other) if n_other else None


def _at_or_above(values: FloatArray, threshold: FloatArray) -> LongArray:
    """Number of values at or above each threshold."""
    return len(values) - np.searchsorted(np.sort(values), threshold, side="left")


def _kinds(held: HeldOut) -> list[tuple[str, BoolArray]]:
    """Each kind in the order of the alphabet, and which queries are of it."""
    if held.kind is None:
        return []
    return [(str(name), held.kind == name) for name in sorted(set(held.kind.tolist()))]


def _floats(values: FloatArray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
