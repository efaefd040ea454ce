"""Batches of training images, decoded by worker processes, or of the features that a frozen backbone has of them."""

import hashlib
import json
import pickle
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from torch import Tensor

from retrieval.arrays import FloatArray, IntArray
from retrieval.errors import UnreadableError
from retrieval.files.atomic import replacing, write_bytes
from retrieval.files.json_file import convert, read_json
from retrieval.images.bytes_source import Source
from retrieval.images.crashes import Careful, Flight
from retrieval.images.preprocess import prepare
from retrieval.images.spec import ImageSpec
from retrieval.models.device import lacks_memory
from retrieval.models.network import DescriptorModel
from retrieval.parallel import KilledError, Workers, start_workers, work_with
from retrieval.progress import SILENT, Progress
from retrieval.train.augment import Batch, Collate, TrainingImages
from retrieval.train.config import TrainConfig
from retrieval.train.data import TrainingData
from retrieval.train.distributed import Processes
from retrieval.train.run import Run
from retrieval.train.sampler import Sampler, training_sampler
from retrieval.train.state import Parts, network_dtype
from retrieval.train.step import Setting, explained_step, pooled_features
from retrieval.train.stored.rows import StoredRows

Keys = list[tuple[int, int]]  # rows and seeds of the images of a batch
N_AT_ONCE = 32  # images at most
Item = tuple[int, Tensor | str]


class Images(Protocol):
    """Gives a row's image, which may vary with a seed, or the reason why it cannot be read."""

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, Tensor | str]:
        """The row, and its image or the reason."""


def load_batches(
    images: Images,
    collate: Collate,
    keys: Iterable[Keys],
    n_workers: int,
    *,
    pin: bool = False,
    progress: Progress = SILENT,
) -> Generator[Batch, None, None]:
    """A batch for each list of keys, in their order, which does not depend on the number of workers.

    n_workers: processes, 0 = this one. pin: copied in the background to memory that a GPU reads while it computes. An
    image that crashes its decoder, and so a process, is unreadable. LmrError: a process was killed for something else,
    memory runs out.
    """
    loading = _Loading(images, collate, Workers(n_workers, start=None, begin=_use_one_thread, progress=progress))
    batches = loading.batches(keys)
    if not pin:
        yield from batches
    elif loading.has_workers:
        yield from _pinned(batches)
    else:  # not in a thread beside the network, as images vary by torch's one generator, which the network draws from
        yield from (batch.pin_memory() for batch in batches)


class _Loading:
    """Workers that load batches, begun again without the images that kill one."""

    def __init__(self, images: Images, collate: Collate, workers: Workers) -> None:
        self._images, self._collate, self._workers = images, collate, workers
        self._folder = TemporaryDirectory(prefix="lmr-", ignore_cleanup_errors=True)
        self._flight = Flight(Path(self._folder.name) / "decoding", "")
        self._crashed: dict[int, str] = {}
        self._flight.begin()
        self._started = start_workers(_load, self._fixed, workers)
        self.has_workers = bool(self._started)

    @property
    def _fixed(self) -> "_Fixed":
        return self._images, self._collate, self._flight, dict(self._crashed)

    def batches(self, keys: Iterable[Keys]) -> Generator[Batch, None, None]:
        """As `load_batches`."""
        pending: deque[Keys] = deque()

        def given() -> Iterator[Keys]:
            for some in keys:
                pending.append(some)
                yield some

        new = todo = given()
        with self._folder, closing(self._flight):
            while True:
                try:
                    for batch in work_with(self._started, _load, todo, self._fixed):
                        pending.popleft()
                        yield batch
                    return
                except KilledError:
                    crashed = self._find_crashed(pending)
                    if crashed.keys() <= self._crashed.keys():  # none is new: it was something else
                        raise
                    self._crashed |= crashed
                    todo = chain(list(pending), new)
                    self._started = start_workers(_load, self._fixed, self._workers)

    def _find_crashed(self, pending: Iterable[Keys]) -> dict[int, str]:
        """The images under way that kill another process too, and why; none where they cannot be sent to it."""
        left, _ = self._flight.begin()
        try:
            pickle.dumps(self._images)
        except (pickle.PicklingError, AttributeError, TypeError):
            return {}
        keys = {key[0]: key for some in pending for key in some}
        careful = Careful(Flight(None, ""), partial(_try, images=self._images), str)
        crashed = {}
        with careful:
            for row in left:
                try:
                    if row in keys:
                        careful.apart(keys[row])
                except UnreadableError as error:
                    crashed[row] = str(error)
        return crashed


_Fixed = tuple[Images, Collate, Flight, dict[int, str]]


def _try(key: tuple[int, int], images: Images) -> None:
    images[key]


def _load(keys: Keys, fixed: _Fixed) -> Batch:
    images, collate, flight, crashed = fixed
    items: list[Item] = []
    try:
        for key in keys:
            flight.note(key[0])
            items.append((key[0], crashed[key[0]]) if key[0] in crashed else images[key])
        return collate(items)
    except RuntimeError as error:
        if lacks_memory(error):
            raise MemoryError from error
        raise


def _use_one_thread() -> None:
    """The workers share the cores; and OpenMP's threads are not there any more in a process that was forked."""
    torch.set_num_threads(1)


def _pinned(batches: Generator[Batch, None, None]) -> Generator[Batch, None, None]:
    """The same batches in pinned memory, the next one received and copied while one is used."""
    with closing(batches), ThreadPoolExecutor(1) as pool:

        def next_one() -> Batch | None:
            batch = next(batches, None)
            return None if batch is None else batch.pin_memory()

        waiting: Future[Batch | None] = pool.submit(next_one)
        while (batch := waiting.result()) is not None:
            waiting = pool.submit(next_one)
            yield batch


class PlainImages:
    """Images as they are embedded. Items as TrainingImages has them; their seeds change nothing."""

    def __init__(self, source: Source, spec: ImageSpec) -> None:
        self.source, self.spec = source, spec

    def __getitem__(self, key: tuple[int, int]) -> Item:
        row, _ = key
        try:
            return row, torch.from_numpy(prepare(self.source.read(row), self.spec)).permute(2, 0, 1)
        except UnreadableError as error:
            return row, str(error)


class FeatureRows:
    """Features in a file, mapped into memory. Items are (row, float32 (c,)), or (row, reason) if unreadable."""

    def __init__(self, path: Path, unreadable: dict[int, str]) -> None:
        self.features: FloatArray = np.load(path, mmap_mode="r")
        self.unreadable = unreadable

    def __getitem__(self, key: tuple[int, int]) -> Item:
        row, _ = key
        return row, self.unreadable.get(row) or torch.from_numpy(np.array(self.features[row]))


def frozen_features(parts: Parts, setting: Setting, images: PlainImages, cache: "FeatureCache") -> FeatureRows:
    """The pooled features of all images, from the cache, which is filled when they are not there.

    LmrError: it cannot be written; a process that decodes was killed.
    """
    name = f"features-{_fingerprint(parts.model, setting, cache.digest)[:12]}"
    path, reasons = cache.folder / f"{name}.npy", cache.folder / f"{name}.json"
    if setting.processes.rank == 0 and not path.exists():
        for old in cache.folder.glob("features-*"):
            old.unlink()
        with replacing(path) as file:
            unreadable = _write_features(file, parts, setting, _all_batches(images, cache, setting), cache.n)
            write_bytes(reasons, json.dumps(unreadable).encode())
    setting.processes.first_says(None)
    remedy = "remove it and run the same lmr train again"
    return FeatureRows(path, convert(read_json(reasons, remedy), dict[int, str], str(reasons), remedy))


@dataclass(frozen=True, slots=True)
class FeatureCache:
    """Place of features that are kept. digest, n: of the images that they are of.

    n_workers: that decode them. progress: warned when fewer can be started.
    """

    folder: Path
    digest: str
    n: int
    n_workers: int
    progress: Progress = SILENT


def _fingerprint(model: DescriptorModel, setting: Setting, digest: str) -> str:
    """sha256 (hex) of all that the features depend on."""
    facts = [model.config.to_json(), setting.spec.to_json(), digest, str(network_dtype(setting.config, setting.device))]
    known = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in model.state_dict().items():
        if name.startswith(("backbone.", "gem.")):
            known.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return known.hexdigest()


def _all_batches(images: PlainImages, cache: FeatureCache, setting: Setting) -> Iterator[tuple[range, Batch]]:
    step = min(N_AT_ONCE, setting.config.batch_size)
    rows = [range(i, min(i + step, cache.n)) for i in range(0, cache.n, step)]
    keys = [[(row, 0) for row in some] for some in rows]
    collate = Collate(np.zeros(cache.n, np.int32))
    with closing(
        load_batches(images, collate, keys, min(cache.n_workers, len(keys)), progress=cache.progress)
    ) as batches:
        yield from zip(rows, batches, strict=True)


def _write_features(
    file: BinaryIO, parts: Parts, setting: Setting, batches: Iterable[tuple[range, Batch]], n: int
) -> dict[int, str]:
    """Writes a .npy file (n, c), batch after batch, zeros for what is unreadable; which those are, and why."""
    unreadable: dict[int, str] = {}
    parts.model.eval()
    with torch.inference_mode():
        shape = (n, parts.model.n_features)
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        for rows, batch in batches:
            block = np.zeros((len(rows), parts.model.n_features), "<f4")
            if len(batch.labels):
                read = [i for i, row in enumerate(rows) if row not in batch.unreadable]
                with explained_step(setting):
                    block[read] = pooled_features(parts, batch, setting).cpu().numpy()
            file.write(block.tobytes())
            unreadable |= batch.unreadable
    return unreadable


def images_of(data: TrainingData, spec: ImageSpec, config: TrainConfig) -> TrainingImages | PlainImages | StoredRows:
    """Training images: augmented, or plain; or the descriptors that are there in their place."""
    if data.stored is not None:
        return data.stored
    if config.plain_pictures:
        return PlainImages(data.source, spec)
    return TrainingImages(data.source, spec, config.augment)


def count_steps(data: TrainingData, config: TrainConfig) -> int:
    """Steps of an epoch."""
    return len(training_sampler(data.landmark, config).plan(0))


def feed(
    data: TrainingData, images: Images | StoredRows, config: TrainConfig, run: Run, begin: tuple[int, int] = (0, 0)
) -> Generator[list[Batch], None, None]:
    """The batches of each step, without end. begin: epoch and step.

    Worker processes decode, and outlive the epochs. LmrError when one is killed.
    """
    keys = _keys(training_sampler(data.landmark, config), begin, config.accumulate, run.processes)
    pin = run.device.type == "cuda"
    if isinstance(images, StoredRows):
        batches = _stored_batches(images, data.landmark, keys, pin=pin)
    else:
        n_workers = 0 if isinstance(images, FeatureRows) else min(run.n_workers, _count_batches(data, config))
        how: dict[str, Any] = {"pin": pin, "progress": run.progress}
        batches = load_batches(images, Collate(data.landmark), keys, n_workers, **how)
    with closing(batches):
        while True:
            yield [next(batches) for _ in range(config.accumulate)]


def _stored_batches(
    stored: StoredRows, landmark: IntArray, keys: Iterable[Keys], *, pin: bool
) -> Generator[Batch, None, None]:
    """A batch of stored descriptors for each list of keys, whose seeds change nothing."""
    for some in keys:
        rows = np.array([row for row, _ in some], dtype=np.int64)
        labels = torch.from_numpy(landmark[rows].astype(np.int64))
        batch = Batch(tuple(rows.tolist()), torch.from_numpy(stored[rows]), labels, {})
        yield batch.pin_memory() if pin else batch


def _keys(sampler: Sampler, begin: tuple[int, int], accumulate: int, processes: Processes) -> Iterator[Keys]:
    """Rows and seeds of this process' images in each batch; `accumulate` batches are a step."""
    for epoch in count(begin[0]):
        plan = sampler.plan(epoch)
        steps = zip(plan.rows, plan.seeds, strict=True)
        for rows, seeds in islice(steps, begin[1] if epoch == begin[0] else 0, None):
            keys = list(zip(rows.tolist(), seeds.tolist(), strict=True))
            for i in range(accumulate):
                yield keys[i::accumulate][processes.rank :: processes.n]


def _count_batches(data: TrainingData, config: TrainConfig) -> int:
    """Batches of all epochs."""
    return count_steps(data, config) * config.accumulate * config.epochs
