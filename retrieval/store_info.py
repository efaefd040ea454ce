"""What made the descriptors of a store."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """What made the descriptors of a store: everything that must agree before two stores are used together."""

    fingerprint: str
    model: Mapping[str, Any]
    image_spec: Mapping[str, Any]
    program_version: str
    manifest_digest: str
    dtype: Literal["float16", "float32"]
    d: int

    def __post_init__(self) -> None:
        if self.dtype not in ("float16", "float32"):
            raise ValueError(f"dtype must be float16 or float32, got {self.dtype}")
        if self.d < 1:
            raise ValueError(f"d must be positive, got {self.d}")

    def difference(self, other: "StoreInfo") -> str:
        """The first thing in which two stores differ, for a person; '' when they agree."""
        if self.fingerprint != other.fingerprint and (what := self._preparation_difference(other)):
            return what
        for name, what in (("fingerprint", "model"), ("manifest_digest", "manifest"), ("dtype", "dtype")):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                return f"another {what} ({mine[:8]}, now {theirs[:8]})"
        return ""

    def _preparation_difference(self, other: "StoreInfo") -> str:
        """What was changed of the preparation, where the network is the same."""
        mine = {**self.model, **self.image_spec}
        theirs = {**other.model, **other.image_spec}
        if any(mine.get(name) != theirs.get(name, "") for name in ("config", "weights_sha256")):
            return ""  # another network, or an ensemble
        changed = (name for name in theirs if mine.get(name) != theirs[name])
        return next((f"another {name} ({mine.get(name)}, now {theirs[name]})" for name in changed), "")
