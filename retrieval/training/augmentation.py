"""Training pictures: decoded just large enough, then cropped, mirrored and recoloured at random."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import InterpolationMode, v2

from retrieval.arrays import IntArray
from retrieval.errors import UnreadableError
from retrieval.images import ImageSpec, decode
from retrieval.sources import Source
from retrieval.training.config import AugmentConfig


def augmentation(spec: ImageSpec, config: AugmentConfig) -> v2.Compose:
    """PIL picture -> uint8 tensor (3, size, size)."""
    interpolation = InterpolationMode.BICUBIC if spec.resample == "bicubic" else InterpolationMode.BILINEAR
    crop = v2.RandomResizedCrop(spec.size, scale=(config.min_area, 1.0), interpolation=interpolation)
    jitter = v2.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue)
    steps: list[Any] = [
        crop,
        v2.RandomHorizontalFlip(config.flip),
        jitter,
        v2.RandomGrayscale(config.greyscale),
    ]
    return v2.Compose([*steps, v2.PILToTensor()])


class TrainingPictures(Dataset[tuple[int, Tensor | str]]):
    """Augmented pictures, each a function of its row and its seed alone, so that the number of workers changes nothing.

    Items are addressed by (row, seed) and are (row, uint8 tensor (3, size, size)), or (row, reason) if unreadable.
    """

    def __init__(self, source: Source, spec: ImageSpec, config: AugmentConfig) -> None:
        self.source = source
        self.augment = augmentation(spec, config)
        self.min_side = int(spec.size / config.min_area**0.5)

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, Tensor | str]:
        row, seed = key
        try:
            picture = decode(self.source.read(row), self.min_side)
        except UnreadableError as error:
            return row, str(error)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return row, self.augment(picture)


@dataclass(frozen=True, slots=True)
class Batch:
    """pictures: (b, 3, size, size) uint8. labels: (b,) int64, negative = non-landmark. unreadable: row -> reason."""

    pictures: Tensor
    labels: Tensor
    unreadable: dict[int, str]


class Collate:
    """Joins items into a Batch, leaving unreadable pictures out."""

    def __init__(self, landmark: IntArray) -> None:
        self.landmark = landmark

    def __call__(self, items: list[tuple[int, Tensor | str]]) -> Batch:
        """Items of TrainingPictures -> Batch; it may be empty."""
        read = [(row, item) for row, item in items if isinstance(item, Tensor)]
        pictures = torch.stack([item for _, item in read]) if read else torch.empty(0, 3, 1, 1, dtype=torch.uint8)
        labels = torch.tensor([int(self.landmark[row]) for row, _ in read], dtype=torch.int64)
        return Batch(pictures, labels, {row: item for row, item in items if isinstance(item, str)})
