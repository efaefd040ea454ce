"""Spaces: the ways from stored descriptors to the rows of an index that are compared."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from index.folder.config import BuildOptions
from index.whitening import MAX_DIMENSIONS
from retrieval.store.info import StoreInfo

WhiteningKind = Literal["none", "pca", "supervised"]
POWERS = (0.25, 0.5, 0.75, 1.0)
DIMENSIONS = (128, 256, 512, 1024)
Parts = Mapping[str, slice]  # columns of a stored descriptor, by the part of the network that makes them


@dataclass(frozen=True, slots=True)
class Space:
    """A way from stored descriptors to the rows of an index.

    descriptor: part of the network, as `lmr embed` names it. whitening_power, n_dimensions: 0 without whitening.
    background: non-landmarks take part, in the whitening and in the confidence.
    """

    descriptor: str
    whitening: WhiteningKind
    whitening_power: float
    n_dimensions: int
    background: bool

    def build_options(self) -> BuildOptions:
        """The options of an index in this space."""
        if self.whitening == "none":
            return BuildOptions(whitening_power=None)
        return BuildOptions(
            whitening=self.whitening, whitening_power=self.whitening_power, n_dimensions=self.n_dimensions
        )

    def to_json(self) -> dict[str, Any]:
        """As one JSON object; null where nothing is whitened."""
        is_plain = self.whitening == "none"
        return {
            "descriptor": self.descriptor,
            "whitening": self.whitening,
            "whitening_power": None if is_plain else self.whitening_power,
            "dimensions": None if is_plain else self.n_dimensions,
            "background": self.background,
        }


@dataclass(frozen=True, slots=True)
class Choices:
    """What there is to choose from.

    parts: of the stored descriptors, the whole of them first. n: descriptors that a whitening is fitted on. has_pairs:
    some landmark has two pictures. backgrounds: with and without, or what the stores settle.
    """

    parts: Parts
    d: int
    n: int
    has_pairs: bool
    backgrounds: tuple[bool, ...]

    def lengths(self, part: str) -> list[int]:
        """Numbers of dimensions that a whitening of a part may keep, that of `lmr build-index` first."""
        d = len(range(*self.parts[part].indices(self.d)))
        most = max(1, min(d, self.n - 1))
        known = sorted({min(length, most) for length in DIMENSIONS})
        usual = min(MAX_DIMENSIONS, most)
        return [usual, *(length for length in known if length != usual)]


def spaces_of(choices: Choices) -> list[Space]:
    """All spaces, that of `lmr build-index` with its defaults first, then those with the fewest changes from it.

    Spaces of one whitening that keep another number of dimensions follow each other: they have it in common.
    """
    first = _groups(choices)[0]
    ordered = sorted(_groups(choices), key=lambda group: sum(a != b for a, b in zip(group, first, strict=True)))
    return [space for group in ordered for space in _of_group(choices, group)]


Group = tuple[str, WhiteningKind, float, bool]


def _groups(choices: Choices) -> list[Group]:
    """Part, whitening, power and background in every combination, that of the defaults first."""
    usual = BuildOptions()
    whitenings: list[tuple[WhiteningKind, float]] = [("pca", power) for power in POWERS]
    whitenings += [("supervised", power) for power in POWERS if choices.has_pairs]
    whitenings = sorted([*whitenings, ("none", 0.0)], key=lambda pair: pair != (usual.whitening, usual.whitening_power))
    return [(part, *pair, there) for part, pair, there in product(choices.parts, whitenings, choices.backgrounds)]


def _of_group(choices: Choices, group: Group) -> Iterator[Space]:
    part, kind, power, background = group
    for length in [0] if kind == "none" else choices.lengths(part):
        yield Space(part, kind, power, length, background)


def parts_of(info: StoreInfo) -> Parts:
    """The columns of the parts of a store's descriptors, the whole of them first; those of `both` are neck and pooled.

    Descriptors that an adapter made of these have no parts.
    """
    config, part = info.model.get("config"), str(info.model.get("descriptor", "neck"))
    if not isinstance(config, Mapping):
        return {"ensemble": slice(0, info.d)}
    n_neck = int(config["n_dimensions"]) if part == "both" and config.get("adapter") is None else 0
    if not 0 < n_neck < info.d:
        return {part: slice(0, info.d)}
    return {"both": slice(0, info.d), "neck": slice(0, n_neck), "pooled": slice(n_neck, info.d)}
