"""Matches of local features: mutual nearest neighbours that pass the ratio test."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from retrieval.arrays import LongArray
from retrieval.local.features import LocalFeatures

RATIO = 0.8  # of the distances to the best and the second match (Lowe, IJCV 2004, section 7.1)


class Matcher(Protocol):
    """What pairs the keypoints of a query with those of other images."""

    def match_many(self, query: LocalFeatures, others: Sequence[LocalFeatures]) -> list[LongArray]:
        """(m, 2) positions in `query` and in each of `others`, ordered by position in the query."""


@dataclass(frozen=True, slots=True)
class NearestMatcher:
    """Mutual nearest descriptors; the best is clearly nearer than the second. ratio: of their distances."""

    ratio: float = RATIO

    def match_many(self, query: LocalFeatures, others: Sequence[LocalFeatures]) -> list[LongArray]:
        return [match(query, other, ratio=self.ratio) for other in others]


def match(one: LocalFeatures, other: LocalFeatures, *, ratio: float = RATIO) -> LongArray:
    """(m, 2) positions of mutual nearest descriptors that pass the ratio test; none where a side has fewer than two."""
    if len(one) < 2 or len(other) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    similarity = one.descriptors @ other.descriptors.T
    best = similarity.argmax(axis=1)
    first_two = -np.partition(-similarity, 1, axis=1)[:, :2]
    distance = np.sqrt(np.maximum(2 - 2 * first_two, 0))
    mutual = similarity.argmax(axis=0)[best] == np.arange(len(one))
    kept = np.flatnonzero(mutual & (distance[:, 0] < ratio * distance[:, 1]))
    return np.stack([kept, best[kept]], axis=1)
