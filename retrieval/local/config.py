"""Options of local features, and the card that is kept with them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from retrieval.errors import LmrError
from retrieval.files.digest import sha256_json
from retrieval.jobs import option
from retrieval.version import program_version

LocalKind = Literal["rootsift", "aliked", "xfeat"]
LocalDtype = Literal["uint8", "float16"]
MatcherName = Literal["nearest", "lightglue"]
LOCAL_STORE = ".local.h5"  # end of the name of a store, in place of that of the store of descriptors beside it
LONG_SIDE_PX = 640
N_KEYPOINTS = 1000
MOST_KEYPOINTS = 8192
_WORDS = {
    "kind": "kind of local features",
    "n_keypoints": "number of keypoints",
    "long_side": "long side",
    "d": "length of local descriptors",
    "weights_sha256": "weights",
}


@dataclass(frozen=True, kw_only=True)
class LocalOptions:
    """Extract local features. kind: None = none are extracted."""

    kind: LocalKind | None = option(
        None,
        name="local",
        default_text="none",
        help="Local features to extract too, for `verify`: RootSIFT, or those of a network, ALIKED or XFeat.",
    )
    n_keypoints: int = option(N_KEYPOINTS, low=1, high=MOST_KEYPOINTS, help="Most local features of an image.")
    long_side: int = option(
        LONG_SIDE_PX, low=32, high=4096, help="Pixels of an image's longer side in which local features are found."
    )
    n_dimensions: int = option(
        0, name="local_dimensions", low=0, high=128, help="Length of a local descriptor by PCA; 0 = without."
    )
    weights: Path | None = option(
        None, name="local_weights", default_text="those of its package", help="Weights of the network."
    )

    def require_kind(self) -> LocalKind:
        """The kind. LmrError where none was asked for, and for weights of one that has none."""
        if self.kind is None:
            raise LmrError("`local` is missing; give rootsift, aliked or xfeat")
        if self.kind == "rootsift":
            refuse_weights(self.weights)
        return self.kind


def refuse_weights(given: Path | None) -> None:
    """Raises LmrError for weights that were given to local features without a network."""
    if given is not None:
        raise LmrError(f"`local_weights` {given}: RootSIFT has no weights, only ALIKED and XFeat have; leave it out")


@dataclass(frozen=True, slots=True)
class LocalCard:
    """Origin of local features: everything that must agree before two images are matched.

    long_side: pixels. d: length of a descriptor. dtype: in which it is stored. weights_sha256: '' where there are
    none. projection: the PCA (see `retrieval.local.packing`), '' where there is none.
    """

    kind: LocalKind
    n_keypoints: int
    long_side: int
    d: int
    dtype: LocalDtype
    weights_sha256: str = ""
    projection: str = ""
    program_version: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(LocalKind) or self.dtype not in get_args(LocalDtype):
            raise ValueError(f"kind {self.kind} of dtype {self.dtype} is not known")
        if min(self.n_keypoints, self.long_side, self.d) < 1:
            raise ValueError("n_keypoints, long_side and d must be positive")

    @property
    def has_frames(self) -> bool:
        """Whether a keypoint has a diameter and a direction."""
        return self.kind == "rootsift"

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) over all that changes the features."""
        content = asdict(self)
        del content["program_version"]
        return sha256_json(content)

    def difference(self, other: "LocalCard") -> str:
        """The first thing in which two cards differ, for a person: `another long side (640, now 800)`; '' = nothing."""
        for item in fields(self):
            mine, theirs = getattr(self, item.name), getattr(other, item.name)
            if item.name == "program_version" or mine == theirs:
                continue
            word = _WORDS.get(item.name, item.name)
            return f"other {word}" if word == "weights" else f"another {word} ({mine!s:.16}, now {theirs!s:.16})"
        return ""

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "LocalCard":
        """The card of a JSON object. Raises ValueError for what is none."""
        expected = {item.name: item.type for item in fields(LocalCard)}
        if set(content) != set(expected):
            raise ValueError(f"a card of local features has {', '.join(expected)}, got {', '.join(content)}")
        for name, value in content.items():
            kind = int if name in ("n_keypoints", "long_side", "d") else str
            if type(value) is not kind:
                raise ValueError(f"{name} of a card of local features is {json.dumps(value)[:40]}")
        return LocalCard(**content)


def card_of(options: LocalOptions, d: int, weights_sha256: str = "") -> LocalCard:
    """The card of features that these options make, without a projection. d: length of a descriptor."""
    kind = options.require_kind()
    dtype: LocalDtype = "uint8" if kind == "rootsift" else "float16"
    return LocalCard(kind, options.n_keypoints, options.long_side, d, dtype, weights_sha256, "", program_version())
