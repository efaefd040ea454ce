"""Images that are there twice: refused by name and descriptor, left out by descriptor alone."""

import numpy as np
import pytest

from index.copies import leave_out_copies, refuse_known, same_named
from retrieval.errors import LmrError

AXES = np.eye(8, dtype=np.float32)


def names(*values):
    return np.array(values, dtype=object)


def refusal(image_id, vectors, known_id, known, where="the index"):
    with pytest.raises(LmrError) as error:
        refuse_known(image_id, vectors, known_id, known.__getitem__, where)
    return str(error.value)


def test_queries_that_are_new_pass():
    assert same_named(names("a", "b"), AXES[:2].__getitem__, names("c"), AXES[:1].__getitem__) == []
    assert same_named(names("a"), AXES[:1].__getitem__, names(), AXES[:0].__getitem__) == []
    assert refuse_known(names("a"), AXES[:1], names("c"), AXES[:1].__getitem__, "the index") is None


def test_queries_that_are_in_the_index_are_an_error():
    assert refusal(names("a", "b", "c"), AXES[:3], names("x", "c"), AXES[[0, 2]]) == (
        "1 of 3 calibration queries are also in the index: c; leave them out of one or the other"
    )


def test_another_image_of_the_same_name_passes():
    assert same_named(names("001", "002"), AXES[:2].__getitem__, names("001", "002"), AXES[2:4].__getitem__) == []
    near = AXES[:1] + np.float32(0.2) * AXES[1:2]  # cosine 0.981
    assert same_named(names("001"), near.__getitem__, names("001"), AXES.__getitem__) == []


def test_the_same_image_described_on_another_device_is_known():
    near = AXES[:1] + np.float32(0.06) * AXES[1:2]  # cosine 0.9982
    assert refusal(names("001"), near, names("001"), AXES).startswith("1 of 1 calibration queries are also in")


def test_every_image_of_a_name_is_looked_at(monkeypatch):
    monkeypatch.setattr("index.copies.BLOCK_ROWS", 2)
    known = names("001", "002", "001", "001")
    for row in (0, 2, 3):
        assert same_named(names("x", "001"), AXES[[5, row]].__getitem__, known, AXES.__getitem__) == ["001"]
    assert same_named(names("001", "001"), AXES[[0, 3]].__getitem__, known, AXES.__getitem__) == ["001"]
    assert same_named(names("001"), AXES[[1]].__getitem__, known, AXES.__getitem__) == []


def test_only_the_first_of_many_queries_are_named():
    every = names(*"abcdefgh")
    assert refusal(every, AXES, every, AXES, "the background") == (
        "8 of 8 calibration queries are also in the background: a, b, c, d, e and 3 more; "
        "leave them out of one or the other"
    )


def test_copies_of_images_in_the_index_are_left_out_and_named():
    kept, warnings = leave_out_copies(names("a", "b", "c"), np.array([0.2, 0.9995, 0.999]))
    assert kept.tolist() == [True, False, True]
    assert warnings == (
        "1 of 3 queries is a copy of pictures in the index or its background (similarity > 0.999) and was left out: b",
    )
    assert leave_out_copies(names("a"), np.array([-np.inf]))[1] == ()


def test_nothing_but_copies_is_an_error():
    with pytest.raises(LmrError) as error:
        leave_out_copies(names("a", "b"), np.ones(2))
    assert str(error.value) == (
        "2 of 2 queries are copies of pictures in the index or its background (similarity > 0.999) "
        "and were left out: a, b; calibrate on other pictures"
    )
