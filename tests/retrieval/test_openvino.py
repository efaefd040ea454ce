"""Embedding by OpenVINO: the descriptors of torch, within what its number format allows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_world import CPU, SIZE, SPEC, Images, jpeg
from torch import nn

from retrieval.embed.onnx_export import WholeNetwork
from retrieval.embed.torch_embedder import load_embedder
from retrieval.errors import LmrError
from retrieval.models.card import ModelCard
from retrieval.models.checkpoint import save_model
from retrieval.models.config import ModelConfig
from retrieval.models.device import fast_dtype
from retrieval.models.network import build_model

pytest.importorskip("openvino")
N = 21
CONFIG = ModelConfig("plain-cnn", n_dimensions=8)


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, ModelCard]:
    torch.manual_seed(0)
    network = build_model(CONFIG, image_size=SIZE).eval()
    return tmp_path / "model", save_model(tmp_path / "model", network, SPEC, flip=True, scales=(1, 2), made_by={})


@pytest.fixture
def source() -> Images:
    return Images([jpeg(i % 3, i) if i != 4 else None for i in range(N)])


def by_openvino(folder: Path, card: Any, *, device: str = "cpu", threads: int | None = 1) -> Any:
    from retrieval.embed.torch_embedder import OpenVinoEmbedder

    return OpenVinoEmbedder(folder, card, device=device, threads=threads, n_workers=1)


def test_descriptors_are_those_of_torch_whatever_the_number_at_once(
    model: tuple[Path, ModelCard], source: Images
) -> None:
    given, expected = by_openvino(*model), load_embedder(*model, CPU, n_workers=1)
    assert (given.d, given.specs, given.batch_size) == (expected.d, expected.specs, expected.batch_size)
    rows, vectors = given.embed_all(source, range(N))
    other_rows, other_vectors = expected.embed_all(source, range(N))
    assert rows.tolist() == other_rows.tolist() == [i for i in range(N) if i != 4]
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(N - 1), abs=1e-6)
    assert vectors == pytest.approx(other_vectors, abs=1e-5 if "float32" in given.about else 0.02)
    for n in (1, 7, 48):
        given.settle_batches(N, asked=n)
        assert given.embed_all(source, range(N))[1] == pytest.approx(vectors, abs=1e-6)


def test_it_computes_in_the_format_that_torch_would_take(
    model: tuple[Path, ModelCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the one that this machine does not take by itself."""
    formats = {torch.float32: "bfloat16", torch.bfloat16: "float32"}
    named = formats[fast_dtype(CPU)]
    monkeypatch.setattr("retrieval.embed.torch_embedder.fast_dtype", lambda _: getattr(torch, named))
    assert by_openvino(*model, threads=2).about == f"{named} by OpenVINO on cpu with 2 threads"


def test_another_device_than_the_cpu_is_refused(model: tuple[Path, ModelCard]) -> None:
    with pytest.raises(LmrError) as caught:
        by_openvino(*model, device="cuda:0")
    assert str(caught.value) == ("`engine` openvino computes on the CPU, not on `device` cuda:0; leave one of them out")


def test_a_network_whose_path_depends_on_the_values_is_refused(
    model: tuple[Path, ModelCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tracing keeps the path of one batch."""

    class Turning(WholeNetwork):
        def forward(self, *images: torch.Tensor) -> torch.Tensor:
            described = super().forward(*images)
            return described if len(images[0]) == 2 else -described

    def turning(*_: object) -> nn.Module:
        from retrieval.models.checkpoint import load_network

        return Turning([load_network(*model)], model[1]).eval()

    monkeypatch.setattr("retrieval.embed.torch_embedder.whole_network", turning)
    with pytest.raises(LmrError) as caught:
        by_openvino(*model)
    assert str(caught.value).startswith("`engine` openvino gives other descriptors than torch (cosine -1.0000 for batc")
    assert str(caught.value).endswith("hes of 1); use `engine` torch")


def test_a_network_that_cannot_be_traced_is_one_line(
    model: tuple[Path, ModelCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(WholeNetwork):
        def forward(self, *_: torch.Tensor) -> torch.Tensor:
            raise TypeError("no tensor\nsecond line")

    monkeypatch.setattr(
        "retrieval.embed.torch_embedder.whole_network", lambda *_: Failing([build_model(CONFIG)], model[1])
    )
    with pytest.raises(LmrError) as caught:
        by_openvino(*model)
    assert str(caught.value) == "`engine` openvino cannot compute this network: no tensor; use `engine` torch"
