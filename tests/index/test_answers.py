"""Answers: the same path for every command, with and without calibration and background."""

from dataclasses import replace

import numpy as np
import pytest

from index.confidence import ConfidenceModel
from index.folder.build import BuildOptions
from index.kaggle.shares import answered_beside, predict_store
from index.recognition import answer, answer_store, confidence_or_nan, named_at
from index.vote import background_similarity, best, vote
from index.vote_rule import VoteRule
from retrieval.errors import LmrError
from retrieval.progress import SILENT
from retrieval.store.store import DONE, UNREADABLE

D = 8


@pytest.fixture
def train(make_store):
    return make_store(["rome"] * 5 + ["paris"] * 4 + ["oslo"] * 3, seed=0)


@pytest.fixture
def streets(make_store):
    return make_store([""] * 7, seed=1, source="background.h5")


@pytest.fixture
def queries(make_store):
    return make_store(["rome", "paris", "", "oslo", "rome"], seed=2, source="queries.h5")


@pytest.fixture
def folder(make_folder, train, streets):
    return make_folder(train, [streets])


class Calibrated:
    """Stands in for a calibration: the parts of one that answers use."""

    rule = VoteRule(k=4, tau=0.1, r=1.0, beta=0.5, m=2)
    confidence = ConfidenceModel(a=20.0, g=15.0, h=0.0, e=-1.0)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_an_uncalibrated_index_ranks_by_the_vote_less_three_quarters_of_the_background(folder, streets, queries):
    answers = answer(folder, queries.vectors)
    neighbours = folder.index.search(unit(queries.vectors), 20)
    landmark, score = best(vote(neighbours, folder.rows.landmark, VoteRule()), 5)
    background = background_similarity(unit(queries.vectors), unit(streets.vectors), 3)
    assert answers.landmark.tolist() == landmark.tolist()
    assert answers.score == pytest.approx(score)
    assert answers.background == pytest.approx(background, abs=1e-6)
    assert answers.logit == pytest.approx(score - 0.75 * background, abs=1e-6)
    assert answers.vote_logit == pytest.approx(answers.votes.score - 0.75 * background[answers.votes.query], abs=1e-6)
    assert answers.confidence is None


def test_without_a_background_the_vote_alone_ranks(make_folder, train, queries):
    answers = answer(make_folder(train), queries.vectors)
    assert answers.background is None
    assert answers.logit.tolist() == answers.score.tolist()


def test_a_calibrated_index_uses_its_rule_and_its_confidence(folder, streets, queries):
    folder = replace(folder, calibration=Calibrated())
    answers = answer(folder, queries.vectors)
    neighbours = folder.index.search(unit(queries.vectors), 4)
    votes = vote(neighbours, folder.rows.landmark, Calibrated.rule, row_background=folder.rows.background)
    _, score = best(votes, 5)
    background = background_similarity(unit(queries.vectors), unit(streets.vectors), 2)
    logit = 20 * score - 15 * background - 1
    assert answers.neighbours.k == 4
    assert answers.logit == pytest.approx(logit, abs=1e-4)
    assert answers.confidence == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-4)
    first = np.searchsorted(answers.votes.query, np.arange(5))
    assert answers.vote_logit[first] == pytest.approx(answers.logit)


def test_more_neighbours_than_vote_change_no_answer(folder, queries):
    folder = replace(folder, calibration=Calibrated())
    few, many = answer(folder, queries.vectors), answer(folder, queries.vectors, n_neighbours=100)
    assert many.neighbours.k == 100
    assert many.neighbours.rows[:, :4].tolist() == few.neighbours.rows.tolist()
    assert many.logit.tolist() == few.logit.tolist()


def test_whitened_queries_are_compared_in_the_space_of_the_index(make_folder, train, streets):
    folder = make_folder(train, [streets], BuildOptions(n_dimensions=4))
    # An index row as a query: its own similarity is 1 only in the same space.
    answers = answer(folder, train.vectors[[3]] * 7)
    assert answers.neighbours.rows[0, 0] == 3
    assert answers.neighbours.scores[0, 0] == pytest.approx(1.0, abs=1e-6)
    assert answers.same_picture.tolist() == [3]


def test_only_a_copy_of_a_row_is_the_same_image(folder, train, queries):
    queries = np.concatenate([train.vectors[[6]], queries.vectors[[0]]])
    assert answer(folder, queries).same_picture.tolist() == [6, -1]


def test_one_query_at_a_time_gives_the_same_answers(folder, queries):
    folder = replace(folder, calibration=Calibrated())
    together = answer(folder, queries.vectors)
    single = [answer(folder, queries.vectors[i : i + 1]) for i in range(5)]
    assert together.logit == pytest.approx(np.concatenate([a.logit for a in single]), abs=1e-5)
    assert together.landmark.tolist() == [int(a.landmark[0]) for a in single]


def test_no_queries_have_no_answers(folder):
    assert len(answer(folder, np.empty((0, D), dtype=np.float32))) == 0


def test_unreadable_queries_of_a_store_have_no_answer_and_keep_their_place(folder, queries):
    folder = replace(folder, calibration=Calibrated())
    state = np.array([DONE, UNREADABLE, DONE, UNREADABLE, DONE], dtype=np.uint8)
    answers = answer_store(folder, replace(queries, state=state))
    whole = answer(folder, queries.vectors)
    assert (answers.landmark >= 0).tolist() == [True, False, True, False, True]
    assert answers.logit[[0, 2, 4]] == pytest.approx(whole.logit[[0, 2, 4]])
    assert answers.logit[[1, 3]].tolist() == [-np.inf, -np.inf]
    assert answers.confidence[[1, 3]].tolist() == [0.0, 0.0]
    assert answers.neighbours.rows[1].tolist() == [-1] * 4
    assert set(answers.votes.query) == {0, 2, 4}


@pytest.mark.parametrize("background", [True, False])
def test_a_store_is_answered_in_parts_as_it_is_whole(make_folder, train, streets, make_store, monkeypatch, background):
    folder = make_folder(train, [streets] if background else [])
    state = np.array([UNREADABLE, UNREADABLE, *[DONE] * 5, UNREADABLE], dtype=np.uint8)
    store = replace(make_store(["rome"] * 8, seed=4, source="queries.h5"), state=state)
    whole = answer_store(folder, store, n_neighbours=6)
    monkeypatch.setattr("index.recognition.BLOCK_QUERIES", 2)
    parts = answer_store(folder, store, n_neighbours=6)
    assert np.array_equal(parts.neighbours.rows, whole.neighbours.rows)
    assert np.array_equal(parts.votes.query, whole.votes.query)
    assert np.array_equal(parts.votes.landmark, whole.votes.landmark)
    assert parts.logit == pytest.approx(whole.logit, abs=1e-5)
    assert (parts.background is None) is not background
    told = predict_store(folder, store, 0.2, answered_beside(folder.path.with_name("s.csv"), {}), SILENT)
    assert told.image_id.tolist() == store.image_id.tolist()
    names = [*folder.rows.landmarks, ""]
    assert told.landmark.tolist() == [names[code] for code in named_at(whole, 0.2)]
    assert told.logit == pytest.approx(whole.logit, abs=1e-5)


def test_a_store_without_rows_has_no_predictions(folder, make_store, tmp_path):
    answered = answered_beside(tmp_path / "s.csv", {})
    assert len(predict_store(folder, make_store([], seed=4), 0.2, answered, SILENT)) == 0
    assert not answered.path.exists()


def test_answers_that_were_kept_are_not_asked_again(folder, make_store, tmp_path, monkeypatch):
    store = make_store(["rome"] * 7, seed=4, source="queries.h5")
    whole = predict_store(folder, store, 0.2, answered_beside(tmp_path / "whole.csv", {"a": 1}), SILENT)
    monkeypatch.setattr("index.recognition.BLOCK_QUERIES", 2)
    asked = []

    def ask(folder, vectors, *, n_neighbours, verifying):
        asked.append(len(vectors))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return answer(folder, vectors, n_neighbours=n_neighbours)

    monkeypatch.setattr("index.recognition.answer", ask)
    output = tmp_path / "s.csv"
    with pytest.raises(KeyboardInterrupt):
        predict_store(folder, store, 0.2, answered_beside(output, {"a": 1}), SILENT)
    kept = answered_beside(output, {"a": 1})
    assert [len(block) for block in kept.read()] == [2, 2]
    content = kept.path.read_bytes()
    for cut, n_left in ((1, 5), (70, 5), (len(content) // 2 + 20, 7)):  # in the second block, and in the first
        kept.path.write_bytes(content[:-cut])
        asked[:] = [0, 0, 0]
        found = predict_store(folder, store, 0.2, answered_beside(output, {"a": 1}), SILENT)
        assert sum(asked) == n_left
        assert found.landmark.tolist() == whole.landmark.tolist()
        assert found.logit == pytest.approx(whole.logit, abs=1e-5)
    kept.path.write_bytes(content[:40] + bytes([content[40] ^ 1]) + content[41:])
    assert answered_beside(output, {"a": 1}).read() == []
    kept.path.write_bytes(content)
    assert answered_beside(output, {"a": 2}).read() == []
    asked[:] = [0, 0, 0]
    predict_store(folder, store, 0.2, answered_beside(output, {"a": 2}), SILENT)
    assert sum(asked) == 7
    assert [len(block) for block in answered_beside(output, {"a": 2}).read()] == [2, 2, 2, 1]
    kept.remove()
    assert not kept.path.exists()


def test_queries_of_another_model_are_refused(make_store, folder, queries):
    other = make_store(["rome"], seed=3, fingerprint="cd" * 32, source="queries.h5")
    with pytest.raises(LmrError) as error:
        answer_store(folder, other)
    assert str(error.value) == (
        f"queries.h5 does not fit {folder.path}: model cdcdcdcd is not abababab; embed with the same model"
    )


def test_predictions_below_the_threshold_name_no_landmark(folder, queries):
    folder = replace(folder, calibration=Calibrated())
    answers = answer(folder, queries.vectors)
    middle = float(np.sort(answers.logit)[2])
    named = named_at(answers, middle)
    assert named.tolist() == np.where(answers.logit >= middle, answers.landmark, -1).tolist()
    assert confidence_or_nan(answers).tolist() == answers.confidence.tolist()
    assert (named_at(answers, -np.inf) >= 0).all()


def test_predictions_of_an_uncalibrated_index_have_no_confidence(folder, queries):
    assert np.isnan(confidence_or_nan(answer(folder, queries.vectors))).all()
