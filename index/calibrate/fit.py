"""Calibrates an index on held-out queries: vote, confidence and thresholds, also with verified neighbours."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from index.calibrate.config import CalibrationSettings
from index.calibrate.precision import figures_of, gap_and_top1, held_out, weight_of
from index.calibrate.queries import CalibrationQueries, VerifiedRule
from index.calibrate.selection import MAX_TUNED, Answered, Grid, Tuned, VerifiedGrid, choose, gain_of, tune
from index.calibration import BeforeAfter, Calibration, Choice, Origin, Verified, VerifiedBy, VerifiedChoice
from index.copies import leave_out_copies, pack_sketches, refuse_known, sketches
from index.evaluate.leakage import seen_names, trained_on_rows
from index.evaluate.leave_one_out import asked_rows, n_asked, without_own
from index.folder.folder import IndexFolder, replace_calibration
from index.folder.verified import Verifying
from index.metrics import make_truths, truths_of
from index.queries import Queries
from index.recognition import check_store, to_index_space
from index.rerank.evidence import FIXED_INLIERS, UNVERIFIED, Evidence, EvidenceRule
from index.thresholds import with_and_without
from index.vote import background_similarity
from index.vote_rule import VoteRule
from retrieval.arrays import BoolArray
from retrieval.errors import LmrError
from retrieval.store.store import Descriptors
from retrieval.texts import Texts
from retrieval.words import counted

SURE_SHARE = 0.95  # of pairs with as many inliers, from which on a neighbour is called verified
LEAST_PAIRS = 20  # of which this can be told
MOST_TRAINED_ON = 0.05  # share of the index that the network may have been trained on and still find new


@dataclass(frozen=True, slots=True)
class Further:
    """Leave-one-out over an index as further evidence: its queries, or the reason why they are none."""

    queries: CalibrationQueries | None
    why_not: str | None = None


def calibrate_folder(
    folder: IndexFolder,
    store: Descriptors,
    queries: Queries,
    settings: CalibrationSettings,
    verifying: Verifying | None = None,
) -> Calibration:
    """As `calibration_of`, and replaces the folder's calibration.json."""
    calibration = calibration_of(folder, store, queries, settings, verifying)
    replace_calibration(folder.path, calibration)
    return calibration


def calibration_of(
    folder: IndexFolder,
    store: Descriptors,
    queries: Queries,
    settings: CalibrationSettings,
    verifying: Verifying | None = None,
) -> Calibration:
    """The calibration of a folder by those queries that have a descriptor; the same for the same queries.

    queries: of the rows of `store`. verifying: of these, for a calibration of verified answers too. Raises LmrError:
    another model, no landmark query, no descriptor, queries that are also in the index or its background.
    """
    by = None if verifying is None else verifying.verification.by
    held_out, left_out = held_out_queries(folder, store, queries, by.top if by else 0)
    kept = np.flatnonzero(np.isin(store.image_id, held_out.image_id) & store.done)
    if verifying is not None:
        held_out = _verify(held_out, verifying.of(kept))
    within_m = None if queries.near is None else queries.near.within_m
    origin = Origin(store.source, folder.fingerprint, folder.info.inputs_digest, within_m)
    further = leave_one_out(folder, settings.seed)
    calibration = calibrate(held_out, origin, settings, further=further, verified_by=by)
    packed = pack_sketches(sketches(to_index_space(folder, store.vectors[kept])))
    names = seen_names(store.image_id[kept])
    warnings = (*left_out, *calibration.warnings)
    return replace(calibration, warnings=warnings, query_names=names, query_sketches=packed)


def _verify(queries: CalibrationQueries, verifying: Verifying) -> CalibrationQueries:
    """The queries with evidence of their neighbours; `verifying` is of these."""
    verifying.progress.begin("verifying", queries.truths.n_queries)
    evidence = verifying.verification.verify(verifying.queries, queries.neighbours, progress=verifying.progress)
    verifying.progress.end()
    verifying.verification.ledger.tell(verifying.progress)
    return replace(queries, evidence=evidence)


def held_out_queries(
    folder: IndexFolder, store: Descriptors, queries: Queries, n_neighbours: int = 0
) -> tuple[CalibrationQueries, tuple[str, ...]]:
    """The queries that have a descriptor with what the folder finds for them; a warning of those left out.

    n_neighbours: of each query, where more are wanted than rules of the vote are tried with. Raises LmrError as
    `calibration_of`.
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
    neighbours, vectors = folder.search(vectors, max(*Grid().k, n_neighbours))
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


def leave_one_out(folder: IndexFolder, seed: int) -> Further:
    """Leave-one-out over the folder, where it says what the vote does to images that are new."""
    if len(folder.rows) == 1:
        return Further(None, "since the index has one picture")
    if not folder.refinement.is_off:
        return Further(None, "since pictures of this index borrow from each other")
    trained_on, unknown = trained_on_rows(folder)
    if trained_on.mean() > MOST_TRAINED_ON:
        return Further(
            None,
            f"since the network was trained on {int(trained_on.sum()):,} of the "
            f"{counted(len(trained_on), 'picture')} of the index",
        )
    if unknown:
        return Further(None, "since the network may have been trained on pictures of the index: it kept no record")
    return Further(left_out_queries(folder, max(Grid().k), MAX_TUNED, seed))


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
    further: Further | None = None,
    verified_by: VerifiedBy | None = None,
) -> Calibration:
    """Vote, confidence model and thresholds for an index, from held-out queries.

    The thresholds, curves and figures are of cross-validated answers; the rule and the confidence model are then
    fitted on everything. further: what the rule is judged by besides. verified_by: what the evidence of the queries is
    of; None = they have none. Raises LmrError where no query shows a landmark or none finds a neighbour.
    """
    settings, grid = settings or CalibrationSettings(), grid or Grid()
    further = further or Further(None)
    weight = weight_of(queries, settings)
    tuned = tune(queries, grid, weight, settings.seed, further.queries)
    return Calibration(
        rule=tuned.rule,
        confidence=tuned.confidence,
        settings=settings,
        origin=origin,
        choice=_choice(tuned, queries, further),
        verified=None
        if verified_by is None
        else fit_verified(queries, tuned.rule, tuned.answered, settings, verified_by),
        **figures_of(queries, tuned.answered, settings),
    )


def _choice(tuned: Tuned[VoteRule], queries: CalibrationQueries, further: Further) -> Choice:
    left_out = None
    if further.queries is not None and tuned.further is not None and tuned.further_default is not None:
        left_out = _before_after(further.queries, tuned.further_default, tuned.further)
    held_out = _before_after(queries, tuned.default, tuned.answered)
    return Choice(tuned.tried, tuned.gain, tuned.gain_error, held_out, left_out, further.why_not)


def _before_after(queries: CalibrationQueries, default: Answered, chosen: Answered) -> BeforeAfter:
    known = queries.truths.known
    gaps, shares = zip(*(gap_and_top1(queries, found) for found in (default, chosen)), strict=True)
    return BeforeAfter(len(known), int(known.sum()), gaps[0], gaps[1], shares[0], shares[1])


def fit_verified(
    queries: CalibrationQueries,
    rule: VoteRule,
    plain: Answered,
    settings: CalibrationSettings,
    by: VerifiedBy,
    grid: VerifiedGrid | None = None,
) -> Verified:
    """The vote with evidence, its confidence model and thresholds, from held-out queries that have evidence.

    rule, plain: the vote without it, and its cross-validated answers. The constants are chosen as those of that vote
    are: nested in cross-validation. Where the gain is not above its standard error, that vote and the default weight
    are kept; where answers are then worse than without evidence, evidence counts nothing.
    """
    if queries.evidence is None:
        raise ValueError("a calibration of verified answers needs evidence")
    weight = weight_of(queries, settings)
    default = VoteRule(k=min(VoteRule().k, queries.neighbours.k), m=queries.m)
    rules = (grid or VerifiedGrid()).rules(default, rule)
    tuned = choose(queries, rules, weight, settings.seed)
    from_plain, error = gain_of(queries, weight, tuned.answered, plain)
    if from_plain < 0:
        blind = replace(queries, evidence=Evidence.none(*queries.evidence.inliers.shape))
        tuned = choose(blind, [VerifiedRule(rule, EvidenceRule(weight=0.0))], weight, settings.seed)
        from_plain, error = gain_of(queries, weight, tuned.answered, plain)
    plain_gap, plain_top1 = gap_and_top1(queries, plain)
    is_blind = (queries.evidence.inliers == UNVERIFIED).all(axis=1) & (queries.neighbours.rows >= 0).any(axis=1)
    choice = VerifiedChoice(
        tried=tuned.tried.vote,
        tried_evidence=tuned.tried.evidence,
        gain=tuned.gain,
        gain_error=tuned.gain_error,
        from_plain=from_plain,
        from_plain_error=error,
        plain_gap=plain_gap,
        plain_top1=plain_top1,
    )
    return Verified(
        by=by,
        evidence=tuned.rule.evidence,
        n_inliers=verified_from(queries, queries.evidence),
        rule=tuned.rule.vote,
        confidence=tuned.confidence,
        choice=choice,
        gain=with_and_without(*(held_out(queries, found, weight) for found in (tuned.answered, plain))),
        n_unverified=int(is_blind.sum()),
        **figures_of(queries, tuned.answered, settings, "the thresholds and the inliers of a verified neighbour"),
    )


def verified_from(queries: CalibrationQueries, evidence: Evidence) -> int:
    """The fewest inliers from which on nearly all pairs show the same landmark; FIXED_INLIERS where none do.

    Nearly all: SURE_SHARE of them, of the pairs with at least so many inliers, LEAST_PAIRS or more.
    """
    inliers, is_right = _pairs(queries, evidence)
    order = np.argsort(-inliers, kind="stable")
    n_pairs = np.arange(1, len(order) + 1)
    share = np.cumsum(is_right[order]) / n_pairs
    is_last = np.append(inliers[order][1:] != inliers[order][:-1], True)[: len(order)]
    enough = np.flatnonzero(is_last & (share >= SURE_SHARE) & (n_pairs >= LEAST_PAIRS))
    return int(max(inliers[order][enough[-1]], 1)) if len(enough) else FIXED_INLIERS


def _pairs(queries: CalibrationQueries, evidence: Evidence) -> tuple[NDArray[np.int32], BoolArray]:
    """The inliers of all pairs of a query and a row that were compared, and whether the row shows its landmark."""
    rows = queries.neighbours.rows
    query, place = np.nonzero((rows >= 0) & (evidence.inliers != UNVERIFIED))
    return evidence.inliers[query, place], queries.truths.holds(query, queries.landmark[rows[query, place]])
