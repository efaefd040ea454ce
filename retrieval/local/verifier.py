"""Verification of images by local features: matched, and counted when they agree on one geometry."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from retrieval.local.config import LocalKind
from retrieval.local.features import LocalFeatures
from retrieval.local.geometry import Match, verify
from retrieval.local.match import Matcher, NearestMatcher

MatcherKind = Literal["nearest", "lightglue"]


@dataclass(frozen=True, slots=True)
class Verifier:
    """Compares a query with other images; what index/ calls."""

    matcher: Matcher = field(default_factory=NearestMatcher)

    def verify(self, query: LocalFeatures, others: Sequence[LocalFeatures]) -> list[Match]:
        """A match with each of the others, which does not depend on which others there are."""
        pairs = self.matcher.match_many(query, others)
        return [verify(query, other, pair) for other, pair in zip(others, pairs, strict=True)]


def open_verifier(matcher: MatcherKind, kind: LocalKind, device: str = "auto", threads: int | None = None) -> Verifier:
    """The verifier of local features of a kind. device, threads: of the network of `lightglue`.

    Raises LmrError for what that network cannot match, and what it needs and is not there.
    """
    if matcher == "nearest":
        return Verifier()
    from retrieval.local.lightglue import open_lightglue

    return Verifier(open_lightglue(kind, device, threads))
