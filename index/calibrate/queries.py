"""Labelled queries of a calibration, with all that different rules of the vote need to answer them."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from index.confidence import ConfidenceModel, fit_confidences
from index.metrics import Truths
from index.rerank.evidence import Evidence, EvidenceRule, rerank_verified
from index.search.base import Neighbours
from index.vote import Votes, best, best_evidence, one_row_less, vote
from index.vote_rule import VoteRule
from retrieval.arrays import BoolArray, FloatArray, IntArray, LongArray, ObjArray
from retrieval.errors import LmrError


@dataclass(frozen=True, slots=True)
class VerifiedRule:
    """A rule of the vote, and what verified neighbours are worth in it."""

    vote: VoteRule
    evidence: EvidenceRule


Rule = VoteRule | VerifiedRule


class Found(NamedTuple):
    """S of each query's best landmark, whether that is right, and its evidence, None without verification; (q,)."""

    score: FloatArray
    correct: BoolArray
    evidence: FloatArray | None


@dataclass(frozen=True, slots=True)
class CalibrationQueries:
    """Held-out queries: what they show, and what the index found for them.

    neighbours: (q, k), k as large as the largest that is to be tried. landmark: (n_rows,) int32 label of each index
    row. truths: codes as in `landmark`; a landmark that the index does not hold has any code that is not in it.
    background: (q,) c(q), row_background: (n_rows,) b(i), None where there is none; m: of both. kind: (q,) str or
    None. own: (q,) int32, the landmark of the index row that a query is itself, which then counts one row less, -1 =
    it is none; None = no query is. evidence: of the neighbours, None where they are not verified.
    """

    neighbours: Neighbours
    landmark: IntArray
    truths: Truths
    image_id: ObjArray
    kind: ObjArray | None = None
    background: FloatArray | None = None
    row_background: FloatArray | None = None
    m: int = VoteRule().m
    own: IntArray | None = None
    evidence: Evidence | None = None

    def __post_init__(self) -> None:
        n = self.neighbours.n_queries
        for name in ("image_id", "kind", "background", "own"):
            values = getattr(self, name)
            if values is not None and values.shape != (n,):
                raise ValueError(f"{name} has shape {values.shape}, there are {n} queries")
        if self.truths.n_queries != n:
            raise ValueError(f"truths are of {self.truths.n_queries} queries, neighbours of {n}")
        if self.row_background is not None and self.row_background.shape != self.landmark.shape:
            raise ValueError(f"row_background {self.row_background.shape} and landmark {self.landmark.shape} differ")
        if self.evidence is not None and self.evidence.inliers.shape != self.neighbours.rows.shape:
            raise ValueError(
                f"evidence is of {self.evidence.inliers.shape}, neighbours of {self.neighbours.rows.shape}"
            )
        if not self.truths.known.any():
            raise LmrError("calibration needs queries with a known landmark; all of these are blank")
        if not np.any(self.neighbours.rows >= 0):
            raise LmrError("calibration needs queries that find a neighbour; the index has no rows")

    def select(self, rows: LongArray) -> "CalibrationQueries":
        """Only these queries, in this order."""
        place = np.full(self.truths.n_queries, -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        kept = np.flatnonzero(place[self.truths.query] >= 0)
        kept = kept[np.argsort(place[self.truths.query[kept]], kind="stable")]
        return CalibrationQueries(
            neighbours=Neighbours(self.neighbours.rows[rows], self.neighbours.scores[rows]),
            landmark=self.landmark,
            truths=Truths(place[self.truths.query[kept]], self.truths.landmark[kept], len(rows)),
            image_id=self.image_id[rows],
            kind=None if self.kind is None else self.kind[rows],
            background=None if self.background is None else self.background[rows],
            row_background=self.row_background,
            m=self.m,
            own=None if self.own is None else self.own[rows],
            evidence=None if self.evidence is None else self.evidence.select(rows),
        )

    def answer(self, rule: Rule) -> Found:
        """The answers by a rule. Raises ValueError for one of verified neighbours where there is no evidence."""
        if isinstance(rule, VoteRule):
            votes = vote(self.neighbours, self.landmark, rule, row_background=self.row_background)
            if self.own is not None:
                votes = one_row_less(votes, self.own, np.bincount(self.landmark), rule)
        else:
            votes = self._vote_verified(rule)
        landmark, score = best(votes, self.truths.n_queries)
        correct = self.truths.holds(np.arange(len(landmark)), landmark)
        return Found(score, correct, best_evidence(votes, self.truths.n_queries))

    def _vote_verified(self, rule: VerifiedRule) -> Votes:
        if self.evidence is None:
            raise ValueError("a rule of verified neighbours needs evidence")
        weight = rule.evidence.weight
        ordered, worths, _ = rerank_verified(self.neighbours, self.evidence.worth(rule.evidence), weight)
        b = self.row_background
        return vote(ordered, self.landmark, rule.vote, row_background=b, evidence=worths, weight=weight)

    def fit(self, found: Found, members: BoolArray, weight: float | None) -> list[ConfidenceModel]:
        """The confidence model of each line of members (p, q), in which non-landmarks count `weight` times."""
        weights = members.astype(np.float64)
        weights[:, ~self.truths.known] *= 1.0 if weight is None else weight
        return fit_confidences(found.score, found.correct, self.background, found.evidence, weights=weights)

    def logit(self, found: Found, model: ConfidenceModel, here: BoolArray) -> FloatArray:
        """The logits of some of the answers, by a model."""
        background, evidence = (None if v is None else v[here] for v in (self.background, found.evidence))
        return model.logit(found.score[here], background, evidence)
