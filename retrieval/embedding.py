"""Pictures in, descriptors out: decoding in threads, the network in its fastest form, into a store or an array."""

import copy
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from retrieval.arrays import FloatArray, LongArray, UInt8Array
from retrieval.checkpoint import ModelCard
from retrieval.device import fast_dtype, place
from retrieval.errors import LmrError, UnreadableError
from retrieval.images import ImageSpec, prepare
from retrieval.model import DescriptorModel, to_input
from retrieval.model_config import DescriptorPart
from retrieval.sources import Source

CPU_BATCH = 16  # pictures; measured: ResNet-50 in bf16 on 2 cores is slower in batches of 32 and more (cache)
GPU_BATCH = 128
GPU_AHEAD = 4  # batches decoded while the accelerator computes; on a CPU decoding and computing share the cores


@dataclass(frozen=True, slots=True)
class Described:
    """One batch. rows: (b,) of the readable pictures, vectors: (b, d) float32. unreadable: row -> reason."""

    rows: LongArray
    vectors: FloatArray
    unreadable: dict[int, str]


class Embedder:
    """A network made ready to describe pictures on one device.

    flip: the descriptor is the normalised mean of those of the picture and of its mirror image. part: of the network.
    n_workers: decoding threads, at least one. LmrError: a network made for pictures of another size.
    """

    def __init__(
        self,
        model: DescriptorModel,
        spec: ImageSpec,
        device: torch.device,
        *,
        flip: bool = False,
        part: DescriptorPart = "neck",
        n_workers: int = 2,
    ) -> None:
        model.require_size(spec.size)
        self.spec, self.device, self.n_workers = spec, device, max(1, n_workers)
        self.flip, self.part = flip, part
        self.dtype = fast_dtype(device)
        self.batch_size = CPU_BATCH if device.type == "cpu" else GPU_BATCH
        self.d = model.length(part)
        self._model = _ready(model, device, self.dtype)

    def describe(self, pictures: UInt8Array) -> FloatArray:
        """(b, size, size, 3) uint8 -> (b, d) float32 unit descriptors. LmrError: the network gives NaN."""
        with torch.inference_mode():
            x = to_input(torch.from_numpy(pictures).permute(0, 3, 1, 2), self.spec, self.device)
            descriptors = self._forward(x)
            if self.flip:
                descriptors = nn.functional.normalize(descriptors + self._forward(x.flip(3)), dim=1)
            vectors = descriptors.float().cpu().numpy()
        if not np.isfinite(vectors).all():
            raise LmrError(
                "the network gives descriptors that are not numbers; its training diverged or its weights are broken: "
                "train again with lower rates, or use --device cpu if the device computes in float16"
            )
        return vectors

    def embed(self, source: Source, rows: Sequence[int] | LongArray) -> Iterator[Described]:
        """Descriptors of these pictures, batch by batch in their order."""
        rows = np.asarray(rows, dtype=np.int64)
        ahead = 0 if self.device.type == "cpu" else GPU_AHEAD
        batches = (rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size))
        with ThreadPoolExecutor(self.n_workers) as pool:
            waiting: deque[tuple[LongArray, list[Future[UInt8Array | str]]]] = deque()
            try:
                for batch in batches:
                    waiting.append((batch, [pool.submit(_prepare, source, int(row), self.spec) for row in batch]))
                    if len(waiting) > ahead:
                        yield self._described(*waiting.popleft())
                while waiting:
                    yield self._described(*waiting.popleft())
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def embed_all(self, source: Source, rows: Sequence[int] | LongArray) -> tuple[LongArray, FloatArray]:
        """The rows that could be read, in their order, and their (b, d) descriptors."""
        described = list(self.embed(source, rows))
        if not described:
            return np.zeros(0, np.int64), np.zeros((0, self.d), np.float32)
        return np.concatenate([b.rows for b in described]), np.concatenate([b.vectors for b in described])

    def _described(self, rows: LongArray, futures: list[Future[UInt8Array | str]]) -> Described:
        read = [future.result() for future in futures]
        unreadable = {int(row): item for row, item in zip(rows, read, strict=True) if isinstance(item, str)}
        pictures = [item for item in read if not isinstance(item, str)]
        vectors = self.describe(np.stack(pictures)) if pictures else np.zeros((0, self.d), np.float32)
        return Described(np.array([row for row in rows if int(row) not in unreadable], np.int64), vectors, unreadable)

    def _forward(self, x: Tensor) -> Tensor:
        autocast: Any = nullcontext()
        if self.dtype != torch.float32:
            autocast = torch.autocast(self.device.type, self.dtype)
        with autocast:
            descriptors: Tensor = self._model(x, self.part)
        return descriptors


def make_embedder(model: DescriptorModel, card: ModelCard, device: torch.device, *, n_workers: int) -> Embedder:
    """An embedder that describes pictures as the card says."""
    return Embedder(model, card.image_spec, device, flip=card.flip, part=card.descriptor, n_workers=n_workers)


class Rate:
    """Pictures a second over a whole run."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._began, self.n = clock, clock(), 0

    def add(self, n: int) -> float:
        """Counts n more and returns the mean rate so far, pictures/s."""
        self.n += n
        return self.n / max(1e-9, self._clock() - self._began)


def _prepare(source: Source, row: int, spec: ImageSpec) -> UInt8Array | str:
    try:
        return prepare(source.read(row), spec)
    except UnreadableError as error:
        return str(error)


def _ready(model: DescriptorModel, device: torch.device, dtype: torch.dtype) -> DescriptorModel:
    """A frozen copy for inference: batch norms folded into convolutions, where the network can be traced."""
    ready = copy.deepcopy(model).eval().requires_grad_(False)
    try:
        ready.backbone = fuse(ready.backbone)
    except (torch.fx.proxy.TraceError, TypeError, ValueError, NotImplementedError, RuntimeError):
        ready.backbone = copy.deepcopy(model.backbone).eval().requires_grad_(False)
    if dtype != torch.float32:
        ready.backbone.to(dtype)
    place(ready, device)
    return ready
