"""Configuration of training: plain values, each with its default and its help, without torch."""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from retrieval.errors import LmrError
from retrieval.jobs import option
from retrieval.split.quotas import Rare
from retrieval.train.loss_config import PAIR_LOSSES, LossConfig

MOST_JITTER = 10  # how far a factor of brightness, contrast or saturation goes
MOST_BALANCE = 10  # beyond it, the weights of frequent landmarks are too small for a number
MOST_EPOCHS = 1_000_000
MOST_AT_ONCE = 1_000_000  # images of a step, or of a landmark
MOST_IMAGES = 100_000_000  # of an epoch
OptimizerName = Literal["adamw", "adam", "sgd", "rmsprop"]
ScheduleName = Literal["cosine", "step", "plateau", "constant"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """Augmentation of training images; brightness, contrast, saturation and hue as of torchvision's ColorJitter."""

    min_area: float = option(0.35, help="Smallest share of an image that a random crop keeps.")
    flip: float = option(0.5, help="Probability of a horizontal flip.")
    brightness: float = option(0.3, help="Brightness factor, from 1 - this to 1 + this.")
    contrast: float = option(0.3, help="Contrast factor, from 1 - this to 1 + this.")
    saturation: float = option(0.3, help="Saturation factor, from 1 - this to 1 + this.")
    hue: float = option(0.02, help="Hue shift, up to this share of the colour circle either way.")
    greyscale: float = option(0.1, help="Probability of greyscale.")
    rotation: float = option(0.0, help="Rotation, up to this many degrees either way.")
    shift: float = option(0.0, help="Translation, up to this share of the side in both directions.")
    zoom: float = option(0.0, help="Zoom factor, from 1 - this to 1 + this.")
    blur: float = option(0.0, help="Probability of a Gaussian blur.")
    jpeg: float = option(0.0, help="Probability of JPEG compression.")
    erasing: float = option(0.0, help="Probability of random erasing.")
    cutmix: float = option(0.0, help="Probability of CutMix in a batch; with `loss` softmax or linear.")

    def __post_init__(self) -> None:
        if not 0 < self.min_area <= 1:
            raise LmrError(f"`min_area` must lie in (0, 1], got {self.min_area}")
        for name in ("flip", "greyscale", "blur", "jpeg", "erasing", "cutmix"):
            if not 0 <= getattr(self, name) <= 1:
                raise LmrError(f"`{name}` is a probability, 0 to 1, got {getattr(self, name)}")
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= MOST_JITTER:
                raise LmrError(f"`{name}` must be 0 to {MOST_JITTER}, got {getattr(self, name)}")
        if not 0 <= self.hue <= 0.5:
            raise LmrError(f"`hue` is a share of the colour circle, 0 to 0.5, got {self.hue}")
        if not 0 <= self.rotation <= 180:
            raise LmrError(f"`rotation` is in degrees, 0 to 180, got {self.rotation}")
        for name in ("shift", "zoom"):
            if not 0 <= getattr(self, name) < 1:
                raise LmrError(f"`{name}` must lie in [0, 1), got {getattr(self, name)}")

    @property
    def tells_repeats_apart(self) -> bool:
        """True if two draws of an image differ: one of the ranges that every draw takes a number from is open."""
        jitter = (self.brightness, self.contrast, self.saturation, self.hue)
        return self.min_area < 1 or any((*jitter, self.rotation, self.shift, self.zoom))


@dataclass(frozen=True, slots=True)
class BalanceConfig:
    """Sampling: which images are used, and how often.

    cap: the subset stays the same for all epochs. member: ensembles of random under-sampling (ERUS).
    """

    balance: float = option(0.5, help="Exponent a of the sampling weight n_c^-a of a landmark with n_c images.")
    negative_share: float = option(0.25, help="Share of a batch that is non-landmarks.")
    cap: int = option(0, help="Most images of a landmark that are used, a random subset fixed for all epochs; 0 = all.")
    member: int = option(0, help="Random subset that `cap` takes, one for each network of an ensemble.")
    floor: int = option(
        0, help="Landmarks with fewer images repeat them up to this many in an epoch, each time augmented anew."
    )
    min_per_landmark: int = option(0, help="Landmarks with fewer images are rare.")
    rare: Rare = option("non-landmark", help="Use of the images of rare landmarks.")
    per_landmark: int = option(0, help="Images of a landmark together in a batch, for pair losses; 0 = any number.")

    def __post_init__(self) -> None:
        if not 0 <= self.balance <= MOST_BALANCE:
            raise LmrError(f"`balance` must be 0 to {MOST_BALANCE}, got {self.balance}")
        if not 0 <= self.negative_share < 1:
            raise LmrError(f"`negative_share` must lie in [0, 1), got {self.negative_share}")
        for name in ("cap", "member", "floor", "min_per_landmark", "per_landmark"):
            if getattr(self, name) < 0:
                raise LmrError(f"`{name}` must be 0 or more, got {getattr(self, name)}")
            if getattr(self, name) > MOST_AT_ONCE:
                most = f"{MOST_AT_ONCE:,}"
                raise LmrError(f"`{name}` must be {most} or less, got {getattr(self, name)}")
        if self.member and not self.cap:
            raise LmrError(f"`member` {self.member} chooses among the subsets that `cap` leaves; give `cap` too")
        if self.cap and self.floor > self.cap:
            raise LmrError(f"`floor` {self.floor} lies above `cap` {self.cap}; lower it")
        if self.rare not in get_args(Rare):
            raise LmrError(f"`rare` is one of {', '.join(get_args(Rare))}, got {self.rare}")
        if self.per_landmark == 1:
            raise LmrError("`per_landmark` must be 0 (any number) or at least 2, got 1")


@dataclass(frozen=True, slots=True)
class DistillationConfig:
    """Distillation from a teacher, besides the loss over landmarks; 0 = none.

    distill_cosine: 1 - cosine to the teacher's descriptor, after a linear map that is trained and then dropped.
    distill_relations: squared difference of the cosines of all pairs of a batch.
    """

    distill_cosine: float = option(0.0, help="With `teacher`: weight of the cosine to its descriptors.")
    distill_relations: float = option(10.0, help="With `teacher`: weight of the cosines between all images of a batch.")

    def __post_init__(self) -> None:
        for name in ("distill_cosine", "distill_relations"):
            if not 0 <= getattr(self, name) < math.inf:
                raise LmrError(f"`{name}` must be 0 or more, got {getattr(self, name)}")
        if not (self.distill_cosine or self.distill_relations):
            raise LmrError("`distill_cosine` and `distill_relations` are both 0; give one, or no `teacher`")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Training of a network.

    backbone_rate, head_rate: peaks that a linear warm-up reaches. schedule: what follows it: a cosine to zero, or
    times rate_drop after every rate_drop_epochs (step), or after so many without a better epoch (plateau).
    """

    epochs: int = option(20, help="Passes over the images.")
    batch_size: int = option(32, help="Images in a batch.")
    accumulate: int = option(1, help="Batches of one optimizer step (gradient accumulation).")
    epoch_size: int | None = option(None, default_text="all", help="Landmark images in an epoch.")
    freeze: str = option("none", help="Frozen part of the backbone: none, all, or N for all but the last N blocks.")
    plain_pictures: bool = option(
        False, help="Train without augmentation; with `freeze` all the features are computed once."
    )
    optimizer: OptimizerName = option("adamw", help="Optimizer.")
    backbone_rate: float = option(3e-4, help="Peak learning rate of the backbone.")
    head_rate: float = option(2e-3, help="Peak learning rate of the neck and the class directions.")
    schedule: ScheduleName = option(
        "cosine",
        help="Learning rate schedule after the warm-up; plateau: when GAP, or without `val` the loss, gets no better.",
    )
    warmup: float = option(0.15, help="Share of the steps in which the learning rates rise.")
    rate_drop: float = option(0.2, help="Factor of the schedules step and plateau.")
    rate_drop_epochs: int = option(
        3, help="Epochs between drops (step), or without a better one before a drop (plateau)."
    )
    weight_decay: float = option(1e-4, help="Weight decay; norm and bias parameters are exempt.")
    clip_norm: float = option(5.0, help="Gradient clipping: largest norm.")
    ema: float = option(
        0.0, help="Decay of an exponential moving average of the weights, which is then validated and kept; 0 = none."
    )
    patience: int = option(0, help="Early stopping: epochs without a larger GAP (needs `val`); 0 = never.")
    precision: PrecisionName = option("auto", help="Precision of the network; auto: fast on a GPU, fp32 on a CPU.")
    compile: bool = option(False, help="Compile the backbone first (torch.compile).")
    seed: int = option(0, help="Random seed.")
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    sampling: BalanceConfig = field(default_factory=BalanceConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)

    def __post_init__(self) -> None:
        for word, value in (("`epochs`", self.epochs), ("`batch_size`", self.batch_size - 1)):
            if value < 1:
                raise LmrError(f"{word} is too small; training needs at least 1 epoch and batches of 2")
        self._check_names()
        self._check_rates()
        if not 0 < self.clip_norm < math.inf:
            raise LmrError(f"`clip_norm` must be a positive number, got {self.clip_norm}; a large one clips nothing")
        if not 0 <= self.weight_decay < math.inf:
            raise LmrError(f"`weight_decay` must be 0 or more, got {self.weight_decay}")
        if self.epoch_size is not None and self.epoch_size < 2:
            raise LmrError(f"`epoch_size` must be at least 2, got {self.epoch_size}")
        for word, value, most in (
            ("`epochs`", self.epochs, MOST_EPOCHS),
            ("`batch_size` times `accumulate`", self.batch_size * self.accumulate, MOST_AT_ONCE),
            ("`epoch_size`", self.epoch_size or 0, MOST_IMAGES),
        ):
            if value > most:
                raise LmrError(f"{word} must be {most:,} or less, got {value}")
        if self.plain_pictures and self.augment.cutmix:
            raise LmrError("`cutmix` alters pictures, `plain_pictures` leaves them as they are; give one of them")
        if self.sampling.floor and (self.plain_pictures or not self.augment.tells_repeats_apart):
            raise LmrError("`floor` repeats pictures, but the augmentation never changes them; give `min_area` below 1")
        if self.augment.cutmix and self.loss.name not in ("softmax", "linear"):
            raise LmrError(f"`cutmix` mixes the labels of `loss` softmax or linear, got `loss` {self.loss.name}")
        if self.augment.cutmix and self.loss.class_share < 1:
            raise LmrError("`cutmix` needs the landmarks of two pictures, `class_share` draws those of one; give one")
        if self.sampling.per_landmark and self.accumulate > 1:
            raise LmrError("`per_landmark` keeps pictures together in a batch; it goes with `accumulate` 1")
        if self.loss.name in PAIR_LOSSES and self.sampling.per_landmark < 2:
            raise LmrError(f"`loss` {self.loss.name} compares pictures of a landmark; give `per_landmark` 2 or more")
        for word, value, least in (
            ("`seed`", self.seed, 0),
            ("`accumulate`", self.accumulate, 1),
            ("`patience`", self.patience, 0),
            ("`rate_drop_epochs`", self.rate_drop_epochs, 1),
        ):
            if value < least:
                raise LmrError(f"{word} must be {least} or more, got {value}")
        if self.seed >= 2**32:
            raise LmrError(f"`seed` must lie below 2**32, got {self.seed}")
        if not 0 <= self.ema < 1:
            raise LmrError(f"`ema` must lie in [0, 1), got {self.ema}")

    def _check_names(self) -> None:
        for word, name, known in (
            ("`optimizer`", self.optimizer, get_args(OptimizerName)),
            ("`schedule`", self.schedule, get_args(ScheduleName)),
            ("`precision`", self.precision, get_args(PrecisionName)),
        ):
            if name not in known:
                raise LmrError(f"{word} is one of {', '.join(known)}, got {name}")
        if self.freeze not in ("none", "all") and (not self.freeze.isdecimal() or int(self.freeze) < 1):
            raise LmrError(
                f"`freeze` is none, all, or how many blocks at the end are trained, 1 or more, got {self.freeze}"
            )

    def _check_rates(self) -> None:
        for word, rate in (("`backbone_rate`", self.backbone_rate), ("`head_rate`", self.head_rate)):
            if not 0 <= rate < math.inf:
                raise LmrError(f"{word} must be 0 or more, got {rate}")
        if not 0 <= self.warmup <= 1:
            raise LmrError(f"`warmup` is a share of the steps, 0 to 1, got {self.warmup}")
        if not 0 < self.rate_drop < 1:
            raise LmrError(f"`rate_drop` is a factor between 0 and 1, got {self.rate_drop}")
