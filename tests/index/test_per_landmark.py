"""Each landmark's precision and recall, and the confusion matrix, by hand."""

import numpy as np
import pytest

from index.evaluate.errors import Judged, confusion_matrix, landmark_figures
from index.metrics import make_truths, wilson_interval
from retrieval.shown import Labels
from retrieval.texts import Texts

NAMES = ("arch", "bridge", "castle", "dome")


def judged(true, named):
    """true: lists of codes; named: a code or -1 each. dome is not in the index."""
    truths = make_truths(true)
    named = np.array(named, dtype=np.int32)
    n = len(named)
    return Judged(
        landmark=named,
        logit=np.zeros(n),
        ask=None,
        truths=truths,
        correct=truths.holds(np.arange(n), named),
        is_calibrated=False,
        landmarks=NAMES,
        counts=np.array([5, 3, 2]),
        row_landmark=np.repeat(np.arange(3, dtype=np.int32), [5, 3, 2]),
        n_true=np.zeros(n, dtype=np.int64),
        image_id=Texts.of(str(i) for i in range(n)),
        true=Labels.of([()] * n),
    )


TRUE = [[0], [0], [0], [1], [1], [3], [], []]
SAID = [0, 0, 1, 1, 0, 0, 2, -1]
ALL = np.array([True] * 7 + [False])


def test_precision_and_recall_of_each_landmark_are_counted_by_hand():
    found = {f.landmark_id: f for f in landmark_figures(judged(TRUE, SAID), ALL)}
    assert list(found) == ["arch", "bridge", "castle", "dome"]
    arch = found["arch"]
    assert (arch.n_rows, arch.n_queries, arch.n_right, arch.n_answers) == (5, 3, 2, 4)
    assert (arch.recall, arch.precision, arch.confused_with, arch.n_confused) == (2 / 3, 2 / 4, "bridge", 1)
    assert arch.recall_interval == wilson_interval(2, 3)
    castle, dome = found["castle"], found["dome"]
    assert (castle.n_queries, castle.recall, castle.recall_interval, castle.precision) == (0, None, None, 0.0)
    assert (dome.n_rows, dome.n_queries, dome.recall, dome.precision, dome.confused_with) == (0, 1, 0.0, None, "arch")


def test_below_the_threshold_nothing_is_named():
    answered = np.array([True, False, False, False, False, False, False, False])
    found = {f.landmark_id: f for f in landmark_figures(judged(TRUE, SAID), answered)}
    assert (found["arch"].n_right, found["arch"].n_answers, found["arch"].n_confused) == (1, 1, 0)
    assert "castle" not in found


def test_the_matrix_counts_what_is_shown_and_what_is_answered():
    found = confusion_matrix(judged(TRUE, SAID), ALL)
    assert (found.labels, found.n_left_out) == (("arch", "bridge", "castle", "dome", ""), 0)
    assert found.counts == ((2, 1, 0, 0, 0), (1, 1, 0, 0, 0), (0, 0, 0, 0, 0), (1, 0, 0, 0, 0), (0, 0, 1, 0, 1))


def test_a_matrix_of_many_landmarks_shows_those_with_most_mistakes():
    found = confusion_matrix(judged(TRUE, SAID), ALL, most=2)
    assert (found.labels, found.n_left_out) == (("arch", "bridge", "others", ""), 2)
    assert found.counts == ((2, 1, 0, 0), (1, 1, 0, 0), (1, 0, 0, 0), (0, 0, 1, 1))


def test_any_of_several_landmarks_is_right_in_the_matrix():
    found = confusion_matrix(judged([[0, 1]], [1]), np.array([True]))
    assert (found.labels, found.counts) == (("arch", "bridge", "")[1:], ((1, 0), (0, 0)))


def test_the_interval_of_wilson():
    # 8 of 10: (0.8 + 1.92 / 10) / 1.384 -+ 0.2266
    low, high = wilson_interval(8, 10)
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert wilson_interval(0, 0) is None
    assert wilson_interval(0, 5)[0] == 0.0
