"""Which engine computes descriptors: the exported network beside the weights, or torch."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_onnx import MEANS, SIDE, write_means
from PIL import Image

from retrieval.embed import engine
from retrieval.embed.engine import asked_engine, exported_beside, may_have_accelerator
from retrieval.embed.export import export_like_rows
from retrieval.embed.load import plan_embedder
from retrieval.embed.onnx_embedder import OnnxEmbedder
from retrieval.embed.onnx_export import Exported, NotExportableError
from retrieval.errors import LmrError
from retrieval.extras import install_hint
from retrieval.models.folder import write_card


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked for by the environment, and there is no device but the CPU."""
    monkeypatch.delenv("LMR_ENGINE")
    monkeypatch.delenv("LMR_PRECISION", raising=False)
    monkeypatch.setattr(engine, "may_have_accelerator", lambda: False)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder with weights and an exported network beside them."""
    write_card(tmp_path, MEANS)
    (tmp_path / MEANS.weights_name).touch()
    write_means(tmp_path / "model.onnx")
    return tmp_path


def message(call: Any, *arguments: Any, **more: Any) -> str:
    with pytest.raises(LmrError) as caught:
        call(*arguments, **more)
    return str(caught.value)


def test_auto_takes_the_exported_network_where_torch_would_compute_on_the_cpu(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert exported_beside(model, "auto", "auto") == model / "model.onnx"
    assert exported_beside(model, "auto", "cpu") == model / "model.onnx"
    assert exported_beside(model, "auto", "cuda:0") is None
    assert exported_beside(model, "torch", "cpu") is None
    assert exported_beside(model, "onnx", "cuda:0") == model / "model.onnx"
    monkeypatch.setattr(engine, "may_have_accelerator", lambda: True)
    assert exported_beside(model, "auto", "auto") is None
    assert exported_beside(model, "auto", "cpu") == model / "model.onnx"


@pytest.mark.parametrize(("asked", "is_taken"), [("auto", True), ("fp32", True), ("bf16", False), ("fp16", False)])
def test_a_number_format_that_was_asked_for_is_torchs(
    model: Path, monkeypatch: pytest.MonkeyPatch, asked: str, is_taken: bool
) -> None:
    monkeypatch.setenv("LMR_PRECISION", asked)
    assert (exported_beside(model, "auto", "cpu") is not None) == is_taken


def test_the_environment_says_what_auto_means(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked_engine(None) == "auto"
    monkeypatch.setenv("LMR_ENGINE", "torch")
    assert (asked_engine("auto"), asked_engine("onnx")) == ("torch", "onnx")
    assert exported_beside(model, "auto", "cpu") is None
    monkeypatch.setenv("LMR_ENGINE", "fast")
    assert message(asked_engine, "auto") == "LMR_ENGINE fast: not an engine; use auto, onnx, torch"


def test_an_engine_that_is_not_there_is_one_line(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (model / "model.onnx").unlink()
    assert exported_beside(model, "auto", "cpu") is None
    assert message(exported_beside, model, "onnx", "cpu") == (
        f"`engine` onnx: {model} has no exported network; run the same lmr build-index again, which adds it or says "
        "why it cannot be"
    )
    write_means(model / "model.onnx")
    monkeypatch.setattr("retrieval.extras.find_spec", lambda _: None)
    assert exported_beside(model, "auto", "cpu") is None
    assert message(exported_beside, model, "onnx", "cpu") == (
        f"`engine` onnx needs onnxruntime; {install_hint('onnx')}"
    )


def test_a_model_without_weights_has_one_engine(model: Path) -> None:
    (model / MEANS.weights_name).unlink()
    how: dict[str, Any] = {"device": "cpu", "threads": 1, "n_workers": 1}
    assert isinstance(plan_embedder(model, MEANS, **how, engine="auto")(), OnnxEmbedder)
    assert message(plan_embedder(model, MEANS, **how, engine="torch")) == (
        f"`engine` torch: {model} has no weights, it is of lmr export; use `engine` onnx"
    )


def test_an_exported_network_of_other_weights_is_not_used_and_that_is_said(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how: dict[str, Any] = {"device": "cpu", "threads": 1, "n_workers": 1}
    by_torch = type("ByTorch", (), {"note": ""})
    monkeypatch.setattr("retrieval.embed.torch_embedder.load_embedder", lambda *_, **__: by_torch())
    assert isinstance(plan_embedder(model, MEANS, **how, engine="auto")(), OnnxEmbedder)
    assert plan_embedder(model, MEANS, **how)().note == ""  # a model folder by itself is torch's
    trained = dataclasses.replace(MEANS, weights_sha256="b" * 64)
    other = (
        f"{model}/model.onnx was made of model {MEANS.fingerprint[:8]}, not of {trained.fingerprint[:8]}; "
        "run lmr export again"
    )
    assert plan_embedder(model, trained, **how, engine="auto")().note == f"{other}; torch computes in its place"
    assert message(plan_embedder(model, trained, **how, engine="onnx")) == other


@pytest.mark.parametrize(
    ("system", "found", "visible", "expected"),
    [
        ("linux", ["nvidia0", "nvidiactl"], None, True),
        ("linux", ["nvidiactl"], None, False),
        ("linux", ["nvidia0"], "", False),
        ("linux", ["nvidia0"], "0", True),
        ("linux", ["kfd"], None, True),
    ],
)
def test_devices_are_looked_for_without_torch(
    monkeypatch: pytest.MonkeyPatch, system: str, found: list[str], visible: str | None, expected: bool
) -> None:
    class Devices:
        def __init__(self, _: str) -> None: ...

        def glob(self, pattern: str) -> Iterator[Path]:
            return (Path("/dev", name) for name in found if Path(name).match(pattern))

    monkeypatch.setattr("sys.platform", system)
    monkeypatch.setattr(engine, "Path", Devices)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert may_have_accelerator() == expected


class TestRows:
    """An export compared with rows that were stored; its descriptor of an image is the mean colour, of unit length."""

    PIXELS = ((200, 0, 0), (0, 100, 0), (60, 0, 80))
    MEANS_OF = np.array([[1, 0, 0], [0, 1, 0], [0.6, 0, 0.8]], dtype=np.float32)

    @pytest.fixture
    def paths(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Images, the second of which cannot be read."""

        def export(_: Path, card: Any, output: Path) -> Exported:
            write_means(output, card)
            return Exported(1e-7, 3, output.stat().st_size)

        monkeypatch.setattr("retrieval.embed.onnx_export.export_onnx", export)
        write_card(tmp_path, MEANS)
        (tmp_path / MEANS.weights_name).touch()
        paths = [tmp_path / f"{i}.png" for i in range(3)]
        for path, pixel in zip(paths, self.PIXELS, strict=True):
            Image.new("RGB", (SIDE, SIDE), pixel).save(path)
        paths[1].write_bytes(b"no image")
        return list(map(str, paths))

    def by_torch(self, monkeypatch: pytest.MonkeyPatch, vectors: np.ndarray) -> None:
        """What torch gives for the readable images."""

        def embed_all(_: object, __: object, rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
            return np.array([0, 2]), vectors[[0, 2]]

        kind = type("ByTorch", (), {"embed_all": embed_all})
        monkeypatch.setattr("retrieval.embed.torch_embedder.load_embedder", lambda *_, **__: kind())

    def test_it_is_taken_where_it_is_as_near_to_them_as_torch(
        self, tmp_path: Path, paths: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stored = 2 * self.MEANS_OF  # of any length
        self.by_torch(monkeypatch, self.MEANS_OF)
        exported, cosines = export_like_rows(tmp_path, tmp_path / "x.onnx", paths, stored)
        assert (exported.d, (tmp_path / "x.onnx").exists()) == (3, True)
        assert cosines == pytest.approx([1, 1], abs=1e-6)

    def test_images_that_are_others_now_are_not_held_against_it(
        self, tmp_path: Path, paths: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stored = self.MEANS_OF[[1, 1, 1]]
        self.by_torch(monkeypatch, self.MEANS_OF)
        assert export_like_rows(tmp_path, tmp_path / "x.onnx", paths, stored)[1] == pytest.approx([0, 0], abs=1e-6)

    def test_it_is_refused_where_torch_is_nearer(
        self, tmp_path: Path, paths: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stored = np.array([[0.8, 0.6, 0], [0, 1, 0], [0.6, 0, 0.8]], dtype=np.float32)
        self.by_torch(monkeypatch, stored)
        with pytest.raises(NotExportableError) as caught:
            export_like_rows(tmp_path, tmp_path / "x.onnx", paths, stored)
        assert str(caught.value) == (
            "cosines of images with their rows would be up to 0.2 below those of torch on this machine, which does not "
            "compute in float32 (allowed 0.001); rows embedded with LMR_PRECISION=fp32 are near enough"
        )
        assert not (tmp_path / "x.onnx").exists()

    @pytest.mark.parametrize("is_near", [True, False])
    def test_without_images_it_is_compared_with_torch_on_made_ones(
        self, tmp_path: Path, paths: list[str], monkeypatch: pytest.MonkeyPatch, is_near: bool
    ) -> None:
        def embed_batch(_: object, images: np.ndarray) -> np.ndarray:
            means = images.mean(axis=(1, 2)) * (1, 1, 1 if is_near else 0.5)
            return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), dtype=np.float32)

        def embed_all(*_: object) -> tuple[np.ndarray, np.ndarray]:
            return np.zeros(0, np.int64), np.zeros((0, 3), np.float32)

        kind = type("ByTorch", (), {"embed_batch": embed_batch, "embed_all": embed_all})
        monkeypatch.setattr("retrieval.embed.torch_embedder.load_embedder", lambda *_, **__: kind())
        without = (tmp_path, tmp_path / "x.onnx", [], np.zeros((0, 3), np.float32))
        if is_near:
            assert export_like_rows(*without)[1].shape == (0,)
        else:
            said = message(export_like_rows, *without)
            assert said.startswith("cosines of images with their rows would be up to 0.0")
        assert (tmp_path / "x.onnx").exists() == is_near
