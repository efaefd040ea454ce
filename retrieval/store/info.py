"""Origin of the descriptors of a store."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from retrieval.shard import Shard
from retrieval.words import counted


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """Origin of the descriptors of a store: everything that must agree before two stores are used together.

    manifest_digest: of the whole manifest. shard: the share of its rows that the store is of, None = all of them.
    mapped: `role=column` of each column of the manifest that was named for a role.
    """

    fingerprint: str
    model: Mapping[str, Any]
    image_spec: Mapping[str, Any]
    program_version: str
    manifest_digest: str
    dtype: Literal["float16", "float32"]
    d: int
    shard: Shard | None = None
    mapped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.dtype not in ("float16", "float32"):
            raise ValueError(f"dtype must be float16 or float32, got {self.dtype}")
        if self.d < 1:
            raise ValueError(f"d must be positive, got {self.d}")

    @property
    def made_by(self) -> dict[str, Any]:
        """The model, as `model.json` says it."""
        return {**self.model, "image_spec": self.image_spec, "fingerprint": self.fingerprint}

    def difference(self, other: "StoreInfo") -> str:
        """The first thing in which two stores differ, for a person; '' when they agree."""
        if self.fingerprint != other.fingerprint and (what := self._preparation_difference(other)):
            return what
        if self.fingerprint == other.fingerprint and self.mapped != other.mapped:
            mine, theirs = (" ".join(told) or "none" for told in (self.mapped, other.mapped))
            return f"another `column` ({mine}, now {theirs})"
        for name, what in (("fingerprint", "model"), ("manifest_digest", "manifest"), ("dtype", "dtype")):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                return f"another {what} ({mine[:8]}, now {theirs[:8]})"
        if self.shard != other.shard:
            return f"another shard ({self.shard or 'all rows'}, now {other.shard or 'all rows'})"
        return ""

    def _preparation_difference(self, other: "StoreInfo") -> str:
        """Changes of the preparation, where the network is the same."""
        mine = {**self.model, **self.image_spec}
        theirs = {**other.model, **other.image_spec}
        if any(mine.get(name) != theirs.get(name, "") for name in ("config", "weights_sha256")):
            return ""  # another network, or an ensemble
        changed = (name for name in theirs if mine.get(name) != theirs[name])
        return next((f"another {name} ({mine.get(name)}, now {theirs[name]})" for name in changed), "")


def model_difference(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """In what two models differ, for a person: `size 168 is not 128, flip False is not True`.

    mine, theirs: what `model.json`, or a store (`StoreInfo.made_by`), says of them. What one of them does not say is
    passed over; their fingerprints where nothing is left.
    """
    given, other = _flat(mine), _flat(theirs)
    names = [name for name in given if name in other and given[name] != other[name]]
    told = [_told(name, given[name], other[name]) for name in names]
    return ", ".join(told[:_N_TOLD]) or f"model {mine['fingerprint']!s:.8} is not {theirs['fingerprint']!s:.8}"


def _told(name: str, mine: Any, theirs: Any) -> str:
    if name.endswith("weights_sha256"):
        return f"{name.removesuffix('_sha256')} {mine!s:.8} are not {theirs!s:.8}"
    for group in ("config.", "image_spec."):
        name = name.replace(group, "")
    return f"{name} {mine!s:.60} is not {theirs!s:.60}"


_N_TOLD = 3  # differences
_TOLD = ("config", "image_spec", "weights_sha256", "flip", "descriptor", "scales", "members", "weight")


def _flat(model: Mapping[str, Any]) -> dict[str, Any]:
    """Entry by its dotted name, those of members with the member's number before it."""
    flat: dict[str, Any] = {}
    for name in filter(model.__contains__, _TOLD):
        value = model[name]
        if name == "members":
            flat["members"] = counted(len(value), "model")
            for i, member in enumerate(value):
                flat |= {f"member {i + 1}: {key}": one for key, one in _flat(member).items()}
        elif isinstance(value, Mapping):
            flat |= {f"{name}.{key}": one for key, one in value.items()}
        else:
            flat[name] = value
    return flat
