"""Embedders: images in, descriptors out, read and prepared in threads, embedded in batches."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from retrieval.arrays import FloatArray, LongArray, UInt8Array
from retrieval.embed.profile import WAIT
from retrieval.errors import LmrError, UnreadableError
from retrieval.images.bytes_source import Source
from retrieval.images.preprocess import decode_for, fit
from retrieval.images.spec import ImageSpec
from retrieval.stopwatch import OFF, Stopwatch

_Prepared = tuple[UInt8Array, ...]


@dataclass(frozen=True, slots=True)
class EmbeddedBatch:
    """One batch. rows: (b,) of the readable images, vectors: (b, d) float32. unreadable: row -> reason."""

    rows: LongArray
    vectors: FloatArray
    unreadable: dict[int, str]


class Embedder(ABC):
    """Turns images into descriptors, whatever computes them.

    specs: preparations of an image, one input for each. d: length of a descriptor. batch_size: images at once. ahead:
    batches prepared while one is embedded. n_workers: decoding threads, at least one. watch: is told of its stages.
    about: what it computes with, for people.
    """

    watch: Stopwatch = OFF
    about: str = ""

    def __init__(
        self, specs: Sequence[ImageSpec], d: int, *, batch_size: int, ahead: int = 0, n_workers: int = 2
    ) -> None:
        self.specs, self.d = tuple(specs), d
        self.batch_size, self.ahead, self.n_workers = batch_size, ahead, max(1, n_workers)

    def measure_with(self, watch: Stopwatch) -> None:
        """Tells a stopwatch of all stages from now on."""
        self.watch = watch

    @abstractmethod
    def embed_batch(self, *images: UInt8Array) -> FloatArray:
        """(b, size, size, 3) uint8 for each of `specs` -> (b, d) float32 unit descriptors. LmrError for NaN."""

    def embed(self, source: Source, rows: Sequence[int] | LongArray) -> Iterator[EmbeddedBatch]:
        """Descriptors of these images, batch by batch in their order."""
        rows = np.asarray(rows, dtype=np.int64)
        batches = (rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size))
        with ThreadPoolExecutor(self.n_workers) as pool:
            waiting: deque[tuple[LongArray, list[Future[_Prepared | str]]]] = deque()
            try:
                for batch in batches:
                    given = (source, self.specs, self.watch)
                    waiting.append((batch, [pool.submit(_prepare, int(row), *given) for row in batch]))
                    if len(waiting) > self.ahead:
                        yield self._embedded(*waiting.popleft())
                while waiting:
                    yield self._embedded(*waiting.popleft())
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def embed_all(self, source: Source, rows: Sequence[int] | LongArray) -> tuple[LongArray, FloatArray]:
        """The rows that could be read, in their order, and their (b, d) descriptors."""
        batches = list(self.embed(source, rows))
        if not batches:
            return np.zeros(0, np.int64), np.zeros((0, self.d), np.float32)
        return np.concatenate([b.rows for b in batches]), np.concatenate([b.vectors for b in batches])

    def _embedded(self, rows: LongArray, futures: list[Future[_Prepared | str]]) -> EmbeddedBatch:
        with self.watch.at(WAIT):
            read = [future.result() for future in futures]
        unreadable = {int(row): item for row, item in zip(rows, read, strict=True) if isinstance(item, str)}
        images = [item for item in read if not isinstance(item, str)]
        vectors = np.zeros((0, self.d), np.float32)
        if images:
            vectors = self.embed_batch(*(np.stack(of_spec) for of_spec in zip(*images, strict=True)))
        return EmbeddedBatch(
            np.array([row for row in rows if int(row) not in unreadable], np.int64), vectors, unreadable
        )


class JoinedEmbedder(Embedder):
    """An ensemble: the members' unit descriptors one after the other, each times the root of its weight.

    So the inner product of two descriptors is the weighted mean of the members' cosines. weights: sum to 1.
    """

    def __init__(self, members: Sequence[Embedder], weights: Sequence[float], *, n_workers: int = 2) -> None:
        specs = list(dict.fromkeys(spec for member in members for spec in member.specs))
        super().__init__(
            specs,
            sum(member.d for member in members),
            batch_size=min(member.batch_size for member in members),
            ahead=min(member.ahead for member in members),
            n_workers=n_workers,
        )
        self._members = [
            (member, np.float32(np.sqrt(weight)), [specs.index(spec) for spec in member.specs])
            for member, weight in zip(members, weights, strict=True)
        ]
        self.about = members[0].about

    def measure_with(self, watch: Stopwatch) -> None:
        """As of one network, of each of them."""
        super().measure_with(watch)
        for member, _, _ in self._members:
            member.measure_with(watch)

    def embed_batch(self, *images: UInt8Array) -> FloatArray:
        """Joined descriptors of a batch; each member is given the images in its own preparations."""
        parts = [root * member.embed_batch(*(images[i] for i in own)) for member, root, own in self._members]
        return np.concatenate(parts, axis=1)


def require_finite(vectors: FloatArray) -> FloatArray:
    """The same descriptors. LmrError when the network gives NaN or infinity."""
    if not np.isfinite(vectors).all():
        raise LmrError(
            "the network gives descriptors that are not numbers; its training diverged or its weights are broken: "
            "train again with lower rates, or use `device` cpu if the device computes in float16"
        )
    return vectors


def _prepare(row: int, source: Source, specs: Sequence[ImageSpec], watch: Stopwatch) -> _Prepared | str:
    try:
        with watch.at("read"):
            data = source.read(row)
        return tuple(_prepared(data, spec, watch) for spec in specs)
    except UnreadableError as error:
        return str(error)


def _prepared(data: bytes, spec: ImageSpec, watch: Stopwatch) -> UInt8Array:
    with watch.at("decode"):
        image = decode_for(data, spec)
    with watch.at("resize"):
        return np.array(fit(image, spec))
