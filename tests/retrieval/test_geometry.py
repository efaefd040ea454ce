"""Geometry of planted matches, with frames and without, and of everything that is no geometry."""

from math import comb, log10

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.local.features import LocalFeatures
from retrieval.local.geometry import Match, surprise, verify
from retrieval.local.verifier import Verifier

cv2 = pytest.importorskip("cv2", reason="needs the extra local")

SIZE = (600, 450)
TURN = 2 * np.pi


def image(points, size=SIZE, frames=None):
    """Keypoints whose descriptors play no part."""
    points = np.asarray(points, dtype=np.float32)
    return LocalFeatures(points, np.eye(1, 8, dtype=np.float32).repeat(len(points), 0), size, frames)


def all_pairs(n):
    return np.stack([np.arange(n)] * 2, axis=1)


def apply(model, points):
    mapped = np.column_stack([points, np.ones(len(points))]) @ np.asarray(model).T
    return mapped[:, :2] / mapped[:, 2:]


def places(rng, n, size=SIZE):
    """Points at least three pixels apart: each has a place of its own."""
    grid = np.stack(np.meshgrid(np.arange(5, size[0] - 5, 9), np.arange(5, size[1] - 5, 9)), axis=-1).reshape(-1, 2)
    return rng.permutation(grid)[:n] + rng.uniform(-2, 2, (n, 2))


def similarity(scale, turn, shift):
    c, s = scale * np.cos(turn), scale * np.sin(turn)
    return np.array([[c, -s, shift[0]], [s, c, shift[1]], [0, 0, 1]])


def planted(rng, n, n_wrong, scale=1.0, turn=0.0, shift=(0.0, 0.0)):
    """Two images with frames: n matches of a similarity, then n_wrong that turn the other way."""
    model = similarity(scale, turn, shift)
    here = places(rng, n + n_wrong)
    there = apply(model, here)
    there[n:] = places(rng, n_wrong)
    frames = np.column_stack([rng.uniform(2, 30, n + n_wrong), rng.uniform(0, TURN, n + n_wrong)])
    seen = np.column_stack([frames[:, 0] * scale, (frames[:, 1] + turn) % TURN])
    seen[n:, 1] = (seen[n:, 1] + np.pi + rng.uniform(-1, 1, n_wrong)) % TURN
    sides = image(here, frames=frames.astype(np.float32)), image(there, frames=seen.astype(np.float32))
    return *sides, model, rng.permutation(all_pairs(n + n_wrong))


def is_none(match, n_matches):
    assert match.kind == "none"
    assert match.model is None
    assert (match.n_inliers, match.n_matches) == (0, n_matches)
    assert (match.spread, match.spread_row, match.n_chance, match.surprise) == (0, 0, 0, 0)
    return True


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(12, 60),
    st.integers(0, 60),
    st.floats(0.3, 3.0),
    st.floats(-np.pi, np.pi),
    st.tuples(st.floats(-200, 200), st.floats(-200, 200)),
)
def test_a_similarity_is_recovered_from_frames(seed, n, n_wrong, scale, turn, shift):
    one, other, model, pairs = planted(np.random.default_rng(seed), n, n_wrong, scale, turn, shift)
    match = verify(one, other, pairs)
    assert match.kind == "homography"
    assert match.model == pytest.approx(model, abs=0.05)
    assert {tuple(point) for point in match.points_query} == {tuple(point) for point in one.points[:n]}
    assert {tuple(point) for point in match.points_row} == {tuple(point) for point in other.points[:n]}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(30, 60), st.integers(0, 40))
def test_a_homography_is_recovered_without_frames(seed, n, n_wrong):
    rng = np.random.default_rng(seed)
    model = np.array([[0.9, 0.1, 20], [-0.08, 1.1, 5], [rng.uniform(-4e-4, 4e-4), rng.uniform(-4e-4, 4e-4), 1]])
    here = places(rng, n + n_wrong)
    there = apply(model, here)
    away = rng.uniform(0, TURN, n_wrong)
    there[n:] += rng.uniform(90, 300, (n_wrong, 1)) * np.column_stack([np.cos(away), np.sin(away)])
    match = verify(image(here), image(there), rng.permutation(all_pairs(n + n_wrong)))
    assert match.kind == "homography"
    assert match.model / match.model[2, 2] == pytest.approx(model, rel=0.02, abs=0.5)
    assert {tuple(point) for point in match.points_query} == {tuple(point) for point in here[:n].astype(np.float32)}


def test_two_views_of_something_deep_have_a_fundamental_matrix():
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-1, 1, (80, 2)), rng.uniform(2, 6, 80)])
    here = 500 * points[:, :2] / points[:, 2:] + [300, 225]
    turned = points @ cv2.Rodrigues(np.array([0.05, 0.3, 0.0]))[0].T + [-1.2, 0.1, 0.2]
    there = 500 * turned[:, :2] / turned[:, 2:] + [300, 225]
    match = verify(image(here), image(there), all_pairs(80))
    assert match.kind == "fundamental"
    assert match.n_inliers >= 70
    ends = np.column_stack([match.points_row, np.ones(match.n_inliers)])
    lines = np.column_stack([match.points_query, np.ones(match.n_inliers)]) @ match.model.T
    off = np.abs((ends * lines).sum(axis=1)) / np.linalg.norm(lines[:, :2], axis=1)
    assert off.max() < 6


@pytest.mark.parametrize("framed", [True, False])
def test_identical_images_agree_everywhere(framed):
    rng = np.random.default_rng(1)
    one, _, _, pairs = planted(rng, 100, 0)
    one = one if framed else image(one.points)
    match = verify(one, one, pairs)
    assert match.n_inliers == match.n_matches == 100
    assert match.model / match.model[2, 2] == pytest.approx(np.eye(3), abs=1e-3)
    assert match.spread == match.spread_row > 0.7
    assert match.surprise > 100


@pytest.mark.parametrize("framed", [True, False])
def test_a_mirrored_image_is_no_match(framed):
    rng = np.random.default_rng(2)
    one, _, _, pairs = planted(rng, 60, 0)
    mirrored = one.points * [-1, 1] + [SIZE[0], 0]
    frames = np.column_stack([one.frames[:, 0], (np.pi - one.frames[:, 1]) % TURN]).astype(np.float32)
    sides = (one, image(mirrored, frames=frames)) if framed else (image(one.points), image(mirrored))
    assert is_none(verify(*sides, pairs), 60)


@pytest.mark.parametrize("framed", [True, False])
@pytest.mark.parametrize("where", ["line", "spot", "flat image"])
def test_points_on_a_line_or_in_a_spot_are_no_match(framed, where):
    n = 40
    along = np.linspace(10, 400, n)
    points = {
        "line": np.column_stack([along, 0.5 * along + 20]),
        "spot": np.full((n, 2), 50.0),
        "flat image": np.column_stack([along * 20, np.arange(n) % 3]),
    }[where]
    frames = np.full((n, 2), 3.0, dtype=np.float32) if framed else None
    side = image(points, (8000, 3) if where == "flat image" else SIZE, frames)
    assert is_none(verify(side, side, all_pairs(n)), n)


@pytest.mark.parametrize("framed", [True, False])
def test_an_image_that_would_shrink_to_a_spot_is_no_match(framed):
    rng = np.random.default_rng(3)
    here = places(rng, 60)
    there = 200 + 4 * rng.normal(size=(60, 2))
    frames = np.full((60, 2), 3.0, dtype=np.float32) if framed else None
    assert is_none(verify(image(here, frames=frames), image(there, frames=frames), all_pairs(60)), 60)


@pytest.mark.parametrize("framed", [True, False])
@pytest.mark.parametrize("n", [0, 1, 3])
def test_a_few_matches_are_no_geometry(framed, n):
    one, other, _, _ = planted(np.random.default_rng(4), 5, 0)
    sides = (one, other) if framed else (image(one.points), image(other.points))
    assert is_none(verify(*sides, all_pairs(n)), n)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 150), st.booleans())
def test_matches_at_random_agree_on_little(seed, n, framed):
    """At most one in ten thousand of such pairs passes a surprise of 4; as many inliers as 12 never."""
    rng = np.random.default_rng(seed)
    sides = [
        image(
            rng.uniform(0, 450, (n, 2)),
            frames=np.column_stack([rng.uniform(2, 30, n), rng.uniform(0, TURN, n)]).astype(np.float32),
        )
        for _ in range(2)
    ]
    sides = sides if framed else [image(side.points) for side in sides]
    match = verify(*sides, all_pairs(n))
    assert match.surprise < 4
    assert match.n_inliers < 12 or match.kind == "fundamental"


def test_a_repeated_facade_counts_one_of_its_shifts():
    """Windows ten to a row, 60 pixels apart: those of two rows are matched with the next one."""
    windows = np.stack(np.meshgrid(np.arange(20, 600, 60), np.arange(20, 440, 60)), axis=-1).reshape(-1, 2)
    frames = np.full((len(windows), 2), 4.0, dtype=np.float32)
    side = image(windows, frames=frames)
    pairs = all_pairs(len(windows))
    pairs[:20, 1] += 1
    pairs = np.delete(pairs, [9, 19], axis=0)  # which have no next one
    match = verify(side, side, pairs)
    assert match.kind == "homography"
    assert (match.n_inliers, match.n_matches) == (50, 68)
    assert np.array_equal(match.points_query, match.points_row)


def test_keypoints_of_one_place_count_once():
    rng = np.random.default_rng(5)
    one, other, _, _ = planted(rng, 20, 0)
    pairs = np.concatenate([all_pairs(20)] * 3)
    match = verify(one, other, pairs)
    assert (match.n_inliers, match.n_matches) == (20, 60)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(0, 40), st.integers(0, 40), st.sampled_from([0.001, 0.01, 0.3]))
def test_surprise_is_that_of_the_slow_version(n_sample, n_matches, n_inliers, probability):
    n_matches = max(n_matches, n_sample)
    n_inliers = min(n_inliers, n_matches)
    more, rest = n_inliers - n_sample, n_matches - n_sample
    tail = sum(comb(rest, k) * probability**k * (1 - probability) ** (rest - k) for k in range(max(more, 0), rest + 1))
    expected = -log10(comb(n_matches, n_sample) * tail) if more > 0 else 0
    assert surprise(n_inliers, n_matches, n_sample, probability) == pytest.approx(max(expected, 0), abs=1e-6)


def test_the_inliers_of_a_match_by_hand():
    """Inliers at the corners of half the image: spread 1/2; three matches in a million are chance."""
    corners = np.array([[0, 0], [300, 0], [0, 400], [300, 400], [100, 100], [200, 300], [50, 300], [250, 50]])
    frames = np.full((8, 2), 5.0, dtype=np.float32)
    side = image(corners, (600, 400), frames)
    match = verify(side, side, all_pairs(8))
    assert match.n_inliers == 8
    assert match.spread == match.spread_row == pytest.approx(0.5)
    probability = np.pi * 12**2 / (600 * 400)
    assert match.n_chance == pytest.approx(1 + 7 * probability)
    assert match.surprise == pytest.approx(-log10(8 * probability**7))


def test_a_verifier_answers_alike_alone_in_another_order_and_with_other_threads():
    rng = np.random.default_rng(6)
    query = described(rng, 80)
    others = [described(rng, n, query) for n in (60, 0, 1, 30, 80)]
    together = Verifier().verify(query, others)
    assert [match.n_inliers > 0 for match in together] == [True, False, False, True, True]
    for n_threads in (1, 4):
        cv2.setNumThreads(n_threads)
        backwards = Verifier().verify(query, others[::-1])[::-1]
        alone = [Verifier().verify(query, [other])[0] for other in others]
        for match, again, single in zip(together, backwards, alone, strict=True):
            assert alike(match, again)
            assert alike(match, single)


def test_a_verifier_of_no_images_answers_nothing():
    assert Verifier().verify(described(np.random.default_rng(0), 5), []) == []


def test_points_of_a_match_have_to_fit():
    with pytest.raises(ValueError, match=r"^points \(3, 2\) and \(2, 2\) must both be \(n, 2\)$"):
        Match(np.zeros((3, 2)), np.zeros((2, 2)), "none", None, 0, 0, 0, 0, 0)


def described(rng, n, like=None):
    """An image with descriptors, the first of them those of another one, moved by a homography."""
    points = rng.uniform(0, 440, (n, 2)) if like is None else apply(similarity(0.8, 0.2, (30, 10)), like.points[:n])
    descriptors = rng.normal(size=(n, 32)) if like is None else like.descriptors[:n]
    descriptors = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
    return LocalFeatures(points.astype(np.float32), descriptors.astype(np.float32), SIZE)


def alike(one, other):
    assert (one.kind, one.n_matches, one.surprise) == (other.kind, other.n_matches, other.surprise)
    assert np.array_equal(one.points_query, other.points_query)
    assert np.array_equal(one.points_row, other.points_row)
    return one.model is other.model is None or np.array_equal(one.model, other.model)
