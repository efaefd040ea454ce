"""The record of images that were seen: what it knows again, how large it gets."""

import pytest

from retrieval.errors import LmrError
from retrieval.models import seen
from retrieval.models.seen import record_seen, was_seen


def test_a_record_knows_its_images_by_name_and_label():
    record = record_seen(["a", "b", "b"], ["rome", "", ""])
    assert record["n"] == 2
    assert was_seen(record, ["a", "b", "a", "c"], ["rome", "", "paris", "rome"]).tolist() == [True, True, False, False]


def test_a_record_is_six_bytes_a_image_and_of_very_many_a_sample(monkeypatch):
    monkeypatch.setattr(seen, "MOST", 100)
    names = [str(i) for i in range(1000)]
    record = record_seen(names, ["x"] * 1000)
    assert (record["n"], len(record["sha256_48"])) == (1000, 800)
    assert was_seen(record, names, ["x"] * 1000).sum() == 100


def test_a_record_of_nothing_knows_nothing():
    assert was_seen(record_seen([], []), ["a"], ["rome"]).tolist() == [False]


@pytest.mark.parametrize("record", [{}, {"sha256_48": "%%"}, {"sha256_48": "AAAA"}, {"sha256_48": 3}])
def test_a_damaged_record_is_an_error(record):
    with pytest.raises(LmrError, match="the record of the pictures that were seen is damaged"):
        was_seen(record, ["a"], ["rome"])
