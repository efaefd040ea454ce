"""The confidence model: signs, degenerate data, and what a known model's answers are fitted to."""

import math
import re
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.confidence import SMALLEST_SLOPE, ConfidenceModel, fit_confidence, fit_confidences, sigmoid


def drawn(model, n, seed=0):
    """Scores, background similarities, and answers that are right with the model's probability."""
    rng = np.random.default_rng(seed)
    score, background = rng.uniform(0, 1, n), rng.uniform(0, 1, n)
    correct = rng.uniform(size=n) < sigmoid(model.logit(score, background))
    return score, correct, background


def test_the_logit_is_the_formula_of_the_design():
    logit = ConfidenceModel(10.0, 4.0, 0.0, -3.0).logit(np.array([0.6]), np.array([0.25]))
    assert logit.tolist() == [pytest.approx(10 * 0.6 - 4 * 0.25 - 3)]


def test_a_score_of_minus_infinity_has_a_logit_of_minus_infinity_and_no_confidence():
    logit = ConfidenceModel(10.0, 4.0, 0.0, -3.0).logit(np.array([-np.inf]), np.array([0.2]))
    assert (logit.tolist(), sigmoid(logit).tolist()) == ([-np.inf], [0.0])


def test_logits_keep_apart_what_the_sigmoid_rounds_to_one():
    logit = ConfidenceModel(1000.0, 0.0, 0.0, 0.0).logit(np.array([0.9, 0.9 + 1e-12]))
    assert logit[0] < logit[1]
    assert sigmoid(logit).tolist() == [1.0, 1.0]


def test_the_sigmoid_of_large_logits_does_not_overflow():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sigmoid(np.array([-1e9, 0.0, 1e9])).tolist() == [0.0, 0.5, 1.0]


def test_a_background_that_was_fitted_must_be_given():
    message = "the confidence model was fitted with a background or evidence that is not given"
    with pytest.raises(ValueError, match=message):
        ConfidenceModel(1.0, 1.0, 0.0, 0.0).logit(np.array([0.5]))
    with pytest.raises(ValueError, match=message):
        ConfidenceModel(1.0, 0.0, 1.0, 0.0).logit(np.array([0.5]))


def test_a_known_model_is_found_again():
    model = ConfidenceModel(8.0, 5.0, 0.0, -2.0)
    fitted = fit_confidence(*drawn(model, 20_000))
    assert (fitted.a, fitted.g, fitted.e) == pytest.approx((8.0, 5.0, -2.0), rel=0.1)


def test_features_that_are_not_given_have_no_slope():
    score, correct, _ = drawn(ConfidenceModel(8.0, 5.0, 0.0, -2.0), 500)
    fitted = fit_confidence(score, correct)
    assert (fitted.g, fitted.h) == (0.0, 0.0)


def test_a_background_that_speaks_for_an_answer_is_left_out_and_the_rest_fitted_again():
    score, correct, background = drawn(ConfidenceModel(8.0, 5.0, 0.0, -2.0), 500)
    fitted = fit_confidence(score, correct, -background)
    alone = fit_confidence(score, correct)
    assert (fitted.a, fitted.e) == pytest.approx((alone.a, alone.e))
    assert fitted.g == 0.0


def test_a_score_that_speaks_against_an_answer_keeps_the_smallest_slope():
    score, correct, background = drawn(ConfidenceModel(8.0, 5.0, 0.0, -2.0), 500)
    fitted = fit_confidence(-score, correct, background)
    assert fitted.a == SMALLEST_SLOPE
    assert fitted.g > 1


def test_the_mean_confidence_is_the_share_of_right_answers():
    score, correct, background = drawn(ConfidenceModel(8.0, 5.0, 0.0, -2.0), 500)
    for s in (score, -score):
        fitted = fit_confidence(s, correct, background)
        assert sigmoid(fitted.logit(s, background)).mean() == pytest.approx(correct.mean(), abs=1e-3)


@pytest.mark.parametrize(("correct", "expected"), [(True, 9 / 10), (False, 1 / 10)])
def test_answers_that_are_all_alike_give_their_rule_of_succession_at_the_mean_score(correct, expected):
    score = np.linspace(0.2, 0.9, 8)
    fitted = fit_confidence(score, np.full(8, correct))
    assert sigmoid(fitted.logit(np.array([score.mean()]))) == pytest.approx([expected])
    assert (np.diff(fitted.logit(score)) > 0).all()


def test_a_constant_score_gives_the_share_of_right_answers():
    fitted = fit_confidence(np.full(4, 0.5), np.array([True, True, True, False]))
    assert sigmoid(fitted.logit(np.array([0.5]))) == pytest.approx([0.75])
    assert fitted.a == SMALLEST_SLOPE


def test_no_queries_give_an_even_chance():
    assert sigmoid(fit_confidence(np.empty(0), np.empty(0, bool)).logit(np.array([0.0]))).tolist() == [0.5]


def test_queries_without_a_neighbour_are_left_out():
    score, correct, background = drawn(ConfidenceModel(8.0, 5.0, 0.0, -2.0), 300)
    more = [np.append(score, -np.inf), np.append(correct, False), np.append(background, 0.5)]
    assert fit_confidence(*more) == fit_confidence(score, correct, background)


def test_a_weight_counts_like_repeated_queries():
    score, correct, background = drawn(ConfidenceModel(8.0, 5.0, 0.0, -2.0), 300)
    weights = np.where(correct, 1, 3)
    repeated = [np.repeat(x, weights) for x in (score, correct, background)]
    by_weight = fit_confidences(score, correct, background, weights=weights[None])[0]
    by_repeats = fit_confidence(*repeated)
    assert (by_weight.a, by_weight.g, by_weight.e) == pytest.approx((by_repeats.a, by_repeats.g, by_repeats.e))


def test_models_fitted_together_are_those_fitted_alone():
    score, correct, background = drawn(ConfidenceModel(8.0, 5.0, 0.0, -2.0), 300)
    members = np.random.default_rng(1).uniform(size=(4, 300)) < 0.7
    together = fit_confidences(score, correct, background, weights=members.astype(float))
    for model, used in zip(together, members, strict=True):
        alone = fit_confidence(score[used], correct[used], background[used])
        assert (model.a, model.g, model.e) == pytest.approx((alone.a, alone.g, alone.e), rel=1e-6)


def test_answers_that_do_not_overlap_give_a_finite_slope():
    fitted = fit_confidence(np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True]))
    assert 0 < fitted.a < 1000


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.booleans(), st.sampled_from([0.0, 0.3, 0.3, 0.9]))))
@settings(max_examples=60, deadline=None)
def test_any_data_give_a_model_that_ranks_by_score(queries):
    score, correct, background = (np.array([q[i] for q in queries]) for i in range(3))
    fitted = fit_confidence(score, correct.astype(bool), background)
    assert (np.diff(fitted.logit(np.array([0.0, 0.5, 1.0]), np.full(3, 0.3))) > 0).all()


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ((0.0, 0.0, 0.0, 0.0), "a must be positive, g and h not negative, not 0.0, 0.0, 0.0"),
        ((1.0, -1.0, 0.0, 0.0), "a must be positive, g and h not negative, not 1.0, -1.0, 0.0"),
        ((1.0, 0.0, 0.0, math.nan), "a, g, h and e must be finite, not 1.0, 0.0, 0.0, nan"),
    ],
)
def test_a_model_outside_its_range_is_refused(constants, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ConfidenceModel(*constants)
