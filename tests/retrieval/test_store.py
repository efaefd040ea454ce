import contextlib
import dataclasses
import errno
import io
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.errors import LmrError
from retrieval.manifest import Manifest
from retrieval.store import (
    DONE,
    TODO,
    UNREADABLE,
    Descriptors,
    StoreInfo,
    create_store,
    partial_path,
    read_store,
    read_store_info,
    reopen_unreadable,
    resume_store,
    write_store,
)

D = 4
INFO = StoreInfo("f" * 64, {"config": {"backbone": "tiny"}}, {"size": 16}, "0.1.0", "m" * 64, "float16", D)


def manifest_of(n: int, *, kinds: bool = False) -> Manifest:
    """Every third picture is a non-landmark."""
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
    for size in [0, 1, 7, 8, 100, *range(500, len(whole), 997), len(whole) - 1]:
        cut.write_bytes(whole[:size])
        said.add(message(read_store, cut))
    assert said == {
        f"{cut} is {what}; make it again with lmr embed --overwrite"
        for what in ("cut short", "not a descriptor store (HDF5)")
    }


@pytest.mark.parametrize("content", [b"", b"id,landmark_id\na,b\n", b"\x89PNG\r\n\x1a\n"])
def test_another_file_is_not_a_store(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    assert message(read_store, path) == (
        f"{path} is not a descriptor store (HDF5); make it again with lmr embed --overwrite"
    )


def test_another_hdf5_file_is_not_a_store(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["vectors"] = np.zeros(3)
    assert message(read_store, path) == f"{path} is an HDF5 file but not a descriptor store; lmr embed makes one"


def test_a_store_of_another_format_version_is_refused(tmp_path: Path) -> None:
    path = finished(tmp_path / "x.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 2
    assert message(read_store, path) == (
        f"{path} has format_version 2, this program reads 1; embed again with --overwrite"
    )


def test_a_store_without_a_column_is_damaged(tmp_path: Path) -> None:
    path = finished(tmp_path / "x.h5")
    with h5py.File(path, "r+") as file:
        del file["landmark"]
    text = message(read_store, path)
    assert text.startswith(f"{path} is damaged (")
    assert "landmark" in text
    with h5py.File(path, "r+") as file:
        file["landmark"] = np.zeros(2, np.int32)
    assert message(read_store, path) == (
        f"{path} is damaged (landmark must have 6 rows, got 2); make it again with lmr embed --overwrite"
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
    reopen_unreadable(path)
    assert not path.exists()
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
    """Goes on with a store, or begins it; every seventh picture is unreadable. begun: written to when it is open."""
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

    n_left = 1500

    def write(self, data: Any) -> int:
        """Fails once the bytes are used up."""
        self.n_left -= len(data)
        if self.n_left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, n = tmp_path / "x.h5", 3000
    monkeypatch.setattr("retrieval.store._writable", lambda path: io.BufferedRandom(FullDisk(str(path), "r+b")))
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
