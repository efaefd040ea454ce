"""Tuning: folds, what a fold may know, and which rule wins."""

import re
from dataclasses import replace

import numpy as np
import pytest
from calibration_world import make_queries

from index.calibrate import selection as tuning
from index.calibrate.queries import CalibrationQueries
from index.calibrate.selection import NONE, Contest, Grid, Judge, gaps_without, make_folds, tune
from index.confidence import fit_confidence
from index.metrics import Truths, gap, make_truths
from index.search.base import Neighbours
from index.vote_rule import VoteRule
from retrieval.errors import LmrError

SMALL = Grid(k=(1, 20), tau=(0.05, 0.2), r=(0.5,), beta=(0.0, 1.0))


def test_the_default_rule_is_the_first_and_k_stays_within_the_neighbours():
    rules = Grid().rules(12, 3, True)
    assert rules[0] == VoteRule(k=12)
    assert {rule.k for rule in rules} == {1, 3, 5, 10, 12}
    assert len(rules) == len(set(rules)) == 5 * 5 * 5 * 3


def test_beta_is_tried_only_where_rows_have_a_background():
    assert {rule.beta for rule in Grid().rules(50, 3, False)} == {0.0}


def test_folds_hold_equal_parts_of_right_wrong_and_non_landmark_queries():
    queries = make_queries(103)
    fold = make_folds(queries, VoteRule(), seed=0)
    _, correct, _ = queries.answer(VoteRule())
    known = queries.truths.known
    for members in (correct, known & ~correct, ~known):
        assert np.ptp(np.bincount(fold[members], minlength=5)) <= 1


def test_fewer_queries_than_folds_are_a_fold_each():
    assert sorted(make_folds(make_queries(3, share=0.0), VoteRule(), seed=0)) == [0, 1, 2]


def test_the_order_of_the_queries_changes_nothing():
    queries = make_queries()
    order = np.random.default_rng(1).permutation(len(queries.image_id))
    truth = queries.truths.first
    shuffled = replace(
        queries,
        neighbours=Neighbours(queries.neighbours.rows[order], queries.neighbours.scores[order]),
        truths=make_truths([[code] for code in truth[order]]),
        image_id=queries.image_id[order],
        kind=queries.kind[order],
        background=queries.background[order],
    )
    one, other = tune(queries, SMALL, None, 0), tune(shuffled, SMALL, None, 0)
    assert one.rule == other.rule
    assert one.answered.logit[order] == pytest.approx(other.answered.logit)
    assert one.confidence.a == pytest.approx(other.confidence.a)


def test_another_seed_gives_other_folds():
    queries = make_queries()
    assert (make_folds(queries, VoteRule(), 0) != make_folds(queries, VoteRule(), 1)).any()


def test_the_answers_of_a_fold_do_not_know_its_truths(monkeypatch):
    queries = make_queries()
    fold = np.arange(len(queries.image_id)) % 5
    monkeypatch.setattr(tuning, "make_folds", lambda *_: fold)
    truth = queries.truths.first.copy()
    truth[fold == 2] = np.where(truth[fold == 2] >= 0, -1, 3)
    changed = replace(queries, truths=make_truths([[code] for code in truth]))
    one, other = tune(queries, SMALL, None, 0), tune(changed, SMALL, None, 0)
    one, other = one.answered.logit, other.answered.logit
    assert one[fold == 2] == pytest.approx(other[fold == 2], rel=1e-12)
    assert one[fold != 2] != pytest.approx(other[fold != 2], rel=1e-3)


def test_the_rule_of_a_fold_is_chosen_without_it(monkeypatch):
    queries = make_queries()
    rules = SMALL.rules(20, 3, True)

    class Chosen:
        """Rule 3 is best where fold 2 is left out, rule 4 where nothing is, else the default."""

        def __init__(self, judges, *_):
            self.judges = judges
            self.best = {frozenset({f}): 0 for f in range(5)} | {frozenset({2}): 3, NONE: 4}

        def gain(self, *_):
            return 0.02, 0.01

    monkeypatch.setattr(tuning, "Contest", Chosen)
    tuned = tune(queries, SMALL, None, 0)
    fold = make_folds(queries, rules[0], 0)
    assert (tuned.rule, tuned.tried) == (rules[4], rules[4])
    for f, rule in ((1, rules[0]), (2, rules[3])):
        score, correct, _ = queries.answer(rule)
        model = fit_confidence(score[fold != f], correct[fold != f], queries.background[fold != f])
        assert tuned.answered.logit[fold == f] == pytest.approx(model.logit(score, queries.background)[fold == f])


def test_a_rule_is_judged_by_models_that_saw_neither_the_folds_left_out_nor_the_querys_own():
    queries = make_queries()
    rules = [VoteRule(k=1), VoteRule(k=20)]
    fold = make_folds(queries, rules[0], seed=0)
    contest = Contest([Judge(queries, fold, None)], rules, 5)
    for left_out in (NONE, frozenset({1}), frozenset({3})):
        gaps = []
        for rule in rules:
            score, correct, _ = queries.answer(rule)
            logit = np.empty(len(score))
            for j in range(5):
                seen, here = ~np.isin(fold, [*left_out, j]), fold == j
                model = fit_confidence(score[seen], correct[seen], queries.background[seen])
                logit[here] = model.logit(score[here], queries.background[here])
            used = ~np.isin(fold, list(left_out))
            n_known = int(queries.truths.known[used].sum())
            gaps.append(gap(logit[used], correct[used], n_known, queries.image_id[used]))
        place = [NONE, *(frozenset({f}) for f in range(5))].index(left_out)
        assert gaps_without(contest.judges, rules[0], 5)[place] == pytest.approx(gaps[0])
        assert contest.best[left_out] == int(np.argmax(gaps))


def test_a_rule_that_is_better_by_chance_leaves_the_default():
    # Labels at random: some rule is always a little better than the default on the queries at hand.
    changed = []
    for seed in range(8):
        queries = make_queries(60, seed=seed)
        truth = np.random.default_rng(seed).permutation(queries.truths.first)
        tuned = tune(replace(queries, truths=make_truths([[code] for code in truth])), SMALL, None, 0)
        assert tuned.tried in SMALL.rules(20, 3, True)
        changed.append(tuned.rule != VoteRule())
        assert (tuned.gain > tuned.gain_error) == (tuned.rule == tuned.tried != VoteRule()) or not tuned.gain
    assert sum(changed) <= 3


def test_leave_one_out_can_speak_against_what_few_queries_say():
    queries, n = right_by_the_nearest(40), 40
    # The same neighbours, but here the four that agree are right: the default rule is, the nearest neighbour is not.
    against = replace(queries, truths=make_truths([[1]] * n))
    grid = Grid(k=(1, 5), tau=(0.05,), r=(0.0, 0.5))
    assert tune(queries, grid, None, 0).rule.k == 1
    tuned = tune(queries, grid, None, 0, against)
    assert tuned.rule == VoteRule(k=5)
    assert (tuned.further.correct.mean(), tuned.further_default.correct.mean()) == (1.0, 1.0)


def test_a_query_that_is_a_row_counts_its_landmark_one_row_less():
    queries = right_by_the_nearest(3)
    score, _, _ = queries.answer(VoteRule(k=5, r=1.0))
    own, _, _ = replace(queries, own=np.array([1, 1, -1], np.int32)).answer(VoteRule(k=5, r=1.0))
    # S of landmark 1, of which all four rows are neighbours: tau log(4 exp(0.88 / tau) / n), n = 4, or 3 without one.
    assert score.tolist() == pytest.approx([0.9, 0.9, 0.9])
    assert own[0] == pytest.approx(max(0.9, 0.88 + 0.05 * np.log(4 / 3)))
    assert own[2] == score[2]


def right_by_the_nearest(n):
    """The nearest row is of the right landmark 0, but the default rule listens to four others that agree."""
    scores = np.tile(np.array([0.9, 0.88, 0.88, 0.88, 0.88], np.float32), (n, 1))
    return CalibrationQueries(
        neighbours=Neighbours(np.tile(np.arange(5), (n, 1)), scores),
        landmark=np.array([0, 1, 1, 1, 1], np.int32),
        truths=make_truths([[0]] * n),
        image_id=np.array([f"{i:02d}" for i in range(n)], dtype=object),
    )


def test_the_rule_that_answers_rightly_wins():
    queries = right_by_the_nearest(40)
    tuned = tune(queries, Grid(k=(1, 5), tau=(0.05,), r=(0.0, 0.5)), None, 0)
    assert (tuned.rule.k, tuned.answered.correct.all(), tuned.default.correct.any()) == (1, True, False)
    assert (tuned.gain, tuned.gain_error) == (1.0, 0.0)


def test_the_default_rule_wins_where_all_are_as_good():
    n = 20
    queries = CalibrationQueries(
        neighbours=Neighbours(np.zeros((n, 1), np.int64), np.full((n, 1), 0.9, np.float32)),
        landmark=np.zeros(1, np.int32),
        truths=make_truths([[0]] * n),
        image_id=np.array([f"{i:02d}" for i in range(n)], dtype=object),
    )
    assert tune(queries, Grid(), None, 0).rule == VoteRule(k=1)


def test_the_final_model_is_fitted_on_all_queries():
    queries = make_queries()
    tuned = tune(queries, SMALL, None, 0)
    score, correct, _ = queries.answer(tuned.rule)
    assert tuned.confidence.a == pytest.approx(fit_confidence(score, correct, queries.background).a)


def test_rules_are_compared_on_a_part_whose_weight_keeps_the_share(monkeypatch):
    monkeypatch.setattr(tuning, "MAX_TUNED", 20)
    queries = make_queries(150)
    known = queries.truths.known
    part = tuning._part(Judge(queries, np.zeros(150, np.int64), None), 0)
    kept = part.queries.truths.known
    n_known, n_other = int(kept.sum()), int((~kept).sum())
    assert (n_known, n_other, len(set(part.queries.image_id))) == (20, 20, 40)
    assert part.weight * n_other / n_known == pytest.approx((~known).sum() / known.sum())
    assert np.isfinite(tune(queries, SMALL, None, 0).answered.logit).all()


@pytest.mark.parametrize(("n", "share"), [(1, 0.0), (2, 0.0), (6, 0.0), (6, 0.5)])
def test_a_handful_of_queries_is_tuned_without_error(n, share):
    assert np.isfinite(tune(make_queries(n, share=share), SMALL, None, 0).answered.logit).all()


def test_queries_that_found_nothing_have_no_answer():
    queries = make_queries()
    rows, scores = queries.neighbours.rows.copy(), queries.neighbours.scores.copy()
    rows[7], scores[7] = -1, -np.inf
    tuned = tune(replace(queries, neighbours=Neighbours(rows, scores)), SMALL, None, 0)
    assert np.flatnonzero(np.isneginf(tuned.answered.logit)).tolist() == [7]
    assert not tuned.answered.correct[7]


def test_any_of_several_true_landmarks_is_right():
    queries = make_queries(30, share=0.0)
    truth = queries.truths.first
    _, correct, _ = queries.answer(VoteRule())
    both = replace(queries, truths=make_truths([[99, code] for code in truth]))
    assert both.answer(VoteRule())[1].tolist() == correct.tolist()
    assert correct.any()


def test_select_keeps_the_truths_of_the_selected_queries():
    queries = make_queries(30)
    some = np.arange(1, 30, 3)
    part = queries.select(some)
    assert part.truths.first.tolist() == queries.truths.first[some].tolist()
    assert part.image_id.tolist() == queries.image_id[some].tolist()


def test_queries_that_are_all_blank_are_an_error():
    with pytest.raises(LmrError) as error:
        make_queries(10, share=1.0)
    assert str(error.value) == "calibration needs queries with a known landmark; all of these are blank"


def test_an_index_without_rows_is_an_error():
    empty = Neighbours(np.full((1, 3), -1), np.full((1, 3), -np.inf, np.float32))
    with pytest.raises(LmrError) as error:
        CalibrationQueries(empty, np.empty(0, np.int32), make_truths([[0]]), np.array(["a"], dtype=object))
    assert str(error.value) == "calibration needs queries that find a neighbour; the index has no rows"


def test_columns_of_another_length_are_refused():
    queries = make_queries(10)
    with pytest.raises(ValueError, match=re.escape("background has shape (9,), there are 10 queries")):
        replace(queries, background=queries.background[:9])
    with pytest.raises(ValueError, match="truths are of 9 queries, neighbours of 10"):
        replace(queries, truths=Truths(np.array([0]), np.array([0], np.int32), 9))
    with pytest.raises(ValueError, match=re.escape("row_background (3,) and landmark (40,) differ")):
        replace(queries, row_background=queries.row_background[:3])
