"""How many images are computed at once: found by trying, as asked, and fewer where memory is too little."""

import warnings

import numpy as np
import pytest
import torch
from tiny_world import CPU, SIZE, SPEC, Images, jpeg, tiny_model

from retrieval.arrays import FloatArray, UInt8Array
from retrieval.embed.embedder import Embedder
from retrieval.embed.torch_embedder import TorchEmbedder
from retrieval.errors import LmrError, NoMemoryError
from retrieval.images import noise

MANY = 1_000_000


class Clockwork(Embedder):
    """Gives the mean of an image; takes as long by its clock as is said of a batch of that size.

    seconds: of an image, by the size of its batch. differs: sizes at which last bits are others. most: fit into memory.
    """

    def __init__(self, seconds: dict[int, float], *, differs: tuple[int, ...] = (), most: int = 10_000) -> None:
        super().__init__([SPEC], 1, batch_size=4)
        self.seconds, self.differs, self.most, self.now = seconds, differs, most, 0.0
        self.sizes: list[int] = []

    def embed_batch(self, *images: UInt8Array) -> FloatArray:
        """(b, 1)."""
        n = len(images[0])
        self.sizes.append(n)
        if n > self.most:
            raise NoMemoryError(f"not enough memory for {n}")
        self.now += n * self.seconds.get(n, 1.0)
        means = images[0].mean(axis=(1, 2, 3), dtype=np.float32)[:, None]
        return np.nextafter(means, np.float32(np.inf)) if n in self.differs else means


def settled(embedder: Clockwork, monkeypatch: pytest.MonkeyPatch, n_images: int = MANY) -> str:
    monkeypatch.setattr("retrieval.embed.embedder.time.perf_counter", lambda: embedder.now)
    return embedder.settle_batches(n_images)


@pytest.mark.parametrize(
    ("differs", "size"),
    [((), 16), ((16,), 8), ((16, 8), 4), ((16, 8, 4), 16)],
    ids=["all", "half", "a quarter", "none"],
)
def test_a_warm_embedder_computes_as_many_at_once_as_get_the_descriptors_of_single_images(
    differs: tuple[int, ...], size: int
) -> None:
    assert Clockwork({}, differs=differs).warm(16) == size
    assert Clockwork({}, differs=(1,)).warm(1) == 1


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        ({4: 1e-3, 8: 5e-4, 16: 4e-4, 32: 6e-4}, "16 images at once (fastest of 4, 8, 16, 32)"),
        ({4: 1e-3, 8: 2e-3, 16: 2e-3, 32: 5e-4}, "32 images at once (fastest of 4, 8, 16, 32)"),
        ({4: 1e-3, 8: 9.9e-4, 16: 9.8e-4, 32: 9.7e-4}, "4 images at once (fastest of 4, 8, 16, 32)"),
    ],
    ids=["between", "largest", "gains next to nothing"],
)
def test_the_fastest_size_is_taken(monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], said: str) -> None:
    embedder = Clockwork(seconds)
    assert settled(embedder, monkeypatch) == said
    assert embedder.batch_size == int(said.split()[0])
    assert embedder.unit == 4


def test_a_size_that_gives_other_bits_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    faster = {4: 1e-3, 8: 5e-4, 16: 4e-4, 32: 3e-4}
    embedder = Clockwork(faster, differs=(16, 32))
    assert settled(embedder, monkeypatch) == "8 images at once (fastest of 4, 8)"
    assert settled(Clockwork(faster, differs=(8, 16, 32)), monkeypatch) == "4 images at once"


def test_trying_takes_little_of_the_time_of_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    few = Clockwork({})
    assert settled(few, monkeypatch, 1_799) == "4 images at once"  # 2 % of which are less than 3 runs of 4 and of 8
    assert few.sizes == []
    some = Clockwork({4: 1e-3, 8: 1e-3, 16: 1e-4})
    assert settled(some, monkeypatch, 4_199) == "4 images at once (fastest of 4, 8)"
    assert some.sizes == [4, 4, 4, 8, 8, 8]
    slow = Clockwork({4: 1.0, 8: 0.1})
    assert settled(slow, monkeypatch) == "4 images at once"  # 3 runs of 8 would take 24 s more, of 30 s in all
    assert slow.sizes == [4, 4, 4]


def test_a_size_for_which_memory_lacks_ends_the_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = Clockwork({4: 1e-3, 8: 5e-4}, most=8)
    assert settled(embedder, monkeypatch) == "8 images at once (fastest of 4, 8)"
    assert embedder.sizes == [4, 4, 4, 8, 8, 8, 16]
    assert settled(Clockwork({}, most=2), monkeypatch) == "4 images at once"


def test_a_size_that_was_asked_for_is_taken_untried() -> None:
    embedder = Clockwork({})
    assert embedder.settle_batches(MANY, asked=1) == "1 image at once (as asked)"
    assert embedder.settle_batches(MANY, asked=48) == "48 images at once (as asked)"
    assert (embedder.batch_size, embedder.unit, embedder.sizes) == (48, 48, [])


def test_batches_that_are_not_full_are_computed_as_without_trying() -> None:
    encoded: list[bytes | None] = [jpeg(i % 3, i) for i in range(45)]
    encoded[18] = None
    plain, larger = Clockwork({}), Clockwork({})
    larger.batch_size = 16
    expected, given = (embedder.embed_all(Images(encoded), range(45)) for embedder in (plain, larger))
    assert plain.sizes == [4, 4, 4, 4, 3, 4, 4, 4, 4, 4, 4, 1]
    assert larger.sizes == [16, 3, 4, 4, 4, 4, 4, 4, 1]
    assert given[0].tolist() == expected[0].tolist() == [i for i in range(45) if i != 18]
    assert np.array_equal(given[1], expected[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_size_found_by_trying_changes_no_descriptor(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setattr("retrieval.embed.torch_embedder.fast_dtype", lambda _: dtype)
    source = Images([jpeg(i % 3, i) for i in range(150)])
    plain, tried = TorchEmbedder(tiny_model(), SPEC, CPU), TorchEmbedder(tiny_model(), SPEC, CPU)
    monkeypatch.setattr("retrieval.embed.embedder.LEAST_GAIN", 1e-9)  # any size is fast enough
    tried.settle_batches(MANY)
    for one, other in zip(plain.embed_all(source, range(150)), tried.embed_all(source, range(150)), strict=True):
        assert np.array_equal(one, other)


def test_where_memory_is_too_little_halves_are_computed_and_said() -> None:
    embedder = Clockwork({}, most=2)
    embedder.settle_batches(MANY, asked=9)
    source = Images([jpeg(i % 3, i) for i in range(20)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        noise._said.clear()
        rows, vectors = embedder.embed_all(source, range(20))
    assert embedder.sizes == [9, 4, 2, 2, 2, 2, 1, 2, 2, 2, 2, 1, 2]
    assert rows.tolist() == list(range(20))
    assert np.array_equal(vectors, Clockwork({}).embed_all(source, range(20))[1])
    assert [str(warning.message) for warning in caught] == [
        f"not enough memory for {n} images at once: the others were computed by {half}, so that last bits of "
        "descriptors may differ from those of a run with more memory"
        for n, half in ((9, 4), (4, 2))
    ]


def test_too_little_memory_for_one_image_says_what_to_lower() -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    embedder = TorchEmbedder(tiny_model(), SPEC, CPU)
    embedder._forward = fail  # type: ignore[method-assign, assignment]
    with pytest.raises(LmrError) as caught:
        embedder.describe(np.zeros((2, SIZE, SIZE, 3), np.uint8))
    assert str(caught.value) == (
        f"not enough memory on cpu for batches of 1 picture of {SIZE} pixels; lower `size` or `scales`"
    )


def test_onnxruntime_without_memory_is_one_line() -> None:
    from retrieval.embed.onnx_embedder import OnnxEmbedder

    class Session:
        def run(self, *_: object) -> None:
            raise RuntimeError("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 9")

    embedder = OnnxEmbedder.__new__(OnnxEmbedder)
    embedder._session, embedder._names = Session(), ["pictures"]  # type: ignore[assignment]
    with pytest.raises(NoMemoryError) as caught:
        embedder.embed_batch(np.zeros((2, SIZE, SIZE, 3), np.uint8))
    assert str(caught.value) == "not enough memory for batches of 2 pictures; export at a lower `size`"
