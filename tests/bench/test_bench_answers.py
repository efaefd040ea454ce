"""Figures of answers as scripts/bench/quality.py tells them."""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from index.metrics import gap


@pytest.fixture(scope="module")
def answers(load_bench: Callable[[str], ModuleType]) -> ModuleType:
    return load_bench("answers")


def test_the_calibration_error_is_the_mean_distance_of_confidence_and_share_of_right_answers(
    answers: ModuleType,
) -> None:
    known = np.array([True, True, True, False])
    said = answers.Answers(np.array([0.92, 0.98, 0.31, 0.39]), np.array([True, False, True, False]), known, known)
    found = answers.reliability(said, np.ones(4))
    # 0.95 where half is right, 0.35 where half is right: 0.45 and 0.15, of two answers each
    assert found["ece"] == pytest.approx(0.3)
    assert found["bins"] == [
        {"n": 2, "mean_confidence": pytest.approx(0.35), "share_right": 0.5},
        {"n": 2, "mean_confidence": pytest.approx(0.95), "share_right": 0.5},
    ]


def test_a_confidence_of_one_is_in_the_last_bin(answers: ModuleType) -> None:
    said = answers.Answers(np.array([1.0]), np.array([True]), np.array([True]), np.array([""]))
    assert answers.reliability(said, np.ones(1)) == {
        "ece": 0.0,
        "bins": [{"n": 1, "mean_confidence": 1.0, "share_right": 1.0}],
    }


def test_non_landmarks_count_as_often_as_their_share_asks(answers: ModuleType) -> None:
    known = np.array([True, True, False, False, False])
    weights = answers.weights_at(known, 0.9)
    assert weights.tolist() == pytest.approx([1, 1, 6, 6, 6])
    assert weights[~known].sum() / weights.sum() == pytest.approx(0.9)


def test_the_gap_of_all_queries_drawn_once_is_the_gap(answers: ModuleType) -> None:
    rng = np.random.default_rng(0)
    known = rng.random(60) < 0.5
    confidence, correct = rng.random(60), known & (rng.random(60) < 0.8)
    names = np.array([f"{i:02}" for i in range(60)], dtype=object)
    said = answers.Answers(confidence, correct, known, names)
    assert answers.gap_of(said, np.arange(60)) == pytest.approx(gap(confidence, correct, int(known.sum()), names))


def test_a_query_that_is_drawn_twice_counts_twice(answers: ModuleType) -> None:
    known = np.array([True, False])
    said = answers.Answers(np.array([0.4, 0.6]), np.array([True, False]), known, known)
    # wrong, right, right: precisions of 1/2 and 2/3 over two landmark queries
    assert answers.gap_of(said, np.array([0, 0, 1])) == pytest.approx((1 / 2 + 2 / 3) / 2)
