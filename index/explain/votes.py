"""The arithmetic of an answer: what each neighbour gives to its landmark's score, and the terms of the confidence."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from index.answer import Neighbour
from index.confidence import ConfidenceModel
from index.folder.folder import IndexFolder
from index.recognition import UNCALIBRATED_BACKGROUND_WEIGHT, Answers
from index.vote_rule import VoteRule
from retrieval.arrays import FloatArray, LongArray


@dataclass(frozen=True, slots=True)
class Contribution:
    """A neighbour's part in the score of its landmark.

    row: of the index. background: beta * b(i), which is taken from its score. evidence: w * e(q, i), which it gains by
    being verified. corrected: s'(q, i), what it is then. share: its weight in the soft maximum; those of a landmark sum
    to 1. part: what it gives; those of a landmark sum to its soft maximum.
    """

    neighbour: Neighbour
    row: int
    background: float
    evidence: float
    corrected: float
    share: float
    part: float

    def to_json(self) -> dict[str, Any]:
        """JSON object of `explanation.json`."""
        near = self.neighbour
        return {
            "image_id": near.image_id,
            "landmark_id": near.landmark_id,
            "path": near.path,
            "score": near.score,
            "inliers": near.inliers,
            "background": self.background,
            "evidence": self.evidence,
            "corrected": self.corrected,
            "share": self.share,
            "part": self.part,
        }


@dataclass(frozen=True, slots=True)
class LandmarkVotes:
    """The votes for one landmark: score = sum of the parts - held_back.

    n_rows: images of the landmark in the index; held_back: tau * r * log(n_rows), which is taken for their number.
    contributions: of its neighbours, the nearest first. logit: what the landmark is ranked by.
    """

    landmark_id: str
    name: str
    n_rows: int
    contributions: tuple[Contribution, ...]
    held_back: float
    score: float
    logit: float

    @property
    def soft_maximum(self) -> float:
        """The sum of the parts."""
        return float(sum(one.part for one in self.contributions))

    def to_json(self) -> dict[str, Any]:
        """JSON object of `explanation.json`."""
        return {
            "landmark_id": self.landmark_id,
            "name": self.name,
            "n_rows": self.n_rows,
            "soft_maximum": self.soft_maximum,
            "held_back": self.held_back,
            "score": self.score,
            "logit": self.logit,
            "neighbours": [one.to_json() for one in self.contributions],
        }


@dataclass(frozen=True, slots=True)
class Term:
    """One summand of the logit: weight * value. name: score, constant, background or evidence."""

    name: str
    weight: float
    value: float

    @property
    def amount(self) -> float:
        """The summand."""
        return self.weight * self.value

    def to_json(self) -> dict[str, Any]:
        """JSON object of `explanation.json`."""
        return {"name": self.name, "weight": self.weight, "value": self.value, "amount": self.amount}


@dataclass(frozen=True, slots=True)
class VoteExplanation:
    """The votes of one query and the confidence of the best landmark.

    landmarks: all that got votes, the best first. terms: their amounts, added in this order, are the logit of the best
    one to the last bit.
    """

    rule: VoteRule
    landmarks: tuple[LandmarkVotes, ...]
    terms: tuple[Term, ...]
    logit: float
    is_calibrated: bool

    @property
    def best(self) -> LandmarkVotes:
        """The votes for the best landmark."""
        return self.landmarks[0]

    @property
    def decisive(self) -> Contribution:
        """The neighbour that gave most to the best landmark; of equals the nearer one."""
        return max(self.best.contributions, key=lambda one: one.part)

    def to_json(self) -> dict[str, Any]:
        """JSON object of `explanation.json`."""
        rule = self.rule
        return {
            "rule": {"k": rule.k, "tau": rule.tau, "r": rule.r, "beta": rule.beta, "m": rule.m},
            "landmarks": [one.to_json() for one in self.landmarks],
            "terms": [one.to_json() for one in self.terms],
            "logit": self.logit,
        }


def explain_votes(
    folder: IndexFolder, found: Answers, query: int, neighbours: tuple[Neighbour, ...]
) -> VoteExplanation | None:
    """The votes of a query by their parts; None where it has no neighbours.

    neighbours: of this query, in the order of `found`. The soft maximum tau * log(sum of exp(s' / tau)) is shared out
    by its weights w = exp(s' / tau) / sum: as s' - tau * log(w) is the same for all neighbours, w times it is each
    one's part, of its own score and of the gain by their number.
    """
    if not neighbours:
        return None
    rule, rows = folder.rule, found.neighbours.rows[query][: len(neighbours)]
    gained = _evidence(found, query)[: len(neighbours)]
    votes = range(*found.votes.query.searchsorted([query, query + 1]))
    of_landmark = folder.rows.landmark[rows]
    landmarks = []
    for i in votes:
        code = int(found.votes.landmark[i])
        own = np.flatnonzero((of_landmark == code) & (np.arange(len(rows)) < rule.k))
        n_rows = int(folder.rows.counts[code])
        landmarks.append(
            LandmarkVotes(
                landmark_id=found.landmarks[code],
                name=neighbours[own[0]].name,
                n_rows=n_rows,
                contributions=tuple(
                    _contributions(folder, rows[own], [neighbours[place] for place in own], gained[own])
                ),
                held_back=float(rule.tau * rule.r * np.log(n_rows)),
                score=float(found.votes.score[i]),
                logit=float(found.vote_logit[i]),
            )
        )
    background = None if found.background is None else float(found.background[query])
    model = None if found.calibration is None else found.calibration.confidence
    evidence = None if found.votes.evidence is None else float(found.votes.evidence[votes[0]])
    return VoteExplanation(
        rule=rule,
        landmarks=tuple(landmarks),
        terms=confidence_terms(model, float(found.score[query]), background, evidence),
        logit=float(found.logit[query]),
        is_calibrated=found.calibration is not None,
    )


def confidence_terms(
    model: ConfidenceModel | None, score: float, background: float | None, evidence: float | None = None
) -> tuple[Term, ...]:
    """The summands of a logit, in the order in which it is added up. model: None = not calibrated."""
    if model is None:
        terms = [Term("score", 1.0, score)]
        slope = UNCALIBRATED_BACKGROUND_WEIGHT
    else:
        terms = [Term("score", model.a, score), Term("constant", model.e, 1.0)]
        slope = model.g
    if background is not None:
        terms.append(Term("background", -slope, background))
    if model is not None and evidence is not None:
        terms.append(Term("evidence", model.h, evidence))
    return tuple(terms)


def _evidence(found: Answers, query: int) -> FloatArray:
    """(k,) w * e(q, i) of the neighbours of a query; 0 where answers do not go by it."""
    calibration = found.calibration
    if found.evidence is None or found.votes.evidence is None or calibration is None or calibration.verified is None:
        return np.zeros(found.neighbours.k)
    rule = calibration.verified.evidence
    gained: FloatArray = rule.weight * found.evidence.worth(rule)[query]
    return gained


def _contributions(
    folder: IndexFolder, rows: LongArray, neighbours: list[Neighbour], gained: FloatArray
) -> Iterator[Contribution]:
    """The parts of one landmark's neighbours. gained: (n,) what they gain by being verified."""
    rule = folder.rule
    taken: FloatArray = np.zeros(len(rows))
    if rule.beta and folder.rows.background is not None:
        taken = (rule.beta * folder.rows.background[rows]).astype(np.float64)  # multiplied as the vote does
    corrected = np.array([near.score for near in neighbours]) - taken + gained
    top = corrected.max()
    weights = np.exp((corrected - top) / rule.tau)
    soft_maximum = top + rule.tau * np.log(weights.sum())
    shares = weights / weights.sum()
    columns = (rows, taken, gained, corrected, shares, shares * soft_maximum)
    for near, row, *values in zip(neighbours, *(column.tolist() for column in columns), strict=True):
        yield Contribution(near, row, *values)
