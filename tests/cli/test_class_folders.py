"""The names of class folders and of the links in them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.data.manifest import Manifest
from retrieval.files.folder_names import folder_name
from retrieval.split.class_folders import class_folder_links


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Hawa_Mahal", "Hawa_Mahal"),
        ("/m/01", "%2Fm%2F01"),
        ("..", "%2E%2E"),
        (".hidden", "%2Ehidden"),
        ("100%", "100%25"),
        ("a:b", "a%3Ab"),
        ("_no_known_landmark", "%5Fno_known_landmark"),
    ],
)
def test_names_that_lead_elsewhere_are_escaped(label, name):
    assert folder_name(label) == name


@given(st.lists(st.text("ab%/.\\_:é", min_size=1, max_size=4), unique=True, max_size=20))
def test_different_landmarks_have_different_folders_that_are_one_name(labels):
    names = [folder_name(label) for label in labels]
    assert len(set(names)) == len(names)
    assert all(name not in (".", "..") and "/" not in name and "\\" not in name for name in names)


def test_very_long_names_stay_different():
    one, other = folder_name("é" * 300 + "a"), folder_name("é" * 300 + "b")
    assert one != other
    assert len(one.encode()) <= 255


def test_images_of_one_name_get_numbers_and_those_without_a_place_are_left_out():
    paths = ["x/1.jpg", "y/1.jpg", "z/1.jpg", "", "n/1.jpg", "w/1-2.jpg"]
    manifest = Manifest(
        source="m.csv",
        image_id=np.array(list("abcdef"), dtype=object),
        landmark=np.array([0, 0, 0, 0, -1, 0], dtype=np.int32),
        landmarks=("mill",),
        path=np.array(paths, dtype=object),
    )
    assert class_folder_links({"val": manifest}) == {
        "val/mill/1.jpg": "x/1.jpg",
        "val/mill/1-2.jpg": "y/1.jpg",
        "val/mill/1-3.jpg": "z/1.jpg",
        "val/_no_known_landmark/1.jpg": "n/1.jpg",
        "val/mill/1-2-2.jpg": "w/1-2.jpg",
    }
