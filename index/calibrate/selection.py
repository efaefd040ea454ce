"""Selection of the constants of the vote, nested in cross-validation, and whether they do better than by chance."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Generic, TypeVar

import numpy as np

from index.calibrate.queries import CalibrationQueries, Found, Rule, VerifiedRule
from index.confidence import ConfidenceModel
from index.rerank.evidence import EvidenceRule
from index.vote_rule import VoteRule
from retrieval.arrays import BoolArray, FloatArray, LongArray, read_only

R = TypeVar("R", VoteRule, VerifiedRule)

N_RESAMPLES = 200  # of the standard error of a difference; its own error is then 5 %

Folds = frozenset[int]
NONE: Folds = frozenset()
N_FOLDS = 5
MAX_TUNED = 2000  # landmark queries, and as many non-landmarks, that rules are compared on


@dataclass(frozen=True, slots=True)
class Answered:
    """Answers to queries by models that have not seen them: logit (q,), -inf = none; correct (q,) bool."""

    logit: FloatArray
    correct: BoolArray

    def __post_init__(self) -> None:
        for name in ("logit", "correct"):
            object.__setattr__(self, name, read_only(getattr(self, name)))


@dataclass(frozen=True, slots=True)
class Judge:
    """Queries in the order of their image_id that rules are judged by. fold: (q,). weight: of a non-landmark."""

    queries: CalibrationQueries
    fold: LongArray
    weight: float | None

    @property
    def weights(self) -> FloatArray:
        """(q,) how often each query counts."""
        return np.where(self.queries.truths.known, 1.0, 1.0 if self.weight is None else self.weight)

    def outside(self, folds: Folds) -> BoolArray:
        """(q,) True for queries of other folds."""
        is_outside = np.ones(len(self.fold), dtype=np.bool_)
        for f in folds:
            is_outside &= self.fold != f  # a tenth of the time of isin, for each rule that is judged
        return is_outside


class Contest:
    """Rules of the vote, judged by GAP with some folds left out of everything.

    judges: the first is the one that confidence models are fitted on. A set of folds stands for what is left out:
    with it, answers to a query come from models that saw neither these folds nor the query's own. best: the number of
    the rule that does best without such a set.
    """

    def __init__(self, judges: Sequence[Judge], rules: Sequence[Rule], n_folds: int) -> None:
        self.judges, self.rules, self.n_folds = judges, rules, n_folds
        self._n_known = [int(judge.queries.truths.known.sum()) for judge in judges]
        self._sets = [set_ for size in range(2) for set_ in subsets(n_folds, size)]
        gaps = np.array([gaps_without(judges, rule, n_folds) for rule in rules])
        self.best = {left_out: int(np.argmax(gaps[:, i])) for i, left_out in enumerate(self._sets)}

    def gain(self, new: Sequence[Answered], old: Sequence[Answered]) -> tuple[float, float]:
        """By how much the GAP of new answers exceeds that of old ones, all judges by their landmark queries; its error.

        new, old: the answers to each judge's queries.
        """
        pairs = [difference(judge, *both) for judge, *both in zip(self.judges, new, old, strict=True)]
        shares = np.array(self._n_known) / sum(self._n_known)
        gains, errors = np.array(pairs).T
        return float(shares @ gains), float(np.sqrt(shares**2 @ errors**2))


def gaps_without(judges: Sequence[Judge], rule: Rule, n_folds: int) -> list[float]:
    """The GAP of a rule with nothing left out, then with each fold left out, over all judges by their landmark queries.

    The models are fitted on the first judge.
    """
    return judged(judges, rule, n_folds)[0]


def judged(judges: Sequence[Judge], rule: Rule, n_folds: int) -> tuple[list[float], list[Answered]]:
    """As `gaps_without`, and each judge's answers by models that have not seen the fold that they answer."""
    first, *_ = found = [judge.queries.answer(rule) for judge in judges]
    models = fitted(judges[0], first, n_folds)
    n_known = [int(judge.queries.truths.known.sum()) for judge in judges]
    gaps, answers = [], []
    for left_out in (set_ for size in range(2) for set_ in subsets(n_folds, size)):
        total = 0.0
        for judge, n, one in zip(judges, n_known, found, strict=True):
            used = judge.outside(left_out)
            logit = unseen_logit(judge, one, models, left_out)
            answers += [] if left_out else [Answered(logit, one.correct)]
            total += n * _gap(logit[used], one.correct[used], judge.weights[used], judge.queries.truths.known[used])
        gaps.append(total / sum(n_known))
    return gaps, answers


def subsets(n_folds: int, size: int) -> list[Folds]:
    """All sets of so many folds."""
    return [frozenset(folds) for folds in combinations(range(n_folds), size)]


def fitted(judge: Judge, found: Found, n_folds: int, largest: int = 2) -> dict[Folds, ConfidenceModel]:
    """The confidence model of a rule's answers without each set of one to `largest` folds."""
    sets = [left_out for size in range(1, largest + 1) for left_out in subsets(n_folds, size)]
    members = np.stack([judge.outside(left_out) for left_out in sets])
    return dict(zip(sets, judge.queries.fit(found, members, judge.weight), strict=True))


def unseen_logit(judge: Judge, found: Found, models: dict[Folds, ConfidenceModel], left_out: Folds) -> FloatArray:
    """(q,) the logit of each query that is not left out, by the model without these folds and its own; else -inf."""
    logit = np.full(len(found.score), -np.inf)
    for f in np.unique(judge.fold):
        if f not in left_out:
            here = judge.fold == f
            logit[here] = judge.queries.logit(found, models[left_out | {int(f)}], here)
    return logit


def answered(judges: Sequence[Judge], rules: Sequence[Rule], chosen: Sequence[int]) -> list[Answered]:
    """Each judge's answers where fold f is answered with rule number chosen[f], by models that have not seen it."""
    logits = [np.full(len(judge.fold), -np.inf) for judge in judges]
    corrects = [np.zeros(len(judge.fold), dtype=np.bool_) for judge in judges]
    for number in sorted(set(chosen)):
        answers = [judge.queries.answer(rules[number]) for judge in judges]
        models = fitted(judges[0], answers[0], len(chosen), largest=1)
        for i, (judge, found) in enumerate(zip(judges, answers, strict=True)):
            here = np.isin(judge.fold, np.flatnonzero(np.asarray(chosen) == number))
            logits[i][here] = unseen_logit(judge, found, models, NONE)[here]
            corrects[i][here] = found.correct[here]
    return [Answered(logit, correct) for logit, correct in zip(logits, corrects, strict=True)]


def _gap(logit: FloatArray, correct: BoolArray, weights: FloatArray, known: BoolArray) -> float:
    """GAP of queries that are in the order of their names; 0 without a landmark query."""
    order = np.argsort(-logit, kind="stable")
    right = correct[order]
    n_known = int(known.sum())
    return float((np.cumsum(right) / np.cumsum(weights[order]))[right].sum() / n_known) if n_known else 0.0


def difference(judge: Judge, new: Answered, old: Answered) -> tuple[float, float]:
    """GAP of new answers less that of old ones, and its standard error by drawing queries with replacement."""
    n = len(judge.fold)
    counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), N_RESAMPLES)
    counts = np.concatenate([np.ones((1, n), dtype=np.int64), counts])
    values = [_gaps_of(one, judge.weights, judge.queries.truths.known, counts) for one in (new, old)]
    difference = values[0] - values[1]
    return float(difference[0]), float(np.nanstd(difference[1:]))


def _gaps_of(found: Answered, weights: FloatArray, known: BoolArray, counts: LongArray) -> FloatArray:
    """(b,) GAP where each query is there as often as a line of counts (b, n) says; NaN without a landmark query."""
    order = np.argsort(-found.logit, kind="stable")
    right = counts[:, order] * found.correct[order]
    answers = np.cumsum(counts[:, order] * weights[order], axis=1)
    precision = np.cumsum(right, axis=1) / np.maximum(answers, np.finfo(np.float64).tiny)
    n_known = (counts * known).sum(axis=1).astype(np.float64)
    gaps: FloatArray = (precision * right).sum(axis=1) / np.where(n_known > 0, n_known, np.nan)
    return gaps


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
class VerifiedGrid:
    """The weights of evidence that are tried, and further votes: (k, tau) in the place of the default's."""

    weight: tuple[float, ...] = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
    vote: tuple[tuple[int, float], ...] = ((20, 0.1), (10, 0.1))

    def rules(self, default: VoteRule, chosen: VoteRule) -> list[VerifiedRule]:
        """Every weight with every vote: the one chosen without verification, the default, and the further ones.

        The default weight with the vote that was chosen without verification is first: others have to do better, and
        that vote has won its place already. A finer grid would be chosen from by chance.
        """
        further = [replace(default, k=min(k, default.k), tau=tau) for k, tau in self.vote]
        weights = dict.fromkeys((EvidenceRule().weight, *self.weight))
        votes = dict.fromkeys((chosen, default, *further))
        return [VerifiedRule(vote, EvidenceRule(weight)) for vote in votes for weight in weights]


@dataclass(frozen=True, slots=True)
class Tuned(Generic[R]):
    """The rule and confidence model to use, and cross-validated answers by rules so chosen and by the default one.

    tried: the rule that did best. gain: by how much the GAP of rules chosen on other folds exceeds the default's,
    gain_error: its standard error; rule is `tried` where the gain is larger, else the default, of which `answered` is
    then. further, further_default: of the further queries, None without any.
    """

    rule: R
    confidence: ConfidenceModel
    answered: Answered
    default: Answered
    tried: R
    gain: float
    gain_error: float
    further: Answered | None
    further_default: Answered | None


def tune(
    queries: CalibrationQueries,
    grid: Grid,
    weight: float | None,
    seed: int,
    further: CalibrationQueries | None = None,
) -> Tuned[VoteRule]:
    """As `choose`, of the rules of a grid."""
    rules = grid.rules(queries.neighbours.k, queries.m, queries.row_background is not None)
    return choose(queries, rules, weight, seed, further)


def choose(
    queries: CalibrationQueries,
    rules: Sequence[R],
    weight: float | None,
    seed: int,
    further: CalibrationQueries | None = None,
) -> Tuned[R]:
    """Choose the rule by cross-validated GAP and fit the confidence model; answer each fold from the others.

    rules: the first one is the default. weight: how often a non-landmark counts, None = once. further: more queries
    that rules are judged by too, each of the two by its number of landmark queries; no confidence model is fitted on
    them. Rules are compared on at most 2,000 landmark queries and 2,000 non-landmarks; confidence models are fitted on
    all. The order of the queries changes nothing.
    """
    whole = _judge(queries, rules[0], weight, seed)
    n_folds = int(whole.fold.max()) + 1
    others: list[Judge] = [] if further is None else [_judge(further, rules[0], None, seed, n_folds)]
    contest = Contest([_part(whole, seed), *others], rules, n_folds)
    judges, default = [whole, *others], [0] * n_folds
    chosen = [contest.best[frozenset({f})] for f in range(n_folds)]
    before, after = (answered(judges, rules, numbers) for numbers in (default, chosen))
    gain, error = contest.gain(*(answered(contest.judges, rules, numbers) for numbers in (chosen, default)))
    tried = contest.best[NONE]
    number = tried if gain > error else 0
    if number == 0:
        after = before
    found = whole.queries.answer(rules[number])
    everyone = np.ones((1, len(found.score)), dtype=np.bool_)
    return Tuned(
        rule=rules[number],
        confidence=whole.queries.fit(found, everyone, weight)[0],
        answered=_in_order(after[0], queries),
        default=_in_order(before[0], queries),
        tried=rules[tried],
        gain=gain,
        gain_error=error,
        further=None if further is None else _in_order(after[1], further),
        further_default=None if further is None else _in_order(before[1], further),
    )


def gain_of(queries: CalibrationQueries, weight: float | None, new: Answered, old: Answered) -> tuple[float, float]:
    """By how much the GAP of new answers to queries exceeds that of old ones, and its standard error."""
    order = np.argsort(queries.image_id, kind="stable")
    judge = Judge(queries.select(order), np.zeros(len(order), dtype=np.int64), weight)
    return difference(judge, *(Answered(found.logit[order], found.correct[order]) for found in (new, old)))


def make_folds(queries: CalibrationQueries, rule: Rule, seed: int, n_folds: int = N_FOLDS) -> LongArray:
    """(q,) number of each query's fold: those answered rightly, those not, and non-landmarks are spread evenly."""
    stratum = np.where(queries.truths.known, queries.answer(rule).correct, 2)
    shuffled = np.random.default_rng(seed).permutation(len(stratum))
    by_name = np.argsort(queries.image_id, kind="stable")[shuffled]
    by_stratum = by_name[np.argsort(stratum[by_name], kind="stable")]
    fold = np.empty(len(stratum), dtype=np.int64)
    fold[by_stratum] = np.arange(len(stratum)) % min(n_folds, len(stratum))
    return fold


def _judge(queries: CalibrationQueries, rule: Rule, weight: float | None, seed: int, n_folds: int = N_FOLDS) -> Judge:
    """The queries in the order of their names, in folds."""
    ordered = queries.select(np.argsort(queries.image_id, kind="stable"))
    return Judge(ordered, make_folds(ordered, rule, seed, n_folds), weight)


def _part(judge: Judge, seed: int) -> Judge:
    """The queries that rules are compared on, with the weight that keeps the share of non-landmarks."""
    part, kept_share = drawn_queries(judge.queries.truths.known, seed)
    if len(part) == len(judge.fold):
        return judge
    weight = (1.0 if judge.weight is None else judge.weight) * kept_share
    return Judge(judge.queries.select(part), judge.fold[part], weight)


def drawn_queries(known: BoolArray, seed: int) -> tuple[LongArray, float]:
    """Rows of at most MAX_TUNED landmark queries and as many non-landmarks, ascending.

    Also how often a non-landmark then counts, so that their share is kept. known: (q,) of all.
    """
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(known), np.flatnonzero(~known)]
    if max(len(group) for group in groups) <= MAX_TUNED:
        return np.arange(len(known)), 1.0
    drawn = [rng.permutation(group)[:MAX_TUNED] for group in groups]
    shares = [len(some) / max(1, len(group)) for some, group in zip(drawn, groups, strict=True)]
    return np.sort(np.concatenate(drawn)), shares[0] / shares[1] if shares[1] else 1.0


def _in_order(found: Answered, queries: CalibrationQueries) -> Answered:
    """The answers, which are in the order of the names, in the order of the queries."""
    place = np.argsort(np.argsort(queries.image_id, kind="stable"), kind="stable")
    return Answered(found.logit[place], found.correct[place])
