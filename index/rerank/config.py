"""What may be done about neighbours beyond one search: rows and queries that borrow from their neighbours.

All of it is off by default, and stored with the index, so that a query needs no option for it.
"""

import math
from dataclasses import dataclass

from retrieval.errors import LmrError

MOST_REFINED = 10_000  # neighbours of one query or row
FEWEST_RERANKED = 100  # rows; so many neighbours are listed when an index is evaluated


@dataclass(frozen=True, slots=True)
class Refinement:
    """Which of three things is done, 0 = not, and how.

    n_augment: neighbours that each row borrows from when the index is built; n_expand: those that each query borrows
    from; alpha: power of the similarity that a neighbour counts with. n_rerank: best rows that are scored again,
    from the rerank_neighbours nearest among them, each counting rerank_weight times its similarity.
    The defaults are those of the papers that index/rerank/expansion.py names.
    """

    n_augment: int = 0
    augment_alpha: float = 3.0
    n_expand: int = 0
    expand_alpha: float = 3.0
    n_rerank: int = 0
    rerank_neighbours: int = 9
    rerank_weight: float = 0.15

    def __post_init__(self) -> None:
        for name in ("n_augment", "n_expand"):
            if not 0 <= getattr(self, name) <= MOST_REFINED:
                limits = f"0 (off) to {MOST_REFINED:,}"
                raise LmrError(f"--{name.removeprefix('n_')} must be {limits}, got {getattr(self, name)}")
        for name in ("augment_alpha", "expand_alpha", "rerank_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise LmrError(f"--{name.replace('_', '-')} must be 0 or more, got {getattr(self, name)}")
        if self.n_rerank and not FEWEST_RERANKED <= self.n_rerank <= MOST_REFINED:
            limits = f"0 (off) or {FEWEST_RERANKED} to {MOST_REFINED:,}"
            raise LmrError(f"--rerank must be {limits}, got {self.n_rerank}")
        if not 1 <= self.rerank_neighbours < FEWEST_RERANKED:
            raise LmrError(f"--rerank-neighbours must lie in 1 to {FEWEST_RERANKED - 1}, got {self.rerank_neighbours}")

    @property
    def is_off(self) -> bool:
        """Whether a search is a search."""
        return not (self.n_augment or self.n_expand or self.n_rerank)
