"""Pairs of near hashes, against all pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.data.near_duplicates import components, near_pairs


@given(
    st.lists(st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 3, 2**63, 2**64 - 1, 2**40 + 2**20]), max_size=25),
    st.integers(0, 8),
)
def test_groups_are_those_of_all_pairs(values, max_bits):
    hashes = np.array(values, dtype=np.uint64)
    n = len(values)
    near = [(i, j) for j in range(n) for i in range(j) if (values[i] ^ values[j]).bit_count() <= max_bits]
    expected = components(np.array(near, dtype=np.int64).reshape(-1, 2), n)
    pairs = near_pairs(hashes, max_bits)
    assert set(map(tuple, pairs.tolist())) <= set(near)
    assert components(pairs, n).tolist() == expected.tolist()


def test_many_equal_hashes_are_a_chain_not_all_pairs():
    pairs = near_pairs(np.zeros(1000, dtype=np.uint64))
    assert pairs.tolist() == [[i, i + 1] for i in range(999)]


def test_blocks_of_pairs_change_nothing(monkeypatch):
    hashes = np.random.default_rng(0).integers(0, 2**12, 300).astype(np.uint64)
    whole = near_pairs(hashes)
    monkeypatch.setattr("retrieval.data.near_duplicates._PAIRS_AT_ONCE", 7)
    assert near_pairs(hashes).tolist() == whole.tolist()


def test_a_row_alone_is_a_group_of_its_own():
    assert components(np.array([[1, 3]]), 4).tolist() == [0, 1, 2, 1]


def test_more_bits_than_a_hash_has_are_refused():
    with pytest.raises(ValueError, match="max_bits must lie in"):
        near_pairs(np.zeros(2, dtype=np.uint64), 64)
