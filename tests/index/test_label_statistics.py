"""Counts of images per landmark and everything that is told of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.stats.labels import (
    Biggest,
    Host,
    Hosts,
    Labelling,
    LandmarkCounts,
    LandmarkSizes,
    LongTail,
    SizeBin,
    count_hosts,
    count_landmarks,
    density,
    histogram,
    labelling_of,
    least_frequent,
    long_tail,
    most_frequent,
    rank_hosts,
    samples,
)
from index.stats.open_images import rolled_up
from retrieval.arrays import object_array
from retrieval.data.manifest import Manifest

COUNTS = st.lists(st.integers(0, 300), max_size=40).map(lambda values: np.array(values, dtype=np.int64))


def labelling(pairs, n_pictures, names):
    array = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return Labelling(n_pictures, tuple(names), array[:, 0], array[:, 1])


def test_every_landmark_of_a_image_counts():
    ids = object_array(["a", "b", "c", "d"])
    manifest = Manifest("m.csv", ids, np.array([1, -1, 0, 1], np.int32), ("x", "y"), more_landmarks={0: (0,)})
    found = labelling_of(manifest)
    assert list(zip(found.image.tolist(), found.landmark.tolist(), strict=True)) == [(0, 1), (0, 0), (2, 0), (3, 1)]
    assert found.counts.tolist() == [2, 2]
    assert found.n_labelled == 3
    assert found.first_landmark().tolist() == [1, -1, 0, 1]


def test_pairs_outside_of_the_images_are_a_callers_mistake():
    with pytest.raises(ValueError, match=r"^image must lie in \[0, 1\)$"):
        labelling([(1, 0)], 1, "x")
    with pytest.raises(ValueError, match=r"^landmark must lie in \[0, 1\)$"):
        labelling([(0, -1)], 1, "x")


def test_the_table_of_percentiles_by_hand():
    found = count_landmarks(np.arange(1, 12))  # 1 to 11: the percentiles are 2 to 10
    assert found.pictures_per_landmark == LandmarkSizes(
        mean=6.0, min=1, max=11, percentiles={str(10 * i): i + 1.0 for i in range(1, 10)}, single=1
    )
    assert found.biggest == (Biggest(1, 11, 11 / 66), Biggest(10, 65, 65 / 66), Biggest(11, 66, 1.0))
    assert found.half == 4  # 11 + 10 + 9 = 30 is less than 33


def test_without_landmarks_there_is_nothing_to_tell():
    none = np.zeros(3, dtype=np.int64)
    assert count_landmarks(none) == LandmarkCounts(
        landmarks=0, labels=0, pictures_per_landmark=None, biggest=(), half=None
    )
    assert histogram(none) == ()
    assert density(none) is None
    assert long_tail(none) == LongTail(landmarks=(), share=())
    assert most_frequent(none, 10).tolist() == least_frequent(none, 10).tolist() == []


def test_bins_double():
    assert histogram(np.array([1, 1, 2, 3, 8])) == (
        SizeBin(first=1, last=1, landmarks=2),
        SizeBin(first=2, last=3, landmarks=2),
        SizeBin(first=4, last=7, landmarks=0),
        SizeBin(first=8, last=15, landmarks=1),
    )


@given(COUNTS)
def test_every_landmark_is_in_the_bin_of_its_count(counts):
    bins = histogram(counts)
    for b in bins:
        assert b.landmarks == sum(b.first <= c <= b.last for c in counts.tolist())
    assert sum(b.landmarks for b in bins) == (counts > 0).sum()


@given(COUNTS)
def test_the_biggest_hold_as_much_as_the_slow_way_says(counts):
    ordered = sorted((c for c in counts.tolist() if c), reverse=True)
    found = count_landmarks(counts)
    for row in found.biggest:
        assert row.labels == sum(ordered[: row.k])
    half = found.half
    if ordered:
        assert 2 * sum(ordered[:half]) >= sum(ordered) > 2 * sum(ordered[: half - 1])
        assert long_tail(counts).share[-1] == pytest.approx(1)


def test_the_density_is_one_below_its_curve():
    counts = np.array([3, 5, 8, 13, 21, 30, 44])
    curve = density(counts)
    assert curve is not None
    assert np.trapezoid(curve.density, np.log10(curve.pictures)) == pytest.approx(1, abs=0.1)
    assert density(np.array([4, 4, 4])) is None


def test_equal_landmarks_come_in_their_order():
    counts = np.array([2, 5, 0, 2, 5, 1])
    assert most_frequent(counts, 3).tolist() == [1, 4, 0]
    assert least_frequent(counts, 3).tolist() == [5, 0, 3]


def test_samples_are_spread_over_the_images():
    found = labelling([(i, 0) for i in range(10)], 11, "x")
    assert samples(found, 0, 4) == [0, 3, 6, 9]
    assert samples(labelling([(5, 0)], 6, "x"), 0, 4) == [5]


def test_a_image_of_two_kinds_counts_once_for_what_they_are_kinds_of():
    pairs = [(0, 0), (0, 1), (1, 1), (2, 2)]
    found = labelling(pairs, 4, ["cat", "dog", "tree"])
    below = {"animal": {"animal", "cat", "dog"}, "dog": {"dog"}, "stone": {"stone"}}
    assert rolled_up(found, below) == {"animal": 2, "dog": 2, "stone": 0}
    assert rolled_up(labelling([], 4, []), below) == {"animal": 0, "dog": 0, "stone": 0}


def test_hosts_are_without_user_port_and_capitals():
    urls = [
        "http://A.org/x",
        "https://a.org:80/y",
        "http://me@b.org",
        "http://[::1]:80/z",
        "",
        "no",
        "http://a.org?q=1",
    ]
    assert count_hosts(urls) == {"a.org": 3, "b.org": 1, "[::1]": 1, "": 2}
    assert rank_hosts(object_array(urls), 1) == Hosts(hosts=3, without=2, top=(Host("a.org", 3, 3 / 7),))
