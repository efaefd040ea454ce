"""Counts of Open Images labels, boxes and subsets, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from index.stats.labels import Spread
from index.stats.open_images import (
    LabelCounts,
    LabelShare,
    Subset,
    TopLabel,
    boxes_per_picture,
    compare_subsets,
    count_boxes,
    count_labels,
    labelling_of_rows,
)
from retrieval.arrays import object_array
from retrieval.data.open_images import LabelRows


@pytest.fixture
def rows():
    """b shows y for certain (said twice) and perhaps x; a shows x; c was looked at and has none; d is blank."""
    return LabelRows(
        source="labels.csv",
        image_id=object_array(["b", "a", "c", "d"]),
        labels=("y", "x"),
        image=np.array([0, 0, 0, 1, 2, 3], np.int32),
        label=np.array([0, 0, 1, 1, 0, -1], np.int32),
        confidence=np.array([1, 0.99, 0.7, 1, 0, 1], np.float32),
        area=np.array([0.5, 0.1, 0.1, 0.1, 0.1, 0.1], np.float32),
        flags={"IsGroupOf": np.array([True, False, False, False, False, True])},
        subset=None,
    )


def test_labels_count_from_the_confidence_on_and_once(rows):
    labelling = labelling_of_rows(rows, rows.image_id, 0.99)
    assert labelling.names == ("x", "y")
    assert list(zip(labelling.image.tolist(), labelling.landmark.tolist(), strict=True)) == [(0, 1), (1, 0)]
    all_of_them = labelling_of_rows(rows, rows.image_id, 0.5)
    assert all_of_them.counts.tolist() == [2, 1]


def test_only_images_of_the_list_count_and_they_count_without_labels_too(rows):
    labelling = labelling_of_rows(rows, object_array(["z", "a"]), 0.99)
    assert (labelling.n_pictures, labelling.image.tolist()) == (2, [1])


def test_labels_are_described(rows):
    found = count_labels(rows, labelling_of_rows(rows, rows.image_id, 0.99), 0.99, {"y": "Y"})
    assert found.labels_per_picture.mean == 0.5
    spread = Spread(0.5, 0, 1, {})
    assert replace(found, labels_per_picture=spread) == LabelCounts(
        min_label_confidence=0.99,
        rows=6,
        kept=3,
        rejected=1,
        blank=1,
        pictures_without_label=2,
        labels_per_picture=spread,
        top_labels=(TopLabel("x", 1, 0.25, None), TopLabel("y", 1, 0.25, "Y")),
    )


def test_boxes_are_counted_for_all_images_of_the_list(rows):
    listed = object_array(["a", "b", "z"])
    assert boxes_per_picture(rows, listed).tolist() == [1, 3, 0]
    found = count_boxes(rows, listed, {})
    assert (found.boxes, found.pictures_with_boxes, found.on_other_pictures) == (6, 4, 2)
    assert found.boxes_per_picture.mean == 4 / 3
    assert found.boxes_per_picture.max == 3
    assert found.flags == {"IsGroupOf": 2 / 6}
    assert [(row.landmark_id, row.count) for row in found.top_labels] == [("y", 3), ("x", 2)]


def test_subsets_stand_side_by_side(rows):
    labelling = labelling_of_rows(rows, rows.image_id, 0.5)
    subset = object_array(["train", "train", "test", "train"])
    assert compare_subsets(labelling, subset, None, {"x": "X"}) == (
        Subset(
            subset="train",
            pictures=3,
            labelled=2,
            labels_per_picture=1.0,
            boxes_per_picture=None,
            top_labels=(LabelShare("x", "X", 2 / 3), LabelShare("y", None, 1 / 3)),
        ),
        Subset(
            subset="test",
            pictures=1,
            labelled=0,
            labels_per_picture=0.0,
            boxes_per_picture=None,
            top_labels=(LabelShare("x", "X", 0.0), LabelShare("y", None, 0.0)),
        ),
    )


def test_no_label_at_all_is_no_error(rows):
    labelling = labelling_of_rows(rows, object_array(["z"]), 0.99)
    assert count_labels(rows, labelling, 0.99, {}).top_labels == ()
    assert compare_subsets(labelling, object_array([""]), None, {})[0].top_labels == ()
