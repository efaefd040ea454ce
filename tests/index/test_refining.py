"""Expansion, augmentation and scoring again, against values by hand and slow, obvious versions."""

from dataclasses import replace

import numpy as np
import pytest

from index.calibrate.config import CalibrationSettings
from index.calibrate.fit import calibration_of
from index.copies import SAME_IMAGE
from index.evaluate.leave_one_out import ask_left_out
from index.folder.build import BuildOptions
from index.queries import queries_of
from index.recognition import answer
from index.rerank.config import Refinement
from index.rerank.expansion import augment, expand, refined_search, rerank
from index.search.flat import FlatIndex
from retrieval.errors import LmrError


def unit(vectors):
    vectors = np.asarray(vectors, dtype=np.float64)
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def random_index(n, d=8, seed=0):
    return FlatIndex.build(unit(np.random.default_rng(seed).normal(size=(n, d))), device="cpu")


PLANE = FlatIndex.build(np.array([[0.6, 0.8], [-1, 0], [0, 1]], dtype=np.float32), device="cpu")


def test_a_query_borrows_from_its_nearest_rows_by_a_power_of_their_similarity():
    # Similarities 0.6, -1 and 0: 1 * (1, 0) + 0.36 * (0.6, 0.8); what points away or is at a right angle adds nothing.
    expected = unit([[1 + 0.36 * 0.6, 0.36 * 0.8]])
    query = np.array([[1, 0]], dtype=np.float32)
    for n in (1, 3, 9):
        assert expand(PLANE, query, n, 2.0) == pytest.approx(expected, abs=1e-6)
    assert expand(PLANE, query, 1, 0.0) == pytest.approx(unit([[1.6, 0.8]]), abs=1e-6)


def test_an_index_without_rows_expands_nothing():
    empty = FlatIndex.build(np.zeros((0, 2), dtype=np.float32), device="cpu")
    query = np.array([[1, 0]], dtype=np.float32)
    assert expand(empty, query, 3, 2.0).tolist() == [[1, 0]]
    found = rerank(empty, query, 2, Refinement(n_rerank=100))
    assert found.rows.tolist() == [[-1, -1]]


def test_a_row_borrows_from_others_and_not_from_itself():
    # Of row 0 the nearest other is row 2, at 0.8; row 1 points away from it.
    rows = augment(PLANE, 1, 2.0)
    assert rows[0] == pytest.approx(unit([0.6, 0.8 + 0.64]), abs=1e-6)
    assert rows[1] == pytest.approx([-1, 0])
    assert rows[2] == pytest.approx(unit([0.6 * 0.64, 1 + 0.8 * 0.64]), abs=1e-6)


def test_copies_of_a_row_lend_to_it_once_each():
    index = FlatIndex.build(np.array([[1, 0]] * 4 + [[0.6, 0.8]], dtype=np.float32), device="cpu")
    # Each of the four has three copies; with four neighbours row 4 is the fourth, at 0.6.
    assert augment(index, 4, 1.0)[:4] == pytest.approx(unit([[4 + 0.36, 0.48]] * 4), abs=1e-6)
    assert augment(index, 2, 1.0)[:4] == pytest.approx(np.array([[1, 0]] * 4), abs=1e-6)


def slow_rerank(vectors, query, refinement):
    """(row, score) best first, one row at a time."""
    top = sorted(range(len(vectors)), key=lambda i: (-float(vectors[i] @ query), i))[: refinement.n_rerank]
    refined = {}
    for i in top:
        near = sorted((j for j in top if j != i), key=lambda j: -float(vectors[i] @ vectors[j]))
        lent = [(max(vectors[i] @ vectors[j], 0) * refinement.rerank_weight, vectors[j]) for j in near]
        lent = [(1.0, vectors[i]), *lent[: refinement.rerank_neighbours]]
        refined[i] = sum(w * x for w, x in lent) / sum(w for w, _ in lent)
    first = sorted(top, key=lambda i: -float(query @ refined[i]))[: refinement.rerank_neighbours + 1]
    second = unit(np.max([refined[i] for i in first], axis=0))
    scores = {i: (query @ refined[i] + second @ refined[i]) / 2 for i in top}
    return sorted(scores.items(), key=lambda pair: -pair[1])


@pytest.mark.parametrize("n_rows", [3, 90, 250])
def test_rows_are_scored_again_as_one_by_one(n_rows):
    index, refinement = random_index(n_rows), Refinement(n_rerank=100, rerank_neighbours=4, rerank_weight=0.3)
    queries = unit(np.random.default_rng(1).normal(size=(5, 8)))
    found = rerank(index, queries, 20, refinement)
    vectors = index.vectors(np.arange(n_rows)).astype(np.float64)
    for i in range(5):
        expected = slow_rerank(vectors, queries[i].astype(np.float64), refinement)[:20]
        n = min(20, n_rows)
        assert found.rows[i, :n].tolist() == [row for row, _ in expected]
        assert found.scores[i, :n] == pytest.approx([score for _, score in expected], abs=1e-6)
        assert (found.rows[i, n:] == -1).all()
        assert np.isneginf(found.scores[i, n:]).all()


def test_a_row_that_its_neighbours_vouch_for_passes_one_that_stands_alone():
    # Rows 1 and 2 are close to the query's best row; row 3 is a little nearer to the query, on the other side.
    rows = unit([[1, 0.1, 0], [1, 0.5, 0], [1, 0.55, 0.05], [1, -0.2, 0.4]])
    index, query = FlatIndex.build(rows, device="cpu"), unit([[1, 0, 0]])
    assert index.search(query, 4).rows.tolist() == [[0, 3, 1, 2]]
    found = rerank(index, query, 4, Refinement(n_rerank=100, rerank_neighbours=2, rerank_weight=1.0))
    assert found.rows[0, -1] == 3


def test_equal_scores_are_ordered_by_lower_row():
    index = FlatIndex.build(unit([[1, 0], [0.6, 0.8], [0.6, 0.8], [0.6, 0.8]]), device="cpu")
    found = rerank(index, unit([[0.6, 0.8]]), 4, Refinement(n_rerank=100))
    assert found.rows.tolist() == [[1, 2, 3, 0]]


ALL = Refinement(n_augment=2, n_expand=3, n_rerank=100)


@pytest.mark.parametrize("refinement", [Refinement(n_expand=3), Refinement(n_rerank=100), ALL])
def test_the_size_of_a_batch_changes_no_answer(refinement, monkeypatch):
    index = random_index(300)
    augmented = augment(index, 3, 2.0)
    queries = unit(np.random.default_rng(1).normal(size=(9, 8)))
    together, asked = refined_search(index, queries, 12, refinement)
    monkeypatch.setattr("index.rerank.expansion.BLOCK_BYTES", 1)
    for i in range(9):
        single, vector = refined_search(index, queries[i : i + 1], 12, refinement)
        assert single.rows.tolist() == together.rows[i : i + 1].tolist()
        assert single.scores == pytest.approx(together.scores[i : i + 1], abs=1e-6)
        assert vector == pytest.approx(asked[i : i + 1], abs=1e-6)
    assert augment(index, 3, 2.0) == pytest.approx(augmented, abs=1e-6)


LABELS = ["rome"] * 5 + ["paris"] * 4 + ["oslo"] * 3 + ["atlantis"]


@pytest.fixture
def train(make_store):
    return make_store(LABELS, seed=0)


@pytest.fixture
def refined(make_folder, make_store, train):
    background = make_store([""] * 7, seed=1, source="background.h5")
    return make_folder(train, [background], BuildOptions(whitening_power=None, refinement=ALL))


def test_a_folder_keeps_how_it_is_searched_and_needs_nothing_else(refined, train, make_store):
    assert refined.refinement == ALL
    assert refined.augmented.vectors(np.arange(13)) == pytest.approx(augment(refined.index, 2, 3.0))
    assert (
        refined.rows.background.tolist() != replace(refined, augmented=None).index.vectors(np.arange(13))[:, 0].tolist()
    )
    queries = make_store(["rome"] * 3, seed=2, source="queries.h5")
    answers = answer(refined, queries.vectors, n_neighbours=13)
    expected, _ = refined_search(refined.augmented, unit(queries.vectors), 20, ALL)
    assert answers.neighbours.rows.tolist() == expected.rows.tolist()
    assert (answers.neighbours.rows[:, :13] >= 0).all()


def test_a_image_of_the_index_is_known_by_its_own_descriptor(refined, train):
    answers = answer(refined, train.vectors[[6]])
    assert answers.neighbours.scores[0, 0] < SAME_IMAGE
    assert answers.same_picture.tolist() == [6]
    store = replace(train, source="val.h5")
    with pytest.raises(LmrError, match="calibration queries are also in the index"):
        calibration_of(refined, store, queries_of(store), CalibrationSettings())


def test_no_row_can_be_left_out_where_rows_borrow_from_each_other(refined):
    with pytest.raises(LmrError) as error:
        ask_left_out(refined)
    assert str(error.value) == (
        f"{refined.path} was built with `augment`, `expand` or `rerank`, by which pictures borrow from each other, "
        "so that none can be left out; evaluate queries, or an index without these"
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_expand": -1}, "`n_expand` must be 0 (off) to 10,000, got -1"),
        ({"n_augment": -2}, "`n_augment` must be 0 (off) to 10,000, got -2"),
        ({"expand_alpha": float("nan")}, "`expand_alpha` must be 0 or more, got nan"),
        ({"rerank_weight": -0.5}, "`rerank_weight` must be 0 or more, got -0.5"),
        ({"n_rerank": 99}, "`n_rerank` must be 0 (off) or 100 to 10,000, got 99"),
        ({"rerank_neighbours": 0}, "`rerank_neighbours` must lie in 1 to 99, got 0"),
    ],
)
def test_a_refinement_that_cannot_be_is_one_line(values, message):
    with pytest.raises(LmrError) as error:
        Refinement(**values)
    assert str(error.value) == message
