"""Figures of cross-validated answers: thresholds, curves, what each precision costs, and warnings for a reader."""

from typing import Any

import numpy as np

from index.calibrate.config import CalibrationSettings
from index.calibrate.precision import precision_threshold, trade_offs
from index.calibrate.queries import CalibrationQueries
from index.calibrate.selection import Answered
from index.calibration import CrossValidated, Threshold
from index.metrics import gap
from index.thresholds import HeldOut, curves, gap_threshold, non_landmark_weight, reliability, weighted_gap
from retrieval.texts import to_texts
from retrieval.words import agreeing, counted

FEW_QUERIES = 100


def weight_of(queries: CalibrationQueries, settings: CalibrationSettings) -> float | None:
    """How often a non-landmark counts, None = once. Raises LmrError as `non_landmark_weight`."""
    known, share = queries.truths.known, settings.non_landmark_share
    return None if share is None else non_landmark_weight(int(known.sum()), int((~known).sum()), share)


def held_out(queries: CalibrationQueries, answered: Answered, weight: float | None) -> HeldOut:
    """The answers to queries as thresholds are found on."""
    names = to_texts(queries.image_id)
    return HeldOut(answered.logit, answered.correct, queries.truths.known, names, queries.kind, weight)


def figures_of(queries: CalibrationQueries, answered: Answered, settings: CalibrationSettings) -> dict[str, Any]:
    """The fields that a `Calibration` and its `Verified` part share, of their cross-validated answers."""
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
        "warnings": _warnings(figures, at_precision, settings.precision),
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


def _warnings(figures: CrossValidated, at_precision: Threshold, precision: float) -> tuple[str, ...]:
    """Warnings for a reader of the calibration, a line each."""
    warnings = []
    if figures.n_queries < FEW_QUERIES:
        warnings.append(
            f"only {counted(figures.n_queries, 'query')}, fewer than {FEW_QUERIES}: the thresholds are rough"
        )
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
