"""Training pictures without variation, and the features that a frozen backbone has of them, described only once."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from retrieval.arrays import FloatArray
from retrieval.errors import UnreadableError
from retrieval.files.atomic import replacing, write_bytes
from retrieval.files.json_file import convert, read_json
from retrieval.images.preprocess import ImageSpec, prepare
from retrieval.model import DescriptorModel
from retrieval.sources import Source
from retrieval.training.augmentation import Batch, Collate
from retrieval.training.parts import Parts, network_dtype
from retrieval.training.step import Setting, explained_step, pooled_features
from retrieval.training.workers import load_batches

N_AT_ONCE = 32  # pictures at most

Item = tuple[int, Tensor | str]


class PlainPictures:
    """Pictures as they are embedded. Items as TrainingPictures has them; their seeds change nothing."""

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


def frozen_features(parts: Parts, setting: Setting, pictures: PlainPictures, cache: "FeatureCache") -> FeatureRows:
    """The pooled features of all pictures, from the cache, which is filled when they are not there.

    LmrError: it cannot be written; a process that decodes was killed.
    """
    name = f"features-{_fingerprint(parts.model, setting, cache.digest)[:12]}"
    path, reasons = cache.folder / f"{name}.npy", cache.folder / f"{name}.json"
    if setting.processes.rank == 0 and not path.exists():
        for old in cache.folder.glob("features-*"):
            old.unlink()
        with replacing(path) as file:
            unreadable = _write_features(file, parts, setting, _all_batches(pictures, cache, setting), cache.n)
            write_bytes(reasons, json.dumps(unreadable).encode())
    setting.processes.first_says(None)
    remedy = "remove it and run the same lmr train again"
    return FeatureRows(path, convert(read_json(reasons, remedy), dict[int, str], str(reasons), remedy))


@dataclass(frozen=True, slots=True)
class FeatureCache:
    """Where features are kept, and of what: digest and number of the pictures.

    n_workers: that decode them. on_warning: told when fewer can be started.
    """

    folder: Path
    digest: str
    n: int
    n_workers: int
    on_warning: Callable[[str], None] = lambda _: None


def _fingerprint(model: DescriptorModel, setting: Setting, digest: str) -> str:
    """Of all that the features depend on."""
    facts = [model.config.to_json(), setting.spec.to_json(), digest, str(network_dtype(setting.config, setting.device))]
    known = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in model.state_dict().items():
        if name.startswith(("backbone.", "gem.")):
            known.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return known.hexdigest()


def _all_batches(pictures: PlainPictures, cache: FeatureCache, setting: Setting) -> Iterator[tuple[range, Batch]]:
    step = min(N_AT_ONCE, setting.config.batch_size)
    rows = [range(i, min(i + step, cache.n)) for i in range(0, cache.n, step)]
    keys = [[(row, 0) for row in some] for some in rows]
    collate = Collate(np.zeros(cache.n, np.int32))
    with closing(
        load_batches(pictures, collate, keys, min(cache.n_workers, len(keys)), on_warning=cache.on_warning)
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
