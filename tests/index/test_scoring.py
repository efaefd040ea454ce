"""Scoring of submissions against hand-computed cases and a literal version of the challenge's formulas."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.kaggle.scoring import RecognitionScores, RetrievalScores, score, without_unknown
from index.kaggle.submission import (
    RecognitionSolution,
    RecognitionSubmission,
    RetrievalSolution,
    RetrievalSubmission,
)
from retrieval.arrays import object_array
from retrieval.errors import LmrError


def recognition(answers):
    """answers: image_id -> (label, score), or None for a blank cell."""
    pairs = [answer or ("", -np.inf) for answer in answers.values()]
    return RecognitionSubmission(
        "submission.csv",
        object_array(list(answers)),
        object_array([label for label, _ in pairs]),
        np.array([value for _, value in pairs], dtype=np.float64),
        np.arange(2, len(answers) + 2),
    )


def recognition_truth(truths):
    """truths: image_id -> (landmarks, Usage)."""
    return RecognitionSolution(
        "solution.csv",
        object_array(list(truths)),
        object_array([tuple(landmarks.split()) for landmarks, _ in truths.values()]),
        object_array([usage for _, usage in truths.values()]),
    )


def retrieval(lists):
    return RetrievalSubmission(
        "submission.csv",
        object_array(list(lists)),
        object_array([tuple(images) for images in lists.values()]),
        np.arange(2, len(lists) + 2),
    )


def retrieval_truth(truths):
    return RetrievalSolution(
        "solution.csv",
        object_array(list(truths)),
        object_array([tuple(images) for images, _ in truths.values()]),
        object_array([usage for _, usage in truths.values()]),
    )


TRUTH = {
    "a": ("paris london", "Public"),
    "b": ("rome", "Private"),
    "c": ("", "Public"),
    "d": ("oslo", "Ignored"),
    "e": ("rome", "Public"),
}


def test_recognition_equals_the_hand_computed_scores():
    # Ranking of All: c (wrong, no landmark), a (right), b (wrong). e is not answered, d is ignored.
    answers = {"a": ("london", 0.8), "b": ("oslo", 0.7), "c": ("rome", 0.9), "d": ("rome", 1.0)}
    assert score(recognition(answers), recognition_truth(TRUTH)) == {
        "All": RecognitionScores(
            gap=pytest.approx((1 / 2) / 3),
            gap_ignoring_non_landmarks=pytest.approx(1 / 3),
            top1=pytest.approx(1 / 3),
            n_queries=4,
            n_landmark_queries=3,
        ),
        "Public": RecognitionScores(
            gap=pytest.approx((1 / 2) / 2),
            gap_ignoring_non_landmarks=pytest.approx(1 / 2),
            top1=pytest.approx(1 / 2),
            n_queries=3,
            n_landmark_queries=2,
        ),
        "Private": RecognitionScores(
            gap=0.0,
            gap_ignoring_non_landmarks=0.0,
            top1=0.0,
            n_queries=1,
            n_landmark_queries=1,
        ),
    }


def test_halves_without_rows_are_absent():
    truths = {"a": ("paris", "Public"), "d": ("oslo", "Ignored")}
    assert list(score(recognition({"a": ("paris", 1.0)}), recognition_truth(truths))) == ["All", "Public"]


def test_a_half_without_landmarks_has_no_gap_but_is_counted():
    truths = {"a": ("paris", "Public"), "b": ("", "Private")}
    scores = score(recognition({"a": ("paris", 1.0), "b": ("paris", 2.0)}), recognition_truth(truths))
    assert scores["Private"] == RecognitionScores(
        gap=None,
        gap_ignoring_non_landmarks=None,
        top1=None,
        n_queries=1,
        n_landmark_queries=0,
    )
    assert (scores["All"].gap, scores["Public"].gap) == (0.5, 1.0)


def test_a_solution_without_landmarks_is_a_clear_error():
    with pytest.raises(LmrError) as error:
        score(recognition({}), recognition_truth({"a": ("", "Public"), "b": ("paris", "Ignored")}))
    assert str(error.value) == "solution.csv has no query with a landmark; GAP needs at least one"


def test_a_solution_of_ignored_rows_is_a_clear_error():
    with pytest.raises(LmrError) as error:
        score(recognition({}), recognition_truth({"b": ("paris", "Ignored")}))
    assert str(error.value) == "solution.csv has no Public or Private row to score against"


def test_an_unknown_id_is_refused_with_its_line():
    with pytest.raises(LmrError) as error:
        score(recognition({"a": None, "x": None, "y": ("oslo", 1.0)}), recognition_truth(TRUTH))
    assert str(error.value) == (
        "submission.csv:3: id x and 1 others not in solution.csv; "
        "where that holds only a part of the test set, give `ignore_unknown`"
    )


def test_unknown_ids_can_be_left_out_and_are_counted():
    answers = {"a": ("london", 0.8), "x": ("rome", 0.9), "y": None}
    kept, n_unknown = without_unknown(recognition(answers), recognition_truth(TRUTH))
    assert (kept.image_id.tolist(), n_unknown) == (["a"], 2)
    assert score(kept, recognition_truth(TRUTH)) == score(recognition({"a": ("london", 0.8)}), recognition_truth(TRUTH))
    lists, n_unknown = without_unknown(retrieval({"q": "ab", "r": "a"}), retrieval_truth({"r": ("a", "Public")}))
    assert (lists.images.tolist(), n_unknown) == ([("a",)], 1)


def test_recognition_is_not_scored_against_retrieval():
    with pytest.raises(LmrError) as error:
        score(recognition({}), retrieval_truth({"a": ("x", "Public")}))
    assert str(error.value) == (
        "submission.csv is a recognition submission and solution.csv a retrieval solution; "
        "score it against a recognition solution"
    )


def test_retrieval_equals_the_hand_computed_scores():
    truths = {
        "q": (["1", "2"], "Public"),
        "r": (["3"], "Private"),
        "s": (["4"], "Private"),
        "t": (["None"], "Ignored"),
    }
    # q: places 1 (right), 2 (repeats place 1), 3 (right): (1 + 2/3) / 2. r: first right at 4. s: not there.
    lists = {"q": ["1", "1", "2"], "r": ["7", "8", "9", "3"], "t": ["None"]}
    scores = score(retrieval(lists), retrieval_truth(truths))
    assert scores["All"] == RetrievalScores(
        map_at_100=pytest.approx(((1 + 2 / 3) / 2 + 1 / 4 + 0) / 3),
        precision_at={
            "1": pytest.approx(1 / 3),
            "5": pytest.approx((2 / 5 + 1 / 5) / 3),
            "10": pytest.approx((2 / 10 + 1 / 10) / 3),
            "20": pytest.approx((2 / 20 + 1 / 20) / 3),
            "50": pytest.approx((2 / 50 + 1 / 50) / 3),
            "100": pytest.approx((2 / 100 + 1 / 100) / 3),
        },
        mean_position=pytest.approx((1 + 4 + 101) / 3),
        median_position=4.0,
        n_queries=3,
    )
    assert scores["Public"].map_at_100 == pytest.approx((1 + 2 / 3) / 2)
    assert scores["Private"].median_position == (4 + 101) / 2


def test_images_beyond_the_hundredth_do_not_count():
    lists = {"q": [f"x{i}" for i in range(100)] + ["1"]}
    scores = score(retrieval(lists), retrieval_truth({"q": (["1"], "Public")}))["All"]
    assert (scores.map_at_100, scores.mean_position) == (0.0, 101.0)


def literal_gap(answers, truths, drop_non_landmarks):
    """The published metric, with a sort and two loops."""
    n_landmark_queries = sum(1 for landmarks in truths.values() if landmarks)
    ranked = [(i, *answer) for i, answer in answers.items() if answer and i in truths]
    if drop_non_landmarks:
        ranked = [row for row in ranked if truths[row[0]]]
    ranked.sort(key=lambda row: (-row[2], row[0]))
    total, n_right = 0.0, 0
    for rank, (image_id, label, _) in enumerate(ranked, start=1):
        if label in truths[image_id]:
            n_right += 1
            total += n_right / rank
    return total / n_landmark_queries


IDS = [str(i) for i in range(8)]
answer = st.none() | st.tuples(st.sampled_from("xyz"), st.sampled_from([0.1, 0.2, 0.3]))
truth = st.tuples(st.sampled_from(["", "x", "y", "x y"]), st.sampled_from(["Public", "Private", "Ignored"]))


@given(st.dictionaries(st.sampled_from(IDS), answer), st.fixed_dictionaries(dict.fromkeys(IDS, truth)))
@settings(max_examples=150)
def test_recognition_equals_the_literal_version_in_every_half(answers, truths):
    if not any(landmarks and usage != "Ignored" for landmarks, usage in truths.values()):
        return
    scores = score(recognition(answers), recognition_truth(truths))
    for half, usages in {"All": ["Public", "Private"], "Public": ["Public"], "Private": ["Private"]}.items():
        rows = {i: landmarks.split() for i, (landmarks, usage) in truths.items() if usage in usages}
        assert (half in scores) == bool(rows)
        if any(rows.values()):
            assert scores[half].gap == pytest.approx(literal_gap(answers, rows, False))
            ignoring = scores[half].gap_ignoring_non_landmarks
            assert ignoring == pytest.approx(literal_gap(answers, rows, True))
            right = [bool(answers.get(i)) and answers[i][0] in rows[i] for i in rows if rows[i]]
            assert scores[half].top1 == pytest.approx(np.mean(right))
