"""Embedding by torch.compile: where it pays, and as it was where it does not."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_world import CPU, SIZE, SPEC, Images, jpeg

from retrieval.embed.embedder import Embedder
from retrieval.embed.torch_embedder import TorchEmbedder, load_embedder
from retrieval.models.card import ModelCard
from retrieval.models.checkpoint import save_model
from retrieval.models.config import ModelConfig
from retrieval.models.network import build_model

MANY = 1_000_000
N = 21  # images, of which a batch takes 16


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, ModelCard]:
    torch.manual_seed(0)
    network = build_model(ModelConfig("plain-cnn", n_dimensions=8), image_size=SIZE).eval()
    return tmp_path / "model", save_model(tmp_path / "model", network, SPEC, flip=True, made_by={})


@pytest.fixture
def embedder(model: tuple[Path, ModelCard], monkeypatch: pytest.MonkeyPatch) -> Embedder:
    """Whose first trial takes a second for an image, and whose second one half of it."""
    whole, seconds = Embedder._timed, iter((1.0, 0.5))
    monkeypatch.setattr(TorchEmbedder, "_timed", lambda self, images: (whole(self, images)[0], next(seconds)))
    return load_embedder(*model, CPU, n_workers=1)


@pytest.fixture
def source() -> Images:
    return Images([jpeg(i % 3, i) if i != 4 else None for i in range(N)])


def fake_compiler(monkeypatch: pytest.MonkeyPatch, sign: float = 1.0) -> list[int]:
    """Gives the same network, or its negative; the numbers of images that it was asked for."""
    seen: list[int] = []

    def compiler(network: Any, *, dynamic: bool) -> Any:
        assert not dynamic

        def compute(x: torch.Tensor, part: str) -> torch.Tensor:
            seen.append(len(x))
            return torch.as_tensor(sign * network(x, part))

        return compute

    monkeypatch.setattr(torch, "compile", compiler)
    return seen


def test_a_compiled_network_is_always_given_a_whole_batch(
    embedder: Embedder, source: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, expected = embedder.embed_all(source, range(N))
    seen = fake_compiler(monkeypatch)
    assert embedder.compile(MANY).endswith(" s, 2.00 times as fast")
    rows, vectors = embedder.embed_all(source, range(N))
    assert rows.tolist() == [i for i in range(N) if i != 4]
    assert vectors == pytest.approx(expected, abs=1e-5)
    assert set(seen) == {16}


def test_a_compiled_network_is_given_as_many_images_as_fit_into_the_memory(
    embedder: Embedder, source: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = fake_compiler(monkeypatch)
    embedder.compile(MANY)
    seen.clear()
    embedder._most = 8
    embedder.embed_all(source, range(N))
    assert set(seen) == {8}


def test_few_images_are_not_worth_compiling(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = fake_compiler(monkeypatch)
    assert embedder.compile(59) == "not compiled, which takes longer than it gains for 59 images"
    assert not seen


def test_a_compiler_that_fails_leaves_the_network_as_it_was(
    embedder: Embedder, source: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, expected = embedder.embed_all(source, range(N))

    def broken(*_: Any, **__: Any) -> Any:
        def compute(*_: Any) -> Any:
            raise RuntimeError("no C++ compiler\nand a page of advice")

        return compute

    monkeypatch.setattr(torch, "compile", broken)
    told = embedder.compile(MANY)
    assert told.startswith("not compiled after a trial of ")
    assert told.endswith(" s: no C++ compiler")
    assert np.array_equal(embedder.embed_all(source, range(N))[1], expected)


def test_other_descriptors_leave_the_network_as_it_was(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_compiler(monkeypatch, sign=-1.0)
    assert embedder.compile(MANY).endswith(" s: it gives other descriptors, cosine -1.0000")


def test_a_compiled_network_that_is_not_faster_is_not_used(
    model: tuple[Path, ModelCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Embedder._timed
    monkeypatch.setattr(TorchEmbedder, "_timed", lambda self, images: (whole(self, images)[0], 1.0))
    seen, embedder = fake_compiler(monkeypatch), load_embedder(*model, CPU, n_workers=1)
    assert embedder.compile(MANY).endswith(" s: it is 1.00 times as fast")
    seen.clear()
    embedder.embed_batch(*embedder._made_images(3))
    assert not seen


def test_torch_itself_compiles_the_network(embedder: Embedder, source: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its own compiler of kernels, which needs that of C++."""
    _, expected = embedder.embed_all(source, range(N))
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    assert embedder.compile(MANY).startswith("compiled in ")
    assert embedder.embed_all(source, range(N))[1] == pytest.approx(expected, abs=1e-5)
