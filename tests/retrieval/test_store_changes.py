"""Images that were replaced, went away or came back since a store was made."""

import dataclasses
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from recorder import Recorder
from test_filling import RUN, model_of, not_to_be_loaded
from tiny_world import jpeg

from retrieval.data.image_source import ImageSource
from retrieval.data.manifest import Manifest
from retrieval.embed.fill import FillReport, FillRun, fill_store
from retrieval.store.changes import Changes
from retrieval.store.store import DONE, TODO, UNREADABLE, partial_path, read_store, read_store_info

Made = Callable[..., tuple[Manifest, ImageSource]]
CONTENT = dataclasses.replace(RUN, check="content")


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.embed.torch_embedder.CPU_BATCH", 3)


@pytest.fixture
def filled(tmp_path: Path, make_manifest: Made) -> Callable[[FillRun], FillReport]:
    """A finished store x.h5 of the images images/p0.jpg … p11.jpg, and a function that fills it again."""
    manifest, source = make_manifest()

    def fill(run: FillRun) -> FillReport:
        return fill_store(tmp_path / "x.h5", manifest, source, *model_of(), run=run)

    fill(RUN)
    return fill


class Stopping(Recorder):
    """Calls a function with what was done."""

    def __init__(self, stop: Callable[[int], None]) -> None:
        super().__init__()
        self.stop = stop

    def add(self, n: int) -> None:
        self.stop(n)


def rows(changes: Changes) -> dict[str, list[int]]:
    return {name: getattr(changes, name).tolist() for name in ("replaced", "returned", "gone")}


def replace(path: Path, data: bytes, *, same_time: bool = False) -> None:
    times = path.stat()
    path.write_bytes(data)
    later = times.st_mtime_ns if same_time else times.st_mtime_ns + 1_000_000_000
    os.utime(path, ns=(times.st_atime_ns, later))


def another(image: Path) -> bytes:
    """Another image in as many bytes: a comment is as long as it must be."""
    size, other = image.stat().st_size, jpeg(2, 99)
    room = size - len(other) - 4
    assert room >= 0
    return other[:2] + b"\xff\xfe" + (room + 2).to_bytes(2, "big") + bytes(room) + other[2:]


def enlarged(image: Path) -> None:
    """The same image with a comment, before any store is made."""
    data = image.read_bytes()
    image.write_bytes(data[:2] + b"\xff\xfe" + (2002).to_bytes(2, "big") + bytes(2000) + data[2:])


def test_a_replaced_image_is_embedded_again_and_no_other(
    tmp_path: Path, filled: Callable[[FillRun], FillReport]
) -> None:
    before = read_store(tmp_path / "x.h5").vectors
    replace(tmp_path / "images/p4.jpg", jpeg(2, 99))
    begun: list[int] = []
    report = filled(dataclasses.replace(RUN, progress=Recorder(begun=begun)))
    assert (report.state, begun) == ("updated", [1])
    assert rows(report.changes) == {"replaced": [4], "returned": [], "gone": []}
    after = read_store(tmp_path / "x.h5").vectors
    same = [row for row in range(12) if np.array_equal(before[row], after[row])]
    assert same == [row for row in range(12) if row != 4]
    assert filled(RUN).state == "unchanged"


def test_a_touched_image_is_not_embedded_again(tmp_path: Path, make_manifest: Made) -> None:
    manifest, source = make_manifest()
    fill_store(tmp_path / "x.h5", manifest, source, *model_of(), run=RUN)
    for path in (tmp_path / "images").iterdir():
        os.utime(path, ns=(5, 5))
    card, _ = model_of()
    for run in (RUN, CONTENT):
        report = fill_store(tmp_path / "x.h5", manifest, source, card, not_to_be_loaded, run=run)
        assert report.state == "unchanged"
        assert rows(report.changes) == {"replaced": [], "returned": [], "gone": []}


def test_a_image_of_the_same_size_and_time_is_told_by_its_content(tmp_path: Path, make_manifest: Made) -> None:
    manifest, source = make_manifest()
    image = tmp_path / "images/p4.jpg"
    enlarged(image)
    fill_store(tmp_path / "x.h5", manifest, source, *model_of(), run=RUN)
    replace(image, another(image), same_time=True)
    assert fill_store(tmp_path / "x.h5", manifest, source, *model_of(), run=RUN).state == "unchanged"
    report = fill_store(tmp_path / "x.h5", manifest, source, *model_of(), run=CONTENT)
    assert rows(report.changes) == {"replaced": [4], "returned": [], "gone": []}


def test_a_image_of_the_same_size_and_another_time_is_told_by_its_content(tmp_path: Path, make_manifest: Made) -> None:
    manifest, source = make_manifest()
    image = tmp_path / "images/p4.jpg"
    enlarged(image)
    fill_store(tmp_path / "x.h5", manifest, source, *model_of(), run=RUN)
    replace(image, another(image))
    report = fill_store(tmp_path / "x.h5", manifest, source, *model_of(), run=RUN)
    assert rows(report.changes) == {"replaced": [4], "returned": [], "gone": []}


def test_the_descriptor_of_a_image_that_is_gone_stays(tmp_path: Path, filled: Callable[[FillRun], FillReport]) -> None:
    before = (tmp_path / "x.h5").read_bytes()
    (tmp_path / "images/p4.jpg").unlink()
    report = filled(RUN)
    assert report.state == "unchanged"
    assert rows(report.changes) == {"replaced": [], "returned": [], "gone": [4]}
    assert (tmp_path / "x.h5").read_bytes() == before


def test_a_image_that_came_back_or_was_mended_is_embedded(tmp_path: Path, make_manifest: Made) -> None:
    manifest, source = make_manifest()
    gone, broken = tmp_path / "images/p4.jpg", tmp_path / "images/p7.jpg"
    whole = gone.read_bytes()
    gone.unlink()
    broken.write_bytes(b"no picture")
    report = fill_store(tmp_path / "x.h5", manifest, source, *model_of(), run=RUN)
    assert report.n_unreadable == 2
    assert fill_store(tmp_path / "x.h5", manifest, source, *model_of(), run=RUN).state == "unchanged"
    gone.write_bytes(whole)
    replace(broken, whole)
    report = fill_store(tmp_path / "x.h5", manifest, source, *model_of(), run=RUN)
    assert (report.state, report.n_unreadable) == ("updated", 0)
    assert rows(report.changes) == {"replaced": [7], "returned": [4], "gone": []}


def test_a_image_replaced_by_one_that_cannot_be_read_loses_its_descriptor(
    tmp_path: Path, filled: Callable[[FillRun], FillReport]
) -> None:
    replace(tmp_path / "images/p4.jpg", b"no picture")
    report = filled(RUN)
    assert (report.state, report.n_unreadable) == ("updated", 1)
    store = read_store(tmp_path / "x.h5")
    assert store.state.tolist() == [UNREADABLE if row == 4 else DONE for row in range(12)]


def test_a_image_replaced_while_a_run_was_stopped_is_embedded_again(tmp_path: Path, make_manifest: Made) -> None:
    manifest, source = make_manifest()
    path = tmp_path / "x.h5"

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill_store(path, manifest, source, *model_of(), run=dataclasses.replace(RUN, progress=Stopping(stop)))
    done = np.flatnonzero(read_store_info(partial_path(path))[1] != TODO)
    assert done.tolist() == [0, 1, 2]
    replace(tmp_path / "images/p1.jpg", jpeg(2, 99))
    begun: list[int] = []
    report = fill_store(
        path, manifest, source, *model_of(), run=dataclasses.replace(RUN, progress=Recorder(begun=begun))
    )
    assert (report.state, begun) == ("resumed", [10])
    assert rows(report.changes) == {"replaced": [1], "returned": [], "gone": []}


def test_a_store_that_does_not_say_what_its_images_were_counts_as_unchanged(
    tmp_path: Path, filled: Callable[[FillRun], FillReport]
) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "r+") as file:
        del file.attrs["digests"]
        for name in ("size", "mtime_ns", "sha256"):
            del file[name]
    path.write_bytes(bytes(512) + path.read_bytes()[512:])
    replace(tmp_path / "images/p4.jpg", jpeg(2, 99))
    report = filled(CONTENT)
    assert (report.state, report.changes.is_known) == ("unchanged", False)


def test_a_image_in_a_tar_is_told_by_its_own_size_and_the_time_of_the_tar(tmp_path: Path, make_manifest: Made) -> None:
    manifest, _ = make_manifest()

    def pack() -> ImageSource:
        tar = tmp_path / "packed" / "all.tar"
        tar.parent.mkdir(exist_ok=True)
        with tarfile.open(tar, "w") as file:
            for image in sorted((tmp_path / "images").iterdir()):
                file.add(image, image.name)
        return ImageSource(manifest, tmp_path / "packed")

    fill_store(tmp_path / "x.h5", manifest, pack(), *model_of(), run=RUN)
    replace(tmp_path / "images/p4.jpg", jpeg(2, 99))
    source = pack()
    os.utime(tmp_path / "packed/all.tar", ns=(7, 7))
    source = ImageSource(manifest, tmp_path / "packed")
    report = fill_store(tmp_path / "x.h5", manifest, source, *model_of(), run=RUN)
    assert rows(report.changes) == {"replaced": [4], "returned": [], "gone": []}
