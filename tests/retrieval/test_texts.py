"""Columns of texts give the strings that they were made of, and find equal ones, without holding strings."""

import hashlib
import json
import mmap
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.arrays import object_array
from retrieval.files.digest import update_json
from retrieval.files.hdf5 import open_hdf5, read_column, write_column
from retrieval.texts import Lookup, Texts, TextsWriter, equal_pairs, repeated, shared, to_texts

WORDS = ["rome", "", "a", "Sacr\u00e9-C\u0153ur", "b\udcff.jpg", "a"]
SOME = st.lists(st.text(alphabet="ab\u00e9", max_size=3), max_size=20)


def test_a_column_is_indexed_as_an_array_of_strings_is() -> None:
    column, array = Texts.of(WORDS), object_array(WORDS)
    assert (len(column), column.shape, column.tolist(), list(column)) == (6, (6,), WORDS, WORDS)
    assert [column[i] for i in range(-6, 6)] == [array[i] for i in range(-6, 6)]
    mask = np.array([True, False, True, True, False, True])
    for rows in (slice(None), slice(1, 4), slice(None, None, -2), np.array([5, 0, 0, -1]), [2, 3, 4], mask, slice(0)):
        found = column[rows]
        assert found.dtype == object
        assert found.tolist() == array[rows].tolist()
        assert column.select(rows) == Texts.of(array[rows])
    assert np.asarray(column).tolist() == WORDS
    assert np.isin(column, ["a"]).tolist() == [False, False, True, False, False, True]


@pytest.mark.parametrize("at", [6, -7, np.array([6]), np.array([-7]), np.array([True])])
def test_a_row_that_is_not_there_is_an_error(at: object) -> None:
    with pytest.raises(IndexError):
        Texts.of(WORDS)[at]  # type: ignore[call-overload]


@pytest.mark.parametrize("ends", [[3, 2, 4], [1, 2, 3], [1, 2, 5], [-1, 2, 4]])
def test_ends_that_do_not_fit_are_refused(ends: list[int]) -> None:
    with pytest.raises(ValueError, match="text"):
        Texts(np.zeros(4, np.uint8), np.array(ends))


@given(SOME, SOME)
def test_equal_texts_are_found_as_strings_would_find_them(one: list[str], other: list[str]) -> None:
    pairs = [pair.tolist() for pair in equal_pairs(Texts.of(one), Texts.of(other), 3)]
    assert [one for part in pairs for one in part] == [
        [i, k] for i, a in enumerate(one) for k, b in enumerate(other) if a == b
    ]
    assert all(len(pair) <= 3 for pair in pairs)
    assert repeated(Texts.of(one)) == sorted({text for text in one if one.count(text) > 1})
    assert Texts.joined([Texts.of(one), Texts.of(other)]).tolist() == one + other


@given(st.lists(SOME, max_size=5))
def test_a_column_grows_by_blocks(blocks: list[list[str]]) -> None:
    writer = TextsWriter()
    for block in blocks:
        writer.add(block)
    together = [text for block in blocks for text in block]
    assert writer.texts() == Texts.of(together)
    assert writer.texts().tolist() == together
    assert writer.texts().is_ascii == all(map(str.isascii, together))


def test_texts_of_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Texts, "_hashes", lambda self: np.zeros(len(self), np.int64))
    assert repeated(Texts.of(WORDS)) == ["a"]
    assert np.concatenate([*equal_pairs(Texts.of(["a", "x"]), Texts.of(WORDS))]).tolist() == [[0, 2], [0, 5]]


def test_texts_of_any_length_are_found_wherever_they_lie() -> None:
    long = ["x" * n + end for n in range(40) for end in ("", "a", "\0")]
    different = sorted(set(long) | {text[:i] + "y" + text[i + 1 :] for text in ["x" * 23] for i in range(23)})
    order = np.random.default_rng(0).permutation(2 * len(different))
    twice = Texts.of(different * 2).select(order)
    assert repeated(twice) == different
    assert repeated(Texts.of(different)) == []
    (pairs,) = equal_pairs(Texts.of(different), twice)
    places = [[j for j, other in enumerate(twice) if one == other] for one in different]
    assert pairs.tolist() == [[i, j] for i, found in enumerate(places) for j in found]


def test_the_first_row_of_a_text_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a", "", "ab", "Größe", "a", "x" * 40, "n\udce9"]
    for clash in (False, True):
        if clash:  # all hashes are one
            monkeypatch.setattr(Texts, "_hashes", lambda self: np.zeros(len(self), np.uint64))
        rows = Lookup(Texts.of(texts))
        assert [rows.find(text) for text in texts] == [0, 1, 2, 3, 0, 5, 6]
        assert [rows.find(text) for text in ("b", "A", "../a", "n\ud800", "x" * 41)] == [-1] * 5
    assert Lookup(Texts.of([])).find("") == -1


def test_a_column_stays_in_its_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        write_column(file, "name", Texts.of(WORDS))
        write_column(file, "none", Texts.of([]))
    with open_hdf5(tmp_path / "x.h5", "a file", "make it again") as file:
        column, none = read_column(file, "name", 6), read_column(file, "none")
    assert (column.tolist(), none.tolist()) == (WORDS, [])
    base = column.data
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base, mmap.mmap)
    with pytest.raises(ValueError, match="read-only"):
        column.data[0] = 0


def test_texts_of_hdf5_are_packed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["name"] = [text.encode(errors="surrogateescape") for text in WORDS]
        file["fixed"] = np.array([b"ab", b"c", b""])
        assert read_column(file, "name") == Texts.of(WORDS)
        assert read_column(file, "fixed").tolist() == ["ab", "c", ""]
        with pytest.raises(ValueError, match=r"name of row 4 is not UTF-8: b'b\\xff.jpg'"):
            read_column(file, "name", is_utf8=True)
        with pytest.raises(ValueError, match="name must have 5 rows, got 6 rows"):
            read_column(file, "name", 5)


def test_a_column_of_another_length_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        write_column(file, "name", Texts.of(WORDS))
        with pytest.raises(ValueError, match="name_ends must have 5 rows, got 6 rows"):
            read_column(file, "name", 5)


@pytest.mark.parametrize("block", [1, 2, 100])
def test_columns_are_hashed_as_the_json_of_their_lists(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.texts.BLOCK", block)
    numbers = np.arange(5, dtype=np.int32)
    content = {
        "b": [to_texts(object_array(WORDS)), numbers, ("x", None)],
        "a": {},
        "c": Texts.of([]),
        "d": [],
        "e": 0.5,
    }
    lists = {"b": [WORDS, numbers.tolist(), ["x", None]], "a": {}, "c": [], "d": [], "e": 0.5}
    total = hashlib.sha256()
    update_json(total, content)
    assert total.hexdigest() == hashlib.sha256(json.dumps(lists, sort_keys=True).encode()).hexdigest()


def test_equal_texts_of_a_shared_column_are_one():
    words = shared(Texts.of(["street", "food", "".join(["str", "eet"])]))
    assert words.tolist() == ["street", "food", "street"]
    assert words[0] is words[2]


def test_the_bytes_of_texts_are_counted():
    assert Texts.of(["", "a", "\u00e9t\u00e9"]).n_bytes.tolist() == [0, 1, 5]
