"""Choosing the constants of the vote, and what the choice is worth on queries that had no part in it.

Nested cross-validation: the queries are cut into folds; each fold is answered with a rule and a confidence model
that were chosen and fitted on the other folds only. Among those, a rule is judged by the GAP of answers whose
confidence model has seen neither that fold nor their own. The best of many rules is often the best by chance, so the
default rule is kept unless answers by rules chosen on other folds have a higher GAP by more than one standard error.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

from index.calibrate.queries import CalibrationQueries
from index.calibrate.selection import NONE, Answered, Contest, Judge, answered
from index.confidence import ConfidenceModel
from index.vote import VoteRule
from retrieval.arrays import LongArray

N_FOLDS = 5
MAX_TUNED = 2000  # landmark queries, and as many non-landmarks, that rules are compared on


@dataclass(frozen=True, slots=True)
class Grid:
    """The values that are tried, all combinations of them; beta only where index rows have a background."""

    k: tuple[int, ...] = (1, 3, 5, 10, 20, 50)
    tau: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1, 0.2)
    r: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    beta: tuple[float, ...] = (0.0, 0.5, 1.0)

    def rules(self, k_max: int, m: int, has_row_background: bool) -> list[VoteRule]:
        """Every combination with k up to k_max; the default rule is first, and wins where others are no better."""
        ks = sorted({min(k, k_max) for k in self.k})
        betas = self.beta if has_row_background else (0.0,)
        rules = [VoteRule(k, tau, r, beta, m) for beta, k, tau, r in product(betas, ks, self.tau, self.r)]
        default = VoteRule(k=min(VoteRule().k, k_max), m=m)
        return [default, *(rule for rule in rules if rule != default)]


@dataclass(frozen=True, slots=True)
class Tuned:
    """The rule and confidence model to use, and cross-validated answers by rules so chosen and by the default one.

    tried: the rule that did best. gain: by how much the GAP of rules chosen on other folds exceeds the default's,
    gain_error: its standard error; rule is `tried` where the gain is larger, else the default, of which `answered` is
    then. evidence, evidence_default: of the further queries, None without any.
    """

    rule: VoteRule
    confidence: ConfidenceModel
    answered: Answered
    default: Answered
    tried: VoteRule
    gain: float
    gain_error: float
    evidence: Answered | None
    evidence_default: Answered | None


def tune(
    queries: CalibrationQueries,
    grid: Grid,
    weight: float | None,
    seed: int,
    evidence: CalibrationQueries | None = None,
) -> Tuned:
    """Choose the rule by cross-validated GAP and fit the confidence model; answer each fold from the others.

    weight: how often a non-landmark counts, None = once. evidence: further queries that rules are judged by too, each
    of the two by its number of landmark queries; no confidence model is fitted on them. Rules are compared on at most
    2,000 landmark queries and 2,000 non-landmarks; confidence models are fitted on all. The order of the queries
    changes nothing.
    """
    rules = grid.rules(queries.neighbours.k, queries.m, queries.row_background is not None)
    whole = _judge(queries, rules[0], weight, seed)
    n_folds = int(whole.fold.max()) + 1
    further = [] if evidence is None else [_judge(evidence, rules[0], None, seed, n_folds)]
    contest = Contest([_part(whole, seed), *further], rules, n_folds)
    judges, default = [whole, *further], [0] * n_folds
    chosen = [contest.best[frozenset({f})] for f in range(n_folds)]
    before, after = (answered(judges, rules, numbers) for numbers in (default, chosen))
    gain, error = contest.gain(*(answered(contest.judges, rules, numbers) for numbers in (chosen, default)))
    tried = contest.best[NONE]
    number = tried if gain > error else 0
    if number == 0:
        after = before
    score, correct = whole.queries.answer(rules[number])
    everyone = np.ones((1, len(score)), dtype=np.bool_)
    return Tuned(
        rule=rules[number],
        confidence=whole.queries.fit(score, correct, everyone, weight)[0],
        answered=_in_order(after[0], queries),
        default=_in_order(before[0], queries),
        tried=rules[tried],
        gain=gain,
        gain_error=error,
        evidence=None if evidence is None else _in_order(after[1], evidence),
        evidence_default=None if evidence is None else _in_order(before[1], evidence),
    )


def make_folds(queries: CalibrationQueries, rule: VoteRule, seed: int, n_folds: int = N_FOLDS) -> LongArray:
    """(q,) number of each query's fold: those answered rightly, those not, and non-landmarks are spread evenly."""
    _, correct = queries.answer(rule)
    stratum = np.where(queries.truths.known, correct, 2)
    shuffled = np.random.default_rng(seed).permutation(len(stratum))
    by_name = np.argsort(queries.image_id, kind="stable")[shuffled]
    by_stratum = by_name[np.argsort(stratum[by_name], kind="stable")]
    fold = np.empty(len(stratum), dtype=np.int64)
    fold[by_stratum] = np.arange(len(stratum)) % min(n_folds, len(stratum))
    return fold


def _judge(
    queries: CalibrationQueries, rule: VoteRule, weight: float | None, seed: int, n_folds: int = N_FOLDS
) -> Judge:
    """The queries in the order of their names, in folds."""
    ordered = queries.select(np.argsort(queries.image_id, kind="stable"))
    return Judge(ordered, make_folds(ordered, rule, seed, n_folds), weight)


def _part(judge: Judge, seed: int) -> Judge:
    """The queries that rules are compared on, with the weight that keeps the share of non-landmarks."""
    rng = np.random.default_rng(seed)
    known = judge.queries.truths.known
    groups = [np.flatnonzero(known), np.flatnonzero(~known)]
    if max(len(group) for group in groups) <= MAX_TUNED:
        return judge
    drawn = [rng.permutation(group)[:MAX_TUNED] for group in groups]
    shares = [len(some) / max(1, len(group)) for some, group in zip(drawn, groups, strict=True)]
    kept_share = shares[0] / shares[1] if shares[1] else 1.0
    part = np.sort(np.concatenate(drawn))
    weight = (1.0 if judge.weight is None else judge.weight) * kept_share
    return Judge(judge.queries.select(part), judge.fold[part], weight)


def _in_order(found: Answered, queries: CalibrationQueries) -> Answered:
    """The answers, which are in the order of the names, in the order of the queries."""
    place = np.argsort(np.argsort(queries.image_id, kind="stable"), kind="stable")
    return Answered(found.logit[place], found.correct[place])
