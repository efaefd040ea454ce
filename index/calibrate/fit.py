"""Calibrates an index on held-out queries: vote, confidence and thresholds, with what they are worth."""

from dataclasses import dataclass

import numpy as np

from index.calibrate.precision import precision_threshold, trade_offs
from index.calibrate.queries import CalibrationQueries
from index.calibrate.selection import Answered
from index.calibrate.tune import Grid, Tuned, tune
from index.calibration import (
    BeforeAfter,
    Calibration,
    CalibrationSettings,
    Choice,
    CrossValidated,
    Origin,
    Threshold,
)
from index.metrics import gap
from index.thresholds import HeldOut, curves, gap_threshold, non_landmark_weight, reliability, weighted_gap
from retrieval.words import agreeing, counted

FEW_QUERIES = 100


@dataclass(frozen=True, slots=True)
class Evidence:
    """Leave-one-out over an index as evidence: its queries, or the reason why they are none."""

    queries: CalibrationQueries | None
    why_not: str | None = None


def calibrate(
    queries: CalibrationQueries,
    origin: Origin,
    settings: CalibrationSettings | None = None,
    grid: Grid | None = None,
    evidence: Evidence | None = None,
) -> Calibration:
    """Vote, confidence model and thresholds for an index, from held-out queries.

    The thresholds, curves and figures are of cross-validated answers; the rule and the confidence model are then
    fitted on everything. evidence: what the rule is judged by besides. Raises LmrError where no query shows a landmark
    or none finds a neighbour.
    """
    settings, grid = settings or CalibrationSettings(), grid or Grid()
    evidence = evidence or Evidence(None)
    known = queries.truths.known
    n_known, n_other = int(known.sum()), int((~known).sum())
    share = settings.non_landmark_share
    weight = None if share is None else non_landmark_weight(n_known, n_other, share)
    tuned = tune(queries, grid, weight, settings.seed, evidence.queries)
    held = HeldOut(tuned.answered.logit, tuned.answered.correct, known, queries.image_id, queries.kind, weight)
    reachable = queries.truths.query[np.isin(queries.truths.landmark, queries.landmark)]
    choice = _choice(tuned, queries, evidence)
    figures = CrossValidated(
        n_queries=len(known),
        n_landmark_queries=n_known,
        n_non_landmarks=n_other,
        n_not_in_index=n_known - len(np.unique(reachable)),
        gap=choice.held_out.gap,
        top1=choice.held_out.top1,
        gap_at_share=None if weight is None else weighted_gap(held),
    )
    at_precision = precision_threshold(held, settings.precision)
    return Calibration(
        rule=tuned.rule,
        confidence=tuned.confidence,
        threshold_gap=gap_threshold(held),
        threshold_precision=at_precision,
        curves=curves(held),
        reliability=reliability(held),
        cross_validated=figures,
        settings=settings,
        origin=origin,
        warnings=_warnings(figures, at_precision, settings.precision),
        trade=trade_offs(held, settings.precision),
        choice=choice,
    )


def _choice(tuned: Tuned, queries: CalibrationQueries, evidence: Evidence) -> Choice:
    left_out = None
    if evidence.queries is not None and tuned.evidence is not None and tuned.evidence_default is not None:
        left_out = _before_after(evidence.queries, tuned.evidence_default, tuned.evidence)
    held_out = _before_after(queries, tuned.default, tuned.answered)
    return Choice(tuned.tried, tuned.gain, tuned.gain_error, held_out, left_out, evidence.why_not)


def _before_after(queries: CalibrationQueries, default: Answered, chosen: Answered) -> BeforeAfter:
    known = queries.truths.known
    n_known = int(known.sum())
    gaps, shares = [], []
    for found in (default, chosen):
        answered = found.logit > -np.inf
        gaps.append(gap(found.logit[answered], found.correct[answered], n_known, queries.image_id[answered]))
        shares.append(float(found.correct[known].mean()))
    return BeforeAfter(len(known), n_known, gaps[0], gaps[1], shares[0], shares[1])


def _warnings(figures: CrossValidated, at_precision: Threshold, precision: float) -> tuple[str, ...]:
    """What a reader of the calibration must know, a line each."""
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
    """What a threshold rests on that is not sure to reach its precision, and what would make it sure."""
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
