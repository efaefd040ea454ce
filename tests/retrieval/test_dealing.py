"""Rows dealt to train, val and test."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.split.quotas import Count, Quotas, Share
from retrieval.split.stratify import TEST, TRAIN, VAL, deal, targets


def long(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def dealt(stratum, group, target, n_kept=1, seed=0):
    target = np.array(target, dtype=np.int64)
    kept = np.full(len(target), n_kept, dtype=np.int64)
    return deal(long(*stratum), long(*group), target, kept, np.random.default_rng(seed))


def targets_of(counts, quotas, seed=0):
    return targets(long(*counts), quotas, np.random.default_rng(seed)).tolist()


def test_whole_shares_are_met_exactly():
    assert targets_of([10, 100, 30], Quotas(Share(0.1), Share(0.2), n_kept=1)) == [[1, 2], [10, 20], [3, 6]]
    assert targets_of([100], Quotas(Share(0.29), Share(0))) == [[29, 0]]


def test_the_same_number_of_each_landmark():
    assert targets_of([50, 5], Quotas(Count(2), Count(1), n_kept=1)) == [[2, 1], [2, 1]]


def test_landmarks_that_are_too_small_share_what_there_is_and_one_image_stays_in_train():
    found = targets_of([1, 2, 3, 4, 5], Quotas(Count(2), Count(2), n_kept=1))
    assert found == [[0, 0], [1, 0], [1, 1], [2, 1], [2, 2]]


def test_at_least_one_of_every_landmark_that_is_large_enough():
    found = targets_of([1, 2, 3, 4, 50], Quotas(Share(0.01), Share(0.9), n_kept=1, at_least=1))
    assert found[:3] == [[0, 0], [0, 0], [1, 1]]
    assert found[3] == [1, 2]
    assert found[4] in ([1, 45], [1, 46])
    assert targets_of([2, 9], Quotas(Share(0.01), Share(0), n_kept=1, at_least=1)) == [[1, 0], [1, 0]]


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=30),
    st.floats(0, 0.6),
    st.floats(0, 0.4),
    st.integers(0, 1),
    st.integers(0, 99),
)
def test_every_target_is_the_wanted_number_rounded_down_or_up(counts, val, test, n_kept, seed):
    found = np.array(targets_of(counts, Quotas(Share(val), Share(test), n_kept=n_kept), seed))
    wanted = np.array(counts)[:, None] * [val, test]
    assert (found <= np.ceil(wanted.round(9))).all()
    assert (found >= np.floor(wanted.round(9)) - n_kept).all()  # one image may stay in train instead
    assert (found.sum(axis=1) <= np.maximum(np.array(counts) - n_kept, 0)).all()


@pytest.mark.parametrize("seed", range(3))
def test_small_landmarks_together_give_what_was_wanted(seed):
    counts = np.repeat([2, 3, 4, 5, 7], 2000)
    found = np.array(targets_of(counts, Quotas(Share(0.1), Share(0.15), n_kept=1), seed))
    assert abs(found[:, 0].sum() - 0.1 * counts.sum()) < 10
    assert abs(found[:, 1].sum() - 0.15 * counts.sum()) < 10


def test_rows_without_groups_meet_their_targets_exactly():
    stratum = [0] * 10 + [1] * 4
    part = dealt(stratum, range(14), [[3, 2], [0, 1]])
    assert np.bincount(part[:10], minlength=3).tolist() == [5, 3, 2]
    assert np.bincount(part[10:], minlength=3).tolist() == [3, 0, 1]


def test_a_group_goes_whole_where_it_fits():
    part = dealt([0] * 6, [5, 5, 5, 1, 2, 3], [[3, 0]])
    assert len(set(part[:3].tolist())) == 1
    assert (part == VAL).sum() == 3


def test_a_landmark_that_is_one_group_stays_in_train():
    assert dealt([0] * 4, [7] * 4, [[2, 1]]).tolist() == [TRAIN] * 4


def test_a_group_overshoots_a_target_only_where_that_is_nearer():
    nearer = dealt([0] * 9, [0, 0, 0, 1, 1, 1, 2, 2, 2], [[2, 0]])
    assert (nearer == VAL).sum() == 3
    farther = dealt([0] * 9, [0, 0, 0, 1, 1, 1, 2, 2, 2], [[1, 0]])
    assert (farther == VAL).sum() == 0


def test_a_group_of_two_landmarks_counts_for_both():
    for seed in range(20):
        part = dealt([0, 1, 0, 0, 1, 1], [9, 9, 1, 2, 3, 4], [[1, 0], [1, 0]], seed=seed)
        assert part[0] == part[1]
        for rows in ([0, 2, 3], [1, 4, 5]):
            assert (part[rows] == VAL).sum() == 1


def test_the_same_seed_deals_the_same():
    stratum, group = [0] * 40, [i // 2 for i in range(40)]
    first = dealt(stratum, group, [[8, 8]], seed=1).tolist()
    assert first == dealt(stratum, group, [[8, 8]], seed=1).tolist()
    assert first != dealt(stratum, group, [[8, 8]], seed=2).tolist()


@settings(max_examples=200)
@given(st.data())
def test_no_group_straddles_and_no_target_is_missed_by_more_than_half_of_the_smallest_group_left(data):
    n = data.draw(st.integers(1, 30))
    stratum = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    group = np.array(data.draw(st.lists(st.integers(0, 12), min_size=n, max_size=n)))
    counts = np.bincount(stratum, minlength=4)
    quotas = Quotas(Share(data.draw(st.floats(0, 0.5))), Share(data.draw(st.floats(0, 0.5))), n_kept=1)
    target = targets(counts, quotas, np.random.default_rng(n))
    part = deal(stratum, group, target, np.ones(4, dtype=np.int64), np.random.default_rng(data.draw(st.integers(0, 9))))
    assert all(len(set(part[group == g].tolist())) == 1 for g in set(group.tolist()))
    for code in range(4):
        of = stratum == code
        in_train = (of & (part == TRAIN)).sum()
        assert in_train >= min(counts[code], 1)
        alone = [g for g in set(group[of].tolist()) if (stratum[group == g] == code).all()]
        left = [n for g in alone if (part[group == g] == TRAIN).all() if (n := (group == g).sum()) < in_train]
        for which in (VAL, TEST):
            missed = abs((of & (part == which)).sum() - target[code, which - 1])
            if left:
                assert missed <= min(left) / 2
        if len(set(group[of].tolist())) == counts[code] and len(alone) == counts[code]:
            assert [(of & (part == which)).sum() for which in (VAL, TEST)] == target[code].tolist()
