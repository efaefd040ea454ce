"""Embedders: images in, descriptors out, read and prepared in threads, embedded in batches."""

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from retrieval.arrays import FloatArray, LongArray, UInt8Array
from retrieval.embed.profile import WAIT
from retrieval.errors import LmrError, NoMemoryError, UnreadableError
from retrieval.images import noise
from retrieval.images.bytes_source import Source
from retrieval.images.crashes import Careful
from retrieval.images.limits import DEFAULT_LIMITS, Limits
from retrieval.images.preprocess import decode_for, fit
from retrieval.images.spec import ImageSpec
from retrieval.stopwatch import OFF, Stopwatch
from retrieval.words import counted

TRIED = (2, 4, 8)  # batch sizes beside an embedder's own, as multiples of it
N_RUNS = 3  # of each size: one to warm up, two that are timed
TRIAL_SHARE = 0.02  # of the time that all images take may go into trying
MOST_TRIAL_S = 30.0
N_COMPARED = 4  # images of a batch whose descriptors are compared with those that they get alone
LEAST_GAIN = 1.05  # by which a larger batch must be faster to be taken

Prepared = tuple[UInt8Array, ...]  # (size, size, 3) for each of an embedder's specs


@dataclass(frozen=True, slots=True)
class EmbeddedBatch:
    """One batch. rows: (b,) of the readable images, vectors: (b, d) float32. unreadable: row -> reason."""

    rows: LongArray
    vectors: FloatArray
    unreadable: dict[int, str]


class Embedder(ABC):
    """Turns images into descriptors, whatever computes them.

    specs: preparations of an image, one input for each. d: length of a descriptor. batch_size: images at once.
    unit: images at once where a batch is not full; `batch_size` is a multiple of it. ahead: batches prepared while one
    is embedded. n_workers: decoding threads, at least one. limits: of what is decoded. watch: is told of its stages.
    about: what it computes with, for people. note: why an exported network was not taken, '' where that is not so.
    """

    limits: Limits = DEFAULT_LIMITS
    watch: Stopwatch = OFF
    about: str = ""
    note: str = ""

    def __init__(
        self, specs: Sequence[ImageSpec], d: int, *, batch_size: int, ahead: int = 0, n_workers: int = 2
    ) -> None:
        self.specs, self.d = tuple(specs), d
        self.batch_size = self.unit = batch_size
        self.ahead, self.n_workers = ahead, max(1, n_workers)
        self._most: int | None = None  # images at once, once memory was found to be too little for more

    def measure_with(self, watch: Stopwatch) -> None:
        """Tells a stopwatch of all stages from now on."""
        self.watch = watch

    @abstractmethod
    def embed_batch(self, *images: UInt8Array) -> FloatArray:
        """(b, size, size, 3) uint8 for each of `specs` -> (b, d) float32 unit descriptors.

        Raises LmrError for NaN, NoMemoryError for too many images at once.
        """

    def stacked(self, images: Sequence[UInt8Array]) -> UInt8Array:
        """Images (size, size, 3) as one batch, in memory from which the device copies fastest."""
        return np.stack(images)

    def describe(self, *images: UInt8Array) -> FloatArray:
        """As `embed_batch`, by halves from then on where memory is too little, which the command says.

        Raises NoMemoryError where it is too little for one image.
        """
        n = len(images[0])
        if self._most is None or n <= self._most:
            try:
                return self.embed_batch(*images)
            except NoMemoryError:
                if n == 1:
                    raise
                self._most = n // 2
                noise.say(
                    f"not enough memory for {n} images at once: the others were computed by {self._most}, so that last "
                    "bits of descriptors may differ from those of a run with more memory"
                )
        most = self._most
        return np.concatenate([self.describe(*(of[i : i + most] for of in images)) for i in range(0, n, most)])

    def settle_batches(self, n_images: int, *, asked: int | None = None) -> str:
        """Sets how many images are computed at once, as asked or as is fastest here; what was settled, for people.

        Sizes are tried on made images, where they take little of the time that `n_images` will. Only multiples of
        `unit` that give the very same descriptors are taken, so that no store depends on what was found.
        """
        if asked is not None:
            self.batch_size = self.unit = asked
            return f"{counted(asked, 'image')} at once (as asked)"
        is_worth_it = n_images * TRIAL_SHARE >= N_RUNS * self.unit * (1 + TRIED[0])
        tried = self._try_sizes(n_images) if is_worth_it else [self.unit]
        why = f" (fastest of {', '.join(map(str, tried))})" if len(tried) > 1 else ""
        return f"{self.batch_size} images at once{why}"

    def warm(self, n: int) -> int:
        """Computes made images, so that the first ones wait for nothing; how many may be computed at once, n at most.

        The most of n, n / 2 and n / 4 that get the very same descriptors as single images; n where none do, as on GPUs:
        last bits of a descriptor then depend on how many images it is computed with.
        """
        made = self._made_images(n)
        singles = [self.describe(*(of_spec[i : i + 1] for of_spec in made)) for i in range(min(n, N_COMPARED))]
        single = np.concatenate(singles)
        for size in dict.fromkeys((n, max(1, n // 2), max(1, n // 4))):
            batch = self.describe(*(of_spec[:size] for of_spec in made))
            if np.array_equal(batch[:N_COMPARED], single[:size]):
                return size
        return n

    def compile(self, n_images: int) -> str:
        """Has torch compile the network, where that pays for so many images; what came of it, for people."""
        return "not compiled, as it is not torch that computes"

    def _made_images(self, n: int) -> list[UInt8Array]:
        """(n, size, size, 3) images for each spec, the same ones each time."""
        rng = np.random.default_rng(0)
        return [rng.integers(0, 256, (n, spec.size, spec.size, 3), dtype=np.uint8) for spec in self.specs]

    def _try_sizes(self, n_images: int) -> list[int]:
        """Sets the fastest size, and gives those that were tried."""
        made, tried = self._made_images(self.unit), [self.unit]
        try:
            expected, least_s = self._timed(made)
            left_s = min(MOST_TRIAL_S, TRIAL_SHARE * n_images * least_s) - N_RUNS * self.unit * least_s
            for times in TRIED:
                left_s -= N_RUNS * times * self.unit * least_s
                if left_s < 0:
                    break
                vectors, image_s = self._timed([np.tile(of, (times, 1, 1, 1)) for of in made])
                if not np.array_equal(vectors, np.tile(expected, (times, 1))):
                    continue
                tried.append(times * self.unit)
                if image_s < least_s / LEAST_GAIN:
                    self.batch_size, least_s = tried[-1], image_s
        except NoMemoryError:  # for more than was tried
            pass
        return tried

    def _timed(self, images: Sequence[UInt8Array]) -> tuple[FloatArray, float]:
        """Descriptors of a batch, and the seconds that an image of it takes once everything is warm."""
        vectors, seconds = self.embed_batch(*images), []
        for _ in range(N_RUNS - 1):
            began = time.perf_counter()
            self.embed_batch(*images)
            seconds.append(time.perf_counter() - began)
        return vectors, min(seconds) / len(vectors)

    def embed(
        self, source: Source, rows: Sequence[int] | LongArray, careful: Careful[Prepared] | None = None
    ) -> Iterator[EmbeddedBatch]:
        """Descriptors of these images, batch by batch in their order. careful: knows images that crash, None = none."""
        rows = np.asarray(rows, dtype=np.int64)
        batches = (rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size))
        with ThreadPoolExecutor(self.n_workers) as pool:
            waiting: deque[tuple[LongArray, list[Future[Prepared | str]]]] = deque()
            try:
                for batch in batches:
                    waiting.append((batch, [pool.submit(self._read, int(row), source, careful) for row in batch]))
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

    def prepare(self, data: bytes, limits: Limits | None = None) -> Prepared:
        """An encoded image as `describe` takes it. limits: None = the embedder's own. Raises UnreadableError."""
        return _prepared(data, self.specs, self.limits if limits is None else limits, self.watch)

    @property
    def prepare_apart(self) -> Callable[[bytes], Prepared]:
        """As `prepare`, to be done by another process."""
        return partial(_prepared, specs=self.specs, limits=self.limits)

    def _read(self, row: int, source: Source, careful: Careful[Prepared] | None) -> Prepared | str:
        """A prepared image, or the reason why it cannot be read."""

        def read() -> bytes:
            with self.watch.at("read"):
                return source.read(row)

        if careful is not None:
            return careful.read_row(row, read, self.prepare)
        try:
            return self.prepare(read())
        except UnreadableError as error:
            return str(error)

    def _embedded(self, rows: LongArray, futures: list[Future[Prepared | str]]) -> EmbeddedBatch:
        with self.watch.at(WAIT):
            read = [future.result() for future in futures]
        unreadable = {int(row): item for row, item in zip(rows, read, strict=True) if isinstance(item, str)}
        step = self.batch_size if len(read) == self.batch_size and not unreadable else self.unit
        parts = []
        for i in range(0, len(read), step):
            if images := [item for item in read[i : i + step] if not isinstance(item, str)]:
                with self.watch.at("transfer"):
                    stacked = [self.stacked(of_spec) for of_spec in zip(*images, strict=True)]
                parts.append(self.describe(*stacked))
        readable = np.array([row for row in rows if int(row) not in unreadable], np.int64)
        vectors = np.concatenate(parts) if parts else np.zeros((0, self.d), np.float32)
        return EmbeddedBatch(readable, vectors, unreadable)


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

    def compile(self, n_images: int) -> str:
        """As of one network, of each of them."""
        return "; ".join(member.compile(n_images) for member, _, _ in self._members)

    def stacked(self, images: Sequence[UInt8Array]) -> UInt8Array:
        """As the members, which compute on one device, have it."""
        return self._members[0][0].stacked(images)

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


def _prepared(data: bytes, specs: Sequence[ImageSpec], limits: Limits, watch: Stopwatch = OFF) -> Prepared:
    made = []
    for spec in specs:
        with watch.at("decode"):
            image = decode_for(data, spec, limits)
        with watch.at("resize"):
            made.append(np.array(fit(image, spec)))
    return tuple(made)
