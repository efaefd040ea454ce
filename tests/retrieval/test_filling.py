import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from recorder import Recorder
from tiny_world import CPU, SPEC, jpeg, tiny_model

from retrieval.data.image_source import ImageSource
from retrieval.data.manifest import Manifest, read_manifest
from retrieval.embed.embedder import Embedder
from retrieval.embed.fill import FillReport, FillRun, fill_store, require_same_job, store_info
from retrieval.embed.torch_embedder import TorchEmbedder, make_embedder
from retrieval.errors import LmrError
from retrieval.models.checkpoint import ModelCard, weights_digest
from retrieval.models.network import DescriptorModel
from retrieval.store.store import DONE, TODO, UNREADABLE, create_store, partial_path, read_store, read_store_info

RUN = FillRun(dtype="float32")
Made = Callable[..., tuple[Manifest, ImageSource]]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.embed.torch_embedder.CPU_BATCH", 3)


class Stopping(Recorder):
    """Calls a function with what was done."""

    def __init__(self, stop: Callable[[int], None]) -> None:
        super().__init__()
        self.stop = stop

    def add(self, n: int) -> None:
        self.stop(n)


def card_of(model: DescriptorModel, **changes: Any) -> ModelCard:
    return dataclasses.replace(ModelCard(model.config, SPEC, weights_digest(model)), **changes)


def model_of(seed: int = 0, **changes: Any) -> tuple[ModelCard, Callable[[int], Embedder]]:
    model = tiny_model(seed)
    card = card_of(model, **changes)
    return card, lambda _: make_embedder(model, card, CPU, n_workers=2)


def not_to_be_loaded(_: int) -> Embedder:
    raise AssertionError("the network was loaded")


def message(call: Callable[..., object], *arguments: object, **named: object) -> str:
    with pytest.raises(LmrError) as caught:
        call(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.usefixtures("in_float32")
def test_a_store_holds_every_image_in_the_order_of_the_manifest(tmp_path: Path, make_manifest: Made) -> None:
    manifest, source = make_manifest(11)
    (tmp_path / "images" / "p4.jpg").write_bytes(b"no picture")
    (tmp_path / "images" / "p7.jpg").unlink()
    begun: list[int] = []
    done: list[int] = []
    run = dataclasses.replace(RUN, progress=Recorder(begun=begun, added=done))
    report = fill_store(tmp_path / "x.h5", manifest, source, *model_of(), run=run)
    assert (report.state, report.n_pictures, report.n_unreadable) == ("made", 11, 2)
    assert set(report.unreadable) == {"p4", "p7"}
    assert report.unreadable["p4"] == "not a picture in a known format"
    assert report.unreadable["p7"].startswith("not found: tried ")
    assert begun == [11]
    assert done == [3, 3, 3, 2]
    store = read_store(tmp_path / "x.h5")
    assert store.image_id.tolist() == [f"p{i}" for i in range(11)]
    assert store.landmarks == ("arch", "bridge", "castle")
    assert store.landmark.tolist() == [i % 4 - 1 for i in range(11)]
    assert store.kind is not None
    assert store.kind[:2].tolist() == ["noise", "photo"]
    assert np.flatnonzero(store.state == UNREADABLE).tolist() == [4, 7]
    assert store.reason is not None
    assert store.reason[4] == "not a picture in a known format"
    assert store.path[3] == str(tmp_path / "images" / "p3.jpg")
    assert store.path[7] == ""
    rows, vectors = TorchEmbedder(tiny_model(), SPEC, CPU).embed_all(source, np.arange(11))
    assert np.array_equal(store.vectors[rows], vectors)
    assert not store.vectors[[4, 7]].any()
    assert store.info.fingerprint == model_of()[0].fingerprint
    assert store.info.manifest_digest == manifest.digest
    assert store.info.model["config"]["backbone"] == "tiny"
    assert store.info.image_spec == SPEC.to_json()


def test_float16_is_the_rounding_of_float32(tmp_path: Path, make_manifest: Made) -> None:
    manifest, source = make_manifest()
    fill_store(tmp_path / "a.h5", manifest, source, *model_of(), run=RUN)
    fill_store(tmp_path / "b.h5", manifest, source, *model_of(), run=dataclasses.replace(RUN, dtype="float16"))
    full, half = read_store(tmp_path / "a.h5").vectors, read_store(tmp_path / "b.h5").vectors
    assert half.dtype == np.float16
    assert np.array_equal(full.astype(np.float16), half)


def test_a_finished_job_does_nothing_again(tmp_path: Path, make_manifest: Made) -> None:
    manifest, source = make_manifest()
    path = tmp_path / "x.h5"
    (tmp_path / "images" / "p4.jpg").unlink()
    fill_store(path, manifest, source, *model_of(), run=RUN)
    before = path.read_bytes()
    card, _ = model_of()
    assert fill_store(path, manifest, source, card, not_to_be_loaded, run=RUN) == FillReport("unchanged", 12, 1, {})
    assert path.read_bytes() == before
    assert not partial_path(path).exists()


@pytest.mark.parametrize("finished", [True, False])
def test_a_job_of_something_else_is_refused_by_name(tmp_path: Path, make_manifest: Made, finished: bool) -> None:
    manifest, source = make_manifest()
    path = tmp_path / "x.h5"
    if finished:
        fill_store(path, manifest, source, *model_of(), run=RUN)
    else:
        interrupt(path, manifest, source, 2)
    place = path if finished else partial_path(path)
    before = place.read_bytes()
    other, _ = make_manifest(8, name="other.csv")
    mine, theirs = model_of()[0], model_of(1)[0]

    def said(manifest: Manifest, card: ModelCard, run: FillRun = RUN) -> str:
        return message(fill_store, path, manifest, source, card, not_to_be_loaded, run=run)

    advice = "give `overwrite` or another"
    for text, what in (
        (said(manifest, theirs), f"another model ({mine.fingerprint[:8]}, now {theirs.fingerprint[:8]})"),
        (
            said(other, mine),
            f"another manifest ({manifest.digest[:8]}, now {other.digest[:8]}): of its 8 images 4 gone",
        ),
        (said(manifest, mine, dataclasses.replace(RUN, dtype="float16")), "another dtype (float32, now float16)"),
        (said(manifest, dataclasses.replace(mine, flip=True)), "another flip (False, now True)"),
        (
            said(manifest, dataclasses.replace(mine, image_spec=dataclasses.replace(SPEC, size=32))),
            "another size (16, now 32)",
        ),
    ):
        assert text.startswith(f"{place} was made with {what}; {advice} ")
    assert place.read_bytes() == before


def test_overwrite_replaces_a_store_once_the_new_one_is_whole(tmp_path: Path, make_manifest: Made) -> None:
    manifest, source = make_manifest()
    path = tmp_path / "x.h5"
    fill_store(path, manifest, source, *model_of(), run=RUN)
    old = path.read_bytes()
    again = dataclasses.replace(RUN, overwrite=True)
    interrupt(path, manifest, source, 1, model=model_of(1), run=again)
    assert path.read_bytes() == old
    report = fill_store(path, manifest, source, *model_of(1), run=again)
    assert report.state == "made"
    assert read_store(path).info.fingerprint == model_of(1)[0].fingerprint


def interrupt(
    path: Path,
    manifest: Manifest,
    source: ImageSource,
    n_batches: int,
    *,
    model: tuple[ModelCard, Callable[[int], Embedder]] | None = None,
    run: FillRun = RUN,
) -> None:
    """Fills a store until its n-th batch, then is stopped by Ctrl-C."""
    done: list[int] = []

    def stop(n: int) -> None:
        done.append(n)
        if len(done) == n_batches:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill_store(
            path, manifest, source, *(model or model_of()), run=dataclasses.replace(run, progress=Stopping(stop))
        )


def content(path: Path) -> dict[str, Any]:
    with h5py.File(path, "r") as file:
        return {name: file[name][:].tolist() for name in file} | dict(file.attrs)


@pytest.mark.parametrize("n_batches", [1, 3, 4])
def test_a_resumed_job_ends_with_the_same_file(tmp_path: Path, make_manifest: Made, n_batches: int) -> None:
    manifest, source = make_manifest(11)
    (tmp_path / "images" / "p1.jpg").write_bytes(b"no picture")
    (tmp_path / "images" / "p9.jpg").unlink()
    whole, stopped = tmp_path / "whole.h5", tmp_path / "stopped.h5"
    fill_store(whole, manifest, source, *model_of(), run=RUN)
    interrupt(stopped, manifest, source, n_batches)
    assert not stopped.exists()
    todo = int((read_store_info(partial_path(stopped))[1] == TODO).sum())
    assert todo == max(0, 11 - 3 * n_batches)
    begun: list[int] = []
    report = fill_store(
        stopped, manifest, source, *model_of(), run=dataclasses.replace(RUN, progress=Recorder(begun=begun))
    )
    assert report.state == "resumed"
    assert report.n_unreadable == 2
    assert begun == [todo]
    assert content(stopped) == content(whole)


def test_unreadable_images_of_a_finished_store_are_tried_again(tmp_path: Path, make_manifest: Made) -> None:
    manifest, source = make_manifest()
    path, image = tmp_path / "x.h5", tmp_path / "images" / "p4.jpg"
    good = image.read_bytes()
    image.write_bytes(b"no picture")
    (tmp_path / "images" / "p8.jpg").unlink()
    fill_store(path, manifest, source, *model_of(), run=RUN)
    image.write_bytes(good)
    begun: list[int] = []
    retry = dataclasses.replace(RUN, retry_unreadable=True, progress=Recorder(begun=begun))
    report = fill_store(path, manifest, source, *model_of(), run=retry)
    assert begun == [2]
    assert (report.state, report.n_unreadable, list(report.unreadable)) == ("updated", 1, ["p8"])
    store = read_store(path)
    assert store.state[4] == DONE
    expected = TorchEmbedder(tiny_model(), SPEC, CPU).embed_all(source, [4])[1]
    assert store.vectors[[4]] == pytest.approx(expected, abs=1e-6)


def test_a_full_disk_in_the_middle_is_resumed(
    tmp_path: Path, make_manifest: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, source = make_manifest()
    path = tmp_path / "x.h5"
    from retrieval.store.store import StoreWriter

    put, calls = StoreWriter._put, []

    def put_or_full(self: StoreWriter, name: str, position: int, data: bytes) -> None:
        calls.append(name)
        if len(calls) > 13:
            raise OSError(28, os.strerror(28))
        put(self, name, position, data)

    monkeypatch.setattr(StoreWriter, "_put", put_or_full)
    assert message(fill_store, path, manifest, source, *model_of(), run=RUN) == (
        f"{path}.partial: writing failed: No space left on device; make room and run the same command again"
    )
    monkeypatch.undo()
    begun: list[int] = []
    fill_store(path, manifest, source, *model_of(), run=dataclasses.replace(RUN, progress=Recorder(begun=begun)))
    assert begun == [6]
    assert read_store(path).done.all()


@pytest.mark.parametrize("damage", ["short", "garbage", "version"])
def test_a_damaged_store_is_one_line_and_overwritten_on_request(
    tmp_path: Path, make_manifest: Made, damage: str
) -> None:
    manifest, source = make_manifest()
    path = tmp_path / "x.h5"
    fill_store(path, manifest, source, *model_of(), run=RUN)
    size = path.stat().st_size
    if damage == "version":
        with h5py.File(path, "r+") as file:
            file.attrs["format_version"] = 2
        path.write_bytes(bytes(512) + path.read_bytes()[512:])
    else:
        path.write_bytes(path.read_bytes()[:-100] if damage == "short" else b"garbage")
    expected = {
        "short": f"{path} is damaged (it is cut short: {size - 100:,} of {size:,} bytes); "
        "copy it again if it is a copy, else make it again with lmr embed `overwrite`",
        "garbage": f"{path} is not a descriptor store (no HDF5 file); give the right file",
        "version": f"{path} has format_version 2, this program reads 1; use the lmr that made it, "
        "or embed into another file",
    }[damage]
    assert message(fill_store, path, manifest, source, *model_of(), run=RUN) == expected
    assert fill_store(path, manifest, source, *model_of(), run=dataclasses.replace(RUN, overwrite=True)).state == "made"


def test_all_images_unreadable_is_a_store_all_the_same(tmp_path: Path, make_manifest: Made) -> None:
    manifest, _ = make_manifest()
    source = ImageSource(manifest, tmp_path / "nowhere")
    report = fill_store(tmp_path / "x.h5", manifest, source, *model_of(), run=RUN)
    assert (report.n_pictures, report.n_unreadable, len(report.unreadable)) == (12, 12, 12)
    assert not read_store(tmp_path / "x.h5").done.any()


def test_a_flipped_store_comes_from_a_flipped_card(tmp_path: Path, make_manifest: Made) -> None:
    manifest, source = make_manifest()
    fill_store(tmp_path / "x.h5", manifest, source, *model_of(flip=True), run=RUN)
    embedder = TorchEmbedder(tiny_model(), SPEC, CPU, flip=True)
    expected = embedder.embed_all(source, np.arange(12))[1]
    assert read_store(tmp_path / "x.h5").vectors == pytest.approx(expected, abs=1e-6)
    plain = TorchEmbedder(tiny_model(), SPEC, CPU).embed_all(source, np.arange(12))[1]
    assert np.abs(plain - expected).max() > 1e-3


def test_images_larger_than_the_input_are_scaled_once(tmp_path: Path, make_manifest: Made) -> None:
    manifest, source = make_manifest()
    (tmp_path / "images" / "p2.jpg").write_bytes(jpeg(1, 2, side=333))
    assert fill_store(tmp_path / "x.h5", manifest, source, *model_of(), run=RUN).n_unreadable == 0


def test_a_changed_manifest_is_said_in_images(tmp_path: Path) -> None:
    def table(name: str, lines: str) -> Manifest:
        (tmp_path / name).write_text(f"id,landmark_id\n{lines}")
        return read_manifest(tmp_path / name)

    before = table("before.csv", "a,1\nb,1\nc,2\nd,\n")
    card = card_of(tiny_model())
    store = tmp_path / "s.h5"
    create_store(store, before, [""] * 4, store_info(card, before, "float16", 8))
    for lines, said in (
        ("a,1\nb,3\nc,\ne,1\nf,1\n", ": of its 5 images 2 new, 1 gone, 2 with another landmark"),
        ("b,1\na,1\nc,2\nd,\n", ""),
    ):
        now = table("now.csv", lines)
        with pytest.raises(LmrError) as error:
            require_same_job(store, now, card, FillRun())
        assert str(error.value) == (
            f"{store}.partial was made with another manifest ({before.digest[:8]}, now {now.digest[:8]}){said}; "
            "give `overwrite` or another file name"
        )
