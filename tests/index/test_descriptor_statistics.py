"""Duplicates, the map and clusters of descriptors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_stores import write_store

from index.stats import comparing, duplicates
from index.stats.clusters import (
    Cluster,
    ClusterLandmark,
    StoredImages,
    central,
    count_cluster,
    find_clusters,
    map_descriptors,
    purity,
)
from retrieval.arrays import object_array
from retrieval.errors import LmrError
from retrieval.progress import SILENT
from retrieval.store.blocks import open_blocks
from retrieval.store.store import DONE, UNREADABLE, Descriptors, StoreInfo

INFO = StoreInfo("ab" * 32, {}, {}, "0.1.0", "cd" * 32, "float16", 4)


def store_of(tmp_path, vectors, state=None):
    vectors = np.asarray(vectors, dtype=np.float16)
    n = len(vectors)
    state = np.full(n, DONE, np.uint8) if state is None else np.array(state, np.uint8)
    ids = object_array([f"p{i}" for i in range(n)])
    landmark = np.full(n, -1, np.int32)
    write_store(tmp_path / "s.h5", Descriptors(vectors, ids, landmark, (), state, ids, None, INFO, "s.h5"))
    return open_blocks(tmp_path / "s.h5")


def around(seed, *counts):
    """Points near the axes, so many near each."""
    rng = np.random.default_rng(seed)
    return np.concatenate([np.eye(4)[i] + rng.normal(0, 0.03, (n, 4)) for i, n in enumerate(counts)])


@given(st.lists(st.sampled_from("abcdef"), max_size=12))
def test_equal_digests_are_groups_as_the_slow_way_finds_them(digests):
    slow = [[i for i, d in enumerate(digests) if d == one] for one in dict.fromkeys(digests)]
    slow = sorted((g for g in slow if len(g) > 1), key=lambda g: (-len(g), g[0]))
    assert [group.tolist() for group in duplicates.same_bytes(object_array(digests))] == slow


def test_near_hashes_are_joined_and_far_ones_are_not():
    hashes = np.array([0, 0b111, 1 << 40, 0b111111, 2**64 - 1], dtype=np.uint64)
    assert [group.tolist() for group in duplicates.same_look(hashes)] == [[0, 1, 2, 3]]
    assert [group.tolist() for group in duplicates.same_look(hashes, 0)] == []


def test_groups_of_several_landmarks_and_of_both_sides_are_told():
    groups = (np.array([0, 1, 4]), np.array([2, 3]))
    assert len(duplicates.across(groups, np.array([7, -1, 1, 1, 7]))) == 0
    assert duplicates.across(groups, np.array([7, 8, 1, 1, 7]))[0].tolist() == [0, 1, 4]
    assert [group.tolist() for group in duplicates.on_both_sides(groups, 2)] == [[0, 1, 4]]
    assert duplicates.count_groups(groups) == duplicates.GroupCounts(groups=2, pictures=5, surplus=3)


def test_a_store_is_read_in_blocks_of_unit_vectors(tmp_path, monkeypatch):
    monkeypatch.setattr("retrieval.store.blocks.BLOCK_ROWS", 2)
    store = store_of(tmp_path, [[3, 0, 0, 0], [0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 5]], [1, UNREADABLE, 1, 1])
    assert store.done.tolist() == [0, 2, 3]
    blocks = list(store.blocks(store.done))
    assert [rows.tolist() for rows, _ in blocks] == [[0, 2], [3]]
    np.testing.assert_array_equal(np.concatenate([v for _, v in blocks]), np.eye(4)[[0, 1, 3]])


def test_a_descriptor_that_is_no_number_is_named(tmp_path):
    store = store_of(tmp_path, [[1, 0, 0, 0], [np.nan, 0, 0, 0]])
    with pytest.raises(LmrError) as error:
        store.vectors(store.done)
    assert str(error.value) == f"{tmp_path}/s.h5: the descriptor of p1 is zero or not finite; embed it again"


def test_near_descriptors_are_groups_whatever_the_block(tmp_path, monkeypatch):
    store = store_of(tmp_path, [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0.05, 0, 0], [0, 1, 0.01, 0], [0, 0, 0, 1]])
    for block in (2, 8192):
        monkeypatch.setattr("retrieval.store.blocks.BLOCK_ROWS", block)
        alike = duplicates.same_descriptor(store, store.done, 0.99, np.random.default_rng(0))
        assert [group.tolist() for group in alike.groups] == [[0, 2], [1, 3]]
        assert alike.n_compared == 5


def test_what_another_lmr_kept_of_a_comparison_is_not_taken_for_this_ones(tmp_path, monkeypatch):
    """Its blocks may be other ones. What this one kept is taken as it is, also where it says nothing."""
    store = store_of(tmp_path, [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0.05, 0, 0]])
    stored = StoredImages(store, store.done, np.full(3, -1), ())
    found = comparing.Comparing(stored, 0.99, None, 0, tmp_path / "facts.sqlite")
    found.work("alike").write(0, b"")
    assert found.find_alike(SILENT).groups.groups == 0
    monkeypatch.setattr(comparing, "program_version", lambda: "0.2.0")
    assert found.find_alike(SILENT).groups.groups == 1


def test_at_most_so_many_are_compared_and_all_alike_are_one_group(tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "N_COMPARED", 3)
    store = store_of(tmp_path, np.ones((4, 4)))
    alike = duplicates.same_descriptor(store, store.done, 0.99, np.random.default_rng(0))
    assert alike.n_compared == 3
    assert [group.tolist() for group in alike.groups] == [[0, 1, 2, 3]]


def test_clusters_are_found_numbered_by_size_and_the_same_again(tmp_path, monkeypatch):
    store = store_of(tmp_path, around(1, 3, 9, 5))
    found = find_clusters(store, store.done, 3, seed=0)
    assert found.cluster.tolist() == [2] * 3 + [0] * 9 + [1] * 5
    assert (found.similarity > 0.99).all()
    monkeypatch.setattr("retrieval.store.blocks.BLOCK_ROWS", 4)
    again = find_clusters(store, store.done, 3, seed=0)
    assert again.cluster.tolist() == found.cluster.tolist()


def test_clusters_are_trained_on_a_sample_of_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr("index.stats.clusters.TRAINING_ROWS", 4)
    store = store_of(tmp_path, around(1, 30, 40))
    found = find_clusters(store, store.done, 2, seed=0)
    assert found.cluster.tolist() == [1] * 30 + [0] * 40


def test_purity_by_hand(tmp_path):
    store = store_of(tmp_path, around(1, 4, 3))
    found = find_clusters(store, store.done, 2, seed=0)
    landmark = np.array([0, 0, 1, -1, 1, 1, 2])
    stored = StoredImages(store, store.done, landmark, ("x", "y", "z"))
    assert count_cluster(stored, found, 0) == Cluster(
        cluster=0,
        pictures=4,
        labelled=3,
        purity=2 / 3,
        landmarks=(ClusterLandmark("x", 2), ClusterLandmark("y", 1)),
        examples=tuple(f"p{i}" for i in central(found, 0, 4)),
    )
    assert purity(found, landmark) == (2 + 2) / 6
    assert purity(found, np.full(7, -1)) is None
    assert count_cluster(StoredImages(store, store.done, np.full(7, -1), ()), found, 1).purity is None
    nearest = central(found, 0, 2)
    assert set(nearest.tolist()) <= {0, 1, 2, 3}
    assert found.similarity[nearest[0]] == found.similarity[:4].max()


def test_more_clusters_than_descriptors_are_refused(tmp_path):
    store = store_of(tmp_path, around(1, 2))
    with pytest.raises(LmrError) as error:
        find_clusters(store, store.done, 3, seed=0)
    assert str(error.value) == f"3 clusters of 2 descriptors in {tmp_path}/s.h5; ask for fewer"


def test_the_map_keeps_neighbours_near_and_is_the_same_again():
    vectors = around(2, 20, 20).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    points = map_descriptors(vectors, seed=3)
    assert points.shape == (40, 2)
    assert np.abs(points).max() == pytest.approx(1)
    one, other = points[:20], points[20:]
    spread = max(part.std(axis=0).max() for part in (one, other))
    assert np.linalg.norm(one.mean(axis=0) - other.mean(axis=0)) > 2 * spread
    np.testing.assert_array_equal(points, map_descriptors(vectors, seed=3))


@pytest.mark.parametrize("n", [1, 2, 4, 6])
def test_few_points_and_equal_ones_have_a_map_too(n):
    for vectors in (np.eye(8, dtype=np.float32)[:n], np.ones((n, 8), np.float32)):
        points = map_descriptors(vectors, seed=0)
        assert points.shape == (n, 2)
        assert np.isfinite(points).all()
