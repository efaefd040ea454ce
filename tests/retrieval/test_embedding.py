import dataclasses
import threading
from typing import get_args

import numpy as np
import pytest
import torch
from tiny_world import CPU, SIZE, SPEC, Images, jpeg, tiny_model
from torch import Tensor, nn

from retrieval.embed.torch_embedder import TorchEmbedder, _ready, make_embedder
from retrieval.errors import LmrError
from retrieval.images.preprocess import prepare
from retrieval.models.backbones import IMAGENET_MEAN, IMAGENET_STD, Backbone
from retrieval.models.checkpoint import ModelCard
from retrieval.models.config import DescriptorPart, ModelConfig
from retrieval.models.network import DescriptorModel, build_model, to_input

N = 37


@pytest.fixture
def source() -> Images:
    encoded: list[bytes | None] = [jpeg(i % 3, i) for i in range(N)]
    encoded[4] = None
    encoded[20] = b"no picture"
    return Images(encoded)


def pixels(n: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)


def original(model: DescriptorModel, images: np.ndarray) -> np.ndarray:
    """The network as it was trained, one image at a time."""
    with torch.inference_mode():
        inputs = [to_input(torch.from_numpy(p[None]).permute(0, 3, 1, 2), SPEC, CPU) for p in images]
        return torch.cat([model.eval()(x) for x in inputs]).numpy()


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("pooling", ["gem", "avg", "max"])
def test_the_fused_network_is_the_original(pooling: str) -> None:
    model = tiny_model(pooling=pooling)
    embedder = TorchEmbedder(model, SPEC, CPU)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in embedder._model.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert embedder.embed_batch(pixels()) == pytest.approx(original(model, pixels()), abs=1e-4)


def test_embedding_on_a_cpu_keeps_freed_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr("retrieval.embed.torch_embedder.keep_freed_memory", lambda: asked.append(True))
    TorchEmbedder(tiny_model(), SPEC, CPU)
    assert asked == [True]


class Untraceable(nn.Module):
    """Its path depends on the values."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 3, stride=2)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        """(b, 8, h', w')."""
        x = self.norm(self.layer(x))
        return x if x.sum() > 0 else -x


@pytest.mark.usefixtures("in_float32")
def test_a_network_that_cannot_be_traced_is_used_as_it_is() -> None:
    torch.manual_seed(0)
    backbone = Backbone(Untraceable(), 8, 0, (), IMAGENET_MEAN, IMAGENET_STD)
    model = DescriptorModel(ModelConfig("x", n_dimensions=0), backbone)
    assert TorchEmbedder(model, SPEC, CPU).embed_batch(pixels(1)) == pytest.approx(original(model, pixels(1)), abs=1e-5)


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("layer", [nn.MaxPool2d(SIZE + 1), nn.Conv2d(3, 3, SIZE + 1)], ids=["pooling", "convolution"])
def test_images_that_are_too_small_for_the_network_are_one_line(layer: nn.Module) -> None:
    backbone = Backbone(nn.Sequential(layer), 3, 0, (), IMAGENET_MEAN, IMAGENET_STD)
    embedder = TorchEmbedder(DescriptorModel(ModelConfig("x", n_dimensions=0), backbone), SPEC, CPU)
    with pytest.raises(LmrError) as caught:
        embedder.embed_batch(pixels(2))
    assert str(caught.value) == f"pictures of {SIZE} pixels are too small for this network; give a larger `size`"


@pytest.mark.usefixtures("in_float32")
def test_the_given_network_stays_as_it_was() -> None:
    model = tiny_model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    TorchEmbedder(model, SPEC, CPU).embed_batch(pixels())
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-3)])
def test_batch_size_and_workers_do_not_change_descriptors(
    source: Images, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, tolerance: float
) -> None:
    monkeypatch.setattr("retrieval.embed.torch_embedder.fast_dtype", lambda _: dtype)
    results = []
    for batch_size, n_workers in ((16, 2), (1, 1), (7, 3), (64, 0)):
        embedder = TorchEmbedder(tiny_model(), SPEC, CPU, n_workers=n_workers)
        embedder.batch_size = batch_size
        results.append(embedder.embed_all(source, np.arange(N)))
    for rows, vectors in results:
        assert rows.tolist() == [i for i in range(N) if i not in (4, 20)]
        assert vectors.dtype == np.float32
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(N - 2), abs=1e-6)
        assert vectors == pytest.approx(results[0][1], abs=tolerance)


def test_bfloat16_stays_near_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.embed.torch_embedder.fast_dtype", lambda _: torch.bfloat16)
    given = TorchEmbedder(tiny_model(), SPEC, CPU).embed_batch(pixels())
    expected = original(tiny_model(), pixels())
    assert (given * expected).sum(axis=1) == pytest.approx(np.ones(5), abs=1e-3)
    assert not np.array_equal(given, expected)


@pytest.mark.usefixtures("in_float32")
def test_flip_is_the_unit_mean_of_image_and_mirror_image() -> None:
    model = tiny_model()
    both = original(model, pixels()) + original(model, np.ascontiguousarray(pixels()[:, :, ::-1]))
    expected = both / np.linalg.norm(both, axis=1, keepdims=True)
    given = TorchEmbedder(model, SPEC, CPU, flip=True).embed_batch(pixels())
    assert given == pytest.approx(expected, abs=1e-5)
    assert np.abs(given - original(model, pixels())).max() > 1e-3


@pytest.mark.usefixtures("in_float32")
def test_scales_and_flip_are_the_unit_mean_over_all_views() -> None:
    model, large = tiny_model(), dataclasses.replace(SPEC, size=2 * SIZE)
    doubled = np.repeat(np.repeat(pixels(), 2, axis=1), 2, axis=2)
    views = [turned for given in (pixels(), doubled) for turned in (given, np.ascontiguousarray(given[:, :, ::-1]))]
    summed = np.sum([original(model, view) for view in views], axis=0)
    given = TorchEmbedder(model, [SPEC, large], CPU, flip=True).embed_batch(pixels(), doubled)
    assert given == pytest.approx(summed / np.linalg.norm(summed, axis=1, keepdims=True), abs=1e-5)
    assert np.abs(given - TorchEmbedder(model, SPEC, CPU, flip=True).embed_batch(pixels())).max() > 1e-3


@pytest.mark.usefixtures("in_float32")
def test_each_scale_is_the_image_prepared_at_that_size(source: Images) -> None:
    card = ModelCard(tiny_model().config, SPEC, "w", scales=(2, 1, 0.5))
    assert [spec.size for spec in card.specs] == [SIZE // 2, SIZE, 2 * SIZE]
    embedder = make_embedder(tiny_model(), card, CPU, n_workers=1)
    prepared = [np.stack([prepare(source.read(i), spec) for i in (0, 1)]) for spec in card.specs]
    rows, vectors = embedder.embed_all(source, [0, 4, 1])
    assert rows.tolist() == [0, 1]
    assert vectors == pytest.approx(embedder.embed_batch(*prepared), abs=1e-5)


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("flip", [False, True])
def test_a_descriptor_is_the_neck_or_what_it_was_given_or_both(flip: bool) -> None:
    model = tiny_model()
    found = {part: TorchEmbedder(model, SPEC, CPU, flip=flip, part=part) for part in get_args(DescriptorPart)}
    neck, pooled, both = (embedder.embed_batch(pixels()) for embedder in found.values())
    assert [v.shape[1] for v in (neck, pooled, both)] == [embedder.d for embedder in found.values()]
    assert both.shape[1] == neck.shape[1] + pooled.shape[1]
    for vectors in (neck, pooled, both):
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    model.neck = nn.Identity()
    assert TorchEmbedder(model, SPEC, CPU, flip=flip).embed_batch(pixels()) == pytest.approx(pooled, abs=1e-6)
    if not flip:
        assert both == pytest.approx(np.concatenate([neck, pooled], axis=1) / np.sqrt(2), abs=1e-6)


@pytest.mark.parametrize("part", ["pooled", "both"])
def test_a_part_that_the_network_does_not_have_is_refused(part: DescriptorPart) -> None:
    model = build_model(ModelConfig("shufflenet_v2_x0_5", n_dimensions=0), image_size=SPEC.size)
    with pytest.raises(LmrError) as caught:
        TorchEmbedder(model, SPEC, CPU, part=part)
    assert str(caught.value) == (
        f"`descriptor` {part}: this network has no neck, its descriptors are the pooled features; "
        "leave it out, or make the network with `n_dimensions`"
    )


@pytest.mark.usefixtures("in_float32")
def test_rows_come_in_the_order_asked_for_with_their_own_image(source: Images) -> None:
    embedder = TorchEmbedder(tiny_model(), SPEC, CPU)
    rows, vectors = embedder.embed_all(source, [30, 4, 2, 30])
    assert rows.tolist() == [30, 2, 30]
    images = np.stack([prepare(source.read(i), SPEC) for i in (30, 2, 30)])
    assert vectors == pytest.approx(original(tiny_model(), images), abs=1e-5)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_unreadable_images_are_reported_with_their_batch(source: Images, device: str) -> None:
    """On an accelerator images are decoded some batches ahead."""
    embedder = TorchEmbedder(tiny_model(), SPEC, CPU)
    embedder.batch_size, embedder.device = 5, torch.device(device)
    embedder.embed_batch = lambda images: images.mean(axis=(1, 2, 3))[:, None]  # type: ignore[method-assign]
    batches = list(embedder.embed(source, np.arange(N)))
    assert [len(b.rows) + len(b.unreadable) for b in batches] == [5] * 7 + [2]
    assert [list(b.unreadable.items()) for b in batches if b.unreadable] == [
        [(4, "picture 4 is gone")],
        [(20, "not a picture in a known format")],
    ]
    rows = np.concatenate([b.rows for b in batches])
    assert rows.tolist() == [i for i in range(N) if i not in (4, 20)]
    expected = [prepare(source.read(i), SPEC).mean() for i in rows]
    assert np.concatenate([b.vectors for b in batches])[:, 0] == pytest.approx(expected)


def test_a_batch_without_readable_images_has_no_rows() -> None:
    (batch,) = TorchEmbedder(tiny_model(), SPEC, CPU).embed(Images([None, None]), [0, 1])
    assert batch.rows.shape == (0,)
    assert batch.vectors.shape == (0, 8)
    assert len(batch.unreadable) == 2


def test_a_network_that_diverged_is_one_line() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.neck[0].weight[0, 0] = np.nan  # type: ignore[index]
    with pytest.raises(LmrError) as caught:
        TorchEmbedder(model, SPEC, CPU).embed_batch(pixels())
    assert str(caught.value) == (
        "the network gives descriptors that are not numbers; its training diverged or its weights are broken: "
        "train again with lower rates, or use `device` cpu if the device computes in float16"
    )


def test_no_rows_give_no_descriptors() -> None:
    rows, vectors = TorchEmbedder(tiny_model(), SPEC, CPU).embed_all(Images([]), [])
    assert rows.shape == (0,)
    assert vectors.shape == (0, 8)


def test_an_iteration_that_is_given_up_ends_its_threads(source: Images) -> None:
    import threading

    before = threading.active_count()
    batches = TorchEmbedder(tiny_model(), SPEC, CPU, n_workers=3).embed(source, np.arange(N))
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


@pytest.mark.parametrize("gives_any", [True, False])
def test_batches_for_cuda_lie_in_pinned_memory_where_there_is_any(
    source: Images, monkeypatch: pytest.MonkeyPatch, gives_any: bool
) -> None:
    asked: list[bool] = []
    empty = torch.empty

    def fake(shape: tuple[int, ...], *, dtype: torch.dtype, pin_memory: bool) -> Tensor:
        asked.append(pin_memory)
        if not gives_any:
            raise RuntimeError("CUDA error: out of memory")
        return empty(shape, dtype=dtype)

    embedder = TorchEmbedder(tiny_model(), SPEC, CPU)
    _, expected = embedder.embed_all(source, np.arange(N))
    assert asked == []
    monkeypatch.setattr(torch, "empty", fake)
    embedder._copies_from_pinned = True
    _, given = embedder.embed_all(source, np.arange(N))
    assert asked == [True] * 3  # batches
    assert np.array_equal(given, expected)


def test_a_network_is_made_ready_while_another_one_computes() -> None:
    busy, begun, ended = tiny_model(), threading.Event(), threading.Event()
    images = to_input(torch.from_numpy(pixels()).permute(0, 3, 1, 2), SPEC, CPU)
    found: list[object] = []

    def compute() -> None:
        try:
            with torch.inference_mode():
                while not ended.is_set():
                    busy.eval()(images)
                    begun.set()
        except BaseException as error:
            found.append(error)
        begun.set()

    other = threading.Thread(target=compute)
    other.start()
    begun.wait(60)
    try:
        for _ in range(20):
            _ready(tiny_model(), CPU, torch.float32)
    finally:
        ended.set()
        other.join()
    assert found == []
