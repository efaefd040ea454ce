"""The threshold for a precision: sure with many queries, sensible with few, and never one answer's doing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.calibrate.precision import precision_threshold, trade_offs
from index.confidence import logit_of, sigmoid
from index.thresholds import HeldOut, clopper_pearson_lower, sweep
from retrieval.errors import LmrError


def held(confidence, answers, weight=None):
    """answers: 'r'ight, 'w'rong (of a landmark query), 'n'on-landmark, each with its confidence."""
    n = len(answers)
    return HeldOut(
        logit=np.array([logit_of(c) for c in confidence], dtype=np.float64),
        correct=np.array([a == "r" for a in answers]),
        known=np.array([a != "n" for a in answers]),
        image_id=np.array([f"{i:05d}" for i in range(n)], dtype=object),
        weight=weight,
    )


def calibrated(n, seed, weight=None):
    """Answers that are right as often as their confidence says; half of the wrong ones are to non-landmarks.

    The first is right.
    """
    rng = np.random.default_rng(seed)
    confidence = 1 / (1 + np.exp(-rng.normal(2, 2.5, n)))
    right = (rng.uniform(size=n) < confidence) | (np.arange(n) == 0)
    other = rng.uniform(size=n) < 0.5
    return held(confidence, ["r" if r else "n" if o else "w" for r, o in zip(right, other, strict=True)], weight)


@pytest.mark.parametrize("precision", [0.8, 0.9, 0.95])
def test_with_many_queries_the_threshold_is_the_lowest_whose_bound_reaches_the_precision(precision):
    h = calibrated(4000, seed=1)
    found = precision_threshold(h, precision)
    levels = np.sort(h.logit)
    bounds = [
        clopper_pearson_lower(np.array([h.correct[h.logit >= t].sum()]), np.array([(h.logit >= t).sum()]))[0]
        for t in levels
    ]
    assert (found.found_by, found.reached, found.n_more_queries) == ("bound", True, None)
    assert found.logit == min(t for t, bound in zip(levels, bounds, strict=True) if bound >= precision)
    assert found.precision_bound >= precision


def test_with_few_queries_the_threshold_is_where_the_confidence_expects_the_precision():
    # Of 30 answers at 0.99 and 5 at 0.93 the mean 0.981 leaves room for twice the wrong answers, and less
    # sqrt(30 * 0.0099 + 5 * 0.0651) / 35 = 0.023 it is above 0.95. The bound of 35 right ones is 0.936.
    h = held([0.99] * 30 + [0.93] * 5 + [0.6] * 10, "r" * 44 + "n")
    found = precision_threshold(h, 0.95)
    assert (found.confidence, found.found_by, found.reached) == (pytest.approx(0.93), "expectation", False)
    assert found.precision_bound == pytest.approx(0.1 ** (1 / 35))
    assert found.expected_precision == pytest.approx((30 * 0.99 + 5 * 0.93) / 35)
    assert (found.n_answers, found.n_wrong, found.named) == (35, 0, pytest.approx(35 / 44))


def test_where_no_answer_is_so_sure_each_must_be_as_confident_as_the_precision():
    h = held([0.96, 0.955, 0.7, 0.6], "rrrn")
    for precision in (0.95, 0.99):
        found = precision_threshold(h, precision)
        assert (found.confidence, found.found_by, found.reached) == (pytest.approx(precision), "confidence", False)
    assert (found.precision, found.expected_precision, found.precision_bound, found.named) == (None, None, 0.0, 0.0)
    assert found.n_more_queries is None


def test_one_confident_error_does_not_turn_the_rest_away():
    confidence = np.linspace(0.999, 0.95, 60).tolist() + [0.3] * 20
    without = precision_threshold(held(confidence, "r" * 60 + "n" * 20), 0.95)
    for wrong in "wn":
        found = precision_threshold(held(confidence, wrong + "r" * 59 + "n" * 20), 0.95)
        assert found.logit <= without.logit + 1e-12
        assert found.n_answers == 60


def test_many_wrong_answers_are_not_talked_away_by_the_confidence():
    # Each fifth answer is wrong, though the confidence says 0.99. Nothing is sure of 0.95; 0.76 is sure at 0.99.
    h = held([0.99] * 200, ("r" * 4 + "w") * 40)
    found = precision_threshold(h, 0.95)
    assert (found.confidence, found.precision, found.reached) == (pytest.approx(0.99), pytest.approx(0.8), False)
    assert precision_threshold(h, 0.7).reached


@given(st.integers(1, 150), st.integers(0, 30), st.sampled_from([None, 0.5, 20.0]))
@settings(max_examples=60, deadline=None)
def test_more_asked_is_never_a_lower_threshold(n, seed, weight):
    h = calibrated(n, seed, weight)
    thresholds = [precision_threshold(h, p).logit for p in (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.99)]
    assert thresholds == sorted(thresholds)


def test_the_usual_precisions_differ_where_confidences_do():
    h = calibrated(133, seed=3)
    assert len({precision_threshold(h, p).logit for p in (0.8, 0.9, 0.95)}) == 3


def test_as_many_further_queries_as_it_says_make_it_sure():
    h = held([0.99] * 30 + [0.93] * 5 + [0.6] * 10, "r" * 44 + "n")
    found = precision_threshold(h, 0.95)
    right = found.expected_precision * 35
    for more, is_sure in ((found.n_more_queries, True), (0.9 * found.n_more_queries, False)):
        times = (45 + more) / 45
        bound = clopper_pearson_lower(np.array([right * times]), np.array([35 * times]))[0]
        assert (bound >= 0.95) == is_sure


def test_no_number_of_queries_is_given_where_none_would_be_enough():
    # The expected precision, 0.8, is below what is asked of it.
    found = precision_threshold(held([0.8] * 10, ("r" * 4 + "w") * 2), 0.795)
    assert (found.reached, found.n_more_queries) == (False, None)


def test_a_share_of_non_landmarks_weighs_what_the_confidence_expects():
    found = sweep(held([0.9, 0.6], "rn", weight=3.0))
    assert found.expected.tolist() == pytest.approx([0.9, (0.9 + 3 * 0.6) / 4])
    assert found.error.tolist() == pytest.approx([0.3, np.sqrt(0.9 * 0.1 + 9 * 0.6 * 0.4) / 4])
    assert (found.n_answers.tolist(), found.n_wrong.tolist()) == ([1.0, 4.0], [0.0, 3.0])


def test_the_trade_lists_the_usual_precisions_and_the_one_asked_for():
    h = calibrated(133, seed=3)
    rows = trade_offs(h, 0.93)
    assert [row.asked for row in rows] == [0.8, 0.9, 0.93, 0.95, 0.98, 0.99]
    for row in rows:
        at = precision_threshold(h, row.asked)
        answered = h.logit >= at.logit
        assert (row.logit, row.n_answers, row.n_wrong) == (at.logit, answered.sum(), (answered & ~h.correct).sum())
        assert row.named == pytest.approx((answered & h.known).sum() / h.known.sum())
        assert row.confidence == pytest.approx(float(sigmoid(np.array([row.logit]))[0]))
    assert [row.named for row in rows] == sorted((row.named for row in rows), reverse=True)


@pytest.mark.parametrize("precision", [95, 0.0, 1.0])
def test_a_precision_outside_its_range_is_an_error(precision):
    with pytest.raises(LmrError) as error:
        precision_threshold(held([0.9, 0.8], "rn"), precision)
    assert str(error.value) == f"precision {precision}: give a number between 0 and 1"
