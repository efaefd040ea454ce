"""Training images: decoded just large enough, then cropped, mirrored, moved, recoloured and damaged at random."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from retrieval.arrays import IntArray
from retrieval.errors import UnreadableError
from retrieval.images.bytes_source import Source
from retrieval.images.decode import decode
from retrieval.images.spec import ImageSpec
from retrieval.train.config import AugmentConfig

BLUR_SIGMA_PX = (0.1, 2.0)  # Chen et al., SimCLR, 2020, appendix A
BLUR_KERNEL_PX = 13  # three sigma to each side
JPEG_QUALITY = (30, 90)  # from what is plainly damaged to what a camera writes
GOLDEN = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio (Knuth, TAOCP 3, section 6.4)


def augmentation(spec: ImageSpec, config: AugmentConfig, areas: tuple[float, float] | None = None) -> v2.Compose:
    """PIL image -> uint8 tensor (3, size, size).

    areas: shares of the image that a crop keeps, smallest and largest; None = from config.min_area to all of it.
    What a rotation or shift uncovers and what is erased has the mean colour. A step that is off draws no random number.
    """
    interpolation = InterpolationMode.BICUBIC if spec.resample == "bicubic" else InterpolationMode.BILINEAR
    ground = [round(255 * value) for value in spec.mean]
    steps: list[Any] = [
        v2.RandomResizedCrop(spec.size, scale=areas or (config.min_area, 1.0), interpolation=interpolation),
        v2.RandomHorizontalFlip(config.flip),
        v2.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue),
        v2.RandomGrayscale(config.greyscale),
    ]
    if config.rotation or config.shift or config.zoom:
        shift, scale = (config.shift, config.shift), (1 - config.zoom, 1 + config.zoom)
        steps.append(v2.RandomAffine(config.rotation, shift, scale, interpolation=interpolation, fill=ground))
    if config.blur:
        steps.append(v2.RandomApply([v2.GaussianBlur(BLUR_KERNEL_PX, BLUR_SIGMA_PX)], config.blur))
    if config.jpeg:
        steps.append(v2.RandomApply([v2.JPEG(JPEG_QUALITY)], config.jpeg))  # by Pillow: torchvision drops its own
    steps.append(v2.PILToTensor())
    if config.erasing:
        steps.append(v2.RandomErasing(config.erasing, value=ground))
    return v2.Compose(steps)


def repeat_place(seed: int) -> float:
    """Place of a repeat in [0, 1); those of n consecutive seeds are at most 1.9 / n apart (three-gap theorem)."""
    return (seed * GOLDEN % 2**64) / 2**64


class TrainingImages:
    """Augmented images, each a function of its row and its seed alone, so that the number of workers changes nothing.

    Items are addressed by (row, seed) and are (row, uint8 tensor (3, size, size)), or (row, reason) if unreadable.
    A seed below zero is that of one of several repeats of the row in an epoch. All that is random is drawn from it,
    but for the area of the crop: `repeat_place` of the way from config.min_area to the whole image, so that the
    repeats show from little to all of it in even steps.
    """

    def __init__(self, source: Source, spec: ImageSpec, config: AugmentConfig) -> None:
        self.source = source
        self.spec = spec
        self.config = config
        self.augment = augmentation(spec, config)
        self.min_side = int(spec.size / config.min_area**0.5)

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, Tensor | str]:
        row, seed = key
        try:
            image = decode(self.source.read(row), self.min_side, colors=self.spec.colors)
        except UnreadableError as error:
            return row, str(error)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return row, (self.augment if seed >= 0 else self._of_repeat(seed))(image)

    def _of_repeat(self, seed: int) -> v2.Compose:
        smallest = self.config.min_area
        area = smallest + repeat_place(seed) * (1 - smallest)
        return augmentation(self.spec, self.config, (area, area))


@dataclass(frozen=True, slots=True)
class Batch:
    """Images as they go into a step.

    rows: of the b images. images: (b, 3, size, size) uint8. labels: (b,) int64, negative = non-landmark.
    unreadable: row -> reason. mixed: (b,) int64 labels of what is pasted into the images, and the share of the area
    that still is of their own labels; None = nothing is.
    """

    rows: tuple[int, ...]
    images: Tensor
    labels: Tensor
    unreadable: dict[int, str]
    mixed: tuple[Tensor, float] | None = None

    def pin_memory(self) -> "Batch":
        """The same, its images where a GPU copies them from while it computes."""
        return replace(self, images=self.images.pin_memory())

    def __reduce__(self) -> tuple[Any, ...]:
        """Through arrays, which are pickled in a fraction of the time of tensors."""
        return _batch_of_arrays, (self.rows, self.images.numpy(), self.labels.numpy(), self.unreadable)


def _batch_of_arrays(rows: tuple[int, ...], images: Any, labels: Any, unreadable: dict[int, str]) -> Batch:
    return Batch(rows, torch.from_numpy(images), torch.from_numpy(labels), unreadable)


class Collate:
    """Joins items into a Batch, leaving unreadable images out."""

    def __init__(self, landmark: IntArray) -> None:
        self.landmark = landmark

    def __call__(self, items: list[tuple[int, Tensor | str]]) -> Batch:
        """Items of TrainingImages -> Batch; it may be empty."""
        read = [(row, item) for row, item in items if isinstance(item, Tensor)]
        images = torch.stack([item for _, item in read]) if read else torch.empty(0, 3, 1, 1, dtype=torch.uint8)
        labels = torch.tensor([int(self.landmark[row]) for row, _ in read], dtype=torch.int64)
        rows = tuple(row for row, _ in read)
        return Batch(rows, images, labels, {row: item for row, item in items if isinstance(item, str)})


def mix(batch: Batch, config: AugmentConfig, generator: torch.Generator) -> Batch:
    """CutMix (Yun et al. 2019, with alpha = 1): with probability config.cutmix, each landmark image gets a rectangle
    of another one.

    Non-landmarks stay as they are. The loss of a mixed batch is share * loss(labels) + (1 - share) * loss(others).
    """
    known = torch.nonzero(batch.labels >= 0).flatten()
    if not config.cutmix or len(known) < 2 or torch.rand((), generator=generator) >= config.cutmix:
        return batch
    known = known[torch.randperm(len(known), generator=generator)]  # images of one landmark may stand together
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        cut, whose = v2.CutMix()(batch.images[known], torch.eye(len(known)))
    share = float(whose[0, 0])
    donor = whose.fill_diagonal_(-1).argmax(dim=1)
    images, others = batch.images.clone(), batch.labels.clone()
    images[known], others[known] = cut, batch.labels[known[donor]]
    return replace(batch, images=images, mixed=(others, share))
