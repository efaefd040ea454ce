"""The first batch of a training, as the network would see it."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from retrieval.arrays import UInt8Array
from retrieval.images.spec import ImageSpec
from retrieval.models.network import to_input
from retrieval.train.augment import Batch, mix
from retrieval.train.config import TrainConfig
from retrieval.train.data import TrainingData
from retrieval.train.loader import feed, images_of
from retrieval.train.run import Run
from retrieval.train.step import step_seed


@dataclass(frozen=True, slots=True)
class SeenImage:
    """An image of a batch.

    pixels: (size, size, 3) uint8. labels: what it counts as, with the shares where it is mixed; () = no known landmark.
    """

    pixels: UInt8Array
    labels: tuple[str, ...]
    image_id: str


def first_batch(data: TrainingData, spec: ImageSpec, config: TrainConfig) -> Batch:
    """The batch of the first step of a training with this configuration."""
    run = Run(Path(), torch.device("cpu"), n_workers=0)
    with closing(feed(data, images_of(data, spec, config), config, run)) as batches:
        batch, *_ = next(batches)
    return mix(batch, config.augment, torch.Generator().manual_seed(step_seed(config.seed, 0)))


def as_seen(batch: Batch, spec: ImageSpec) -> UInt8Array:
    """(b, size, size, 3) the network's input, with the normalisation taken back."""
    x = to_input(batch.images, spec, torch.device("cpu")).permute(0, 2, 3, 1).numpy()
    levels = (x * np.array(spec.std, dtype=np.float32) + np.array(spec.mean, dtype=np.float32)) * 255
    pixels: UInt8Array = np.rint(levels).clip(0, 255).astype(np.uint8)
    return pixels


def seen_images(batch: Batch, data: TrainingData, spec: ImageSpec) -> list[SeenImage]:
    """The images of a batch that could be read, in their order."""
    return [
        SeenImage(pixels, _labels(data, batch, i), _name(data, row))
        for i, (row, pixels) in enumerate(zip(batch.rows, as_seen(batch, spec), strict=True))
    ]


def unreadable_of(batch: Batch, data: TrainingData) -> dict[str, str]:
    """The images of a batch that could not be read, by name, with the reason."""
    return {_name(data, row): reason for row, reason in batch.unreadable.items()}


def _labels(data: TrainingData, batch: Batch, i: int) -> tuple[str, ...]:
    own = int(batch.labels[i])
    if own < 0:
        return ()
    if batch.mixed is None:
        return (data.labels[own],)
    others, share = batch.mixed
    return f"{share:.0%} {data.labels[own]}", f"{1 - share:.0%} {data.labels[int(others[i])]}"


def _name(data: TrainingData, row: int) -> str:
    return f"row {row}" if not data.image_id else data.image_id[row]
