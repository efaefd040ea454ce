"""Logistic regression against scikit-learn's, which solves the same problem one model at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from index.confidence import INVERSE_PENALTY, fit_logistic


def by_sklearn(x, right, weight):
    """Slopes and intercept in the units of x, for features standardised over the lines that count."""
    mean = np.average(x, axis=0, weights=weight)
    deviation = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weight))
    model = LogisticRegression(C=INVERSE_PENALTY, tol=1e-10, max_iter=10_000)
    model.fit((x - mean) / deviation, right, sample_weight=weight)
    slopes = model.coef_[0] / deviation
    return slopes, model.intercept_[0] - slopes @ mean


def data(n, slopes, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, len(slopes))) * np.array([0.1, 30.0, 1.0])[: len(slopes)] + 5
    z = (x - x.mean(axis=0)) / x.std(axis=0) @ np.array(slopes)
    return x, rng.uniform(size=n) < 1 / (1 + np.exp(-z))


def test_many_models_are_those_of_sklearn_one_by_one():
    x, right = data(400, (2.0, 1.0, 0.5))
    weights = np.random.default_rng(1).uniform(0.1, 2.0, (5, 400))
    weights[0, :100] = 0
    slopes, intercept = fit_logistic(x, right, weights)
    for p in range(5):
        expected, expected_intercept = by_sklearn(x, right, weights[p])
        assert slopes[p] == pytest.approx(expected, rel=1e-4)
        assert intercept[p] == pytest.approx(expected_intercept, rel=1e-4)


def test_a_negative_slope_becomes_zero_and_the_others_are_those_without_the_feature():
    x, right = data(400, (2.0, -1.0, 0.5))
    slopes, intercept = fit_logistic(x, right, np.ones((1, 400)))
    expected, expected_intercept = by_sklearn(x[:, [0, 2]], right, np.ones(400))
    assert slopes[0, [0, 2]] == pytest.approx(expected, rel=1e-4)
    assert (slopes[0, 1], intercept[0]) == (0.0, pytest.approx(expected_intercept, rel=1e-4))


def test_slopes_that_are_all_negative_leave_the_share_of_right_lines():
    x, right = data(400, (-2.0, -1.0))
    slopes, intercept = fit_logistic(x, right, np.ones((1, 400)))
    assert slopes.tolist() == [[0.0, 0.0]]
    assert intercept[0] == pytest.approx(np.log(right.mean() / (1 - right.mean())))


def test_lines_that_are_all_right_or_all_wrong_or_none_follow_the_rule_of_succession():
    right = np.array([True, True, False])
    weights = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    slopes, intercept = fit_logistic(np.array([[0.1], [0.2], [0.3]]), right, weights)
    assert slopes.tolist() == [[0.0]] * 3
    assert intercept == pytest.approx(np.log([3 / 1, 1 / 2, 1.0]))


def test_a_feature_that_is_constant_for_one_model_has_no_slope_there():
    x = np.column_stack([np.arange(8.0), [1, 1, 1, 1, 1, 1, 2, 3]])
    right = np.array([False, True, False, True, True, True, True, True])
    slopes, _ = fit_logistic(x, right, np.array([[1.0] * 6 + [0.0] * 2, [1.0] * 8]))
    assert slopes[0, 1] == 0
    assert slopes[1, 1] > 0


def test_no_lines_and_no_features_are_no_error():
    slopes, intercept = fit_logistic(np.empty((0, 2)), np.empty(0, bool), np.empty((1, 0)))
    assert (slopes.tolist(), intercept.tolist()) == ([[0.0, 0.0]], [0.0])


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.floats(-1e3, 1e3), st.booleans()), min_size=2, max_size=30),
    st.floats(1e-3, 1e3),
)
@settings(max_examples=60, deadline=None)
def test_any_data_give_finite_slopes_that_are_not_negative(lines, weight):
    x = np.array([line[:2] for line in lines])
    right = np.array([line[2] for line in lines])
    slopes, intercept = fit_logistic(x, right, np.full((1, len(lines)), weight))
    assert np.isfinite(slopes).all()
    assert np.isfinite(intercept).all()
    assert (slopes >= 0).all()


@pytest.mark.parametrize("weight", [1.0, 1000.0])
def test_the_mean_of_the_probabilities_is_the_share_of_right_lines(weight):
    x, right = data(60, (8.0, 4.0))
    slopes, intercept = fit_logistic(x, right, np.full((1, 60), weight))
    probability = 1 / (1 + np.exp(-(x @ slopes[0] + intercept[0])))
    assert probability.mean() == pytest.approx(right.mean(), abs=1e-6)
