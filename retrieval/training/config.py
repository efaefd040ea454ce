"""How a network is trained: plain values, each with its default, without torch."""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from retrieval.errors import LmrError

LossName = Literal["arcface", "softmax"]
OptimizerName = Literal["adamw", "adam", "sgd", "rmsprop"]
ScheduleName = Literal["cosine", "step", "plateau", "constant"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True, slots=True)
class LossConfig:
    """What is minimised.

    margin_rad: the angular margin of the landmark with the most pictures; margin_rare_rad: of the one with the
    fewest; those between go with n_c ** -1/4 (3rd place, Google Landmark Recognition 2020).
    scale: of the cosines before the softmax. negative_weight: of the non-landmarks' loss, 0 = none.
    negative_cosine: a non-landmark's best class similarity is pushed below this.
    """

    name: LossName = "arcface"
    margin_rad: float = 0.1
    margin_rare_rad: float = 0.4
    scale: float = 24.0
    negative_weight: float = 1.0
    negative_cosine: float = 0.2

    def __post_init__(self) -> None:
        if self.name not in get_args(LossName):
            raise LmrError(f"--loss is one of {', '.join(get_args(LossName))}, got {self.name}")
        for option, value in (("--margin-rad", self.margin_rad), ("--margin-rare-rad", self.margin_rare_rad)):
            if not 0 <= value <= math.pi / 2:
                raise LmrError(f"{option} is in radians, 0 to pi/2, got {value}")
        if not self.scale > 0:
            raise LmrError(f"--scale must be positive, got {self.scale}")
        if not self.negative_weight >= 0:
            raise LmrError(f"--negative-weight must be 0 or more, got {self.negative_weight}")
        if not -1 <= self.negative_cosine <= 1:
            raise LmrError(f"--negative-cosine must lie in [-1, 1], got {self.negative_cosine}")


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """How training pictures vary.

    min_area: smallest share of the picture that a crop keeps. The rest: probabilities and strengths of torchvision's
    v2 transforms of these names.
    """

    min_area: float = 0.35
    flip: float = 0.5
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.02
    greyscale: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.min_area <= 1:
            raise LmrError(f"--min-area must lie in (0, 1], got {self.min_area}")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a network is trained.

    backbone_rate, head_rate: the peaks that a linear warm-up reaches. schedule: what follows it: a cosine to zero, or
    times rate_drop after every rate_drop_epochs (step), or after so many without a better epoch (plateau).
    freeze: `none`, `all` of the backbone, or all but its last n blocks. plain_pictures: prepared as they are embedded.
    accumulate: a step is taken over so many batches as over one. ema: share that the average of the weights keeps of
    itself in a step, 0 = no average. patience: epochs without a larger GAP after which training stops, 0 = never.
    """

    epochs: int = 20
    batch_size: int = 32
    accumulate: int = 1
    epoch_size: int | None = None
    freeze: str = "none"
    plain_pictures: bool = False
    optimizer: OptimizerName = "adamw"
    backbone_rate: float = 3e-4
    head_rate: float = 2e-3
    schedule: ScheduleName = "cosine"
    warmup: float = 0.15
    rate_drop: float = 0.2
    rate_drop_epochs: int = 3
    weight_decay: float = 1e-4
    clip_norm: float = 5.0
    ema: float = 0.0
    patience: int = 0
    precision: PrecisionName = "auto"
    compile: bool = False
    balance: float = 0.5
    negative_share: float = 0.25
    seed: int = 0
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        for option, value in (("--epochs", self.epochs), ("--batch-size", self.batch_size - 1)):
            if value < 1:
                raise LmrError(f"{option} is too small; training needs at least 1 epoch and batches of 2")
        if not 0 <= self.negative_share < 1:
            raise LmrError(f"--negative-share must lie in [0, 1), got {self.negative_share}")
        self._check_names()
        self._check_rates()
        if not self.clip_norm > 0:
            raise LmrError(f"--clip-norm must be positive, got {self.clip_norm}")
        if not self.weight_decay >= 0 or not self.balance >= 0:
            raise LmrError(
                f"--weight-decay and --balance must be 0 or more, got {self.weight_decay} and {self.balance}"
            )
        if self.epoch_size is not None and self.epoch_size < 2:
            raise LmrError(f"--epoch-size must be at least 2, got {self.epoch_size}")
        for option, value, least in (
            ("--seed", self.seed, 0),
            ("--accumulate", self.accumulate, 1),
            ("--patience", self.patience, 0),
            ("--rate-drop-epochs", self.rate_drop_epochs, 1),
        ):
            if value < least:
                raise LmrError(f"{option} must be {least} or more, got {value}")
        if not 0 <= self.ema < 1:
            raise LmrError(f"--ema must lie in [0, 1), got {self.ema}")

    def _check_names(self) -> None:
        for option, name, known in (
            ("--optimizer", self.optimizer, get_args(OptimizerName)),
            ("--schedule", self.schedule, get_args(ScheduleName)),
            ("--precision", self.precision, get_args(PrecisionName)),
        ):
            if name not in known:
                raise LmrError(f"{option} is one of {', '.join(known)}, got {name}")
        if self.freeze not in ("none", "all") and (not self.freeze.isdecimal() or int(self.freeze) < 1):
            raise LmrError(
                f"--freeze is none, all, or how many blocks at the end are trained, 1 or more, got {self.freeze}"
            )

    def _check_rates(self) -> None:
        for option, rate in (("--backbone-rate", self.backbone_rate), ("--head-rate", self.head_rate)):
            if not 0 <= rate < math.inf:
                raise LmrError(f"{option} must be 0 or more, got {rate}")
        if not 0 <= self.warmup <= 1:
            raise LmrError(f"--warmup is a share of the steps, 0 to 1, got {self.warmup}")
        if not 0 < self.rate_drop < 1:
            raise LmrError(f"--rate-drop is a factor between 0 and 1, got {self.rate_drop}")
