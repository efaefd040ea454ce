"""ONNX: what is exported gives torch's descriptors, and what serves it needs no torch."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from made_onnx import MEANS, write_means
from tiny_world import SIZE, SPEC, Images, jpeg, tiny_model

from retrieval.embed import onnx_export
from retrieval.embed.load import adjusted_card, model_files, onnx_path, open_card, plan_embedder
from retrieval.embed.onnx_digest import require_as_written
from retrieval.embed.onnx_embedder import CARD_KEY, INPUTS_KEY, OnnxEmbedder, providers_of, read_onnx_card
from retrieval.embed.onnx_export import TOLERANCE, export_onnx
from retrieval.embed.torch_embedder import load_embedder
from retrieval.errors import LmrError
from retrieval.extras import install_hint
from retrieval.images.preprocess import prepare
from retrieval.models.card import Card, EmbedSettings, join
from retrieval.models.checkpoint import save_model
from retrieval.models.folder import write_card
from retrieval.models.network import DescriptorModel

ON_CPU = ["CPUExecutionProvider"]


def message(call: Any, *arguments: Any, **more: Any) -> str:
    with pytest.raises(LmrError) as caught:
        call(*arguments, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_onnx_file_describes_images(tmp_path: Path) -> None:
    path = write_means(tmp_path / "m.onnx")
    assert read_onnx_card(path) == MEANS
    embedder = plan_embedder(path, open_card(path), device="cpu", threads=1, n_workers=2)()
    encoded: list[bytes | None] = [jpeg(i % 3, i) for i in range(20)]
    encoded[4] = None
    source = Images(encoded)
    rows, vectors = embedder.embed_all(source, np.arange(20))
    assert rows.tolist() == [i for i in range(20) if i != 4]
    means = np.stack([prepare(source.read(i), SPEC).mean(axis=(0, 1)) for i in rows])
    assert vectors == pytest.approx(means / np.linalg.norm(means, axis=1, keepdims=True), abs=1e-5)
    assert (embedder.d, vectors.dtype, embedder.batch_size) == (3, np.float32, 16)


def test_descriptors_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    embedder = OnnxEmbedder(write_means(tmp_path / "m.onnx"), MEANS, ON_CPU, None, 1)
    embedder._session = type("Broken", (), {"run": lambda *_: [np.full((1, 3), np.nan)]})()
    said = message(embedder.embed_batch, np.zeros((1, SIZE, SIZE, 3), np.uint8))
    assert said.startswith("the network gives descriptors that are not numbers; ")


def test_a_folder_without_weights_is_served_by_its_onnx_file(tmp_path: Path) -> None:
    write_card(tmp_path, MEANS)
    path = write_means(tmp_path / "model.onnx")
    assert onnx_path(tmp_path) == path
    assert model_files(tmp_path, MEANS) == {"model.onnx": path}
    assert isinstance(plan_embedder(tmp_path, MEANS, device="auto", threads=None, n_workers=1)(), OnnxEmbedder)
    (tmp_path / "weights-1.safetensors").touch()
    assert onnx_path(tmp_path) is None
    assert onnx_path(tmp_path / "other.onnx") == tmp_path / "other.onnx"


def test_an_exported_model_describes_images_in_one_way(tmp_path: Path) -> None:
    path = write_means(tmp_path / "m.onnx")
    assert adjusted_card(path, MEANS, EmbedSettings(size=SIZE, flip=False)) == MEANS
    assert message(adjusted_card, path, MEANS, EmbedSettings(flip=True)) == (
        f"{path} describes pictures as it was exported; run lmr export with the same options"
    )


def test_an_onnx_file_of_another_model_is_refused(tmp_path: Path) -> None:
    path, other = write_means(tmp_path / "m.onnx"), dataclasses.replace(MEANS, flip=True)
    assert message(OnnxEmbedder, path, other, ON_CPU, None, 1) == (
        f"{path} was made of model {MEANS.fingerprint[:8]}, not of {other.fingerprint[:8]}; run lmr export again"
    )


def test_what_is_no_onnx_file_of_lmr_is_one_line(tmp_path: Path) -> None:
    assert message(open_card, tmp_path / "m.onnx") == f"{tmp_path}/m.onnx: there is no such file; lmr export makes one"
    (tmp_path / "m.onnx").write_bytes(b"nothing")
    assert message(open_card, tmp_path / "m.onnx").startswith(
        f"{tmp_path}/m.onnx cannot be opened as ONNX by onnxruntime "
    )
    path = write_means(tmp_path / "n.onnx", metadata={})
    assert message(open_card, path) == (
        f"{path} is not an ONNX file of lmr (no lmr.card in its metadata); lmr export makes one"
    )
    changed = {**MEANS.to_json(), "flip": True}
    path = write_means(tmp_path / "o.onnx", metadata={CARD_KEY: json.dumps(changed)})
    assert message(open_card, path).startswith(f"{path} was changed by hand: its fingerprint is ")
    path = write_means(tmp_path / "p.onnx", metadata={CARD_KEY: "{"})
    assert message(open_card, path).startswith(f"{path} is damaged (")


def test_devices_that_are_not_there_are_named() -> None:
    assert providers_of("cpu") == ON_CPU
    assert message(providers_of, "mps") == "`device` mps: an ONNX file runs on auto, cpu, cuda or cuda:N"
    assert message(providers_of, "cuda:1") == (
        "`device` cuda:1: this onnxruntime has no CUDA; install onnxruntime-gpu or use `device` cpu"
    )


def test_without_onnxruntime_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    assert message(open_card, tmp_path / "m.onnx") == f"ONNX files need onnxruntime; {install_hint('onnx')}"


def test_without_onnxscript_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    card = save_model(tmp_path / "a", tiny_model(), SPEC, made_by={})
    monkeypatch.setattr("retrieval.models.checkpoint.build_model", lambda *_, **__: tiny_model())
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    said = message(export_onnx, tmp_path / "a", card, tmp_path / "m.onnx")
    assert said == f"lmr export needs onnxscript; {install_hint('onnx')}"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Card, float]:
    """An ensemble of two members, of other sizes and normalisations, with flip and scales: folder, card, difference."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("retrieval.models.checkpoint.build_model", lambda *_, **__: tiny_model())
        small = dataclasses.replace(SPEC, size=SIZE - 4, mean=(0.5, 0.4, 0.3))
        one = save_model(folder, tiny_model(), SPEC, flip=True, descriptor="both", made_by={})
        kept = {one.weights_name: (folder / one.weights_name).read_bytes()}
        other = save_model(folder, tiny_model(1), small, scales=(1, 1.5), made_by={})
        for name, data in kept.items():
            (folder / name).write_bytes(data)
        card = join([one, other], [2, 1], {})
        write_card(folder, card)
        difference = export_onnx(folder, card, folder / "m.onnx").difference
    return folder, card, difference


def test_what_is_exported_gives_the_descriptors_of_torch(
    exported: tuple[Path, Card, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    folder, card, difference = exported
    monkeypatch.setattr("retrieval.models.checkpoint.build_model", lambda *_, **__: tiny_model())
    monkeypatch.setattr("retrieval.embed.torch_embedder.fast_dtype", lambda _: torch.float32)
    assert 0 <= difference < 1e-5
    assert open_card(folder / "m.onnx") == card
    embedder = plan_embedder(folder / "m.onnx", card, device="cpu", threads=1, n_workers=1)()
    source = Images([jpeg(i % 3, i) for i in range(21)])
    expected = load_embedder(folder, card, torch.device("cpu"), n_workers=1).embed_all(source, np.arange(21))[1]
    assert [spec.size for spec in embedder.specs] == [SIZE, SIZE - 4, 18]
    for batch_size in (1, 3, 16, 21):
        embedder.batch_size = batch_size
        vectors = embedder.embed_all(source, np.arange(21))[1]
        assert vectors == pytest.approx(expected, abs=TOLERANCE)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(21), abs=1e-5)


def test_the_file_says_how_images_are_prepared_and_nothing_of_this_machine(
    exported: tuple[Path, Card, float],
) -> None:
    folder, card, _ = exported
    model = onnx.load(str(folder / "m.onnx"))
    stated = {prop.key: json.loads(prop.value) for prop in model.metadata_props if prop.key != "lmr.sha256"}
    assert stated[INPUTS_KEY] == [spec.to_json() for spec in card.specs]
    assert stated[CARD_KEY]["fingerprint"] == card.fingerprint
    assert [given.name for given in model.graph.input] == ["pictures_0", "pictures_1", "pictures_2"]
    assert str(Path(onnx_export.__file__).parent).encode() not in (folder / "m.onnx").read_bytes()
    assert sorted(path.name for path in folder.iterdir() if "onnx" in path.name) == ["m.onnx"]


def test_what_is_exported_carries_the_digest_of_all_that_it_holds(
    exported: tuple[Path, Card, float], tmp_path: Path
) -> None:
    folder, _, _ = exported
    path, data = tmp_path / "m.onnx", (folder / "m.onnx").read_bytes()
    assert onnx.load(str(folder / "m.onnx")).metadata_props[-1].key == "lmr.sha256"
    assert require_as_written(folder / "m.onnx")
    for position in [*np.linspace(0, len(data) - 92, 20).astype(int), -1]:  # all before the entry, and its digest
        changed = bytearray(data)
        changed[position] ^= 4
        path.write_bytes(changed)
        assert message(require_as_written, path) == (
            f"{path} is damaged: its sha256 is not the one at its end; copy it again if it is a copy, else run lmr "
            "export `overwrite`"
        )


def test_an_onnx_file_of_before_carries_no_digest_and_opens(tmp_path: Path) -> None:
    write_means(tmp_path / "m.onnx")
    assert not require_as_written(tmp_path / "m.onnx")
    assert open_card(tmp_path / "m.onnx") == MEANS


@pytest.mark.parametrize("difference", [2e-4, float("nan")])
def test_a_file_that_differs_from_torch_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, difference: float
) -> None:
    card = save_model(tmp_path / "a", tiny_model(), SPEC, made_by={})
    monkeypatch.setattr("retrieval.models.checkpoint.build_model", lambda *_, **__: tiny_model())
    monkeypatch.setattr(onnx_export, "_to_onnx", lambda *_: write_means(tmp_path / "x", card).read_bytes())
    monkeypatch.setattr(onnx_export, "largest_difference", lambda *_: difference)
    assert message(export_onnx, tmp_path / "a", card, tmp_path / "m.onnx") == (
        f"{tmp_path}/m.onnx: not written: its descriptors would differ from torch's by up to {difference:.2g}, "
        "more than 0.0001; serve this network with torch"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "x"]


def test_scales_of_a_network_for_one_size_are_not_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sized(*_: Any, **__: Any) -> DescriptorModel:
        model = tiny_model()
        model.image_size = SIZE
        return model

    card = save_model(tmp_path / "a", tiny_model(), SPEC, scales=(1, 2), made_by={})
    monkeypatch.setattr("retrieval.models.checkpoint.build_model", sized)
    assert message(export_onnx, tmp_path / "a", card, tmp_path / "m.onnx") == (
        f"tiny takes pictures of {SIZE} pixels here, not of {2 * SIZE}; "
        f"give `size` {SIZE}, or train at the size you want"
    )
    assert not (tmp_path / "m.onnx").exists()


def test_a_network_that_cannot_be_traced_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("data dependent\nand more")

    card = save_model(tmp_path / "a", tiny_model(), SPEC, made_by={})
    monkeypatch.setattr("retrieval.models.checkpoint.build_model", lambda *_, **__: tiny_model())
    monkeypatch.setattr(torch.onnx, "export", refuse)
    assert message(export_onnx, tmp_path / "a", card, tmp_path / "m.onnx") == (
        "this network cannot be exported to ONNX: data dependent; serve it with torch"
    )
