"""Quotas of a split: rows of each stratum for val and for test."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from retrieval.arrays import FloatArray, LongArray

SHARE = 0.1  # of a landmark's images in val and in test, where nothing else is asked for
_DECIMALS = 9  # to which wanted counts are rounded: 0.29 * 100 is 29


@dataclass(frozen=True, slots=True)
class Share:
    """A fraction of the rows of each stratum, in [0, 1]."""

    fraction: float

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise ValueError(f"fraction must lie in [0, 1], got {self.fraction}")

    def wanted(self, counts: "LongArray") -> "FloatArray":
        """Rows wanted of strata of these sizes, not yet whole numbers."""
        import numpy as np

        return np.asarray((counts * self.fraction).round(_DECIMALS), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Count:
    """The same number of rows of each stratum."""

    n: int

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError(f"n must not be negative, got {self.n}")

    def wanted(self, counts: "LongArray") -> "FloatArray":
        """n of each, also of strata that have fewer."""
        import numpy as np

        return np.full(len(counts), self.n, dtype=np.float64)


Quota = Share | Count
Rare = Literal["non-landmark", "drop"]  # what becomes of the images of landmarks that are too small to split


@dataclass(frozen=True, slots=True)
class Quotas:
    """Quotas of val and test in each stratum. n_kept: rows that stay in train at least.

    at_least: rows in val and in test each (where anything is asked for) of every stratum that is large enough for
    that; smaller ones stay in train. 0 leaves it to the quotas.
    """

    val: Quota
    test: Quota
    n_kept: int = 0
    at_least: int = 0
