"""The calibration of answers whose neighbours are verified: what evidence is worth, and what verification gains."""

import numpy as np
from numpy.typing import NDArray

from index.calibrate.config import CalibrationSettings
from index.calibrate.figures import figures_of, gap_and_top1, held_out, weight_of
from index.calibrate.queries import CalibrationQueries
from index.calibrate.selection import Answered, VerifiedGrid, choose, gain_of
from index.calibration import Verified, VerifiedBy, VerifiedChoice
from index.rerank.evidence import FIXED_INLIERS, UNVERIFIED, Evidence
from index.thresholds import with_and_without
from index.vote_rule import VoteRule
from retrieval.arrays import BoolArray

SURE_SHARE = 0.95


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
    are kept.
    """
    if queries.evidence is None:
        raise ValueError("a calibration of verified answers needs evidence")
    weight = weight_of(queries, settings)
    default = VoteRule(k=min(VoteRule().k, queries.neighbours.k), m=queries.m)
    rules = (grid or VerifiedGrid()).rules(default, rule)
    tuned = choose(queries, rules, weight, settings.seed)
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
        **figures_of(queries, tuned.answered, settings),
    )


def verified_from(queries: CalibrationQueries, evidence: Evidence) -> int:
    """The fewest inliers from which on nearly all pairs show the same landmark; FIXED_INLIERS where none do.

    Nearly all: SURE_SHARE of them, of the pairs with at least so many inliers.
    """
    inliers, is_right = _pairs(queries, evidence)
    order = np.argsort(-inliers, kind="stable")
    share = np.cumsum(is_right[order]) / np.arange(1, len(order) + 1)
    is_last = np.append(inliers[order][1:] != inliers[order][:-1], True)[: len(order)]
    enough = np.flatnonzero(is_last & (share >= SURE_SHARE))
    return int(max(inliers[order][enough[-1]], 1)) if len(enough) else FIXED_INLIERS


def _pairs(queries: CalibrationQueries, evidence: Evidence) -> tuple[NDArray[np.int32], BoolArray]:
    """The inliers of all pairs of a query and a row that were compared, and whether the row shows its landmark."""
    rows = queries.neighbours.rows
    query, place = np.nonzero((rows >= 0) & (evidence.inliers != UNVERIFIED))
    return evidence.inliers[query, place], queries.truths.holds(query, queries.landmark[rows[query, place]])
