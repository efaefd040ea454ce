"""Where to stop answering: thresholds on the logit, measured on held-out queries, and the curves behind them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from index.calibrate.held_out import HeldOut, Sweep, sweep
from index.confidence import sigmoid
from retrieval.arrays import BoolArray, FloatArray, LongArray

KEPT_GAP = 0.999  # share of the GAP without a threshold
MAX_POINTS = 200  # of a stored curve
N_BINS = 10  # of the reliability


@dataclass(frozen=True, slots=True)
class KindFigures:
    """What a threshold does to one kind of query; None where the kind has no such queries."""

    kind: str
    n_queries: int
    n_landmark_queries: int
    recall: float | None
    false_answer_rate: float | None


@dataclass(frozen=True, slots=True)
class Threshold:
    """Answer where the logit is at or above this one, and what held-out queries say of it.

    reached: it is sure to do what was asked. precision: share of the answers that are right, None without answers,
    and its lower bound; recall: share of landmark queries answered rightly; false_answer_rate: share of non-landmarks
    that are answered, None where there are none. found_by: see `index.calibrate.precision`. named: share of landmark
    queries that are answered, rightly or not. expected_precision: mean confidence of the answers. n_answers, n_wrong:
    as they are, without weights. n_more_queries: about how many more held-out queries would make it sure, None where
    it is, or where no number would. What a calibration from before these were measured lacks is None.
    """

    logit: float
    confidence: float
    reached: bool
    gap: float
    precision: float | None
    precision_bound: float
    recall: float
    false_answer_rate: float | None
    kinds: tuple[KindFigures, ...]
    found_by: str | None = None
    named: float | None = None
    expected_precision: float | None = None
    n_answers: int | None = None
    n_wrong: int | None = None
    n_more_queries: int | None = None

    def __post_init__(self) -> None:
        if not np.isfinite(self.logit) or not 0 <= self.confidence <= 1:
            raise ValueError(f"logit {self.logit} must be finite and confidence {self.confidence} in [0, 1]")


@dataclass(frozen=True, slots=True)
class KindCurves:
    """Recall and false answers of one kind at the thresholds of the curves; None as in `KindFigures`."""

    kind: str
    recall: tuple[float, ...] | None
    false_answer_rate: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class Curves:
    """The figures of `Threshold` at up to 200 thresholds, from the highest to the lowest."""

    logit: tuple[float, ...]
    confidence: tuple[float, ...]
    gap: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    false_answer_rate: tuple[float, ...] | None
    kinds: tuple[KindCurves, ...]


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Answers with a confidence in [low, high): how many, their mean confidence, the share that is right."""

    low: float
    high: float
    n_queries: int
    mean_confidence: float | None
    share_right: float | None


def gap_threshold(held: HeldOut, kept: float = KEPT_GAP) -> Threshold:
    """The highest threshold that keeps this share of the GAP without one; the lowest logit where GAP is 0."""
    found = sweep(held)
    enough = np.flatnonzero(found.gap >= kept * found.gap[-1])
    return threshold_at(held, found, float(found.logit[enough[0] if found.gap[-1] > 0 else -1]), reached=True)


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


def reliability(held: HeldOut, n_bins: int = N_BINS) -> tuple[ReliabilityBin, ...]:
    """Confidence against the share of right answers, in bins of equal width; non-landmarks count by their weight."""
    answered = held.logit > -np.inf
    confidence = sigmoid(held.logit[answered])
    right, weight = held.correct[answered].astype(np.float64), held.weights[answered]
    number = np.minimum((confidence * n_bins).astype(np.int64), n_bins - 1)
    n_queries = np.bincount(number, minlength=n_bins)
    total = np.bincount(number, weight, n_bins)
    sums = [np.bincount(number, weight * values, n_bins) for values in (confidence, right)]
    bins = []
    for i in range(n_bins):
        means = [float(values[i] / total[i]) if total[i] > 0 else None for values in sums]
        bins.append(ReliabilityBin(i / n_bins, (i + 1) / n_bins, int(n_queries[i]), *means))
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
    """How many values are at or above each threshold."""
    return len(values) - np.searchsorted(np.sort(values), threshold, side="left")


def _kinds(held: HeldOut) -> list[tuple[str, BoolArray]]:
    """Each kind in the order of the alphabet, and which queries are of it."""
    if held.kind is None:
        return []
    return [(str(name), held.kind == name) for name in sorted(set(held.kind.tolist()))]


def _floats(values: FloatArray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
