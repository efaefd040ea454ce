"""Verification of images by local features: matched, and counted when they agree on one geometry.

Matches are mutual nearest neighbours that pass the ratio test. Descriptors are rounded to whole multiples of 1/2048.
Products of two of them then add up exactly in float32, in every order: what matches does not depend on threads, on the
library behind numpy, or on what is matched at the same time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np

from retrieval.arrays import FloatArray, LongArray
from retrieval.errors import UnreadableError
from retrieval.local.config import LocalKind, LocalOptions, MatcherName
from retrieval.local.extractor import open_extractor
from retrieval.local.features import LocalFeatures
from retrieval.local.geometry import Match, verify

if TYPE_CHECKING:
    from retrieval.data.image_source import ImageSource

RATIO = 0.9  # of the distances to the best and the second match (Lowe, IJCV 2004, section 7.1)
FRAMED_RATIO = 0.93  # where frames tell wrong matches later: docs/benchmarks.md, Geometric verification
STEPS = 2048  # of 1. A product of unit vectors is then below 2**23, and float32 holds whole numbers up to 2**24
_REMEMBERED_IMAGES = 512  # whose local features, about 0.5 MB each, are kept in memory


class Matcher(Protocol):
    """What pairs the keypoints of a query with those of other images."""

    def match_many(self, query: LocalFeatures, others: Sequence[LocalFeatures]) -> list[LongArray]:
        """(m, 2) positions in `query` and in each of `others`, best first, none of them twice."""


@dataclass(frozen=True, slots=True)
class NearestMatcher:
    """Mutual nearest descriptors, the best of which is nearer than the second by a ratio, seen from the query.

    ratio: of their distances; None = FRAMED_RATIO where both images have frames, else RATIO.
    """

    ratio: float | None = None

    def __post_init__(self) -> None:
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise ValueError(f"ratio must lie in (0, 1], got {self.ratio}")

    def match_many(self, query: LocalFeatures, others: Sequence[LocalFeatures]) -> list[LongArray]:
        """As `Matcher`. None where a side has fewer than two keypoints: there is no second match to compare with."""
        here = _whole(query.descriptors)
        room = np.empty(len(query) * max((len(other) for other in others), default=0), dtype=np.float32)
        return [self._match(here, query, other, room) for other in others]

    def _match(self, here: FloatArray, query: LocalFeatures, other: LocalFeatures, room: FloatArray) -> LongArray:
        """room: for the products of one image after the other."""
        if query.descriptors.shape[1] != other.descriptors.shape[1]:
            raise ValueError(f"descriptors of {query.descriptors.shape[1]} and {other.descriptors.shape[1]} dimensions")
        if len(query) < 2 or len(other) < 2:
            return np.zeros((0, 2), dtype=np.int64)
        framed = query.frames is not None and other.frames is not None
        return _mutual(here, _whole(other.descriptors), self.ratio or (FRAMED_RATIO if framed else RATIO), room)


@dataclass(frozen=True, slots=True)
class Verifier:
    """Compares a query with other images; what index/ calls."""

    matcher: Matcher = field(default_factory=NearestMatcher)

    def verify(self, query: LocalFeatures, others: Sequence[LocalFeatures]) -> list[Match]:
        """A match with each of the others, which does not depend on which others there are."""
        pairs = self.matcher.match_many(query, others)
        return [verify(query, other, pair) for other, pair in zip(others, pairs, strict=True)]


def open_verifier(matcher: MatcherName, kind: LocalKind, device: str = "auto", threads: int | None = None) -> Verifier:
    """The verifier of local features of a kind. device, threads: of the network of `lightglue`.

    Raises LmrError for what that network cannot match, and what it needs and is not there.
    """
    if matcher == "nearest":
        return Verifier()
    from retrieval.local.networks import open_lightglue

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


def _whole(descriptors: FloatArray) -> FloatArray:
    """Unit vectors in steps of 1/2048, as whole numbers in float32."""
    whole: FloatArray = np.rint(descriptors * np.float32(STEPS))
    return whole


def _mutual(here: FloatArray, there: FloatArray, ratio: float, room: FloatArray) -> LongArray:
    """Pairs that are each other's best, by rising ratio. here: (f, d), there: (g, d), whole numbers."""
    product = np.matmul(here, there.T, out=room[: len(here) * len(there)].reshape(len(here), len(there)))
    row = np.arange(len(here))
    best = product.argmax(axis=1)
    first = product[row, best]
    mutual = first >= product.max(axis=0)[best]
    product[row, best] = -np.inf
    second = product.argmax(axis=1)
    lengths, lengths_there = (here**2).sum(axis=1), (there**2).sum(axis=1)
    near = lengths + lengths_there[best] - 2 * first  # squared distances, in whole numbers too
    far = lengths + lengths_there[second] - 2 * product[row, second]
    kept = np.flatnonzero(mutual & (near < np.float32(ratio**2) * far))
    kept = kept[np.argsort(near[kept] / far[kept], kind="stable")]
    _, once = np.unique(best[kept], return_index=True)  # equal descriptors of the query share their best
    kept = kept[np.sort(once)]
    return np.stack([kept, best[kept]], axis=1)
