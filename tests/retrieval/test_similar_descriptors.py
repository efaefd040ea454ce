"""Groups of descriptors that are nearly the same."""

import numpy as np
import pytest

from retrieval import similar_descriptors
from retrieval.near_duplicates import components
from retrieval.similar_descriptors import similar_groups


def unit(n: int, d: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def slow_groups(vectors: np.ndarray, min_similarity: float) -> list[int]:
    pairs = [(i, j) for i in range(len(vectors)) for j in range(i) if float(vectors[i] @ vectors[j]) >= min_similarity]
    return components(np.array(pairs, dtype=np.int64).reshape(-1, 2), len(vectors)).tolist()


@pytest.mark.parametrize(("rows", "columns", "pairs"), [(1024, 16384, 1 << 22), (7, 11, 3), (1, 1, 1)])
def test_groups_are_those_of_all_pairs_whatever_the_blocks(monkeypatch, rows, columns, pairs):
    for name, value in (("_BLOCK_ROWS", rows), ("_BLOCK_COLUMNS", columns), ("_PAIRS_AT_ONCE", pairs)):
        monkeypatch.setattr(similar_descriptors, name, value)
    vectors = unit(60, 4, seed=0)
    assert len(set(slow_groups(vectors, 0.93))) in range(5, 55)
    assert similar_groups(vectors, 0.93).tolist() == slow_groups(vectors, 0.93)


def test_rows_are_counted_and_one_row_is_a_group():
    counted = []
    assert similar_groups(unit(1, 4, seed=0), 0.9, counted.append).tolist() == [0]
    assert similar_groups(np.zeros((0, 4), dtype=np.float32), 0.9).tolist() == []
    similar_groups(unit(1500, 4, seed=0), 0.999, counted.append)
    assert counted == [1, 1024, 476]


def test_half_precision_is_compared_in_single():
    vectors = np.repeat(unit(1, 512, seed=1), 2, axis=0).astype(np.float16)
    assert similar_groups(vectors, 0.999).tolist() == [0, 0]
