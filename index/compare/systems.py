"""Systems as `lmr compare` asks them: something is fitted on labelled queries, others are answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from index.calibrate.config import CalibrationSettings
from index.calibrate.fit import calibration_of
from index.compare.measure import Answered, Asked, Probabilities, find_threshold, folds, join, vote_of_members, votes_of
from index.evaluate.baselines import NEAREST_TAU, frequent_votes, random_votes
from index.folder.folder import IndexFolder
from index.metrics import LIST_LENGTH
from index.recognition import answer_store
from index.vote import Votes, best, vote, vote_majority
from index.vote_rule import VoteRule
from retrieval.arrays import FloatArray, IntArray, LongArray
from retrieval.store.store import Descriptors


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the queries of a part of the data. name: `val` or `test`; rows: which of its queries these are."""

    name: str
    rows: LongArray
    asked: Asked

    def select(self, rows: LongArray) -> "Part":
        """Some of these queries. rows: among them."""
        return Part(self.name, self.rows[rows], self.asked.select(rows))


class System(Protocol):
    """Something that answers queries."""

    def answer(self, fit: Part, ask: Part) -> Answered:
        """The answers to `ask`; what has to be fitted is fitted on `fit`, the two may not share queries."""


def answers_of(system: System, val: Asked, test: Asked | None, seed: int = 0) -> Answered:
    """The answers to test, fitted on val; without test to val itself, each fold of it fitted on the others."""
    whole = Part("val", np.arange(len(val)), val)
    if test is not None:
        return system.answer(whole, Part("test", np.arange(len(test)), test))
    parts = []
    for fit, judged in folds(val, seed):
        parts.append((judged, system.answer(whole.select(fit), whole.select(judged))))
    return join(parts, len(val))


@dataclass(frozen=True, slots=True)
class CalibratedIndex:
    """The calibrated vote of an index folder. stores: of the queries of each part; settings: of the calibration."""

    folder: IndexFolder
    stores: Mapping[str, Descriptors]
    settings: CalibrationSettings

    def answer(self, fit: Part, ask: Part) -> Answered:
        """Ranked by the logit of the confidence, which is calibrated on `fit`."""
        held_out = self.stores[fit.name].select(fit.rows)
        calibration = calibration_of(self.folder, held_out, fit.asked.queries, self.settings)
        folder = replace(self.folder, calibration=calibration)
        answers = answer_store(folder, self.stores[ask.name].select(ask.rows), n_neighbours=LIST_LENGTH)
        threshold = np.full(len(ask.rows), calibration.threshold_precision.logit)
        return Answered(_recoded(answers.votes, folder, ask.asked), answers.logit, threshold)


@dataclass(frozen=True, slots=True)
class PlainNeighbours:
    """The plain vote of the k nearest rows, ranked by its share; k None: the nearest row, ranked by its similarity."""

    folder: IndexFolder
    stores: Mapping[str, Descriptors]
    k: int | None
    precision: float

    def answer(self, fit: Part, ask: Part) -> Answered:
        """Only the threshold is fitted."""
        return _answered(self._votes(fit), self._votes(ask), fit, self.precision)

    def _votes(self, part: Part) -> tuple[Votes, FloatArray]:
        folder = replace(self.folder, calibration=None)
        store = self.stores[part.name].select(part.rows)
        neighbours = answer_store(folder, store, n_neighbours=max(LIST_LENGTH, self.k or 0)).neighbours
        if self.k is None:
            rule = VoteRule(k=max(1, neighbours.k), tau=NEAREST_TAU, r=0)
            votes = vote(neighbours, folder.rows.landmark, rule)
        else:
            votes = vote_majority(neighbours, folder.rows.landmark, self.k)
        return _recoded(votes, folder, part.asked), best(votes, len(store))[1]


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes of a network's head, or of several networks' mean.

    tables: of each part, in the codes of the queries.
    """

    tables: Mapping[str, Probabilities]
    precision: float

    def answer(self, fit: Part, ask: Part) -> Answered:
        """Ranked by the log-odds of the probability. Only the threshold is fitted."""
        return _answered(self._votes(fit), self._votes(ask), fit, self.precision)

    def _votes(self, part: Part) -> tuple[Votes, FloatArray]:
        table = self.tables[part.name].select(part.rows)
        return votes_of(table.landmark, table.probability), table.key


@dataclass(frozen=True, slots=True)
class Majority:
    """The majority of the answers of several systems."""

    systems: Sequence[System]
    precision: float

    def answer(self, fit: Part, ask: Part) -> Answered:
        """Ranked by how many agree. What the members fit is fitted on `fit`.

        The threshold too, on answers of members that were fitted on other queries of it, where there are enough.
        """
        if fit.asked.truths.known.sum() < 2:
            return _answered(self._votes(fit, fit), self._votes(fit, ask), fit, self.precision)
        parts = []
        for known, judged in folds(fit.asked, 0):
            votes, key = self._votes(fit.select(known), fit.select(judged))
            parts.append((judged, Answered(votes, key, np.full(len(judged), np.inf))))
        held = join(parts, len(fit.rows))
        return _answered((held.votes, held.key), self._votes(fit, ask), fit, self.precision)

    def _votes(self, fit: Part, ask: Part) -> tuple[Votes, FloatArray]:
        answers = [system.answer(fit, ask) for system in self.systems]
        return vote_of_members([(a.votes, a.key) for a in answers], len(ask.rows))


@dataclass(frozen=True, slots=True)
class Chance:
    """System that answers without looking: landmarks at random, or those with the most images.

    counts: (n_landmarks,) training images of each landmark, in the codes of the queries.
    """

    counts: LongArray
    by: Literal["random", "most frequent"]
    precision: float

    def answer(self, fit: Part, ask: Part) -> Answered:
        """Only the threshold is fitted."""
        return _answered(self._votes(fit), self._votes(ask), fit, self.precision)

    def _votes(self, part: Part) -> tuple[Votes, FloatArray]:
        n = len(part.rows)
        if self.by == "random":
            return random_votes(np.arange(n), n, len(self.counts))
        return frequent_votes(np.arange(n), self.counts), np.zeros(n)


def _answered(
    fitted: tuple[Votes, FloatArray], asked: tuple[Votes, FloatArray], fit: Part, precision: float
) -> Answered:
    """Votes and keys of the part asked, below a threshold that is found on those of `fit`."""
    threshold = find_threshold(*fitted, fit.asked, precision)
    return Answered(*asked, np.full(len(asked[1]), threshold))


def _recoded(votes: Votes, folder: IndexFolder, asked: Asked) -> Votes:
    """The same votes in the codes of the queries."""
    code = {name: i for i, name in enumerate(asked.landmarks)}
    codes: IntArray = np.array([code[name] for name in folder.rows.landmarks], dtype=np.int32)
    return Votes(votes.query, codes[votes.landmark], votes.score)
