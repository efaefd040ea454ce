"""lmr train --show-batch: the first batch of a training, drawn as the network would see it."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cli.progress import list_unreadable
from retrieval.errors import LmrError
from retrieval.images.preprocess import ImageSpec
from retrieval.train.config import TrainConfig

if TYPE_CHECKING:
    from retrieval.arrays import UInt8Array
    from retrieval.train.augment import Batch
    from retrieval.train.data import TrainingData


def show_batch(path: Path, data: "TrainingData", spec: ImageSpec, config: TrainConfig) -> int:
    """Writes the sheet of the first batch and returns how many pictures are on it; nothing is trained.

    Raises LmrError when none of its pictures can be read or the sheet cannot be written.
    """
    from cli.report.batch_sheet import BatchPicture, save_batch_sheet

    batch = first_batch(data, spec, config)
    list_unreadable({_name(data, row): reason for row, reason in batch.unreadable.items()}, 0, 0)
    if not batch.rows:
        raise LmrError(
            f"no picture of the first batch can be read ({next(iter(batch.unreadable.values()))}); check --images"
        )
    pictures = [
        BatchPicture(pixels, _labels(data, batch, i), _name(data, row))
        for i, (row, pixels) in enumerate(zip(batch.rows, as_seen(batch, spec), strict=True))
    ]
    save_batch_sheet(path, pictures)
    return len(pictures)


def first_batch(data: "TrainingData", spec: ImageSpec, config: TrainConfig) -> "Batch":
    """The batch of the first step of a training with this configuration."""
    import torch

    from retrieval.train.augment import mix
    from retrieval.train.loader import feed, pictures_of
    from retrieval.train.run import Run
    from retrieval.train.step import step_seed

    run = Run(Path(), torch.device("cpu"), n_workers=0)
    with closing(feed(data, pictures_of(data, spec, config), config, run)) as batches:
        batch, *_ = next(batches)
    return mix(batch, config.augment, torch.Generator().manual_seed(step_seed(config.seed, 0)))


def as_seen(batch: "Batch", spec: ImageSpec) -> "UInt8Array":
    """(b, size, size, 3) the network's input, with the normalisation taken back."""
    import torch

    from retrieval.models.network import to_input

    x = to_input(batch.pictures, spec, torch.device("cpu")).permute(0, 2, 3, 1).numpy()
    levels = (x * np.array(spec.std, dtype=np.float32) + np.array(spec.mean, dtype=np.float32)) * 255
    pixels: UInt8Array = np.rint(levels).clip(0, 255).astype(np.uint8)
    return pixels


def _labels(data: "TrainingData", batch: "Batch", i: int) -> tuple[str, ...]:
    """What picture i counts as, with the shares where it is mixed; () = no known landmark."""
    own = int(batch.labels[i])
    if own < 0:
        return ()
    if batch.mixed is None:
        return (data.labels[own],)
    others, share = batch.mixed
    return f"{share:.0%} {data.labels[own]}", f"{1 - share:.0%} {data.labels[int(others[i])]}"


def _name(data: "TrainingData", row: int) -> str:
    return f"row {row}" if not data.image_id else data.image_id[row]
