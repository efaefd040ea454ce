"""What is said of a manifest when it is read, and what of it is doubted."""

import numpy as np
import pytest

from retrieval.data.manifest import Manifest
from retrieval.data.overview import doubts, overview


def manifest(*labels: str, has_labels: bool = True) -> Manifest:
    names = tuple(sorted(set(labels) - {""}))
    codes = np.array([names.index(label) if label else -1 for label in labels], dtype=np.int32)
    ids = np.array([f"i{n}" for n in range(len(labels))], dtype=object)
    return Manifest("photos", ids, codes, names, has_labels=has_labels)


def test_the_line_counts_images_landmarks_and_those_without() -> None:
    assert overview(manifest("a", "a", "b", "")) == "photos: 4 images of 2 landmarks, 1 without"
    assert overview(manifest("a")) == "photos: 1 image of 1 landmark, 0 without"
    assert overview(manifest("", "", has_labels=False)) == "photos: 2 images, no labels"


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("Train", "Test"), "Test, Train are landmarks by name, but look like parts of a data set; give photos/Test"),
        (("images",), "images is a landmark by name, but looks like a part of a data set; give photos/images"),
        (
            ("train_set", "val"),
            "train_set, val are landmarks by name, but look like parts of a data set; give photos/train_set",
        ),
    ],
)
def test_landmarks_named_as_the_parts_of_a_data_set_are_doubted(names: tuple[str, ...], told: str) -> None:
    assert doubts(manifest(*names), is_folder=True) == [f"photos: {told} instead?"]


def test_one_landmark_alone_and_a_folder_without_any_are_doubted() -> None:
    assert doubts(manifest("a", "a")) == ["photos: all landmarks are a; with one alone there is nothing to tell apart"]
    assert doubts(manifest("", "", has_labels=False), is_folder=True) == [
        "photos: no image lies in a folder of a landmark; give the folder above photos?"
    ]


def test_a_background_without_landmarks_is_not_doubted() -> None:
    assert doubts(manifest("", ""), labels_expected=False) == []
    assert doubts(manifest("", "", has_labels=False), is_folder=True, labels_expected=False) == []


def test_several_landmarks_and_a_list_without_labels_are_not_doubted() -> None:
    assert doubts(manifest("a", "b", "")) == doubts(manifest("", has_labels=False)) == []


def test_labels_that_a_spreadsheet_shortened_are_doubted() -> None:
    assert doubts(manifest("1.23457E+15", "7", "2E+20")) == [
        "photos: 1.23457E+15, 2E+20 look like long numbers that a spreadsheet shortened, so that "
        "landmarks may have become one; take the labels from the file before that"
    ]
    assert doubts(manifest("1e5", "7E", "E+5", "C+1")) == []
