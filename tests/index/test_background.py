"""Similarity to the background against the mean of a sorted list."""

import itertools
import re

import numpy as np
import pytest

from index import vote as background
from index.vote import background_similarity
from retrieval.errors import LmrError


def unit(n, d, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def slow(vectors, rows, m):
    return [np.mean(sorted((float(v @ row) for row in rows), reverse=True)[:m]) for v in vectors]


@pytest.mark.parametrize("m", [1, 3, 20])
def test_it_is_the_mean_of_the_m_largest_similarities_or_of_those_there_are(m):
    vectors, rows = unit(6, 5), unit(12, 5, seed=1)
    assert background_similarity(vectors, rows, m) == pytest.approx(slow(vectors, rows, m), abs=1e-6)


def test_small_blocks_give_the_same(monkeypatch):
    vectors, rows = unit(50, 5), unit(12, 5, seed=1)
    own = np.arange(50) % 13 - 1
    whole = background_similarity(vectors, rows, 3, own_row=own)
    monkeypatch.setattr(background, "BLOCK_ROWS", 7)
    assert background_similarity(vectors, rows, 3, own_row=own).tolist() == whole.tolist()


@pytest.mark.parametrize("m", [2, 12])
def test_a_background_row_is_not_compared_with_itself(m):
    rows = unit(12, 5)
    others = [slow(rows[i : i + 1], np.delete(rows, i, axis=0), m)[0] for i in range(12)]
    assert background_similarity(rows, rows, m, own_row=np.arange(12)) == pytest.approx(others, abs=1e-6)


def test_float16_vectors_are_compared_in_float32():
    vectors, rows = unit(4, 64).astype(np.float16), unit(3, 64, seed=1).astype(np.float16)
    expected = slow(vectors.astype(np.float64), rows.astype(np.float64), 2)
    assert background_similarity(vectors, rows, 2) == pytest.approx(expected, abs=1e-6)


def test_no_vectors_give_no_similarities():
    assert background_similarity(unit(0, 4), unit(3, 4), 3).shape == (0,)


def test_an_empty_background_is_refused():
    with pytest.raises(ValueError, match="the background has no rows"):
        background_similarity(unit(2, 4), unit(0, 4), 3)


def test_vectors_of_another_dimension_are_refused():
    with pytest.raises(ValueError, match=re.escape("vectors (2, 4) and background (3, 5) must be (n, d) and (b, d)")):
        background_similarity(unit(2, 4), unit(3, 5), 3)


def test_a_background_of_one_image_is_not_compared_with_itself():
    with pytest.raises(LmrError) as error:
        background_similarity(unit(1, 4), unit(1, 4), 3, own_row=np.array([0]))
    expected = "the only background picture cannot be compared with itself; add pictures without a landmark"
    assert str(error.value) == expected


@pytest.mark.parametrize("n_background", [3, 40, 1000])
def test_a_query_has_the_same_bits_among_any_others(n_background: int) -> None:
    rng = np.random.default_rng(0)
    queries, background = (rng.standard_normal((n, 256)).astype(np.float32) for n in (300, n_background))
    together = background_similarity(queries, background, 3)
    for cuts in ([0, 128, 300], [0, 64, 130, 300], [0, 236, 300]):
        apart = [background_similarity(queries[a:b], background, 3) for a, b in itertools.pairwise(cuts)]
        assert np.array_equal(np.concatenate(apart), together)
    shuffled = rng.permutation(300)
    assert np.array_equal(background_similarity(queries[shuffled], background, 3), together[shuffled])
