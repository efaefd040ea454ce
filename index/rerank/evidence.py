"""Evidence of local features: which neighbours show the very thing that a query shows, and what that is worth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.search.base import Neighbours
from retrieval.arrays import FloatArray, LongArray, read_only

UNVERIFIED = -1  # inliers of a pair that was not compared
FIXED_INLIERS = 35  # from which on a neighbour is verified, where nothing was calibrated; Widholm's, for DELF


@dataclass(frozen=True, slots=True)
class EvidenceRule:
    """The worth of a verified neighbour: s'(q, i) gains weight * e(q, i), with e(q, i) = log1p(min(surprise, enough)).

    The default of enough says: what happens once in 2.5 million pairs of unrelated images is sure, and more says no
    more. Both defaults did best on two networks, with RootSIFT.
    """

    weight: float = 0.1
    enough: float = 6.4

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"weight must not be negative, not {self.weight}")
        if not 0 < self.enough < math.inf:
            raise ValueError(f"enough must be positive, not {self.enough}")

    @property
    def most(self) -> float:
        """The largest e(q, i)."""
        return math.log1p(self.enough)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was found when queries were compared with their neighbours; (q, k) in the order of these.

    inliers: int32, UNVERIFIED where a pair was not compared. surprise: float32, how far they are beyond what matches at
    random give (see `retrieval.local.geometry.Match`), 0 where a pair was not compared.
    """

    inliers: NDArray[np.int32]
    surprise: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.inliers.ndim != 2 or self.inliers.shape != self.surprise.shape:
            raise ValueError(f"inliers {self.inliers.shape} and surprise {self.surprise.shape} must be equal (q, k)")
        for item in fields(self):
            object.__setattr__(self, item.name, read_only(getattr(self, item.name)))

    @classmethod
    def none(cls, n_queries: int, k: int) -> "Evidence":
        """Evidence of no pair."""
        return cls(np.full((n_queries, k), UNVERIFIED, np.int32), np.zeros((n_queries, k), np.float32))

    @classmethod
    def joined(cls, parts: "Sequence[Evidence]") -> "Evidence":
        """Evidence of queries one behind the other."""
        return cls(*(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(cls)))

    def select(self, rows: NDArray[Any]) -> "Evidence":
        """Only these queries, in this order."""
        return Evidence(self.inliers[rows], self.surprise[rows])

    def placed(self, rows: NDArray[Any], n_queries: int) -> "Evidence":
        """The same as rows of a larger set of queries, the others of which were not compared."""
        whole = Evidence.none(n_queries, self.inliers.shape[1])
        inliers, surprise = whole.inliers.copy(), whole.surprise.copy()
        inliers[rows], surprise[rows] = self.inliers, self.surprise
        return Evidence(inliers, surprise)

    def ordered(self, order: LongArray) -> "Evidence":
        """The neighbours of each query in another order, (q, k) places."""
        return Evidence(*(np.take_along_axis(getattr(self, item.name), order, axis=1) for item in fields(self)))

    def worth(self, rule: EvidenceRule) -> FloatArray:
        """e(q, i) of every neighbour, (q, k) float64; 0 where it was not compared."""
        found: FloatArray = np.log1p(np.minimum(self.surprise.astype(np.float64), rule.enough))
        return found


def rerank_verified(
    neighbours: Neighbours, worths: FloatArray, weight: float
) -> tuple[Neighbours, FloatArray, LongArray]:
    """Neighbours by s(q, i) + weight * e(q, i), equal ones as they were; the worths in that order, and the order.

    worths: (q, k) e(q, i). The scores stay what they are.
    """
    order = np.argsort(-(neighbours.scores + weight * worths), axis=1, kind="stable")
    return neighbours.ordered(order), np.take_along_axis(worths, order, axis=1), order
