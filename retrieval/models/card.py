"""The card of a model folder: everything that makes a descriptor but the weights, and its fingerprint; no torch.

`model.json` names its weights files, which are named by their own hash: a reader sees the old model or the new one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

from retrieval.errors import DamageError, LmrError
from retrieval.files.digest import sha256_json
from retrieval.files.json_file import convert
from retrieval.images.spec import MOST_PIXELS, ImageSpec
from retrieval.models.config import DescriptorPart, ModelConfig

FORMAT_VERSION = 1
PLAIN_SCALES = (1.0,)


@dataclass(frozen=True, slots=True)
class EmbedSettings:
    """Way in which a network that is there embeds images; None = as its card says.

    size: side of the square input, pixels. colors: as in ImageSpec. scales: further sizes, as factors of it.
    """

    size: int | None = None
    fit: str | None = None
    colors: str | None = None
    flip: bool | None = None
    descriptor: DescriptorPart | None = None
    scales: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class ModelCard:
    """Everything of a model but the values of its weights.

    weights_sha256: of the weights file. flip: descriptors are averaged with those of the mirrored image.
    descriptor: which part of the network makes them. scales: factors of the image's size; descriptors are averaged
    over them. made_by: how it was made, for people; not part of the fingerprint. n_features: length of the pooled
    features, None in a card that does not say.
    """

    config: ModelConfig
    image_spec: ImageSpec
    weights_sha256: str
    flip: bool = False
    descriptor: DescriptorPart = "neck"
    made_by: Mapping[str, Any] = field(default_factory=dict)
    scales: tuple[float, ...] = PLAIN_SCALES
    n_features: int | None = None

    def __post_init__(self) -> None:
        scales = tuple(sorted({float(scale) for scale in self.scales}))
        if not scales or not all(0 < scale < math.inf for scale in scales):
            raise ValueError(f"scales must be positive numbers, got {self.scales!r}")
        if scales[-1] * self.image_spec.size > MOST_PIXELS and scales[-1] > 1:
            largest = f"{scales[-1]:g} x {self.image_spec.size}"
            raise LmrError(f"scales: pictures of {largest} pixels are over the limit of {MOST_PIXELS:,}; lower them")
        object.__setattr__(self, "scales", scales)

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) over everything that changes a descriptor."""
        content: dict[str, Any] = {"config": self.config.to_json(), "image_spec": self.image_spec.to_json()}
        content |= {"weights": self.weights_sha256, "flip": self.flip, "descriptor": self.descriptor}
        if self.scales != PLAIN_SCALES:
            content["scales"] = self.scales
        return sha256_json(content)

    @property
    def d(self) -> int | None:
        """Length of a descriptor; None where the card does not say."""
        if self.config.adapter is not None:
            return self.config.adapter.n_dimensions
        lengths = {
            "neck": [self.config.n_dimensions or self.n_features],
            "pooled": [self.n_features],
            "both": [self.config.n_dimensions, self.n_features],
        }
        known = [length for length in lengths[self.descriptor] if length]
        return sum(known) if len(known) == len(lengths[self.descriptor]) else None

    @property
    def as_trained(self) -> "ModelCard":
        """The same network, embedding images as its classifier takes them."""
        if self.config.adapter is not None:
            return self
        return replace(self, flip=False, scales=PLAIN_SCALES, descriptor="neck")

    @property
    def before_adapter(self) -> "ModelCard":
        """The same network without its adapter."""
        if self.config.adapter is None:
            return self
        return replace(
            self, config=replace(self.config, adapter=None), weights_sha256=self.config.adapter.before_sha256
        )

    @property
    def weights_name(self) -> str:
        """File name of the weights beside the card."""
        return f"weights-{self.weights_sha256[:12]}.safetensors"

    @property
    def members(self) -> "tuple[Member, ...]":
        """The model as an ensemble of one."""
        return (Member(self, 1.0),)

    @property
    def specs(self) -> tuple[ImageSpec, ...]:
        """The different ways in which each image is prepared, one for each scale."""
        sizes = dict.fromkeys(max(1, round(scale * self.image_spec.size)) for scale in self.scales)
        return tuple(replace(self.image_spec, size=size) for size in sizes)

    def adjusted(self, how: EmbedSettings) -> "ModelCard":
        """The same network, embedding images in this way. LmrError for a part that its adapter does not take."""
        if how.descriptor is not None and self.config.adapter is not None:
            self.config.adapter.require(how.descriptor)
        spec = {n: getattr(how, n) for n in ("size", "fit", "colors") if getattr(how, n) is not None}
        own = {n: getattr(how, n) for n in ("flip", "descriptor", "scales") if getattr(how, n) is not None}
        return replace(self, image_spec=replace(self.image_spec, **spec), **own)

    def as_stored(self, model: Mapping[str, Any], image_spec: Mapping[str, Any]) -> "ModelCard":
        """The same network, embedding images as a store says that they were; unchanged where it says nothing."""
        if "flip" not in model:
            return self
        return replace(
            self,
            image_spec=ImageSpec.from_json(image_spec),
            flip=bool(model["flip"]),
            descriptor=model.get("descriptor", "neck"),
            scales=tuple(model.get("scales", PLAIN_SCALES)),
        )

    def of_store(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The account that a store gives of its model, and of the preparation; `as_stored` reads it."""
        model = {name: getattr(self, name) for name in ("weights_sha256", "flip", "descriptor")}
        return {"config": self.config.to_json(), **model, "scales": list(self.scales)}, self.image_spec.to_json()

    def to_json(self) -> dict[str, Any]:
        """The card as a JSON object; `read_card` gives it back."""
        model, image_spec = self.of_store()
        content = {"format_version": FORMAT_VERSION, "fingerprint": self.fingerprint, "config": model.pop("config")}
        return {**content, "image_spec": image_spec, **model, **_length_json(self), "made_by": dict(self.made_by)}


@dataclass(frozen=True, slots=True)
class Member:
    """One model of an ensemble. weight: its share in the inner product, all shares together 1."""

    card: ModelCard
    weight: float


@dataclass(frozen=True, slots=True)
class EnsembleCard:
    """Several models whose descriptors stand one after the other, each times the root of its weight.

    The inner product of two such descriptors is the weighted mean of the members' cosines. `join` makes one.
    """

    members: tuple[Member, ...]
    made_by: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        weights = [member.weight for member in self.members]
        if len(weights) < 2 or min(weights) <= 0 or not math.isclose(sum(weights), 1):
            raise ValueError(f"an ensemble has two members or more, whose positive weights sum to 1, got {weights}")

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) over the members' fingerprints and weights."""
        return sha256_json({"members": [[member.card.fingerprint, member.weight] for member in self.members]})

    @property
    def d(self) -> int | None:
        """Length of a descriptor; None where the members' cards do not say."""
        lengths = [member.card.d for member in self.members]
        return None if None in lengths else sum(filter(None, lengths))

    @property
    def specs(self) -> tuple[ImageSpec, ...]:
        """The different ways in which each image is prepared."""
        return tuple(dict.fromkeys(spec for member in self.members for spec in member.card.specs))

    def adjusted(self, how: EmbedSettings) -> "EnsembleCard":
        """The same networks, each embedding images in this way."""
        return self._each([member.card.adjusted(how) for member in self.members])

    def as_stored(self, model: Mapping[str, Any], _: Mapping[str, Any]) -> "EnsembleCard":
        """The same networks, embedding images as a store says that they were; unchanged for another number."""
        given = model.get("members", ())
        if len(given) != len(self.members):
            return self
        pairs = zip(self.members, given, strict=True)
        return self._each([member.card.as_stored(made, made["image_spec"]) for member, made in pairs])

    def of_store(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The account that a store gives of its ensemble; the members' preparations are among it."""
        return {"members": [_member_json(member) for member in self.members]}, {}

    def to_json(self) -> dict[str, Any]:
        """The card as a JSON object; `read_card` gives it back."""
        content = {"format_version": FORMAT_VERSION, "fingerprint": self.fingerprint}
        members = [
            _member_json(member) | _length_json(member.card) | {"made_by": dict(member.card.made_by)}
            for member in self.members
        ]
        return {**content, "members": members, "made_by": dict(self.made_by)}

    def _each(self, cards: Sequence[ModelCard]) -> "EnsembleCard":
        pairs = zip(cards, self.members, strict=True)
        return replace(self, members=tuple(Member(card, member.weight) for card, member in pairs))


Card = ModelCard | EnsembleCard


def join(cards: Sequence[Card], weights: Sequence[float], made_by: Mapping[str, Any]) -> EnsembleCard:
    """The ensemble of these models; the members of ensembles among them become members themselves.

    weights: of each model, positive; only their ratios count. Raises LmrError: fewer than two, one that is not so.
    """
    if len(cards) < 2 or len(cards) != len(weights):
        raise LmrError(f"an ensemble has two models or more and a weight for each, got {len(cards)} and {len(weights)}")
    for weight in weights:
        if not 0 < weight < math.inf:
            raise LmrError(f"`weight` {weight:g}: weights are positive numbers; leave a model out instead")
    parts = [(m.card, weight * m.weight) for card, weight in zip(cards, weights, strict=True) for m in card.members]
    total = math.fsum(weight for _, weight in parts)
    return EnsembleCard(tuple(Member(card, round(weight / total, 12)) for card, weight in parts), made_by)


def parse_card(given: dict[str, Any], source: str) -> Card:
    """The card of a JSON object. source: where it is, for messages. LmrError: damaged, of another format version."""
    try:
        version = given.pop("format_version")
        if version != FORMAT_VERSION:
            raise LmrError(
                f"{source} has format_version {version}, this program reads {FORMAT_VERSION}; use the lmr that made it"
            )
        fingerprint = given.pop("fingerprint")
        card = _parse_ensemble(given, source) if "members" in given else _parse_model(given, source)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamageError(f"{source} is damaged ({error}); train again or restore it") from error
    if card.fingerprint != fingerprint:
        raise DamageError(
            f"{source} was changed by hand: its fingerprint is {card.fingerprint[:8]}, it says {str(fingerprint)[:8]}; "
            "restore it or train again"
        )
    return card


def _member_json(member: Member) -> dict[str, Any]:
    model, image_spec = member.card.of_store()
    return {"weight": member.weight, **model, "image_spec": image_spec}


class _Plain(TypedDict, total=False):
    """The types of a card's plain entries."""

    weights_sha256: str
    flip: bool
    descriptor: DescriptorPart
    made_by: dict[str, Any]
    scales: list[float]
    n_features: int


def _length_json(card: ModelCard) -> dict[str, int]:
    return {} if card.n_features is None else {"n_features": card.n_features}


def _parse_ensemble(given: dict[str, Any], source: str) -> EnsembleCard:
    entries = convert(given.pop("members"), list[dict[str, Any]], source, "train again or restore it")
    members = [(convert(entry.pop("weight"), float, source, "restore it"), entry) for entry in entries]
    convert(given.get("made_by", {}), dict[str, Any], source, "train again or restore it")
    return EnsembleCard(tuple(Member(_parse_model(entry, source), weight) for weight, entry in members), **given)


def _parse_model(given: dict[str, Any], source: str) -> ModelCard:
    config, spec = given.pop("config"), given.pop("image_spec")
    convert(given, _Plain, source, "train again or restore it")
    try:
        return ModelCard(ModelConfig.from_json(config), ImageSpec.from_json(spec), **given)
    except LmrError as error:
        raise LmrError(f"{source}: {error}") from error
