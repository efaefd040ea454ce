"""Evidence of local features: which neighbours show the very thing that a query shows, and what that is worth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.search.base import Neighbours
from retrieval.arrays import FloatArray, LongArray, read_only

UNVERIFIED = -1  # inliers of a pair that was not compared
FIXED_INLIERS = 35  # from which on a neighbour is verified, where nothing was calibrated; Widholm's, for DELF


@dataclass(frozen=True, slots=True)
class EvidenceRule:
    """The worth of a verified neighbour: s'(q, i) gains weight * e(q, i).

    e(q, i) = log1p(max(0, min(inliers, enough) - chance)). chance: inliers that images of other things have. enough:
    inliers beyond which more say no more.
    """

    weight: float = 0.1
    chance: float = 5.0
    enough: float = 100.0

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"weight must not be negative, not {self.weight}")
        if not 0 <= self.chance < self.enough < math.inf:
            raise ValueError(f"chance must lie in [0, enough), not {self.chance} with enough {self.enough}")

    @property
    def most(self) -> float:
        """The largest e(q, i)."""
        return math.log1p(self.enough - self.chance)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was found when queries were compared with their neighbours.

    inliers: (q, k) int32 in the order of these, UNVERIFIED where a pair was not compared.
    """

    inliers: NDArray[np.int32]

    def __post_init__(self) -> None:
        if self.inliers.ndim != 2 or self.inliers.dtype != np.int32:
            raise ValueError(f"inliers must be (q, k) int32, got {self.inliers.shape} {self.inliers.dtype}")
        object.__setattr__(self, "inliers", read_only(self.inliers))

    @classmethod
    def joined(cls, parts: "Sequence[Evidence]") -> "Evidence":
        """Evidence of queries one behind the other."""
        return cls(np.concatenate([part.inliers for part in parts]))

    def select(self, rows: NDArray[Any]) -> "Evidence":
        """Only these queries, in this order."""
        return Evidence(self.inliers[rows])

    def ordered(self, order: LongArray) -> "Evidence":
        """The neighbours of each query in another order, (q, k) places."""
        return Evidence(np.take_along_axis(self.inliers, order, axis=1))

    def worth(self, rule: EvidenceRule) -> FloatArray:
        """e(q, i) of every neighbour, (q, k) float64; 0 where it was not compared."""
        above: FloatArray = np.log1p(np.maximum(np.minimum(self.inliers, rule.enough) - rule.chance, 0.0))
        return above


def rerank_verified(
    neighbours: Neighbours, worths: FloatArray, weight: float
) -> tuple[Neighbours, FloatArray, LongArray]:
    """Neighbours by s(q, i) + weight * e(q, i), equal ones as they were; the worths in that order, and the order.

    worths: (q, k) e(q, i). The scores stay what they are.
    """
    order = np.argsort(-(neighbours.scores + weight * worths), axis=1, kind="stable")
    return neighbours.ordered(order), np.take_along_axis(worths, order, axis=1), order
