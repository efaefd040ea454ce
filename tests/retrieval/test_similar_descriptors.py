"""Groups of descriptors that are nearly the same."""

import numpy as np
import pytest
from made_stores import write_store
from recorder import Recorder

from retrieval.arrays import object_array
from retrieval.data.near_duplicates import components
from retrieval.store import near_duplicates as similar_descriptors
from retrieval.store.blocks import open_blocks
from retrieval.store.near_duplicates import similar_groups
from retrieval.store.store import DONE, Descriptors, StoreInfo


def unit(n: int, d: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def slow_groups(vectors: np.ndarray, min_similarity: float) -> list[int]:
    pairs = [(i, j) for i in range(len(vectors)) for j in range(i) if float(vectors[i] @ vectors[j]) >= min_similarity]
    return components(np.array(pairs, dtype=np.int64).reshape(-1, 2), len(vectors)).tolist()


@pytest.fixture
def store_of(tmp_path):
    """An opened store of these descriptors."""

    def make(vectors):
        path = tmp_path / "s.h5"
        ids = object_array([f"p{i}" for i in range(len(vectors))])
        info = StoreInfo("ab" * 32, {}, {}, "0.1.0", "cd" * 32, str(vectors.dtype), vectors.shape[1])
        state, landmark = np.full(len(vectors), DONE, np.uint8), np.full(len(vectors), -1, np.int32)
        write_store(path, Descriptors(vectors, ids, landmark, (), state, ids, None, info, "s.h5"))
        return open_blocks(path)

    return make


@pytest.mark.parametrize(("queries", "block", "pairs"), [(2048, 8192, 1 << 22), (7, 11, 3), (1, 1, 1)])
def test_groups_are_those_of_all_pairs_whatever_the_blocks(monkeypatch, store_of, queries, block, pairs):
    monkeypatch.setattr(similar_descriptors, "_QUERIES_AT_ONCE", queries)
    monkeypatch.setattr(similar_descriptors, "_PAIRS_AT_ONCE", pairs)
    monkeypatch.setattr("retrieval.store.blocks.BLOCK_ROWS", block)
    vectors = unit(60, 4, seed=0)
    assert len(set(slow_groups(vectors, 0.93))) in range(5, 55)
    assert similar_groups(store_of(vectors), np.arange(60), 0.93).tolist() == slow_groups(vectors, 0.93)


def test_only_pairs_with_one_that_was_asked_for_are_joined(monkeypatch, store_of):
    monkeypatch.setattr(similar_descriptors, "_QUERIES_AT_ONCE", 1)
    vectors = np.array([[1, 0], [0, 1], [1, 0], [0, 1], [1, 0]], dtype=np.float32)
    assert similar_groups(store_of(vectors), np.arange(5), 0.9, np.array([2])).tolist() == [0, 1, 0, 2, 0]


def test_rows_are_counted_and_one_row_is_a_group(monkeypatch, store_of):
    monkeypatch.setattr(similar_descriptors, "_QUERIES_AT_ONCE", 1024)
    counted = []
    store = store_of(unit(1500, 4, seed=0))
    assert similar_groups(store, np.arange(1), 0.9, progress=Recorder(added=counted)).tolist() == [0]
    assert similar_groups(store, np.arange(0), 0.9).tolist() == []
    similar_groups(store, np.arange(1500), 0.999, progress=Recorder(added=counted))
    assert counted == [1, 1024, 476]


def test_half_precision_is_compared_in_single(store_of):
    vectors = np.repeat(unit(1, 512, seed=1), 2, axis=0).astype(np.float16)
    assert similar_groups(store_of(vectors), np.arange(2), 0.999).tolist() == [0, 0]
