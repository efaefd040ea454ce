"""Reverse image search: pages, filters, copies, and the images of an index by name."""

import numpy as np
import pytest

from index.landmarks import Landmarks
from index.serving.gallery import UnknownError
from index.serving.similar import search


@pytest.fixture
def landmarks(make_folder, make_store):
    """Sixty random images of three landmarks."""
    return Landmarks(make_folder(make_store([f"l{i % 3}" for i in range(60)], seed=0)), None)


def ids(page):
    return [item.neighbour.image_id for item in page.items]


def test_an_image_of_the_index_is_not_among_those_like_it(landmarks):
    page = search(landmarks, "train.h5-7", n=100, fold=False)
    assert len(page.items) == 59
    assert "train.h5-7" not in ids(page)
    assert (page.n_rows_looked_at, page.has_more) == (59, False)


def test_images_come_by_similarity(landmarks):
    vector = np.random.default_rng(1).normal(size=8).astype(np.float32)
    page = search(landmarks, vector, n=60)
    rows = landmarks.folder.index.vectors(np.arange(60))
    expected = np.argsort(-(rows @ vector), kind="stable")
    assert ids(page) == [f"train.h5-{i}" for i in expected]


def test_a_name_that_the_index_does_not_have_is_an_error(landmarks):
    with pytest.raises(UnknownError) as error:
        search(landmarks, "nobody")
    path = landmarks.folder.path
    assert str(error.value) == f"{path} has no image nobody; lmr index export lists those it has"
