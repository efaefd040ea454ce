"""Labels against neighbours: both estimates by a slow, obvious version, and what they find on made descriptors."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.clean.config import CleaningRule
from index.clean.inputs import ImageVectors
from index.clean.labels import COUNT_POWER, RIDGE, TAU, Support, judge_labels, support
from index.clean.neighbours import (
    BLOCK_ROWS,
    centre,
    join_blocks,
    look_around,
    look_around_all,
    n_blocks,
    nearest_others,
)
from index.search.flat import FlatIndex


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def made(seed=0, n_landmarks=6, n_each=12, d=24, spread=0.5):
    """Descriptors around one direction for each landmark, and which labels were made wrong."""
    rng = np.random.default_rng(seed)
    true = np.repeat(np.arange(n_landmarks, dtype=np.int32), n_each)
    vectors = unit(rng.normal(size=(n_landmarks, d))[true] + spread * rng.normal(size=(len(true), d)))
    landmark = true.copy()
    wrong = rng.choice(len(true), len(true) // 10, replace=False)
    landmark[wrong] = (landmark[wrong] + rng.integers(1, n_landmarks, len(wrong))) % n_landmarks
    return vectors, landmark, true, np.isin(np.arange(len(true)), wrong)


def found_support(vectors, landmark, k):
    index = FlatIndex.build(vectors, device="cpu")
    rows = np.arange(len(vectors))
    return support(nearest_others(index, rows, k), vectors, landmark, rows)


def slow_support(vectors, landmark, row, k):
    """{landmark: (vote, ridge)} of one row, by the formulas."""
    similarity = vectors.astype(np.float64) @ vectors[row].astype(np.float64)
    others = [i for i in np.argsort(-similarity, kind="stable") if i != row][:k]
    kernel = np.exp(vectors[others].astype(np.float64) @ vectors[others].T.astype(np.float64) - 1)
    weights = np.linalg.inv(kernel + RIDGE * np.eye(len(others))) @ np.exp(similarity[others] - 1)
    result = {}
    for label in {int(landmark[row]), *landmark[others].tolist()}:
        members = [at for at, i in enumerate(others) if landmark[i] == label]
        total = sum(np.exp(similarity[others[at]] / TAU) for at in members)
        total = total or np.exp(similarity[others[-1]] / TAU)
        count = max(1, int((np.delete(landmark, row) == label).sum()))
        result[label] = (np.log(total) - COUNT_POWER * np.log(count), sum(weights[at] for at in members))
    return result


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 30))
def test_vote_and_ridge_are_those_of_the_formulas(seed, k):
    rng = np.random.default_rng(seed)
    vectors = unit(rng.normal(size=(rng.integers(2, 14), 5)))
    landmark = rng.integers(0, 4, len(vectors)).astype(np.int32)
    landmark = np.unique(landmark, return_inverse=True)[1].astype(np.int32)
    found = found_support(vectors, landmark, k)
    for row in range(len(vectors)):
        mine = found.row == row
        expected = slow_support(vectors, landmark, row, k)
        assert found.landmark[mine].tolist() == sorted(expected)
        np.testing.assert_allclose(found.vote[mine], [expected[c][0] for c in sorted(expected)], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found.ridge[mine], [expected[c][1] for c in sorted(expected)], rtol=1e-3, atol=1e-4)


def test_only_the_best_landmarks_of_a_row_and_its_own_are_kept():
    vectors = unit(np.random.default_rng(0).normal(size=(40, 6)))
    landmark = np.arange(40, dtype=np.int32) // 2
    found = found_support(vectors, landmark, 39)
    assert set(np.bincount(found.row)) <= {10, 11}
    assert all(landmark[row] in found.landmark[found.row == row] for row in range(40))


def test_wrong_labels_are_found_and_the_true_ones_suggested():
    vectors, landmark, true, wrong = made()
    judged = judge_labels(found_support(vectors, landmark, 30), landmark)
    flagged = judged.log_odds >= np.log(200)
    assert flagged.tolist() == wrong.tolist()
    assert judged.suggested[wrong].tolist() == true[wrong].tolist()
    assert judged.confident[wrong].all()
    assert (judged.own[~wrong] > 0.5).all()


def test_the_only_image_of_a_landmark_is_not_judged():
    vectors, landmark, _, _ = made()
    landmark[5] = 6
    judged = judge_labels(found_support(vectors, landmark, 30), landmark)
    assert judged.log_odds[5] == -np.inf
    assert not judged.confident[5]


def test_with_one_landmark_there_is_nothing_to_suggest():
    vectors, _, _, _ = made()
    landmark = np.zeros(len(vectors), dtype=np.int32)
    judged = judge_labels(found_support(vectors, landmark, 30), landmark)
    assert (judged.log_odds == -np.inf).all()
    assert (judged.suggested == -1).all()
    assert (judged.own == 1).all()


def test_confidence_is_the_mean_of_what_a_landmark_gives_its_own_images():
    """Two landmarks, four images; the two estimates agree, so temperatures only scale them."""
    logits = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    landmark = np.array([0, 0, 1, 1], dtype=np.int32)
    flat = logits.ravel()
    found = Support(np.repeat(np.arange(4), 2), np.tile(np.arange(2, dtype=np.int32), 4), flat, flat)
    judged = judge_labels(found, landmark)
    probability = np.column_stack([judged.own[:2], 1 - judged.own[:2]])
    assert judged.own[3] < 0.5
    assert judged.confident.tolist() == [False, False, False, 1 - judged.own[3] >= probability[:, 0].mean()]
    assert judged.log_odds[3] == pytest.approx(np.log((1 - judged.own[3]) / judged.own[3]))


def test_blocks_say_the_same_as_all_rows_at_once(monkeypatch, tmp_path):
    vectors, landmark, _, _ = made()
    space = centre(vectors, vectors[:0])
    rule = CleaningRule(n_neighbours=9)
    index = FlatIndex.build(space.labelled[:], device="cpu")
    assert n_blocks(len(landmark)) == 1
    whole = look_around(index, space, landmark, 0, rule)
    monkeypatch.setattr("index.clean.neighbours.BLOCK_ROWS", 10)
    parts = join_blocks([look_around(index, space, landmark, i, rule) for i in range(8)])
    np.testing.assert_array_equal(parts.support.landmark, whole.support.landmark)
    np.testing.assert_allclose(parts.support.ridge, whole.support.ridge, atol=1e-6)
    assert {tuple(pair) for pair in parts.joined} == {tuple(pair) for pair in whole.joined}
    assert BLOCK_ROWS > 10


def test_blocks_on_disk_are_taken_and_damaged_ones_made_again(monkeypatch, tmp_path):
    monkeypatch.setattr("index.clean.neighbours.BLOCK_ROWS", 30)
    vectors, landmark, _, _ = made()
    space, rule = centre(vectors, vectors[:5]), CleaningRule(n_neighbours=9)
    first = look_around_all(space, landmark, rule, tmp_path, device="cpu")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["block-000000.npz", "block-000001.npz", "block-000002.npz"]
    (tmp_path / names[1]).write_bytes((tmp_path / names[1]).read_bytes()[:300])
    (tmp_path / names[2]).unlink()
    made_again = []
    monkeypatch.setattr(
        "index.clean.neighbours.look_around",
        lambda index, space, landmark, number, rule: (
            made_again.append(number) or look_around(index, space, landmark, number, rule)
        ),
    )
    again = look_around_all(space, landmark, rule, tmp_path, device="cpu")
    assert made_again == [1, 2]
    np.testing.assert_array_equal(again.support.vote, first.support.vote)
    np.testing.assert_array_equal(again.background_similarity, first.background_similarity)


@pytest.mark.parametrize("n_at_once", [7, 8192])
def test_rows_that_are_read_from_a_store_in_blocks_have_the_same_surroundings(make_store, monkeypatch, n_at_once):
    """Some images of the store have no descriptor, and its rows lie in another order than the images."""
    monkeypatch.setattr("index.clean.neighbours.READ_ROWS", n_at_once)
    store = make_store([f"l{i % 4}" for i in range(40)], seed=0)
    state = store.state.copy()
    state[3] = 0
    store = replace(store, state=state)
    rows = np.random.default_rng(1).permutation(np.flatnonzero(store.done))
    images = ImageVectors(store, np.append(rows, 3))
    assert not images[np.array([39])].any()
    landmark, rule = (rows % 4).astype(np.int32), CleaningRule(n_neighbours=9)
    unit = store.vectors[rows] / np.linalg.norm(store.vectors[rows], axis=1, keepdims=True)
    background = unit[:5]
    found = look_around_all(centre(images.select(np.arange(39)), background), landmark, rule, None, device="cpu")
    whole = look_around_all(centre(unit, background), landmark, rule, None, device="cpu")
    np.testing.assert_array_equal(found.nearest, whole.nearest)
    np.testing.assert_allclose(found.support.ridge, whole.support.ridge, atol=1e-5)
    np.testing.assert_allclose(found.background_similarity, whole.background_similarity, atol=1e-6)


def test_likeness_is_the_mean_of_the_three_nearest_of_a_kind():
    angles = np.deg2rad([0, 10, 20, 30, 80, 90])
    vectors = np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
    landmark = np.array([0, 0, 0, 0, 1, 2], dtype=np.int32)
    from index.clean.neighbours import CentredSpace

    space = CentredSpace(vectors, vectors[4:])
    block = look_around(FlatIndex.build(vectors, device="cpu"), space, landmark, 0, CleaningRule(n_neighbours=5))
    assert block.own_similarity[0] == pytest.approx(np.cos(np.deg2rad([10, 20, 30])).mean(), abs=1e-6)
    assert np.isnan(block.own_similarity[4:]).all()
    assert block.other_similarity[0] == pytest.approx(np.cos(np.deg2rad([80, 90])).mean(), abs=1e-6)
    assert block.background_similarity[0] == pytest.approx(np.cos(np.deg2rad([80, 90])).mean(), abs=1e-6)
    assert block.nearest[0].tolist() == [1, 2, 3, 4, 5]


def test_images_that_are_not_found_count_as_the_last_that_is():
    """Three of its landmark, of which one is found among two neighbours: the other counts as the second one."""
    angles = np.deg2rad([0, 10, 20, 90])
    vectors = np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
    landmark = np.array([0, 0, 1, 0], dtype=np.int32)
    from index.clean.neighbours import CentredSpace

    space = CentredSpace(vectors, vectors[:0])
    block = look_around(FlatIndex.build(vectors, device="cpu"), space, landmark, 0, CleaningRule(n_neighbours=2))
    assert block.own_similarity[0] == pytest.approx(np.cos(np.deg2rad([10, 20])).mean(), abs=1e-6)
    assert np.isnan(block.background_similarity).all()


def test_equal_descriptors_have_each_other_as_neighbours_and_never_themselves():
    vectors = np.tile(np.array([[1.0, 0.0]], dtype=np.float32), (7, 1))
    index = FlatIndex.build(vectors, device="cpu")
    found = nearest_others(index, np.arange(7), 3)
    assert all(row not in found.rows[row] for row in range(7))
    assert centre(vectors, vectors[:0]).labelled[:].tolist() == vectors.tolist()
