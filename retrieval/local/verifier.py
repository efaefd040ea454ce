"""Verification of images by local features: matched, and counted when they agree on one geometry."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from retrieval.errors import UnreadableError
from retrieval.local.config import LocalKind, LocalOptions
from retrieval.local.extractor import open_extractor
from retrieval.local.features import LocalFeatures
from retrieval.local.geometry import Match, verify
from retrieval.local.match import Matcher, NearestMatcher

if TYPE_CHECKING:
    from retrieval.data.image_source import ImageSource

_REMEMBERED_IMAGES = 512  # whose local features, about 0.5 MB each, are kept in memory
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


def compare_images(source: "ImageSource", others: "ImageSource") -> Callable[[int, int], int]:
    """Counts the inliers of two images by RootSIFT, by a row of each source; an unreadable one matches nothing."""
    extractor, verifier = open_extractor(LocalOptions(kind="rootsift")), Verifier()

    @lru_cache(maxsize=_REMEMBERED_IMAGES)
    def features(row: int, *, is_other: bool) -> LocalFeatures | None:
        try:
            return extractor.extract(extractor.decode((others if is_other else source).read(row)))
        except UnreadableError:
            return None

    def inliers(one: int, other: int) -> int:
        here, there = features(one, is_other=False), features(other, is_other=True)
        return 0 if here is None or there is None else verifier.verify(here, [there])[0].n_inliers

    return inliers
