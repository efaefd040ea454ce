"""Figures of cross-validated answers, and the threshold for a precision.

That is by what held-out queries make sure, or by what the confidence itself expects.

Few queries make nothing sure: 45 answers, all of them right, are needed before a precision of 0.95 is. A threshold
that waits for that turns most landmarks away, and one confident error moves it to the top. So the confidence, which is
fitted on all queries together, speaks beside the bound.
"""

from typing import Any

import numpy as np

from index.calibrate.config import CalibrationSettings
from index.calibrate.queries import CalibrationQueries
from index.calibrate.selection import Answered
from index.calibration import CrossValidated, Threshold, TradeOff
from index.confidence import logit_of
from index.metrics import gap
from index.thresholds import (
    HeldOut,
    Sweep,
    curves,
    gap_threshold,
    non_landmark_weight,
    precision_bound,
    reliability,
    sweep,
    threshold_at,
    weighted_gap,
)
from retrieval.arrays import BoolArray
from retrieval.errors import LmrError
from retrieval.texts import to_texts
from retrieval.words import agreeing, counted

BY_BOUND, BY_EXPECTATION, BY_CONFIDENCE = "bound", "expectation", "confidence"
ASKED = (0.8, 0.9, 0.95, 0.98, 0.99)  # precisions whose price a calibration lists
FEW_QUERIES = 100
MAX_TIMES = 1000.0  # queries as many times; more are out of anyone's reach


def precision_threshold(held: HeldOut, precision: float) -> Threshold:
    """The lowest threshold at which answers have this precision, as the best of three says.

    `bound`: the lower bound of the counted precision reaches it: it is sure. `expectation`: the mean confidence of
    the answers less its standard error reaches it, the mean itself leaves room for twice as many wrong answers, and
    at most one answer more is wrong than the precision allows; with many queries the bound is lower. `confidence`:
    each answer is by itself as confident as that; where no threshold is sure of this precision.
    """
    return _threshold(held, sweep(held), precision)


def trade_offs(held: HeldOut, further: float) -> tuple[TradeOff, ...]:
    """The price of the usual precisions and of a further one, from the lowest to the highest."""
    found = sweep(held)
    rows = []
    for asked in sorted({*ASKED, further}):
        at = _threshold(held, found, asked)
        names = [name for name in TradeOff.__slots__ if name != "asked"]
        rows.append(TradeOff(asked, **{name: getattr(at, name) for name in names}))
    return tuple(rows)


def _threshold(held: HeldOut, found: Sweep, precision: float) -> Threshold:
    if not 0 < precision < 1:
        raise LmrError(f"precision {precision}: give a number between 0 and 1")
    logit, found_by = _cut(held, found, precision)
    i = _last_at(found, logit)
    reached = i >= 0 and bool(found.bound[i] >= precision)
    more = None if reached else _n_more_queries(held, found, i, precision)
    return threshold_at(held, found, logit, reached=reached, found_by=found_by, n_more_queries=more)


def _cut(held: HeldOut, found: Sweep, precision: float) -> tuple[float, str]:
    """The lowest logit of those that the three rules allow, and by which rule."""
    sure = np.flatnonzero(found.bound >= precision)
    room = found.expected >= (1 + precision) / 2
    counted = _is_not_refuted(held, found, precision)
    expected = np.flatnonzero((found.expected - found.error >= precision) & room & counted)
    cuts = [
        (float(found.logit[allowed[-1]]), by)
        for allowed, by in ((sure, BY_BOUND), (expected, BY_EXPECTATION))
        if len(allowed)
    ]
    if len(sure):
        return min(cuts)
    # Not below the threshold of the highest precision that something is sure of, so that more asked is never less.
    below = _cut(held, found, float(found.bound.max()))
    return max(min([*cuts, (logit_of(precision), BY_CONFIDENCE)]), below, key=lambda cut: cut[0])


def _is_not_refuted(held: HeldOut, found: Sweep, precision: float) -> BoolArray:
    """(t,) bool: leaving one wrong answer out of the count, no more are wrong than the precision allows."""
    one = max(1.0, 1.0 if held.weight is None else held.weight)
    allowed: BoolArray = found.n_wrong - one <= (1 - precision) * found.n_answers
    return allowed


def _last_at(found: Sweep, logit: float) -> int:
    """The place of the lowest logit that is not below this one, -1 where all are."""
    return int((found.logit >= logit).sum()) - 1


def _n_more_queries(held: HeldOut, found: Sweep, i: int, precision: float) -> int | None:
    """Number of further queries that would make the precision sure at place i, were it the one that is expected.

    None where it would not be at a thousand times as many, or where nothing is answered.
    """
    if i < 0:
        return None
    at = held.logit >= found.logit[i]
    known, false = float((at & held.known).sum()), float((at & ~held.known).sum())
    # Of weighted answers the share of right ones among landmarks is what is counted; it has no expectation of its own.
    right = found.expected[i] * (known + false) if held.weight is None else float((at & held.correct).sum())

    def is_sure(times: float) -> bool:
        bound = precision_bound(held, np.array([right]), np.array([known]), np.array([false]), times=times)
        return bool(bound[0] >= precision)

    if not is_sure(MAX_TIMES):
        return None
    low, high = 1.0, MAX_TIMES
    while high - low > 0.01 * low:
        middle = (low + high) / 2
        low, high = (low, middle) if is_sure(middle) else (middle, high)
    return int(np.ceil((high - 1) * len(held.logit)))


def weight_of(queries: CalibrationQueries, settings: CalibrationSettings) -> float | None:
    """How often a non-landmark counts, None = once. Raises LmrError as `non_landmark_weight`."""
    known, share = queries.truths.known, settings.non_landmark_share
    return None if share is None else non_landmark_weight(int(known.sum()), int((~known).sum()), share)


def held_out(queries: CalibrationQueries, answered: Answered, weight: float | None) -> HeldOut:
    """The answers to queries as thresholds are found on."""
    names = to_texts(queries.image_id)
    return HeldOut(answered.logit, answered.correct, queries.truths.known, names, queries.kind, weight)


def figures_of(
    queries: CalibrationQueries, answered: Answered, settings: CalibrationSettings, rough: str = "the thresholds"
) -> dict[str, Any]:
    """The fields that a `Calibration` and its `Verified` part share, of their cross-validated answers.

    rough: what few queries leave rough, for a warning.
    """
    weight = weight_of(queries, settings)
    held = held_out(queries, answered, weight)
    at_precision = precision_threshold(held, settings.precision)
    figures = _cross_validated(queries, answered, held, weight)
    return {
        "threshold_gap": gap_threshold(held),
        "threshold_precision": at_precision,
        "curves": curves(held),
        "reliability": reliability(held),
        "cross_validated": figures,
        "warnings": _warnings(figures, at_precision, settings.precision, rough),
        "trade": trade_offs(held, settings.precision),
    }


def gap_and_top1(queries: CalibrationQueries, found: Answered) -> tuple[float, float]:
    """GAP of the answers to queries, and the share of landmark queries answered rightly."""
    known, answered = queries.truths.known, found.logit > -np.inf
    score = gap(found.logit[answered], found.correct[answered], int(known.sum()), queries.image_id[answered])
    return score, float(found.correct[known].mean())


def _cross_validated(
    queries: CalibrationQueries, answered: Answered, held: HeldOut, weight: float | None
) -> CrossValidated:
    known = queries.truths.known
    n_known = int(known.sum())
    reachable = queries.truths.query[np.isin(queries.truths.landmark, queries.landmark)]
    score, top1 = gap_and_top1(queries, answered)
    return CrossValidated(
        n_queries=len(known),
        n_landmark_queries=n_known,
        n_non_landmarks=int((~known).sum()),
        n_not_in_index=n_known - len(np.unique(reachable)),
        gap=score,
        top1=top1,
        gap_at_share=None if weight is None else weighted_gap(held),
    )


def few_queries(n: int, rough: str) -> tuple[str, ...]:
    """A warning where there are too few queries for what they leave rough."""
    if n >= FEW_QUERIES:
        return ()
    return (f"only {counted(n, 'query')}, fewer than {FEW_QUERIES}: {rough} are rough",)


def _warnings(figures: CrossValidated, at_precision: Threshold, precision: float, rough: str) -> tuple[str, ...]:
    """Warnings for a reader of the calibration, a line each."""
    warnings = [*few_queries(figures.n_queries, rough)]
    if figures.n_non_landmarks == 0:
        warnings.append("no non-landmarks among the queries: pictures of no known landmark will be answered too often")
    if figures.n_not_in_index:
        warnings.append(
            f"{counted(figures.n_not_in_index, 'landmark query', of=figures.n_landmark_queries)} "
            f"{agreeing(figures.n_not_in_index, 'shows', 'show')} a landmark "
            "that the index does not hold"
        )
    if not at_precision.reached:
        warnings.append(_not_sure(at_precision, precision))
    return tuple(warnings)


def _not_sure(at: Threshold, precision: float) -> str:
    """A warning of a threshold that is not sure to reach its precision, and what would make it sure."""
    what = f"a precision of {precision:g}, as asked, is not sure from a confidence of {at.confidence:.3f} on"
    if at.expected_precision is None:
        return f"{what}: no held-out query is answered with such confidence; ask for less or add queries"
    more = (
        "more queries like these would not make it sure"
        if at.n_more_queries is None
        else f"about {counted(at.n_more_queries, 'more held-out query')} would make it sure"
    )
    measured = "" if at.precision is None else f"{at.precision:.3f} was measured, "
    return f"{what}: {measured}{at.expected_precision:.3f} is expected, {at.precision_bound:.3f} is sure; {more}"
