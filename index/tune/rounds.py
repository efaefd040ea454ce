"""Rounds of tuning: settings judged one after the other, and the best of them, nested in cross-validation.

First every space is judged with a few rules of the vote. Then all rules are in the spaces that did best. What is left
out of a judgement has no part in either: a fold is answered with the setting that did best on the other folds, in the
space that did best on them.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from index.calibrate.precision import held_out
from index.calibrate.selection import Answered, Grid, Judge, answered, difference, judged
from index.thresholds import weighted_gap
from index.tune.material import Finder
from index.tune.spaces import Space
from index.vote_rule import VoteRule
from retrieval.arrays import FloatArray
from retrieval.progress import Progress

FIRST_RULES = (VoteRule(), VoteRule(k=1, r=0.0), VoteRule(k=10, tau=0.1))  # of every space; the default is first
GRID = Grid()


@dataclass(frozen=True, slots=True)
class Setting:
    """A space and a rule of the vote in it."""

    space: Space
    rule: VoteRule


@dataclass(frozen=True, slots=True)
class Figures:
    """GAP and top-1 of cross-validated answers."""

    gap: float
    top1: float


@dataclass(frozen=True, slots=True)
class Trial:
    """A space with the rule that did best in it.

    figures: of all queries, by confidences that have not seen them; the best of many are too good. gain: of GAP over
    the default, gain_error: its standard error.
    """

    setting: Setting
    figures: Figures
    gain: float
    gain_error: float


@dataclass(frozen=True, slots=True)
class Found:
    """What tuning came to.

    trials: the best first. usual: the default setting. default, nested: figures of it, and of settings each chosen
    without the queries that they answer; gain: of GAP between these, gain_error: its standard error. tried: the setting
    that did best. chosen: that one where the gain is larger than its error, else the usual one. n_tries: settings
    judged, of n_planned.
    """

    trials: tuple[Trial, ...]
    default: Figures
    nested: Figures
    gain: float
    gain_error: float
    usual: Setting
    tried: Setting
    chosen: Setting
    n_tries: int
    n_planned: int

    @property
    def is_default(self) -> bool:
        """The default setting is chosen."""
        return self.chosen == self.usual


class Limit:
    """How long tuning may go on: so many minutes, or so many settings, which gives the same on any machine."""

    def __init__(self, minutes: float, n_tries: int | None) -> None:
        self._end, self._n_tries = time.monotonic() + 60 * minutes, n_tries

    def allows(self, n_done: int) -> bool:
        """Another setting may be judged after so many; the first one always may."""
        if n_done == 0:
            return True
        return time.monotonic() < self._end if self._n_tries is None else n_done < self._n_tries


@dataclass(slots=True)
class Judged:
    """The settings that were judged, in their order.

    gaps: of each, with nothing left out, then without each fold. round: 0 or 1. best: of each space, the number of its
    best setting and the answers with it.
    """

    settings: list[Setting] = field(default_factory=list)
    gaps: list[list[float]] = field(default_factory=list)
    round: list[int] = field(default_factory=list)
    best: dict[Space, tuple[int, Answered]] = field(default_factory=dict)

    def add(self, setting: Setting, judge: Judge, n_folds: int, of_round: int) -> None:
        """Judges a setting."""
        gaps, (answers,) = judged([judge], setting.rule, n_folds)
        number = len(self.settings)
        before = self.best.get(setting.space)
        if before is None or gaps[0] > self.gaps[before[0]][0]:
            self.best[setting.space] = number, answers
        self.settings.append(setting)
        self.gaps.append(gaps)
        self.round.append(of_round)

    def best_space(self, left_out: int) -> Space:
        """The space that did best in the first round. left_out: column of gaps."""
        first = [gaps[left_out] for gaps, of_round in zip(self.gaps, self.round, strict=True) if of_round == 0]
        return self.settings[int(np.argmax(first))].space

    def best_setting(self, left_out: int) -> Setting:
        """The setting that did best, of the first round or in its best space."""
        space = self.best_space(left_out)
        allowed = [
            gaps[left_out] if of_round == 0 or setting.space == space else -np.inf
            for setting, gaps, of_round in zip(self.settings, self.gaps, self.round, strict=True)
        ]
        return self.settings[int(np.argmax(allowed))]


def run_rounds(finder: Finder, spaces: Sequence[Space], limit: Limit, progress: Progress) -> Found:
    """Judges settings until all are judged or the limit is reached. spaces: the default one is first."""
    done, n_planned = judge_all(finder, spaces, limit, progress)
    return _found(done, finder, n_planned)


def judge_all(finder: Finder, spaces: Sequence[Space], limit: Limit, progress: Progress) -> tuple[Judged, int]:
    """The settings that were judged, and how many would be without a limit, as far as that is known."""
    done = Judged()
    n_planned = len(spaces) * len(FIRST_RULES)
    progress.begin("tuning", n_planned, "settings")
    for space in spaces:
        _judge_space(done, finder, space, 0, limit, progress)
    if len(done.settings) == n_planned:
        further = list(dict.fromkeys(done.best_space(left_out) for left_out in range(finder.n_folds + 1)))
        n_rules = sum(len(_rules(finder.judge(space), space)) for space in further)
        progress.expect(n_rules)
        n_planned += n_rules
        for space in further:
            _judge_space(done, finder, space, 1, limit, progress)
    progress.end()
    return done, n_planned


def _judge_space(done: Judged, finder: Finder, space: Space, of_round: int, limit: Limit, progress: Progress) -> None:
    """Judges the rules of a round in a space, as far as the limit allows."""
    if not limit.allows(len(done.settings)):
        return
    judge = finder.judge(space, with_rows=of_round == 1)
    for rule in FIRST_RULES if of_round == 0 else _rules(judge, space):
        if not limit.allows(len(done.settings)):
            return
        done.add(Setting(space, rule), judge, finder.n_folds, of_round)
        progress.add(1)


def _rules(judge: Judge, space: Space) -> list[VoteRule]:
    return GRID.rules(judge.queries.neighbours.k, judge.queries.m, space.background)


def _found(done: Judged, finder: Finder, n_planned: int) -> Found:
    """What was found: of settings chosen without a fold, the answers to that fold."""
    n_folds, default = finder.n_folds, done.settings[0]
    judge = finder.judge(default.space)
    before = _answers(finder, default)
    chosen = [done.best_setting(f + 1) for f in range(n_folds)]
    logit, correct = np.full(len(judge.fold), -np.inf), np.zeros(len(judge.fold), dtype=np.bool_)
    for setting in dict.fromkeys(chosen):
        answers = before if setting == default else _answers(finder, setting)
        here = np.isin(judge.fold, [f for f in range(n_folds) if chosen[f] == setting])
        logit[here], correct[here] = answers.logit[here], answers.correct[here]
    after = Answered(logit, correct)
    gain, error = difference(judge, after, before)
    tried = done.best_setting(0)
    return Found(
        trials=_trials(done, judge, before),
        default=_figures(judge, before),
        nested=_figures(judge, after),
        gain=gain,
        gain_error=error,
        usual=default,
        tried=tried,
        chosen=tried if gain > error else default,
        n_tries=len(done.settings),
        n_planned=n_planned,
    )


def _trials(done: Judged, judge: Judge, default: Answered) -> tuple[Trial, ...]:
    trials = []
    for number, answers in done.best.values():
        gain, error = difference(judge, answers, default)
        trials.append(Trial(done.settings[number], _figures(judge, answers), gain, error))
    return tuple(sorted(trials, key=lambda trial: -trial.figures.gap))


def _answers(finder: Finder, setting: Setting) -> Answered:
    """The answers with a setting, by confidence models that have not seen them."""
    judge = finder.judge(setting.space, with_rows=setting.rule.beta > 0)
    return answered([judge], [setting.rule], [0] * finder.n_folds)[0]


def _figures(judge: Judge, found: Answered) -> Figures:
    known = judge.queries.truths.known
    right: FloatArray = found.correct[known].astype(np.float64)
    return Figures(weighted_gap(held_out(judge.queries, found, judge.weight)), float(right.mean()))
