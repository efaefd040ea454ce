"""How a network is trained: plain values, each with its default, without torch."""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from retrieval.errors import LmrError

LossName = Literal[
    "arcface", "cosface", "softmax", "linear", "contrastive", "triplet", "multi-similarity", "proxy-anchor"
]
MarginKind = Literal["count", "fixed", "dynamic", "adaptive"]
MinerName = Literal["multi-similarity", "semihard", "hard", "none"]
BackgroundKind = Literal["negatives", "class"]
COSINE_SOFTMAX = ("arcface", "cosface", "softmax")  # a softmax over the cosines to class directions
PAIR_LOSSES = ("contrastive", "triplet", "multi-similarity")  # of pictures against each other: without classes
OptimizerName = Literal["adamw", "sgd"]


@dataclass(frozen=True, slots=True)
class LossConfig:
    """What is minimised.

    margin: how ArcFace's are chosen. `count`: margin_rad for the landmark with the most pictures, margin_rare_rad for
    the one with the fewest, between them by n_c ** -1/4. `fixed`: margin_rad for all. `dynamic`: 0.05 to 0.5 rad by
    n_c ** -1/4 (3rd place, Google Landmark Recognition 2020). `adaptive`: margin_rad, in a form that follows the length
    of each picture's features (Kim et al., AdaFace, 2022).
    margin_cos: CosFace's, subtracted from the cosine. n_centres: directions of one landmark (sub-center ArcFace).
    scale: of the cosines before the softmax. label_smoothing: share of the target that all classes have alike.
    head_hidden, dropout: of the linear head: units of its hidden layer, 0 = none; share of its last inputs dropped.
    class_share: of the landmarks that a step compares with, its batch's among them (An et al., Partial FC, 2021).
    contrastive_cosine: pictures of different landmarks are pushed below this. triplet_margin: by which the cosine of
    two pictures of one landmark must exceed that of different ones. miner: which pairs count.
    background: `negatives` pushes non-landmarks away from every landmark, `class` learns one class for them.
    negative_weight: of the non-landmarks' loss, 0 = none. negative_cosine: a non-landmark's best class similarity is
    pushed below this.
    """

    name: LossName = "arcface"
    margin: MarginKind = "count"
    margin_rad: float = 0.1
    margin_rare_rad: float = 0.4
    margin_cos: float = 0.35
    n_centres: int = 1
    scale: float = 24.0
    label_smoothing: float = 0.0
    head_hidden: int = 0
    dropout: float = 0.0
    class_share: float = 1.0
    contrastive_cosine: float = 0.5
    triplet_margin: float = 0.1
    miner: MinerName = "multi-similarity"
    background: BackgroundKind = "negatives"
    negative_weight: float = 1.0
    negative_cosine: float = 0.2

    def __post_init__(self) -> None:
        _require_choices(
            ("--loss", self.name, LossName),
            ("--margin", self.margin, MarginKind),
            ("--miner", self.miner, MinerName),
            ("--background", self.background, BackgroundKind),
        )
        for option, value in (("--margin-rad", self.margin_rad), ("--margin-rare-rad", self.margin_rare_rad)):
            if not 0 <= value <= math.pi / 2:
                raise LmrError(f"{option} is in radians, 0 to pi/2, got {value}")
        for option, value, low, high in (
            ("--margin-cos", self.margin_cos, 0, 2),
            ("--contrastive-cosine", self.contrastive_cosine, -1, 1),
            ("--triplet-margin", self.triplet_margin, 0, 2),
            ("--negative-cosine", self.negative_cosine, -1, 1),
        ):
            if not low <= value <= high:
                raise LmrError(f"{option} must lie in [{low}, {high}], got {value}")
        for option, value in (("--label-smoothing", self.label_smoothing), ("--dropout", self.dropout)):
            if not 0 <= value < 1:
                raise LmrError(f"{option} must lie in [0, 1), got {value}")
        if not 0 < self.class_share <= 1:
            raise LmrError(f"--class-share must lie in (0, 1], got {self.class_share}")
        if not self.scale > 0:
            raise LmrError(f"--scale must be positive, got {self.scale}")
        if not self.negative_weight >= 0:
            raise LmrError(f"--negative-weight must be 0 or more, got {self.negative_weight}")
        if self.n_centres < 1 or self.head_hidden < 0:
            raise LmrError(
                f"--centres must be 1 or more and --head-hidden 0 or more, got {self.n_centres} and {self.head_hidden}"
            )
        self._require_fit()

    def _require_fit(self) -> None:
        """LmrError when an option was given that this loss does not have."""
        softmaxes = (*COSINE_SOFTMAX, "linear")
        for option, is_used, losses in (
            ("--margin " + self.margin, self.margin in ("dynamic", "adaptive"), ("arcface",)),
            ("--centres", self.n_centres > 1, ("arcface",)),
            ("--label-smoothing", self.label_smoothing > 0, softmaxes),
            ("--head-hidden", self.head_hidden > 0, ("linear",)),
            ("--dropout", self.dropout > 0, ("linear",)),
            ("--class-share", self.class_share < 1, COSINE_SOFTMAX),
            ("--background class", self.background == "class", softmaxes),
        ):
            if is_used and self.name not in losses:
                raise LmrError(f"{option} goes with --loss {' or '.join(losses)}, not with {self.name}")


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
    """How a network is trained. Learning rates are the peaks of a linear warm-up and a cosine to zero."""

    epochs: int = 20
    batch_size: int = 32
    epoch_size: int | None = None
    optimizer: OptimizerName = "adamw"
    backbone_rate: float = 3e-4
    head_rate: float = 2e-3
    weight_decay: float = 1e-4
    warmup: float = 0.15
    clip_norm: float = 5.0
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
        if self.optimizer not in get_args(OptimizerName):
            raise LmrError(f"--optimizer is one of {', '.join(get_args(OptimizerName))}, got {self.optimizer}")
        for option, rate in (("--backbone-rate", self.backbone_rate), ("--head-rate", self.head_rate)):
            if not 0 <= rate < math.inf:
                raise LmrError(f"{option} must be 0 or more, got {rate}")
        if not 0 <= self.warmup <= 1:
            raise LmrError(f"--warmup is a share of the steps, 0 to 1, got {self.warmup}")
        if not self.clip_norm > 0:
            raise LmrError(f"--clip-norm must be positive, got {self.clip_norm}")
        if not self.weight_decay >= 0 or not self.balance >= 0:
            raise LmrError(
                f"--weight-decay and --balance must be 0 or more, got {self.weight_decay} and {self.balance}"
            )
        if self.seed < 0:
            raise LmrError(f"--seed must be 0 or more, got {self.seed}")
        if self.epoch_size is not None and self.epoch_size < 2:
            raise LmrError(f"--epoch-size must be at least 2, got {self.epoch_size}")


def _require_choices(*choices: tuple[str, str, object]) -> None:
    for option, value, kind in choices:
        if value not in get_args(kind):
            raise LmrError(f"{option} is one of {', '.join(get_args(kind))}, got {value}")
