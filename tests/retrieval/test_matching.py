"""Matches of made descriptors, held against a slow version in whole numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from retrieval.local.features import LocalFeatures
from retrieval.local.verifier import FRAMED_RATIO, RATIO, STEPS, NearestMatcher

SIZE = (640, 480)


def features(n, seed, d=8, framed=False):
    rng = np.random.default_rng(seed)
    descriptors = rng.normal(size=(n, d)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    points = rng.uniform(0, 400, (n, 2)).astype(np.float32)
    return LocalFeatures(points, descriptors, SIZE, np.ones((n, 2), np.float32) if framed else None)


def seen_again(one, seed, noise=0.05):
    """The same keypoints in another order, a little changed, among others."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(one))
    descriptors = one.descriptors[order] + rng.normal(0, noise, one.descriptors.shape)
    descriptors = np.concatenate([descriptors, rng.normal(size=(30, one.descriptors.shape[1]))])
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    points = np.zeros((len(descriptors), 2), np.float32)
    return LocalFeatures(points, descriptors.astype(np.float32), SIZE), order


def slowly(one, other, ratio):
    """Pairs one by one, in integers of Python."""
    a, b = ([[round(float(x) * STEPS) for x in row] for row in side.descriptors] for side in (one, other))
    distance = [[sum((x - y) ** 2 for x, y in zip(p, q, strict=True)) for q in b] for p in a]
    product = [[sum(x * y for x, y in zip(p, q, strict=True)) for q in b] for p in a]
    pairs = set()
    for i, row in enumerate(product):
        j, second = sorted(range(len(b)), key=lambda column: -row[column])[:2]
        mutual = row[j] >= max(other_row[j] for other_row in product)
        if mutual and distance[i][j] < ratio**2 * distance[i][second]:
            pairs.add((i, j))
    return pairs


def as_set(pairs):
    return {tuple(pair) for pair in pairs.tolist()}


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 2**32), st.sampled_from([0.7, 0.9, 1.0]))
def test_pairs_are_those_of_the_slow_version(n, n_other, seed, ratio):
    one, other = features(n, seed), features(n_other, seed + 1)
    (pairs,) = NearestMatcher(ratio).match_many(one, [other])
    assert as_set(pairs) == slowly(one, other, ratio)


def test_keypoints_that_are_seen_again_are_found_best_first():
    one = features(40, 0, d=32)
    other, order = seen_again(one, 1)
    (pairs,) = NearestMatcher().match_many(one, [other])
    assert as_set(pairs) == {(int(at), place) for place, at in enumerate(order)}
    whole = NearestMatcher()
    exact = LocalFeatures(one.points, one.descriptors, SIZE)
    (same,) = whole.match_many(one, [exact])
    assert as_set(same) == {(i, i) for i in range(40)}
    distance = np.linalg.norm(one.descriptors[pairs[:, 0]] - other.descriptors[pairs[:, 1]], axis=1)
    assert distance[:10].mean() < distance[-10:].mean()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_matches_do_not_depend_on_the_others_or_their_order(sizes, random):
    query = features(50, 0, d=64)
    others = [features(n, seed + 1, d=64) for seed, n in enumerate(sizes)]
    together = NearestMatcher().match_many(query, others)
    order = random.sample(range(len(others)), len(others))
    again = NearestMatcher().match_many(query, [others[i] for i in order])
    for place, i in enumerate(order):
        (alone,) = NearestMatcher().match_many(query, [others[i]])
        assert np.array_equal(together[i], alone)
        assert np.array_equal(again[place], alone)


def test_matches_do_not_depend_on_the_number_of_threads():
    query, other = features(700, 0, d=128), features(900, 1, d=128)
    found = []
    for n in (1, 4):
        with threadpool_limits(n):
            found.append(NearestMatcher(1.0).match_many(query, [other])[0])
    assert len(found[0]) > 100
    assert np.array_equal(*found)


@pytest.mark.parametrize(("n", "n_other"), [(0, 0), (0, 5), (1, 5), (5, 1), (5, 0)])
def test_fewer_than_two_keypoints_match_nothing(n, n_other):
    (pairs,) = NearestMatcher().match_many(features(n, 0), [features(n_other, 1)])
    assert pairs.shape == (0, 2)
    assert pairs.dtype == np.int64


def test_no_images_have_no_matches():
    assert NearestMatcher().match_many(features(5, 0), []) == []


def test_keypoints_that_look_alike_match_nothing():
    """Windows of a facade: the second best is as near as the best."""
    windows = LocalFeatures(features(3, 0).points, np.tile(features(1, 0).descriptors, (3, 1)), SIZE)
    (pairs,) = NearestMatcher().match_many(features(1, 0), [windows])
    assert len(pairs) == 0
    (pairs,) = NearestMatcher().match_many(windows, [windows])
    assert len(pairs) == 0


def test_a_keypoint_is_matched_once():
    one = features(4, 0, d=32)
    twice = LocalFeatures(np.zeros((8, 2), np.float32), np.concatenate([one.descriptors, one.descriptors]), SIZE)
    (pairs,) = NearestMatcher().match_many(twice, [one])
    assert sorted(pairs[:, 1]) == [0, 1, 2, 3]


def test_frames_allow_weaker_matches():
    assert RATIO < FRAMED_RATIO
    one, other = features(200, 0, d=32), features(200, 1, d=32)
    framed = [LocalFeatures(side.points, side.descriptors, SIZE, side.points + 1) for side in (one, other)]
    (plain,) = NearestMatcher().match_many(one, [other])
    (weak,) = NearestMatcher().match_many(framed[0], [framed[1]])
    assert as_set(plain) == as_set(NearestMatcher(RATIO).match_many(one, [other])[0])
    assert as_set(weak) == as_set(NearestMatcher(FRAMED_RATIO).match_many(one, [other])[0])
    assert as_set(plain) < as_set(weak)


def test_descriptors_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"^descriptors of 8 and 16 dimensions$"):
        NearestMatcher().match_many(features(5, 0), [features(5, 0, d=16)])


@pytest.mark.parametrize("ratio", [0.0, -1.0, 1.1, float("nan")])
def test_a_ratio_lies_in_its_range(ratio):
    with pytest.raises(ValueError, match=rf"^ratio must lie in \(0, 1\], got {ratio}$"):
        NearestMatcher(ratio)
