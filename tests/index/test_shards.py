"""Rows in shards against the same rows in one search."""

import gc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.search.base import Neighbours
from index.search.flat import FlatIndex
from index.search.shards import Shard, ShardedIndex, first_rows, merge_neighbours, shard_sizes


def unit(n, d, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def neighbours(rows, scores):
    return Neighbours(np.array(rows, dtype=np.int64), np.array(scores, dtype=np.float32))


def same(one, other):
    return (one.rows == other.rows).all() and (one.scores == other.scores).all()


@given(st.integers(0, 1000), st.integers(1, 40))
def test_shards_cover_all_rows_and_differ_by_one_at_most(n, n_shards):
    sizes = shard_sizes(n, n_shards)
    assert sum(sizes) == n
    assert len(sizes) == n_shards
    assert max(sizes) - min(sizes) <= 1
    assert first_rows(sizes) == tuple(sum(sizes[:i]) for i in range(n_shards))


def test_merging_orders_by_score_then_by_row_and_leaves_padding_to_the_end():
    merged = merge_neighbours(
        [neighbours([[3, 1, -1]], [[0.5, 0.25, -np.inf]]), neighbours([[9, 5, 7]], [[0.5, 0.5, 0.25]])], 5
    )
    assert merged.rows.tolist() == [[3, 5, 9, 1, 7]]
    assert merged.scores.tolist() == [[0.5, 0.5, 0.5, 0.25, 0.25]]


def test_merging_fewer_than_k_pads():
    merged = merge_neighbours([neighbours([[2]], [[0.5]]), neighbours([[-1]], [[-np.inf]])], 4)
    assert merged.rows.tolist() == [[2, -1, -1, -1]]
    assert merged.scores.tolist() == [[0.5, -np.inf, -np.inf, -np.inf]]


def test_merging_nothing_is_refused():
    with pytest.raises(ValueError, match="0 parts and k = 3 must be at least 1"):
        merge_neighbours([], 3)


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("n_shards", [1, 3, 7])
@pytest.mark.parametrize("n_queries", [3, 70])
def test_exact_search_in_shards_is_bit_equal_to_exact_search_in_one(storage, n_shards, n_queries):
    vectors = np.concatenate([unit(500, 12), unit(500, 12)])  # every score is there twice
    whole = FlatIndex.build(vectors, storage, device="cpu")
    queries = unit(n_queries, 12, seed=1)
    assert same(whole.shards(shard_sizes(1000, n_shards)).search(queries, 21), whole.search(queries, 21))


def test_more_neighbours_than_rows_are_padded_in_shards_too():
    whole = FlatIndex.build(unit(5, 8), device="cpu")
    assert same(whole.shards((2, 0, 3)).search(unit(2, 8, 1), 9), whole.search(unit(2, 8, 1), 9))


def test_vectors_of_shards_are_those_of_the_rows():
    whole = FlatIndex.build(unit(10, 8), "float16", device="cpu")
    rows = np.array([[9, 0, -1], [4, 3, 5]])
    assert (whole.shards((4, 1, 5)).vectors(rows) == whole.vectors(rows)).all()


def test_a_part_of_the_rows_lives_on_without_the_whole_and_reads_its_file(tmp_path):
    vectors = unit(300, 8)
    FlatIndex.build(vectors, "float16", device="cpu").save(tmp_path / "rows.faiss")
    part = FlatIndex.load(tmp_path / "rows.faiss", "cpu").part(100, 50)
    gc.collect()
    assert part.stored.base is not None
    assert (part.stored == vectors[100:150].astype(np.float16)).all()
    assert (part.search(vectors[100:150], 1).rows[:, 0] == np.arange(50)).all()
    assert (Shard(part, 100).search(vectors[100:150], 1).rows[:, 0] == np.arange(100, 150)).all()


def test_a_part_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="5 rows from 8 on are not among 10"):
        FlatIndex.build(unit(10, 8), device="cpu").part(8, 5)


def test_parts_of_another_length_are_refused():
    with pytest.raises(ValueError, match="the same d and storage"):
        ShardedIndex([FlatIndex.build(unit(4, 8), device="cpu"), FlatIndex.build(unit(4, 6), device="cpu")])
    with pytest.raises(ValueError, match="parts is empty"):
        ShardedIndex([])
