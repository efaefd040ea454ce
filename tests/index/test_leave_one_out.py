"""Leave-one-out against a literal version that builds an index without each row."""

from dataclasses import replace

import numpy as np
import pytest

from index.confidence import ConfidenceModel
from index.evaluate.evaluation import evaluate
from index.evaluate.leave_one_out import ask_left_out
from index.evaluate.outcome import find_outcomes
from index.evaluate.result import evaluate_left_out
from index.recognition import join_answers
from index.search.flat import FlatIndex
from index.vote import background_similarity, best, vote
from index.vote_rule import VoteRule

LABELS = ["rome"] * 5 + ["paris"] * 4 + ["oslo"] * 3 + ["atlantis"]


class Calibrated:
    rule = VoteRule(k=4, tau=0.1, r=1.0, beta=0.5, m=2)
    confidence = ConfidenceModel(a=20.0, g=15.0, h=0.0, e=-1.0)
    threshold_gap = None
    threshold_precision = None
    trade = ()


@pytest.fixture
def folder(make_folder, make_store):
    background = make_store([""] * 7, seed=1, source="background.h5")
    return make_folder(make_store(LABELS, seed=0), [background])


def answers_of(folder, n_at_once=8192):
    """Those to every row and background image, asked n at once."""
    questions = ask_left_out(folder)
    rows = np.arange(len(questions.queries))
    return join_answers([questions.ask(rows[i : i + n_at_once]) for i in range(0, len(rows), n_at_once)])


def measured(folder):
    questions = ask_left_out(folder)
    return evaluate(questions, find_outcomes(questions))


@pytest.mark.parametrize("n_at_once", [3, 8192])
@pytest.mark.parametrize("calibration", [None, Calibrated()])
def test_each_row_is_answered_as_by_an_index_without_it(folder, calibration, n_at_once):
    folder = replace(folder, calibration=calibration)
    answers = answers_of(folder, n_at_once)
    rows, rule = folder.rows, folder.rule
    vectors = folder.index.vectors(np.arange(len(rows)))
    for row in range(len(rows)):
        others = np.delete(np.arange(len(rows)), row)
        index = FlatIndex.build(vectors[others], device="cpu")
        neighbours = index.search(vectors[[row]], rule.k)
        votes = vote(neighbours, rows.landmark[others], rule, row_background=rows.background[others])
        landmark, score = best(votes, 1)
        assert answers.landmark[row] == landmark[0]
        assert answers.score[row] == pytest.approx(score[0], abs=1e-5)
        mine = answers.votes.query == row
        assert answers.votes.landmark[mine].tolist() == votes.landmark.tolist()


def test_background_images_are_asked_without_themselves(folder):
    answers, found = answers_of(folder), measured(folder)
    n = len(folder.rows)
    assert ask_left_out(folder).queries.landmarks[n:].tolist() == [()] * 7
    assert (found.n_queries, found.n_landmark_queries) == (20, 13)
    vectors = folder.background.vectors
    for i in range(7):
        others = np.delete(vectors, i, axis=0)
        expected = background_similarity(vectors[[i]], others, folder.rule.m)
        assert answers.background[n + i] == pytest.approx(expected[0], abs=1e-6)


def test_a_landmark_with_one_image_cannot_be_right_and_is_reported(folder):
    found = measured(folder)
    said = "1 picture is the only one of its landmark and counts as wrong"
    assert said in evaluate_left_out(folder).warnings
    assert answers_of(folder).landmark[12] != 12
    assert found.retrieval.n_retrieval_queries == 12
    # 12 of 13 at most.
    assert found.accuracy.top10 == pytest.approx(12 / 13)


def test_copies_of_a_row_stay_and_are_reported(make_folder, make_store):
    store = make_store(LABELS, seed=0)
    vectors = store.vectors.copy()
    vectors[1] = vectors[0] * 3
    folder = make_folder(replace(store, vectors=vectors))
    assert measured(folder).n_same_picture == 2
    assert answers_of(folder).same_picture[:2].tolist() == [1, 0]


def test_many_equal_rows_still_leave_out_the_right_number(make_folder, make_store):
    labels = ["rome"] * 150 + ["paris"] * 2
    store = make_store(labels, seed=0)
    vectors = store.vectors.copy()
    vectors[:150] = vectors[0]
    folder = make_folder(replace(store, vectors=vectors))
    neighbours = answers_of(folder).neighbours
    assert neighbours.rows.shape == (152, 100)
    own = neighbours.rows == np.arange(152)[:, None]
    assert not own.any()
    assert measured(folder).retrieval.map_at_100 > 0.97


def test_one_image_in_the_whole_index_is_answered_with_nothing(make_folder, make_store):
    folder = make_folder(make_store(["rome"], seed=0))
    assert measured(folder).accuracy.gap == 0.0
    assert answers_of(folder).landmark.tolist() == [-1]


def test_a_background_of_one_image_is_not_asked(make_folder, make_store):
    folder = make_folder(make_store(LABELS, seed=0), [make_store([""], seed=1, source="background.h5")])
    assert measured(folder).n_queries == len(LABELS)
