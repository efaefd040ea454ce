import contextlib
import dataclasses
import errno
import io
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_stores import write_store

from retrieval.data.manifest import Manifest
from retrieval.errors import LmrError
from retrieval.store import file as store_file
from retrieval.store.blocks import open_blocks
from retrieval.store.layout import ImageFacts
from retrieval.store.store import (
    DONE,
    TODO,
    UNREADABLE,
    Descriptors,
    StoreInfo,
    create_store,
    open_descriptors,
    partial_path,
    read_store,
    read_store_info,
    reopen_store,
    resume_store,
)
from retrieval.store.stored import StoredVectors

D = 4
INFO = StoreInfo("f" * 64, {"config": {"backbone": "tiny"}}, {"size": 16}, "0.1.0", "m" * 64, "float16", D)


def manifest_of(n: int, *, kinds: bool = False) -> Manifest:
    """Every third image is a non-landmark."""
    ids = np.array([f"id{i}" for i in range(n)], dtype=object)
    landmark = np.array([i % 3 - 1 for i in range(n)], dtype=np.int32)
    kind = np.array([f"kind{i % 2}" for i in range(n)], dtype=object) if kinds else None
    return Manifest("train.csv", ids, landmark, ("a", "b"), kind=kind, names={"b": "Bé"})


def vectors_of(n: int) -> np.ndarray:
    return np.random.default_rng(n).normal(size=(n, D)).astype(np.float16).astype(np.float32)


def finished(path: Path, n: int = 6) -> Path:
    with create_store(path, manifest_of(n), [f"/p/{i}.jpg" for i in range(n)], INFO) as writer:
        writer.write(np.arange(n), vectors_of(n))
        writer.finish()
    return path


def message(call: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(LmrError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Layout


def test_the_file_is_laid_out_as_described(tmp_path: Path) -> None:
    path = tmp_path / "train.h5"
    with create_store(path, manifest_of(5, kinds=True), ["/p/0.jpg", "", "", "", ""], INFO) as writer:
        writer.write(np.array([0, 1, 3]), vectors_of(3))
        writer.write_unreadable(2, "cut short")
        writer.write_unreadable(4, "not found")
        writer.finish()
    with h5py.File(path, "r") as file:
        assert set(file) == {
            *("vectors", "image_id", "landmark", "landmarks", "landmark_name", "state", "path", "kind", "reason"),
            *("size", "mtime_ns", "sha256", "row_digest"),
        }
        assert file["vectors"].dtype == np.dtype("<f2")
        assert file["vectors"].shape == (5, D)
        assert file["vectors"].chunks is None
        assert np.array_equal(file["vectors"][:][[0, 1, 3]], vectors_of(3).astype(np.float16))
        assert not file["vectors"][:][[2, 4]].any()
        assert file["landmark"].dtype == np.dtype("<i4")
        assert file["landmark"][:].tolist() == [-1, 0, 1, -1, 0]
        assert file["state"].dtype == np.dtype("u1")
        assert file["state"][:].tolist() == [1, 1, 2, 1, 2]
        assert file["image_id"].asstr()[:].tolist() == ["id0", "id1", "id2", "id3", "id4"]
        assert file["landmarks"].asstr()[:].tolist() == ["a", "b"]
        assert dict(file.attrs) == {
            "format_version": 1,
            "fingerprint": "f" * 64,
            "model": '{"config": {"backbone": "tiny"}}',
            "image_spec": '{"size": 16}',
            "program_version": "0.1.0",
            "manifest_digest": "m" * 64,
            "digests": "sha256",
        }


def test_a_store_comes_back_whole(tmp_path: Path) -> None:
    path = tmp_path / "train.h5"
    with create_store(path, manifest_of(4, kinds=True), ["/p/ä.jpg", "", "", ""], INFO) as writer:
        writer.write(np.array([3, 0, 1]), vectors_of(3))
        writer.write_unreadable(2, "cut short")
        writer.finish()
    store = read_store(path)
    assert np.array_equal(store.vectors[[3, 0, 1]], vectors_of(3))
    assert store.vectors.dtype == np.float16
    assert store.image_id.tolist() == ["id0", "id1", "id2", "id3"]
    assert store.landmark.tolist() == [-1, 0, 1, -1]
    assert store.landmarks == ("a", "b")
    assert store.state.tolist() == [DONE, DONE, UNREADABLE, DONE]
    assert store.done.tolist() == [True, True, False, True]
    assert store.path.tolist() == ["/p/ä.jpg", "", "", ""]
    assert store.kind is not None
    assert store.kind.tolist() == ["kind0", "kind1", "kind0", "kind1"]
    assert store.reason is not None
    assert store.reason.tolist() == ["", "", "cut short", ""]
    assert store.names == {"b": "Bé"}
    assert store.info == INFO
    assert store.source == str(path)
    with pytest.raises(ValueError, match="read-only"):
        store.vectors[0] = 0
    info, state = read_store_info(path)
    assert info == INFO
    assert state.tolist() == store.state.tolist()


@given(
    texts=st.lists(
        st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), min_size=1),
        min_size=1,
        max_size=6,
        unique=True,
    )
)
@settings(max_examples=20, deadline=None)
def test_names_of_any_script_come_back(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("store") / "x.h5"
    n = len(texts)
    ids = np.array(texts, dtype=object)
    names = tuple(sorted(texts))
    manifest = Manifest("x", ids, np.zeros(n, np.int32), names, names={names[0]: texts[-1]})
    with create_store(path, manifest, texts, INFO) as writer:
        writer.write(np.arange(n), vectors_of(n))
        writer.finish()
    store = read_store(path)
    assert store.image_id.tolist() == texts
    assert store.path.tolist() == texts
    assert store.landmarks == names
    assert store.names == {names[0]: texts[-1]}


def test_a_file_name_that_is_no_utf8_comes_back(tmp_path: Path) -> None:
    place = os.fsdecode(b"/p/caf\xe9.jpg")
    with create_store(tmp_path / "x.h5", manifest_of(2), [place, ""], INFO) as writer:
        writer.write(np.array([0]), vectors_of(1))
        writer.write_unreadable(1, f"not found: tried {place}")
        writer.finish()
    store = read_store(tmp_path / "x.h5")
    assert store.path[0] == place
    assert store.reason is not None
    assert store.reason[1] == "not found: tried /p/caf?.jpg"


def test_a_nul_in_a_name_is_one_line(tmp_path: Path) -> None:
    text = message(create_store, tmp_path / "x.h5", manifest_of(2), ["a\0b", ""], INFO)
    assert text.startswith(f"{tmp_path}/x.h5.partial: cannot be written: ")
    assert not list(tmp_path.iterdir())


def test_a_long_reason_is_cut_between_characters(tmp_path: Path) -> None:
    with create_store(tmp_path / "x.h5", manifest_of(3), ["", "", ""], INFO) as writer:
        writer.write_unreadable(0, "é" * 100)
        writer.write_unreadable(1, "x" + "é" * 100)
        writer.write_unreadable(2, "y" * 120)
        writer.finish()
    reason = read_store(tmp_path / "x.h5").reason
    assert reason is not None
    assert reason.tolist() == ["é" * 60, "x" + "é" * 59, "y" * 120]


def test_a_store_without_rows_is_a_store(tmp_path: Path) -> None:
    store = read_store(finished(tmp_path / "x.h5", 0))
    assert store.vectors.shape == (0, D)
    assert len(store) == 0


def test_rows_may_come_in_any_order_and_size(tmp_path: Path) -> None:
    n = 9
    with create_store(tmp_path / "x.h5", manifest_of(n), [""] * n, INFO) as writer:
        for rows in ([4, 5, 6, 1], [8], [], [0, 2, 3], [7]):
            writer.write(np.array(rows, dtype=np.int64), vectors_of(n)[rows])
        writer.finish()
    assert np.array_equal(read_store(tmp_path / "x.h5").vectors, vectors_of(n))


def test_descriptors_of_another_length_are_refused(tmp_path: Path) -> None:
    with (
        create_store(tmp_path / "x.h5", manifest_of(3), [""] * 3, INFO) as writer,
        pytest.raises(ValueError, match=r"^vectors must be \(2, 4\), got \(2, 5\)$"),
    ):
        writer.write(np.arange(2), np.zeros((2, 5), np.float32))


def test_a_store_with_rows_to_do_is_not_finished(tmp_path: Path) -> None:
    with create_store(tmp_path / "x.h5", manifest_of(3), [""] * 3, INFO) as writer:
        writer.write(np.arange(2), vectors_of(2))
        with pytest.raises(ValueError, match=r"^1 rows of .*x\.h5 are still to do$"):
            writer.finish()
    assert not (tmp_path / "x.h5").exists()


def test_write_store_and_read_store_undo_each_other(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with create_store(path, manifest_of(5, kinds=True), [""] * 5, INFO) as writer:
        writer.write(np.array([0, 1, 3]), vectors_of(3))
        writer.write_unreadable(2, "cut short")
        writer.write_unreadable(4, "")
        writer.finish()
    first = read_store(path)
    write_store(tmp_path / "y.h5", first)
    second = read_store(tmp_path / "y.h5")
    for name in ("vectors", "image_id", "landmark", "state", "path", "kind", "reason"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
    assert (first.landmarks, first.names, first.info) == (second.landmarks, second.names, second.info)


def test_selected_rows_keep_everything_of_theirs(tmp_path: Path) -> None:
    store = read_store(finished(tmp_path / "x.h5", 6)).select(np.array([4, 1]))
    assert store.image_id.tolist() == ["id4", "id1"]
    assert np.array_equal(store.vectors, vectors_of(6)[[4, 1]])
    assert store.landmark.tolist() == [0, 0]
    assert store.landmarks == ("a", "b")
    assert store.path.tolist() == ["/p/4.jpg", "/p/1.jpg"]
    assert len(store.select(store.landmark >= 0)) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "float64"}, "dtype must be float16 or float32, got float64"),
        ({"d": 0}, "d must be positive, got 0"),
    ],
)
def test_impossible_information_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        dataclasses.replace(INFO, **change)  # type: ignore[arg-type]


def test_columns_of_different_lengths_are_refused(tmp_path: Path) -> None:
    store = read_store(finished(tmp_path / "x.h5", 3))
    values = {
        name: getattr(store, name) for name in ("landmark", "landmarks", "state", "path", "kind", "info", "source")
    }
    with pytest.raises(ValueError, match=r"^vectors must be \(2, 4\), got \(3, 4\)$"):
        Descriptors(vectors=store.vectors, image_id=store.image_id[:2], **values)
    values["path"] = store.path[:2]
    with pytest.raises(ValueError, match=r"^path must have 3 rows, got 2$"):
        Descriptors(vectors=store.vectors, image_id=store.image_id, **values)


# Broken files


def test_a_missing_store_names_embed(tmp_path: Path) -> None:
    expected = f"{tmp_path}/x.h5: there is no such descriptor store; lmr embed makes one"
    assert message(read_store, tmp_path / "x.h5") == expected
    (tmp_path / "x.h5").mkdir()
    assert message(read_store, tmp_path / "x.h5") == expected


def test_an_unfinished_store_says_so(tmp_path: Path) -> None:
    with create_store(tmp_path / "x.h5", manifest_of(3), [""] * 3, INFO):
        pass
    assert message(read_store, tmp_path / "x.h5") == (
        f"{tmp_path}/x.h5 is unfinished (x.h5.partial is there); run the same lmr embed again"
    )


def test_a_store_cut_short_anywhere_is_one_line(tmp_path: Path) -> None:
    whole = finished(tmp_path / "whole.h5", 40).read_bytes()
    cut = tmp_path / "cut.h5"
    said = set()
    assert len(whole) > 8000
    for size in [0, 1, 7, 8, 60]:  # within the digests
        cut.write_bytes(whole[:size])
        said.add(message(read_store, cut))
    assert said == {f"{cut} is not a descriptor store (no HDF5 file); give the right file"}
    for size in [512, 700, 5000, len(whole) - 1]:
        cut.write_bytes(whole[:size])
        assert message(read_store, cut) == (
            f"{cut} is damaged (it is cut short: {size:,} of {len(whole):,} bytes); "
            "copy it again if it is a copy, else make it again with lmr embed `overwrite`"
        )
    old = without_digests(tmp_path / "old.h5").read_bytes()
    for size in [700, 5000, len(old) - 1]:
        cut.write_bytes(old[:size])
        assert message(read_store, cut) == (
            f"{cut} is cut short; copy it again if it is a copy, else make it again with lmr embed `overwrite`"
        )


@pytest.mark.parametrize("content", [b"", b"id,landmark_id\na,b\n", b"\x89PNG\r\n\x1a\n"])
def test_another_file_is_not_a_store(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    assert message(read_store, path) == (f"{path} is not a descriptor store (no HDF5 file); give the right file")


def test_another_hdf5_file_is_not_a_store(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["vectors"] = np.zeros(3)
    assert message(read_store, path) == f"{path} is an HDF5 file but not a descriptor store; lmr embed makes one"


def test_a_store_of_another_format_version_is_refused(tmp_path: Path) -> None:
    path = without_digests(tmp_path / "x.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 2
    assert message(read_store, path) == (
        f"{path} has format_version 2, this program reads 1; use the lmr that made it, or embed into another file"
    )


def test_a_store_without_a_column_is_damaged(tmp_path: Path) -> None:
    path = without_digests(tmp_path / "x.h5")
    with h5py.File(path, "r+") as file:
        del file["landmark"]
    assert message(read_store, path) == (
        f"{path} is damaged (it has no dataset landmark); make it again with lmr embed `overwrite`"
    )
    with h5py.File(path, "r+") as file:
        file["landmark"] = np.zeros(2, np.int32)
    assert message(read_store, path) == (
        f"{path} is damaged (landmark must have 6 rows, got 2 rows); make it again with lmr embed `overwrite`"
    )


@pytest.mark.parametrize("place", ["nowhere/x.h5", "file/x.h5"])
def test_an_output_that_cannot_be_written_is_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / place
    why = "Not a directory" if place.startswith("file") else "No such file or directory"
    assert message(create_store, path, manifest_of(3), [""] * 3, INFO) == (
        f"{path}.partial: cannot be written: {why}; choose another place or make room"
    )


def test_a_folder_in_the_way_of_the_finished_store_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.h5" / "inside").mkdir(parents=True)
    with create_store(tmp_path / "x.h5", manifest_of(1), [""], INFO) as writer:
        writer.write(np.arange(1), vectors_of(1))
        assert message(writer.finish) == (
            f"{tmp_path}/x.h5.partial: writing failed: Is a directory; make room and run the same command again"
        )


# Resuming


def test_an_unfinished_store_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with create_store(path, manifest_of(6), [""] * 6, INFO) as writer:
        writer.write(np.array([0, 1]), vectors_of(6)[:2])
        writer.write_unreadable(2, "cut short")
    with resume_store(path) as writer:
        assert writer.state.tolist() == [DONE, DONE, UNREADABLE, TODO, TODO, TODO]
        writer.write(np.array([3, 4, 5]), vectors_of(6)[3:])
        writer.finish()
    store = read_store(path)
    assert np.array_equal(store.vectors[store.done], vectors_of(6)[[0, 1, 3, 4, 5]])
    assert not partial_path(path).exists()


def test_unreadable_rows_can_be_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with create_store(path, manifest_of(3), [""] * 3, INFO) as writer:
        writer.write(np.array([0, 2]), vectors_of(3)[[0, 2]])
        writer.write_unreadable(1, "cut short")
        writer.finish()
    with reopen_store(path) as writer:
        assert not path.exists()
        writer.write_todo(np.array([1]))
    with resume_store(path) as writer:
        assert writer.state.tolist() == [DONE, TODO, DONE]
        writer.write(np.array([1]), vectors_of(3)[1:2])
        writer.finish()
    store = read_store(path)
    assert np.array_equal(store.vectors, vectors_of(3))
    assert store.reason is not None
    assert store.reason.tolist() == ["", "", ""]


@contextlib.contextmanager
def largest_file(n_bytes: int) -> Iterator[None]:
    """What this process writes beyond n_bytes of a file fails, as on a full disk."""
    old, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (old, hard))
        signal.signal(signal.SIGXFSZ, ignored)


def write_until_killed(path: Path, vectors: np.ndarray, begun: int) -> None:
    """Goes on with a store, or begins it; every seventh image is unreadable. begun: written to when it is open."""
    n = len(vectors)
    goes_on = partial_path(path).exists()
    writer = resume_store(path) if goes_on else create_store(path, manifest_of(n), [""] * n, INFO)
    os.write(begun, b"!")
    for row in np.flatnonzero(writer.state == TODO).tolist():
        if row % 7:
            writer.write(np.array([row]), vectors[[row]])
        else:
            writer.write_unreadable(row, f"reason {row}")
        time.sleep(0.0005)
    writer.finish()


def test_a_store_killed_at_any_moment_goes_on(tmp_path: Path) -> None:
    """A forked writer is killed again and again, some at once, some later; what it had written is never lost."""
    path, n = tmp_path / "x.h5", 84
    rng = np.random.default_rng(0)
    vectors = vectors_of(n)
    n_kills, seen = 0, 0
    while not path.exists():
        told, begun = os.pipe()
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                write_until_killed(path, vectors, begun)
            os._exit(0)
        os.close(begun)
        if n_kills % 4:
            os.read(told, 1)
        os.close(told)
        time.sleep(float(rng.uniform(0, 0.015)))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        n_kills += 1
        if partial_path(path).exists():
            done = int((read_store_info(partial_path(path))[1] != TODO).sum())
            assert done >= seen
            seen = done
        assert n_kills < 200
    store = read_store(path)
    assert store.state.tolist() == [DONE if row % 7 else UNREADABLE for row in range(n)]
    assert np.array_equal(store.vectors[store.done], vectors[store.done])
    assert store.reason is not None
    assert all(store.reason[row] == f"reason {row}" for row in range(0, n, 7))
    assert n_kills > 4


class FullDisk(io.FileIO):
    """A file that takes some more bytes, then none."""

    n_left = 10_000

    def write(self, data: Any) -> int:
        """Fails once the bytes are used up."""
        self.n_left -= len(data)
        if self.n_left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, n = tmp_path / "x.h5", 3000
    monkeypatch.setattr("retrieval.store.writer._writable", lambda path: io.BufferedRandom(FullDisk(str(path), "r+b")))
    said = ""
    with create_store(path, manifest_of(n), [""] * n, INFO) as writer:
        for row in range(n):
            try:
                writer.write(np.array([row]), vectors_of(n)[[row]])
            except LmrError as error:
                said = str(error)
                break
    assert said == (
        f"{path}.partial: writing failed: No space left on device; make room and run the same command again"
    )
    monkeypatch.undo()
    with resume_store(path) as writer:
        assert np.flatnonzero(writer.state == DONE).tolist() == list(range(row))
        assert row > 100
        rest = np.flatnonzero(writer.state == TODO)
        writer.write(rest, vectors_of(n)[rest])
        writer.finish()
    assert np.array_equal(read_store(path).vectors, vectors_of(n))


@pytest.mark.parametrize("n_bytes", [0, 100, 3000, 50_000, 150_000, 650_000, 900_000])
def test_a_disk_too_full_to_begin_leaves_nothing(tmp_path: Path, n_bytes: int) -> None:
    """In a child process, which HDF5 would end where it saw the error itself."""
    path = tmp_path / "x.h5"
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException), largest_file(n_bytes):
            try:
                create_store(path, manifest_of(5000), [""] * 5000, INFO)
            except LmrError as error:
                os.write(writer, str(error).encode())
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    with open(reader) as said:
        assert said.read() == f"{path}.partial: cannot be written: File too large; choose another place or make room"
    assert status == 0
    assert not list(tmp_path.iterdir())


# Digests and checks


def a_large_store(path: Path) -> Path:
    """Of several blocks of digests: 3,000 rows of 256 numbers in float16."""
    n, d = 3000, 256
    info = dataclasses.replace(INFO, d=d)
    vectors = np.random.default_rng(0).normal(size=(n, d)).astype(np.float16)
    with create_store(path, manifest_of(n), [""] * n, info) as writer:
        writer.write(np.arange(n), vectors)
        writer.finish()
    return path


def flip(path: Path, position: int, bit: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ (1 << bit)]))


def begin_of(path: Path, name: str) -> int:
    with h5py.File(path, "r") as file:
        return int(file[name].id.get_offset())


def test_a_flipped_bit_anywhere_in_a_store_is_noticed(tmp_path: Path) -> None:
    whole = finished(tmp_path / "whole.h5", 40).read_bytes()
    path = tmp_path / "x.h5"
    for position in range(0, len(whole), 97):
        path.write_bytes(whole)
        flip(path, position, position % 8)
        assert message(read_store, path).startswith(f"{path} is "), position


def test_a_changed_descriptor_names_its_block(tmp_path: Path) -> None:
    path = a_large_store(tmp_path / "x.h5")
    begin = begin_of(path, "vectors")
    row_1500 = begin + 1500 * 256 * 2
    flip(path, row_1500 + 100)
    first = begin + 1500 * 256 * 2 // 262_144 * 262_144
    expected = (
        f"{path} is damaged (its bytes {first:,} to {first + 262_144:,} are not those that were written); "
        "copy it again if it is a copy, else make it again with lmr embed `overwrite`"
    )
    assert message(read_store, path) == expected
    read_store_info(path)  # does not read the descriptors
    blocks = open_blocks(path)
    assert blocks.vectors(np.array([0, 2999])).shape == (2, 256)
    assert message(blocks.vectors, np.array([0, 1500])) == expected


def test_descriptors_stay_in_the_file_until_they_are_asked_for(tmp_path: Path) -> None:
    path = a_large_store(tmp_path / "x.h5")
    whole, opened = read_store(path), open_descriptors(path)
    assert isinstance(whole.vectors, np.ndarray)
    assert isinstance(opened.vectors, StoredVectors)
    assert opened.digest == whole.digest
    chosen = np.array([7, 2999, 7, 0])
    for rows in (chosen, slice(5, 2000), np.arange(3000) % 7 == 0):
        assert np.array_equal(opened.vectors[rows], whole.vectors[rows])
    some = opened.select(chosen)
    assert np.array_equal(some.vectors[np.array([1, 0])], whole.vectors[[2999, 7]])
    assert some.vectors.shape == (4, 256)
    assert some.image_id.tolist() == whole.image_id[chosen].tolist()


def test_descriptors_that_change_under_a_reader_are_told(tmp_path: Path) -> None:
    path = a_large_store(tmp_path / "x.h5")
    opened = open_descriptors(path).vectors
    flip(path, begin_of(path, "vectors") + 2999 * 512 + 1)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))
    assert message(opened.__getitem__, slice(0, 1)) == f"{path} was changed while it was read; run the command again"
    again = open_descriptors(path).vectors
    assert len(again[:100]) == 100
    assert message(again.__getitem__, np.array([2999])).startswith(f"{path} is damaged (its bytes ")
    path.unlink()
    assert message(again.__getitem__, slice(0, 1)).startswith(f"{path} cannot be read: No such file or directory")


def test_a_block_is_read_once_for_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = open_blocks(a_large_store(tmp_path / "x.h5"))
    blocks.vectors(np.arange(3000))
    monkeypatch.setattr("retrieval.files.hdf5_digests.hashlib.sha256", None)
    assert blocks.vectors(np.arange(3000)).shape == (3000, 256)


def test_a_store_without_digests_opens(tmp_path: Path) -> None:
    path = without_digests(tmp_path / "x.h5")
    with h5py.File(path, "r+") as file:
        for name in ("size", "mtime_ns", "sha256"):
            del file[name]
    store = read_store(path)
    assert np.array_equal(store.vectors, vectors_of(6))
    assert store.facts is None


def test_a_store_killed_between_digests_and_rename_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.h5"
    with create_store(path, manifest_of(6), [""] * 6, INFO) as writer:
        writer.write(np.arange(6), vectors_of(6))
        monkeypatch.setattr("retrieval.store.store.os.replace", not_to_be_called)
        with pytest.raises(AssertionError):
            writer.finish()
    monkeypatch.undo()
    size = partial_path(path).stat().st_size
    with resume_store(path) as writer:
        assert (writer.state == DONE).all()
        writer.finish()
    assert path.stat().st_size == size
    assert np.array_equal(read_store(path).vectors, vectors_of(6))


def not_to_be_called(*_: object) -> None:
    raise AssertionError


def test_a_store_that_reads_back_otherwise_is_not_finished(tmp_path: Path) -> None:
    """Another process, or a failing disk, changed it before the end; those rows alone are done again."""
    path = tmp_path / "x.h5"
    with create_store(path, manifest_of(6), [""] * 6, INFO) as writer:
        writer.write(np.arange(5), vectors_of(6)[:5])
        writer.write_unreadable(5, "cut short")
        flip(partial_path(path), begin_of(partial_path(path), "vectors") + 2 * D * 2)
        flip(partial_path(path), begin_of(partial_path(path), "reason") + 5 * 120)
        assert message(writer.finish) == (
            f"{path}.partial: 2 of 6 rows read back otherwise than they were written, the first is row 2; check the "
            "disk, then run the same command again, which does them again"
        )
    assert not path.exists()
    with resume_store(path) as writer:
        assert writer.damaged.tolist() == [2, 5]
        assert np.flatnonzero(writer.state == TODO).tolist() == [2, 5]
        writer.write(np.array([2, 5]), vectors_of(6)[[2, 5]])
        writer.finish()
    assert np.array_equal(read_store(path).vectors, vectors_of(6))


def test_a_store_of_which_the_structure_changed_while_it_was_filled_is_not_finished(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with create_store(path, manifest_of(6), [""] * 6, INFO) as writer:
        writer.write(np.arange(6), vectors_of(6))
        flip(partial_path(path), begin_of(partial_path(path), "landmark"))
        assert message(writer.finish) == (
            f"{path}.partial is damaged (what it says of its pictures, or its structure, is not as it was written); "
            "copy it again if it is a copy, else make it again with lmr embed `overwrite`"
        )
    assert not path.exists()


def half_done(path: Path) -> bytes:
    """Of six rows two are done, one is unreadable and three are to do; returns the content of the file."""
    facts = ImageFacts(np.array([10, 20]), np.array([5, 6]), np.arange(64, dtype=np.uint8).reshape(2, 32))
    with create_store(path, manifest_of(6), [""] * 6, INFO) as writer:
        writer.write(np.array([0, 1]), vectors_of(6)[:2], facts)
        writer.write_unreadable(2, "cut short")
    return partial_path(path).read_bytes()


def test_a_flipped_bit_anywhere_in_an_unfinished_store_is_found_or_done_again(tmp_path: Path) -> None:
    """What may change unseen is room that is written before it is read: rows to do, and what is behind the digests."""
    path = tmp_path / "x.h5"
    whole = half_done(path)
    unused, said, damaged = [], [], 0
    for position in range(0, len(whole), 13):
        partial_path(path).write_bytes(whole)
        flip(partial_path(path), position, position % 8)
        try:
            writer = resume_store(path)
        except LmrError as error:
            said.append(str(error))
            continue
        with writer:
            damaged += len(writer.damaged)
            if not len(writer.damaged):
                unused.append(position)
            todo = np.flatnonzero(writer.state == TODO)
            assert set(todo) >= {3, 4, 5}
            writer.write(todo, vectors_of(6)[todo])
            writer.finish()
        store = read_store(path)
        assert np.array_equal(store.vectors[store.done], vectors_of(6)[store.done])
        assert store.image_id.tolist() == [f"id{i}" for i in range(6)]
        path.unlink()
    assert all(text.startswith(f"{path}.partial is damaged (") for text in said)
    assert damaged > 5
    assert len(unused) < len(whole) / 13 / 5


@pytest.mark.parametrize(("name", "at", "value", "again"), [
    ("vectors", 1 * D * 2, 0x7F, [1]), ("state", 0, 9, [0]), ("state", 1, UNREADABLE, [1]), ("state", 2, DONE, [2]),
    ("state", 4, DONE, [4]), ("state", 1, TODO, []), ("reason", 2 * 120, 0x41, [2]), ("size", 8, 99, [1]),
    ("mtime_ns", 0, 99, [0]), ("sha256", 32, 99, [1]), ("row_digest", 16, 99, [2]),
])  # fmt: skip
def test_a_row_that_is_not_as_it_was_written_is_done_again(
    tmp_path: Path, name: str, at: int, value: int, again: list[int]
) -> None:
    path = tmp_path / "x.h5"
    half_done(path)
    with partial_path(path).open("r+b") as file:
        file.seek(begin_of(partial_path(path), name) + at)
        file.write(bytes([value]))
    with resume_store(path) as writer:
        assert writer.damaged.tolist() == again
        lost = [1] if (name, at, value) == ("state", 1, TODO) else again
        assert np.flatnonzero(writer.state == TODO).tolist() == sorted({*lost, 3, 4, 5})


def test_an_unfinished_store_that_lost_its_digest_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    whole = half_done(path)
    partial_path(path).write_bytes(bytes(512) + whole[512:])
    assert message(resume_store, path) == (
        f"{path}.partial is damaged (its digests are missing); make it again with lmr embed `overwrite`"
    )


def test_an_unfinished_store_of_before_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    half_done(path)
    with h5py.File(partial_path(path), "r+") as file:
        del file["row_digest"]
    partial_path(path).write_bytes(bytes(512) + partial_path(path).read_bytes()[512:])
    with resume_store(path) as writer:
        assert not len(writer.damaged)
        assert writer.state.tolist() == [DONE, DONE, UNREADABLE, TODO, TODO, TODO]
        writer.write(np.array([3, 4, 5]), vectors_of(6)[3:])
        writer.finish()
    assert read_store(path).state.tolist() == [DONE, DONE, UNREADABLE, DONE, DONE, DONE]


def without_digests(path: Path) -> Path:
    """A finished store as another program may have written it."""
    finished(path)
    with h5py.File(path, "r+") as file:
        del file.attrs["digests"]
    path.write_bytes(bytes(512) + path.read_bytes()[512:])
    return path


def put(name: str, data: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = data

    return change


def declare(name: str, shape: tuple[int, ...], dtype: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, shape=shape, dtype=dtype)

    return change


def chunks(name: str, data: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, data=data, chunks=True)

    return change


def make_group(name: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_group(name)

    return change


def set_attribute(name: str, value: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file.attrs[name] = value

    return change


LONG = 1 << 40
IMPOSSIBLE: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "1-d vectors": (put("vectors", np.zeros(6, np.float16)), "vectors must have the shape (any, any), got 6 rows"),
    "no columns": (put("vectors", np.zeros((6, 0), np.float16)), "vectors must have columns, got none"),
    "another type": (put("vectors", np.zeros((6, 4))), "vectors must be float16 or float32, got float64"),
    "big endian": (put("vectors", np.zeros((6, 4), ">f4")), "vectors must be float16 or float32, got >f4"),
    "a chunked column": (
        chunks("landmark", np.zeros(6, np.int32)),
        "landmark is packed in chunks or lies elsewhere, which lmr does not write",
    ),
    "2 PB": (
        declare("vectors", (LONG, 1024), "f2"),
        "vectors declares the shape (1,099,511,627,776, 1,024), 2,251,799,813,685,248 bytes, in a file of SIZE",
    ),
    "no states": (
        declare("state", (6,), "u1"),
        "6 of 6 rows are still to do, the first is 0",
    ),
    "label -7": (put("landmark", np.array([0, 0, -7, 0, 0, 0], np.int32)),
                 "landmark of row 2 is -7, it must lie in [-1, 1]"),
    "a label out of range": (put("landmark", np.array([0, 0, 0, 2, 0, 0], np.int32)),
                             "landmark of row 3 is 2, it must lie in [-1, 1]"),
    "float labels": (put("landmark", np.zeros(6, np.float32)), "landmark must be int32, got float32"),
    "state 9": (put("state", np.array([1, 1, 1, 9, 1, 1], np.uint8)), "state of row 3 is 9, it must lie in [0, 2]"),
    "state 0": (put("state", np.array([1, 1, 0, 1, 1, 0], np.uint8)),
                "2 of 6 rows are still to do, the first is 2"),
    "numbers as ids": (put("image_id", np.arange(6)), "image_id must be text, got int64"),
    "ids that are no UTF-8": (put("image_id", [b"a", b"b", b"c\xff", b"d", b"e", b"f"]),
                              "image_id of row 2 is not UTF-8: b'c\\xff'"),
    "too few names": (put("landmark_name", ["a"]), "landmark_name must have 2 rows, got 1 row"),
    "a group": (make_group("path"), "it has no dataset path"),
    "a number as fingerprint": (set_attribute("fingerprint", 7), "it has no attribute fingerprint of text"),
    "short reasons": (put("reason", np.zeros(6, "S8")), "reason must be S120, got |S8"),
    "sizes of another length": (put("size", np.zeros(5, np.int64)), "size must have 6 rows, got 5 rows"),
}  # fmt: skip


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_a_store_that_cannot_be_is_one_line(tmp_path: Path, case: str) -> None:
    path = without_digests(tmp_path / "x.h5")
    change, reason = IMPOSSIBLE[case]
    with h5py.File(path, "r+") as file:
        change(file)
    expected = reason.replace("SIZE", f"{path.stat().st_size:,}")
    assert message(read_store, path) == f"{path} is damaged ({expected}); make it again with lmr embed `overwrite`"


@pytest.mark.parametrize("value", [np.nan, np.inf, 0])
def test_a_descriptor_that_is_none_is_refused(tmp_path: Path, value: float) -> None:
    path = without_digests(tmp_path / "x.h5")
    with h5py.File(path, "r+") as file:
        file["vectors"][3] = value
    assert message(read_store, path) == f"{path}: the descriptor of id3 is zero or not finite; embed it again"


def test_an_unfinished_store_may_have_rows_to_do_but_nothing_impossible(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with create_store(path, manifest_of(6), [""] * 6, INFO):
        pass
    assert (read_store_info(partial_path(path))[1] == TODO).all()
    with h5py.File(partial_path(path), "r+") as file:
        del file["row_digest"]  # of a store of before
    content = bytearray(partial_path(path).read_bytes())
    content[:512] = bytes(512)
    content[begin_of(partial_path(path), "state")] = 9
    partial_path(path).write_bytes(content)
    assert message(resume_store, path) == (
        f"{path}.partial is damaged (state of row 0 is 9, it must lie in [0, 2]); "
        "make it again with lmr embed `overwrite`"
    )


def test_facts_of_images_come_back(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    facts = ImageFacts(np.array([10, 20, 30]), np.array([-5, 0, 1 << 60]), np.arange(96, dtype=np.uint8).reshape(3, 32))
    with create_store(path, manifest_of(4), [""] * 4, INFO) as writer:
        writer.write(np.array([0, 1, 3]), vectors_of(3), facts)
        writer.write_unreadable(2, "cut short", facts.select(np.array([1])))
        writer.finish()
    found = read_store(path).facts
    assert found is not None
    assert found.size.tolist() == [10, 20, 20, 30]
    assert found.mtime_ns.tolist() == [-5, 0, 0, 1 << 60]
    assert found.sha256[3].tolist() == list(range(64, 96))
    write_store(tmp_path / "y.h5", read_store(path))
    again = read_store(tmp_path / "y.h5").facts
    assert again is not None
    assert np.array_equal(again.sha256, found.sha256)


def test_a_store_is_read_where_locks_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process has it open to write, which locks it for HDF5."""
    path = finished(tmp_path / "x.h5")
    monkeypatch.delenv("HDF5_USE_FILE_LOCKING", raising=False)
    code = f"import h5py, sys; f = h5py.File({str(path)!r}, 'r+'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        assert len(read_store(path)) == 6
        holder.kill()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.EIO, "cannot be read: Input/output error; check the disk or the network, the file may be whole"),
        (errno.EACCES, "cannot be read: Permission denied; change its permissions"),
        (errno.ESTALE, "cannot be read: Stale file handle; the file itself may be whole; try again"),
        (errno.ENOLCK, "cannot be locked (No locks available); set HDF5_USE_FILE_LOCKING=FALSE, or close it where it "
         "is open"),
    ],
)  # fmt: skip
def test_what_the_system_refuses_is_told_as_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, expected: str
) -> None:
    path = finished(tmp_path / "x.h5")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("retrieval.files.hdf5.h5py.File", refuse)
    assert message(read_store, path) == f"{path} {expected}"


def test_a_store_that_is_replaced_while_it_is_read_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = finished(tmp_path / "x.h5"), finished(tmp_path / "other.h5", 7)
    read_digests = store_file._read_digests

    def replaced_after(place: Path) -> object:
        digests = read_digests(place)
        if other.exists():
            os.replace(other, place)
        return digests

    monkeypatch.setattr(store_file, "_read_digests", replaced_after)
    assert message(read_store, path) == f"{path} was replaced while it was read; run the same command again"
    assert len(read_store(path).image_id) == 7


def test_an_id_that_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    manifest = manifest_of(2)
    ids = manifest.image_id[:]
    ids[1] = "x\udcff"
    manifest = dataclasses.replace(manifest, image_id=ids)
    path = tmp_path / "x.h5"
    assert message(create_store, path, manifest, ["", ""], INFO) == (
        f"{path}.partial: the image_id 'x\\udcff' is not UTF-8; rename it"
    )
    assert list(tmp_path.iterdir()) == []
