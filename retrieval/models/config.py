"""Configuration of a network: plain values, each with its default, without torch."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from retrieval.errors import LmrError
from retrieval.files.json_file import convert

Pooling = Literal["gem", "avg", "max", "cls"]
DescriptorPart = Literal["neck", "pooled", "both"]

PRECISION_VARIABLE = "LMR_PRECISION"  # of the environment, for a machine that must compute as another one does
MOST_DIMENSIONS = 65_536  # of a descriptor


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """Layers behind the finished descriptors of a network, learnt on a store of them.

    descriptor: the part of the network that they take. n_given, n_dimensions: length of a descriptor before and behind
    them. n_hidden: units of their hidden layer, 0 = none. before_sha256: of the weights file of that network.
    """

    descriptor: DescriptorPart
    n_given: int
    n_dimensions: int
    n_hidden: int
    before_sha256: str

    def __post_init__(self) -> None:
        if self.descriptor not in get_args(DescriptorPart):
            raise LmrError(f"descriptor of an adapter is one of {', '.join(get_args(DescriptorPart))}")
        for name, least in (("n_given", 1), ("n_dimensions", 1), ("n_hidden", 0)):
            if not least <= getattr(self, name) <= 2 * MOST_DIMENSIONS:
                raise LmrError(f"{name} of an adapter cannot be {getattr(self, name)}")

    def require(self, descriptor: DescriptorPart) -> None:
        """LmrError for another part of the network than it was learnt on."""
        if descriptor != self.descriptor:
            raise LmrError(
                f"`descriptor` {descriptor}: the adapter of this model was learnt on `descriptor` {self.descriptor}; "
                "leave it out"
            )


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Architecture of a network.

    n_dimensions: length of a descriptor; 0 = the pooled features themselves, without a neck.
    gem_p: exponent at which GeM pooling starts (3: Radenovic et al. 2018); it is trained.
    last_layer: where the backbone ends, as `layer3` or `features.13`; None = before the pooling of its classifier.
    adapter: what follows its descriptors, None = nothing.
    """

    backbone: str = "resnet50"
    pooling: Pooling = "gem"
    gem_p: float = 3.0
    n_dimensions: int = 512
    prelu: bool = False
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    last_layer: str | None = None
    adapter: AdapterConfig | None = None

    def __post_init__(self) -> None:
        if self.pooling not in get_args(Pooling):
            raise LmrError(f"pooling is one of {', '.join(get_args(Pooling))}, got {self.pooling}")
        if not 0 <= self.n_dimensions <= MOST_DIMENSIONS:
            limits = f"0 (no neck) to {MOST_DIMENSIONS:,}"
            raise LmrError(f"`n_dimensions` must be {limits}, got {self.n_dimensions}")
        if not 0 < self.gem_p < math.inf:
            raise LmrError(f"`gem_p` must be positive, got {self.gem_p}")

    def to_json(self) -> dict[str, Any]:
        """The configuration as a JSON object; `from_json` gives it back."""
        content = asdict(self)
        if self.adapter is None:
            del content["adapter"]
        return content

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> "ModelConfig":
        """Strict: an unknown or a missing key is an LmrError."""
        names = {f.name for f in fields(cls)} - ({"adapter"} - given.keys())
        for key in sorted(set(given) ^ names):
            what = "unknown key" if key in given else "missing key"
            raise LmrError(f"model configuration: {what} {key}; it was written by another version of lmr")
        return convert(dict(given), cls, "model configuration", "train again or restore it")
