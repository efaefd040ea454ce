"""Configuration of the loss function: plain values, each with its default and its help, without torch."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from retrieval.errors import LmrError
from retrieval.jobs import option
from retrieval.models.config import MOST_DIMENSIONS

LossName = Literal[
    "arcface", "cosface", "softmax", "linear", "contrastive", "triplet", "multi-similarity", "proxy-anchor"
]
MarginKind = Literal["count", "fixed", "dynamic", "adaptive"]
MinerName = Literal["multi-similarity", "semihard", "hard", "none"]
BackgroundKind = Literal["negatives", "class"]
MOST_CENTRES = 100  # of a landmark
COSINE_SOFTMAX = ("arcface", "cosface", "softmax")  # a softmax over the cosines to class directions
PAIR_LOSSES = ("contrastive", "triplet", "multi-similarity")  # of images against each other: without classes
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


@dataclass(frozen=True, slots=True)
class LossConfig:
    """Loss function.

    margin: `count`: margin_rad for the landmark with the most images, margin_rare_rad for the one with the fewest,
    between them by n_c ** -1/4. `fixed`: margin_rad for all. `dynamic`: 0.05 to 0.5 rad by n_c ** -1/4 (3rd place,
    Google Landmark Recognition 2020). `adaptive`: margin_rad, in a form that follows the norm of each image's features
    (Kim et al., AdaFace, 2022). n_centres: sub-center ArcFace. class_share: partial FC (An et al., 2021).
    """

    name: LossName = option("arcface", name="loss", help="Loss function.")
    margin: MarginKind = option(
        "count",
        help="ArcFace margins: by a landmark's number of images, between two bounds; fixed; dynamic, 0.05 to 0.5 rad "
        "by number; or adaptive, by the norm of an image's features.",
    )
    margin_rad: float = option(
        0.1, help="ArcFace margin of the landmark with the most images, radians; of all when fixed or adaptive."
    )
    margin_rare_rad: float = option(0.4, help="ArcFace margin of the landmark with the fewest images, radians.")
    margin_cos: float = option(0.35, help="CosFace margin, subtracted from the cosine.")
    n_centres: int = option(1, help="Sub-centers of a class; 3 is sub-center ArcFace.")
    scale: float = option(24.0, help="Scale of the cosines before the softmax.")
    label_smoothing: float = option(0.0, help="Label smoothing of the softmax.")
    head_hidden: int = option(0, help="Units of the linear head's hidden layer; 0 = none.")
    dropout: float = option(0.0, help="Dropout before the last layer of the linear head.")
    class_share: float = option(1.0, help="Partial FC: share of the classes in a step, those of its batch among them.")
    contrastive_cosine: float = option(
        0.5, help="Contrastive loss: images of different landmarks are pushed below this cosine."
    )
    triplet_margin: float = option(
        0.1, help="Triplet margin between the cosines of images of one landmark and of different ones."
    )
    miner: MinerName = option(
        "multi-similarity", help="Pair miner of the contrastive, triplet and multi-similarity losses."
    )
    background: BackgroundKind = option(
        "negatives", help="Push non-landmarks away from every class, or learn one class for them."
    )
    negative_weight: float = option(1.0, help="Weight of the loss of non-landmarks; 0 leaves them out.")
    negative_cosine: float = option(0.2, help="Non-landmarks' highest class similarity is pushed below this.")

    def __post_init__(self) -> None:
        _require_choices(
            ("`loss`", self.name, LossName),
            ("`margin`", self.margin, MarginKind),
            ("`miner`", self.miner, MinerName),
            ("`background`", self.background, BackgroundKind),
        )
        for word, value in (("`margin_rad`", self.margin_rad), ("`margin_rare_rad`", self.margin_rare_rad)):
            if not 0 <= value <= math.pi / 2:
                raise LmrError(f"{word} is in radians, 0 to pi/2, got {value}")
        for word, value, low, high in (
            ("`margin_cos`", self.margin_cos, 0, 2),
            ("`contrastive_cosine`", self.contrastive_cosine, -1, 1),
            ("`triplet_margin`", self.triplet_margin, 0, 2),
            ("`negative_cosine`", self.negative_cosine, -1, 1),
        ):
            if not low <= value <= high:
                raise LmrError(f"{word} must lie in [{low}, {high}], got {value}")
        for word, value in (("`label_smoothing`", self.label_smoothing), ("`dropout`", self.dropout)):
            if not 0 <= value < 1:
                raise LmrError(f"{word} must lie in [0, 1), got {value}")
        if not 0 < self.class_share <= 1:
            raise LmrError(f"`class_share` must lie in (0, 1], got {self.class_share}")
        if not 0 < self.scale < math.inf:
            raise LmrError(f"`scale` must be positive, got {self.scale}")
        if not 0 <= self.negative_weight < math.inf:
            raise LmrError(f"`negative_weight` must be 0 or more, got {self.negative_weight}")
        if not 1 <= self.n_centres <= MOST_CENTRES:
            raise LmrError(f"`n_centres` must be 1 to {MOST_CENTRES}, got {self.n_centres}")
        if not 0 <= self.head_hidden <= MOST_DIMENSIONS:
            raise LmrError(f"`head_hidden` must be 0 to {MOST_DIMENSIONS:,}, got {self.head_hidden}")
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
            _require_one_of("`background` class", "`loss`", self.name, _SOFTMAXES)

    def require_used(self, names: Iterable[str]) -> None:
        """LmrError when this loss does not read one of these fields. names: fields, or others, which all may have."""
        mines_triplets = self.miner in ("semihard", "hard")  # which has a margin too
        losses = _LOSSES_OF | ({"triplet_margin": PAIR_LOSSES} if mines_triplets else {})
        for name in names:
            _require_one_of(f"`{name}`", "`loss`", self.name, losses.get(name, (self.name,)))
            _require_one_of(f"`{name}`", "`margin`", self.margin, _MARGINS_OF.get(name, (self.margin,)))


def _require_one_of(word: str, other: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise LmrError(f"{word} goes with {other} {' or '.join(allowed)}, not with {value}")


def _require_choices(*choices: tuple[str, str, object]) -> None:
    for word, value, kind in choices:
        if value not in get_args(kind):
            raise LmrError(f"{word} is one of {', '.join(get_args(kind))}, got {value}")
