"""Thresholds, curves and bounds against loops over every threshold and binomial sums."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.calibration import Threshold
from index.confidence import sigmoid
from index.metrics import gap
from index.thresholds import (
    HeldOut,
    clopper_pearson_lower,
    curves,
    gap_threshold,
    non_landmark_weight,
    reliability,
    weighted_gap,
)
from retrieval.errors import LmrError


def held(answers, kind=None, weight=None, lowest=1.0, step=1.0):
    """answers: 'r'ight, 'w'rong (of a landmark query), 'n'on-landmark, with descending logits down to the lowest."""
    n = len(answers)
    return HeldOut(
        logit=np.arange(n - 1, -1, -1) * step + lowest,
        correct=np.array([a == "r" for a in answers]),
        known=np.array([a != "n" for a in answers]),
        image_id=np.array([f"{i:03d}" for i in range(n)], dtype=object),
        kind=None if kind is None else np.array(kind, dtype=object),
        weight=weight,
    )


def answers_of(h, threshold):
    """Right, wrong and false answers at or above a threshold, counted one by one."""
    at = [i for i in range(len(h.logit)) if h.logit[i] >= threshold]
    right = sum(1 for i in at if h.correct[i])
    false = sum(1 for i in at if not h.known[i])
    return right, len(at) - right - false, false


def gap_at(h, threshold):
    used = h.logit >= threshold
    return gap(h.logit[used], h.correct[used], int(h.known.sum()), h.image_id[used])


def expected_gap_at(h, threshold):
    """As GAP, of answers that are right with their confidence; equal logits share the precision after the last."""
    total, hoped, n = 0.0, 0.0, 0
    for level in sorted({float(value) for value in h.logit if value >= threshold}, reverse=True):
        more = int((h.logit == level).sum())
        hoped, n = hoped + more / (1 + math.exp(-level)), n + more
        total += more / (1 + math.exp(-level)) * hoped / n
    return total / h.known.sum()


@st.composite
def drawn(draw, weight=None):
    queries = draw(st.lists(st.tuples(st.integers(-3, 3), st.sampled_from("rwn"), st.booleans()), max_size=25))
    queries = [(0, "r", True), *queries]
    return HeldOut(
        logit=np.array([float(q[0]) if q[2] else -np.inf for q in queries]),
        correct=np.array([q[1] == "r" for q in queries]),
        known=np.array([q[1] != "n" for q in queries]),
        image_id=np.array([f"{i:03d}" for i in range(len(queries))], dtype=object),
        weight=weight,
    )


@given(drawn(), st.sampled_from([0.5, 0.9, 0.999, 1.0]))
@settings(max_examples=100, deadline=None)
def test_the_gap_threshold_is_the_highest_that_keeps_its_share(h, kept):
    levels = sorted(set(h.logit[h.logit > -np.inf]))
    whole, expected = gap_at(h, levels[0]), expected_gap_at(h, levels[0])
    enough = [
        level
        for level in levels
        if gap_at(h, level) >= kept * whole - 1e-12 and expected_gap_at(h, level) >= kept * expected - 1e-12
    ]
    found = gap_threshold(h, kept)
    assert found.logit == (max(enough) if whole > 0 else levels[0])
    assert found.gap == pytest.approx(gap_at(h, found.logit))


@given(drawn())
@settings(max_examples=50, deadline=None)
def test_the_figures_of_a_threshold_are_counted_at_or_above_it(h):
    found = gap_threshold(h)
    right, wrong, false = answers_of(h, found.logit)
    assert found.precision == pytest.approx(right / (right + wrong + false))
    assert found.recall == pytest.approx(right / h.known.sum())
    others = int((~h.known).sum())
    assert found.false_answer_rate == (pytest.approx(false / others) if others else None)
    assert found.confidence == pytest.approx(1 / (1 + math.exp(-found.logit)))


@pytest.mark.parametrize(("right", "n"), [(0, 5), (3, 5), (5, 5), (40, 41)])
def test_at_the_clopper_pearson_bound_as_many_right_answers_have_a_tenth_of_the_chance(right, n):
    bound = float(clopper_pearson_lower(np.array([right]), np.array([n]))[0])
    chance = sum(math.comb(n, i) * bound**i * (1 - bound) ** (n - i) for i in range(right, n + 1))
    assert chance == pytest.approx(0.1 if right else 1.0)


def test_the_gap_threshold_cuts_off_a_tail_without_right_answers():
    # GAP = (1/1 + 2/2 + 3/4) / 3; nothing after the fourth adds to it, and no confidence says that it might.
    found = gap_threshold(held("rrnrnnnn", lowest=-70.0, step=20.0))
    assert (found.logit, found.gap, found.reached) == (10.0, pytest.approx(2.75 / 3), True)


def test_the_gap_threshold_leaves_room_for_right_answers_that_confidences_expect():
    # The last two are wrong here, with confidences of 0.5 and 0.27: of other queries some of these are right.
    found = gap_threshold(held("rrrrrnn", lowest=-1.0))
    assert (found.logit, found.gap) == (-1.0, 1.0)


def test_no_right_answer_leaves_a_threshold_that_answers_everything():
    found = gap_threshold(held("wwn"))
    assert (found.logit, found.gap, found.false_answer_rate) == (1.0, 0.0, 1.0)


def test_each_kind_has_its_own_figures():
    found = gap_threshold(held("rrwnnn", kind=["a", "b", "b", "x", "y", "y"], lowest=-70.0, step=20.0))
    figures = [(k.kind, k.n_queries, k.n_landmark_queries, k.recall, k.false_answer_rate) for k in found.kinds]
    assert found.logit == 10.0
    assert figures == [("a", 1, 1, 1.0, None), ("b", 2, 2, 0.5, None), ("x", 1, 0, None, 0.0), ("y", 2, 0, None, 0.0)]


def test_without_kinds_there_are_no_figures_of_kinds():
    assert gap_threshold(held("rn")).kinds == ()


@pytest.mark.parametrize("weight", [None, 1.0])
def test_a_weight_of_one_changes_no_gap(weight):
    h = held("rnrwnr", weight=weight)
    assert weighted_gap(h) == pytest.approx(gap(h.logit, h.correct, 4, h.image_id))


def test_a_weight_counts_non_landmarks_as_often():
    # r n r with the non-landmark counted three times: (1/1 + 2/5) / 2
    assert weighted_gap(held("rnr", weight=3.0)) == pytest.approx(0.7)
    assert curves(held("rnr", weight=3.0)).precision == pytest.approx((1.0, 1 / 4, 2 / 5))


def test_the_weight_gives_the_share_asked_for():
    weight = non_landmark_weight(30, 20, 0.9)
    assert 20 * weight / (20 * weight + 30) == pytest.approx(0.9)
    assert non_landmark_weight(30, 0, 0.0) == 0.0


def test_a_share_without_non_landmarks_is_an_error():
    with pytest.raises(LmrError) as error:
        non_landmark_weight(30, 0, 0.9)
    assert str(error.value) == "non-landmark share 0.9: there are no non-landmarks among the queries; add some"


@pytest.mark.parametrize("share", [-0.1, 1.0, math.nan])
def test_a_share_outside_its_range_is_an_error(share):
    with pytest.raises(LmrError) as error:
        non_landmark_weight(30, 20, share)
    assert str(error.value) == f"non-landmark share {share}: give a number from 0 to below 1"


def test_a_weighted_bound_allows_for_non_landmarks_that_were_not_seen_to_be_answered():
    # None of 20 non-landmarks is answered, but one in 20 / (1 - 0.05 ** (1 / 20)) may be: each counts 50 times.
    h = held("r" * 40 + "n" * 20, weight=50.0, lowest=-390.0, step=20.0)
    right_at_least = 0.05 ** (1 / 40)
    false_at_most = 1 - 0.05 ** (1 / 20)
    found = gap_threshold(h)
    assert found.logit == 10.0
    assert found.precision == 1.0
    assert found.precision_bound == pytest.approx(right_at_least * 40 / (40 + 50 * 20 * false_at_most))


def test_the_bound_for_a_larger_share_of_non_landmarks_is_lower():
    bounds = [gap_threshold(held("r" * 40 + "wn" * 10, weight=w)).precision_bound for w in (1.0, 5.0, 50.0)]
    assert bounds == sorted(bounds, reverse=True)


def test_curves_hold_every_threshold_of_a_small_set():
    found = curves(held("rnw", kind=["a", "x", "a"]))
    assert found.logit == (3.0, 2.0, 1.0)
    assert found.confidence == pytest.approx(tuple(1 / (1 + math.exp(-v)) for v in (3, 2, 1)))
    assert (found.gap, found.precision) == (pytest.approx((0.5, 0.5, 0.5)), pytest.approx((1.0, 1 / 2, 1 / 3)))
    assert (found.recall, found.false_answer_rate) == ((0.5, 0.5, 0.5), (0.0, 1.0, 1.0))
    assert [(k.kind, k.recall, k.false_answer_rate) for k in found.kinds] == [
        ("a", (0.5, 0.5, 0.5), None),
        ("x", None, (0.0, 1.0, 1.0)),
    ]


def test_long_curves_are_thinned_but_keep_their_ends():
    found = curves(held("rn" * 500), max_points=50)
    assert len(found.logit) == 50
    assert (found.logit[0], found.logit[-1]) == (1000.0, 1.0)


def test_equal_logits_are_one_threshold():
    h = held("rnw")
    tied = HeldOut(np.array([2.0, 2.0, 1.0]), h.correct, h.known, h.image_id)
    assert curves(tied).precision == pytest.approx((1 / 2, 1 / 3))


def test_unanswered_queries_count_for_recall_only():
    h = held("rnr")
    found = curves(HeldOut(np.array([2.0, 1.0, -np.inf]), np.array([True, False, False]), h.known, h.image_id))
    assert found.recall == (0.5, 0.5)
    assert len(found.logit) == 2


def test_reliability_is_the_share_of_right_answers_in_each_bin():
    logit = np.log(np.array([0.95, 0.93, 0.15, 0.5, 0.5]) / np.array([0.05, 0.07, 0.85, 0.5, 0.5]))
    h = held("rnrww")
    bins = reliability(HeldOut(np.append(logit[:4], -np.inf), h.correct, h.known, h.image_id))
    assert [b.n_queries for b in bins] == [0, 1, 0, 0, 0, 1, 0, 0, 0, 2]
    assert (bins[9].mean_confidence, bins[9].share_right) == (pytest.approx(0.94), 0.5)
    assert (bins[1].share_right, bins[5].share_right) == (1.0, 0.0)
    assert (bins[0].low, bins[0].high, bins[0].mean_confidence, bins[0].share_right) == (0.0, 0.1, None, None)


def test_a_confidence_of_one_is_in_the_last_bin():
    h = HeldOut(np.array([1000.0]), np.array([True]), np.array([True]), np.array(["a"], dtype=object))
    assert sigmoid(h.logit)[0] == 1.0
    assert reliability(h)[9].n_queries == 1


def test_reliability_counts_non_landmarks_by_their_weight():
    h = held("rn")
    same = HeldOut(np.array([3.0, 3.0]), h.correct, h.known, h.image_id, weight=4.0)
    assert reliability(same)[9].share_right == pytest.approx(1 / 5)


def test_queries_without_a_landmark_are_an_error():
    with pytest.raises(LmrError) as error:
        held("nn")
    expected = "thresholds need at least one query with a known landmark; all of these are blank"
    assert str(error.value) == expected


def test_queries_without_an_answer_are_an_error():
    h = held("r")
    with pytest.raises(LmrError) as error:
        HeldOut(np.array([-np.inf]), ~h.correct, h.known, h.image_id)
    expected = "thresholds need at least one query with an answer; none of these found a neighbour"
    assert str(error.value) == expected


def test_a_right_answer_to_a_non_landmark_is_refused():
    h = held("rn")
    with pytest.raises(ValueError, match="a non-landmark query cannot be answered rightly"):
        HeldOut(h.logit, ~h.correct, h.known, h.image_id)


def test_a_threshold_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="logit inf must be finite"):
        Threshold(math.inf, 1.0, True, 0.0, 0.0, 0.0, 0.0, None, ())
