"""How a network is trained: plain values, each with its default, without torch."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from retrieval.errors import LmrError
from retrieval.models.config import MOST_DIMENSIONS
from retrieval.split.roles import Rare

LossName = Literal[
    "arcface", "cosface", "softmax", "linear", "contrastive", "triplet", "multi-similarity", "proxy-anchor"
]
MarginKind = Literal["count", "fixed", "dynamic", "adaptive"]
MinerName = Literal["multi-similarity", "semihard", "hard", "none"]
BackgroundKind = Literal["negatives", "class"]
MOST_CENTRES = 100  # of a landmark
MOST_JITTER = 10  # how far a factor of brightness, contrast or saturation goes
MOST_BALANCE = 10  # beyond it, the weights of frequent landmarks are too small for a number
MOST_EPOCHS = 1_000_000
MOST_AT_ONCE = 1_000_000  # pictures of a step, or of a landmark
MOST_PICTURES = 100_000_000  # of an epoch
COSINE_SOFTMAX = ("arcface", "cosface", "softmax")  # a softmax over the cosines to class directions
PAIR_LOSSES = ("contrastive", "triplet", "multi-similarity")  # of pictures against each other: without classes
_SOFTMAXES = (*COSINE_SOFTMAX, "linear")
_LOSSES_OF = {  # an option -> the losses that read it; the others are read by all
    "margin": ("arcface",),
    "margin_rad": ("arcface",),
    "margin_rare_rad": ("arcface",),
    "margin_cos": ("cosface",),
    "n_centres": ("arcface",),
    "scale": (*COSINE_SOFTMAX, "proxy-anchor"),
    "label_smoothing": _SOFTMAXES,
    "head_hidden": ("linear",),
    "dropout": ("linear",),
    "class_share": COSINE_SOFTMAX,
    "contrastive_cosine": ("contrastive",),
    "triplet_margin": ("triplet",),
    "miner": PAIR_LOSSES,
    "negative_cosine": (*COSINE_SOFTMAX, "proxy-anchor"),
}
_MARGINS_OF = {"margin_rad": ("count", "fixed", "adaptive"), "margin_rare_rad": ("count",)}
OptimizerName = Literal["adamw", "adam", "sgd", "rmsprop"]
ScheduleName = Literal["cosine", "step", "plateau", "constant"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]


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
        if not 0 < self.scale < math.inf:
            raise LmrError(f"--scale must be positive, got {self.scale}")
        if not 0 <= self.negative_weight < math.inf:
            raise LmrError(f"--negative-weight must be 0 or more, got {self.negative_weight}")
        if not 1 <= self.n_centres <= MOST_CENTRES:
            raise LmrError(f"--centres must be 1 to {MOST_CENTRES}, got {self.n_centres}")
        if not 0 <= self.head_hidden <= MOST_DIMENSIONS:
            raise LmrError(f"--head-hidden must be 0 to {MOST_DIMENSIONS:,}, got {self.head_hidden}")
        switches = {
            "margin": self.margin in ("dynamic", "adaptive"),
            "n_centres": self.n_centres > 1,
            "label_smoothing": self.label_smoothing > 0,
            "head_hidden": self.head_hidden > 0,
            "dropout": self.dropout > 0,
            "class_share": self.class_share < 1,
        }
        self.require_used(name for name, is_on in switches.items() if is_on)
        if self.background == "class":
            _require_one_of("--background class", "--loss", self.name, _SOFTMAXES)

    def require_used(self, names: Iterable[str]) -> None:
        """LmrError when this loss does not read one of these fields. names: fields, or others, which all may have."""
        mines_triplets = self.miner in ("semihard", "hard")  # which has a margin too
        losses = _LOSSES_OF | ({"triplet_margin": PAIR_LOSSES} if mines_triplets else {})
        for name in names:
            option = "--" + name.removeprefix("n_").replace("_", "-")
            _require_one_of(option, "--loss", self.name, losses.get(name, (self.name,)))
            _require_one_of(option, "--margin", self.margin, _MARGINS_OF.get(name, (self.margin,)))


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """How training pictures vary.

    min_area: smallest share of the picture that a crop keeps. brightness, contrast, saturation, hue: strengths of
    torchvision's ColorJitter. rotation: up to so many degrees either way. shift: up to this share of the side. zoom:
    scales from 1 - zoom to 1 + zoom. The rest are probabilities; cutmix: that a batch is mixed.
    """

    min_area: float = 0.35
    flip: float = 0.5
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.02
    greyscale: float = 0.1
    rotation: float = 0.0
    shift: float = 0.0
    zoom: float = 0.0
    blur: float = 0.0
    jpeg: float = 0.0
    erasing: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.min_area <= 1:
            raise LmrError(f"--min-area must lie in (0, 1], got {self.min_area}")
        for name in ("flip", "greyscale", "blur", "jpeg", "erasing", "cutmix"):
            if not 0 <= getattr(self, name) <= 1:
                raise LmrError(f"--{name} is a probability, 0 to 1, got {getattr(self, name)}")
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= MOST_JITTER:
                raise LmrError(f"--{name} must be 0 to {MOST_JITTER}, got {getattr(self, name)}")
        if not 0 <= self.hue <= 0.5:
            raise LmrError(f"--hue is a share of the colour circle, 0 to 0.5, got {self.hue}")
        if not 0 <= self.rotation <= 180:
            raise LmrError(f"--rotation is in degrees, 0 to 180, got {self.rotation}")
        for name in ("shift", "zoom"):
            if not 0 <= getattr(self, name) < 1:
                raise LmrError(f"--{name} must lie in [0, 1), got {getattr(self, name)}")

    @property
    def tells_repeats_apart(self) -> bool:
        """Whether two draws of a picture differ: one of the ranges that every draw takes a number from is open."""
        jitter = (self.brightness, self.contrast, self.saturation, self.hue)
        return self.min_area < 1 or any((*jitter, self.rotation, self.shift, self.zoom))


@dataclass(frozen=True, slots=True)
class BalanceConfig:
    """Which pictures are used, and how often.

    balance: a in n_c ** -a, the weight of a picture of a landmark with n_c pictures (0: every picture alike, 1: every
    landmark alike). negative_share: of a batch that is non-landmarks.
    The rest are numbers of pictures of a landmark, 0 = as many as there are. cap: at most this many, a random subset
    that stays the same for all epochs. member: which random subset, for ensembles of random under-sampling (ERUS).
    floor: landmarks with fewer are drawn as if they had this many. min_per_landmark, rare: landmarks with fewer
    pictures, and what becomes of those. per_landmark: pictures of a landmark that stand in a batch together, for losses
    over pairs.
    """

    balance: float = 0.5
    negative_share: float = 0.25
    cap: int = 0
    member: int = 0
    floor: int = 0
    min_per_landmark: int = 0
    rare: Rare = "non-landmark"
    per_landmark: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.balance <= MOST_BALANCE:
            raise LmrError(f"--balance must be 0 to {MOST_BALANCE}, got {self.balance}")
        if not 0 <= self.negative_share < 1:
            raise LmrError(f"--negative-share must lie in [0, 1), got {self.negative_share}")
        for name in ("cap", "member", "floor", "min_per_landmark", "per_landmark"):
            if getattr(self, name) < 0:
                raise LmrError(f"--{name.replace('_', '-')} must be 0 or more, got {getattr(self, name)}")
            if getattr(self, name) > MOST_AT_ONCE:
                most = f"{MOST_AT_ONCE:,}"
                raise LmrError(f"--{name.replace('_', '-')} must be {most} or less, got {getattr(self, name)}")
        if self.member and not self.cap:
            raise LmrError(f"--member {self.member} chooses among the subsets that --cap leaves; give --cap too")
        if self.cap and self.floor > self.cap:
            raise LmrError(f"--floor {self.floor} lies above --cap {self.cap}; lower it")
        if self.rare not in get_args(Rare):
            raise LmrError(f"--rare is one of {', '.join(get_args(Rare))}, got {self.rare}")
        if self.per_landmark == 1:
            raise LmrError("--per-landmark must be 0 (any number) or at least 2, got 1")


@dataclass(frozen=True, slots=True)
class DistillationConfig:
    """How a network imitates a teacher, besides its loss over landmarks; 0 = not.

    distill_cosine: weight of 1 - cosine to the teacher's descriptor, after a linear map that is trained and then
    forgotten. distill_relations: weight of the squared difference of the cosines of all pairs of a batch.
    """

    distill_cosine: float = 0.0
    distill_relations: float = 10.0

    def __post_init__(self) -> None:
        for name in ("distill_cosine", "distill_relations"):
            if not 0 <= getattr(self, name) < math.inf:
                raise LmrError(f"--{name.replace('_', '-')} must be 0 or more, got {getattr(self, name)}")
        if not (self.distill_cosine or self.distill_relations):
            raise LmrError("--distill-cosine and --distill-relations are both 0; give one, or no --teacher")


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
    seed: int = 0
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    sampling: BalanceConfig = field(default_factory=BalanceConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)

    def __post_init__(self) -> None:
        for option, value in (("--epochs", self.epochs), ("--batch-size", self.batch_size - 1)):
            if value < 1:
                raise LmrError(f"{option} is too small; training needs at least 1 epoch and batches of 2")
        self._check_names()
        self._check_rates()
        if not 0 < self.clip_norm < math.inf:
            raise LmrError(f"--clip-norm must be a positive number, got {self.clip_norm}; a large one clips nothing")
        if not 0 <= self.weight_decay < math.inf:
            raise LmrError(f"--weight-decay must be 0 or more, got {self.weight_decay}")
        if self.epoch_size is not None and self.epoch_size < 2:
            raise LmrError(f"--epoch-size must be at least 2, got {self.epoch_size}")
        for option, value, most in (
            ("--epochs", self.epochs, MOST_EPOCHS),
            ("--batch-size times --accumulate", self.batch_size * self.accumulate, MOST_AT_ONCE),
            ("--epoch-size", self.epoch_size or 0, MOST_PICTURES),
        ):
            if value > most:
                raise LmrError(f"{option} must be {most:,} or less, got {value}")
        if self.plain_pictures and self.augment.cutmix:
            raise LmrError("--cutmix alters pictures, --plain-pictures leaves them as they are; give one of them")
        if self.sampling.floor and (self.plain_pictures or not self.augment.tells_repeats_apart):
            raise LmrError("--floor repeats pictures, but the augmentation never changes them; give --min-area below 1")
        if self.augment.cutmix and self.loss.name not in ("softmax", "linear"):
            raise LmrError(f"--cutmix mixes the labels of --loss softmax or linear, got --loss {self.loss.name}")
        if self.augment.cutmix and self.loss.class_share < 1:
            raise LmrError("--cutmix needs the landmarks of two pictures, --class-share draws those of one; give one")
        if self.sampling.per_landmark and self.accumulate > 1:
            raise LmrError("--per-landmark keeps pictures together in a batch; it goes with --accumulate 1")
        if self.loss.name in PAIR_LOSSES and self.sampling.per_landmark < 2:
            raise LmrError(f"--loss {self.loss.name} compares pictures of a landmark; give --per-landmark 2 or more")
        for option, value, least in (
            ("--seed", self.seed, 0),
            ("--accumulate", self.accumulate, 1),
            ("--patience", self.patience, 0),
            ("--rate-drop-epochs", self.rate_drop_epochs, 1),
        ):
            if value < least:
                raise LmrError(f"{option} must be {least} or more, got {value}")
        if self.seed >= 2**32:
            raise LmrError(f"--seed must lie below 2**32, got {self.seed}")
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


def _require_one_of(option: str, other: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise LmrError(f"{option} goes with {other} {' or '.join(allowed)}, not with {value}")


def _require_choices(*choices: tuple[str, str, object]) -> None:
    for option, value, kind in choices:
        if value not in get_args(kind):
            raise LmrError(f"{option} is one of {', '.join(get_args(kind))}, got {value}")
