"""The rule of the vote: its constants and their defaults."""

import math
from dataclasses import dataclass

MOST_NEIGHBOURS = 10_000  # of one query: 100,000 queries' rows and scores are then 12 GB


@dataclass(frozen=True, slots=True)
class VoteRule:
    """The constants of the vote, with defaults that did best on a mean of three descriptor sets.

    k: neighbours that vote. tau: width of the soft maximum, in units of the score. r: how far a landmark with
    many rows is held back, 0 not at all, 1 the mean over its rows. beta: weight of a row's background similarity.
    m: how many background rows that similarity is the mean of.
    """

    k: int = 20
    tau: float = 0.05
    r: float = 0.5
    beta: float = 0.0
    m: int = 3

    def __post_init__(self) -> None:
        if not (1 <= self.k <= MOST_NEIGHBOURS and 1 <= self.m <= MOST_NEIGHBOURS):
            raise ValueError(f"k and m must lie in [1, {MOST_NEIGHBOURS:,}], not {self.k!s:.20} and {self.m!s:.20}")
        if not 0 < self.tau < math.inf:
            raise ValueError(f"tau must be positive, not {self.tau}")
        if not (0 <= self.r < math.inf and 0 <= self.beta < math.inf):
            raise ValueError(f"r and beta must not be negative, not {self.r} and {self.beta}")
