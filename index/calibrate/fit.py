"""Calibrates an index on held-out queries: vote, confidence and thresholds, with what they are worth."""

from dataclasses import dataclass, replace

import numpy as np

from index.calibrate.config import CalibrationSettings
from index.calibrate.precision import precision_threshold, trade_offs
from index.calibrate.queries import CalibrationQueries
from index.calibrate.selection import MAX_TUNED, Answered, Grid, Tuned, tune
from index.calibration import (
    BeforeAfter,
    Calibration,
    Choice,
    CrossValidated,
    Origin,
    Threshold,
)
from index.copies import leave_out_copies, pack_sketches, refuse_known, sketches
from index.evaluate.leakage import seen_names, trained_on_rows
from index.evaluate.leave_one_out import asked_rows, n_asked, without_own
from index.folder.folder import IndexFolder, replace_calibration
from index.metrics import gap, make_truths, truths_of
from index.queries import Queries
from index.recognition import check_store, to_index_space
from index.thresholds import HeldOut, curves, gap_threshold, non_landmark_weight, reliability, weighted_gap
from index.vote import background_similarity
from retrieval.errors import LmrError
from retrieval.store.store import Descriptors
from retrieval.texts import Texts, to_texts
from retrieval.words import agreeing, counted

MOST_TRAINED_ON = 0.05  # share of the index that the network may have been trained on and still find new
FEW_QUERIES = 100


@dataclass(frozen=True, slots=True)
class Evidence:
    """Leave-one-out over an index as evidence: its queries, or the reason why they are none."""

    queries: CalibrationQueries | None
    why_not: str | None = None


def calibrate_folder(
    folder: IndexFolder, store: Descriptors, queries: Queries, settings: CalibrationSettings
) -> Calibration:
    """As `calibration_of`, and replaces the folder's calibration.json."""
    calibration = calibration_of(folder, store, queries, settings)
    replace_calibration(folder.path, calibration)
    return calibration


def calibration_of(
    folder: IndexFolder, store: Descriptors, queries: Queries, settings: CalibrationSettings
) -> Calibration:
    """The calibration of a folder by those queries that have a descriptor; the same for the same queries.

    queries: of the rows of `store`. Raises LmrError: another model, no landmark query, no descriptor, queries that
    are also in the index or its background.
    """
    held_out, left_out = held_out_queries(folder, store, queries)
    origin = Origin(store.source, folder.fingerprint, folder.info.inputs_digest)
    calibration = calibrate(held_out, origin, settings, evidence=leave_one_out_evidence(folder, settings.seed))
    kept = np.flatnonzero(np.isin(store.image_id, held_out.image_id) & store.done)
    packed = pack_sketches(sketches(to_index_space(folder, store.vectors[kept])))
    names = seen_names(store.image_id[kept])
    warnings = (*left_out, *calibration.warnings)
    return replace(calibration, warnings=warnings, query_names=names, query_sketches=packed)


def held_out_queries(
    folder: IndexFolder, store: Descriptors, queries: Queries
) -> tuple[CalibrationQueries, tuple[str, ...]]:
    """The queries that have a descriptor with what the folder finds for them; a warning of those left out.

    Raises LmrError as `calibration_of`.
    """
    check_store(folder, store)
    rows = np.flatnonzero(store.done)
    if not len(rows):
        raise LmrError(f"{store.source}: none of the {counted(len(store), 'calibration query')} has a descriptor")
    vectors = to_index_space(folder, store.vectors[rows])
    names = store.image_id.select(rows)
    m = int(folder.info.options["m"])
    refuse_known(names, vectors, folder.rows.image_id, folder.index.vectors, "the index")
    nearest = folder.nearest(vectors, 1).scores[:, 0]
    if folder.background is not None:
        known = folder.background
        refuse_known(names, vectors, known.image_id, known.vectors.__getitem__, "the background")
        nearest = np.maximum(nearest, background_similarity(vectors, folder.background.vectors, 1))
    kept, left_out = leave_out_copies(names[:], nearest)
    rows, vectors, image_id = rows[kept], vectors[kept], names[kept]
    neighbours, vectors = folder.search(vectors, max(Grid().k))
    background = None
    if folder.background is not None:
        background = background_similarity(vectors, folder.background.vectors, m)
    truths, _ = truths_of(queries.landmarks.select(rows), folder.rows.landmarks)
    if left_out and not truths.known.any():
        raise LmrError(f"{left_out[0]}; none of the others has a landmark: calibrate on other images")
    held_out = CalibrationQueries(
        neighbours=neighbours,
        landmark=folder.rows.landmark,
        truths=truths,
        image_id=image_id,
        kind=None if queries.kind is None else queries.kind[rows],
        background=background,
        row_background=folder.rows.background,
        m=m,
    )
    return held_out, left_out


def leave_one_out_evidence(folder: IndexFolder, seed: int) -> Evidence:
    """Leave-one-out over the folder, where it says what the vote does to images that are new."""
    if len(folder.rows) == 1:
        return Evidence(None, "since the index has one picture")
    if not folder.refinement.is_off:
        return Evidence(None, "since pictures of this index borrow from each other")
    trained_on, unknown = trained_on_rows(folder)
    if trained_on.mean() > MOST_TRAINED_ON:
        return Evidence(
            None,
            f"since the network was trained on {int(trained_on.sum()):,} of the "
            f"{counted(len(trained_on), 'picture')} of the index",
        )
    if unknown:
        return Evidence(None, "since the network may have been trained on pictures of the index: it kept no record")
    return Evidence(left_out_queries(folder, max(Grid().k), MAX_TUNED, seed))


def left_out_queries(folder: IndexFolder, k: int, n_most: int, seed: int) -> CalibrationQueries:
    """The same questions as queries that rules of the vote can be judged by, with k neighbours each.

    n_most: rows, and as many background images, that are drawn where there are more. The folder borrows nothing.
    """
    rows, rng = folder.rows, np.random.default_rng(seed)
    parts = (np.arange(len(rows)), np.arange(len(rows), n_asked(folder)))
    drawn = np.sort(np.concatenate([rng.permutation(part)[:n_most] for part in parts]))
    vectors, similarity = asked_rows(folder, drawn)
    own_row = np.where(drawn < len(rows), drawn, -1)
    own = np.where(own_row >= 0, rows.landmark[own_row], -1).astype(np.int32)
    image_id = Texts.joined([part.image_id for part in (rows, folder.background) if part is not None])
    return CalibrationQueries(
        neighbours=without_own(folder.nearest(vectors, k + 1), own_row),
        landmark=rows.landmark,
        truths=make_truths([code] for code in own.tolist()),
        image_id=image_id[drawn],
        background=similarity,
        row_background=rows.background,
        m=folder.rule.m,
        own=own,
    )


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
    held = HeldOut(
        tuned.answered.logit, tuned.answered.correct, known, to_texts(queries.image_id), queries.kind, weight
    )
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
