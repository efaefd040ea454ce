"""Rows that are added beside a large file are found as if they lay in it; other changes put all into one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index.folder.build import BuildOptions, build_folder
from index.folder.folder import IndexFolder, open_folder
from index.folder.info import ADDED, INDEX, list_files, write_info
from index.folder.inputs import BuildInputs
from index.search import joined_rows
from index.search.config import SearchOptions
from index.update.addition import plan_addition
from index.update.change import Change, plan_removal
from index.update.compact import IndexCompactJob, compact
from index.update.images import Images
from index.update.inspect import IndexVerifyJob, verify
from index.update.write import write_changed
from retrieval.errors import LmrError
from retrieval.files.folders import replacing_folder

N = 4098  # rows of 8 float32, a little more than two pages, or of 8 float16, one page
PLAIN = BuildOptions(whitening_power=None, storage="float32")
INVERTED = BuildOptions(whitening_power=None, storage="float32", search=SearchOptions("ivf-sq8", 0.9, n_lists=8))


@pytest.fixture(autouse=True)
def small_files_are_linked(monkeypatch):
    monkeypatch.setattr(joined_rows, "LEAST_LINKED", joined_rows.PAGE)


def labels(n: int) -> list[str]:
    return ["rome", "paris", "oslo"] * (n // 3)


@pytest.fixture
def train(make_store):
    return make_store(labels(N), seed=0)


@pytest.fixture
def more(make_store):
    return [make_store(labels(90), seed=1 + i, source=f"more-{i}.h5") for i in range(3)]


def added(folder: IndexFolder, store) -> IndexFolder:
    from index.recognition import to_index_space

    given = Images(
        store.source,
        store.image_id,
        store.path,
        store.landmark,
        store.landmarks,
        lambda rows: to_index_space(folder, store.vectors[rows]),
    )
    return changed(folder, plan_addition(folder, "add", [given], {}, to_background=False))


def changed(folder: IndexFolder, change: Change) -> IndexFolder:
    with replacing_folder(folder.path) as target:
        write_changed(folder, change, target)
    return open_folder(folder.path, device="cpu")


def assert_same(one: IndexFolder, other: IndexFolder) -> None:
    assert one.rows.image_id == other.rows.image_id
    assert (one.index.stored == other.index.stored).all()
    queries = np.random.default_rng(9).normal(size=(40, 8)).astype(np.float32)
    found, expected = one.index.search(queries, 10), other.index.search(queries, 10)
    assert (found.rows == expected.rows).all()
    assert (found.scores == expected.scores).all()


@pytest.mark.parametrize(
    "options", [PLAIN, INVERTED, replace(INVERTED, storage="float16")], ids=["flat", "ivf", "half"]
)
def test_rows_beside_a_file_are_found_as_if_they_lay_in_it(make_folder, train, more, tmp_path, options):
    folder = make_folder(train, options=options)
    file = (folder.path / INDEX).stat()
    for store in more:
        folder = added(folder, store)
    assert (folder.path / INDEX).stat().st_ino == file.st_ino
    assert (folder.path / ADDED).exists()
    build_folder(tmp_path / "built", BuildInputs([train, *more], tmp_path / "model"), options, device="cpu")
    assert_same(folder, open_folder(tmp_path / "built", device="cpu"))
    assert verify(IndexVerifyJob(folder.path)).self_recall > 0.95
    if folder.ivf is not None:
        new = np.arange(N, N + 270)
        assert (folder.ivf.search(folder.index.vectors(new), 1).rows[:, 0] == new).mean() > 0.95


def test_rows_come_into_one_file_when_many_are_beside_it_or_some_go(make_folder, make_store, train, more):
    folder = added(make_folder(train, options=PLAIN), more[0])
    assert (folder.path / ADDED).exists()
    large = added(folder, make_store(labels(1962), seed=7, source="large.h5"))
    assert not (large.path / ADDED).exists()
    assert len(large.index) == N + 90 + 1962  # a little more than three pages
    again = added(large, more[1])
    assert (again.path / ADDED).exists()
    gone = changed(again, plan_removal(again, ["more-1.h5-0", "train.h5-5"], "given"))
    assert not (gone.path / ADDED).exists()
    kept = ~np.isin(again.rows.image_id[:], ["more-1.h5-0", "train.h5-5"])
    assert (gone.index.stored == again.index.stored[kept]).all()


@pytest.mark.parametrize("options", [PLAIN, INVERTED], ids=["flat", "ivf"])
def test_compacting_puts_all_rows_into_one_file(make_folder, train, more, options):
    folder = added(make_folder(train, options=options), more[0])
    assert compact(IndexCompactJob(index=folder.path)).state == "changed"
    now = open_folder(folder.path, device="cpu")
    assert not (now.path / ADDED).exists()
    assert_same(now, folder)
    assert compact(IndexCompactJob(index=folder.path)).state == "unchanged"


def test_a_folder_in_two_files_is_read_where_nothing_can_be_mapped_over(make_folder, train, more, monkeypatch):
    folder = added(make_folder(train, options=PLAIN), more[0])
    monkeypatch.setattr(joined_rows.os, "name", "nt")
    apart = joined_rows.read_joined(folder.path / INDEX, folder.path / ADDED)
    monkeypatch.undo()
    assert int(apart.ntotal) == N + 90
    assert (apart.reconstruct_n(0, N + 90) == folder.index.stored).all()


@pytest.mark.parametrize("n", [1, 31, 100_000])
def test_a_second_file_that_does_not_fit_is_refused(make_folder, train, more, n):
    folder = added(make_folder(train, options=PLAIN), more[0])
    path = folder.path / ADDED
    path.write_bytes(path.read_bytes()[:-n])
    with pytest.raises(LmrError) as error:
        open_folder(folder.path, device="cpu")
    assert str(error.value).startswith(f"{path} has {path.stat().st_size} bytes, index.json says ")
    files = {name: listed for name, listed in list_files(folder.path).items() if name in folder.info.files}
    write_info(folder.path, replace(folder.info, files=files))
    with pytest.raises(LmrError) as error:
        open_folder(folder.path, device="cpu")
    assert str(error.value) == (
        f"{path} does not go on where {folder.path / INDEX} ends; copy the folder again or run lmr build-index again"
    )


def test_a_changed_byte_of_the_second_file_is_found(make_folder, train, more):
    folder = added(make_folder(train, options=PLAIN), more[0])
    path = folder.path / ADDED
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    Path(path).write_bytes(data)
    with pytest.raises(LmrError) as error:
        verify(IndexVerifyJob(folder.path))
    assert str(error.value).startswith(f"{path} was changed or damaged: its sha256 is not that of index.json")
