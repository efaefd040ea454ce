"""Options of query expansion, database augmentation and reranking, and of verification.

Expansion, augmentation and reranking are off by default, and stored with the index, so that a query needs no option for
them.
"""

import math
from dataclasses import dataclass

from retrieval.errors import LmrError
from retrieval.jobs import Job, option
from retrieval.local.config import MatcherName

MOST_REFINED = 10_000  # neighbours of one query or row
VERIFY_TOP = 20  # neighbours that are verified
FEWEST_RERANKED = 100  # rows; so many neighbours are listed when an index is evaluated


@dataclass(frozen=True, slots=True)
class Refinement:
    """Database augmentation, query expansion and reranking, each off at 0.

    The defaults are those of the papers that index/rerank/expansion.py names.
    """

    n_augment: int = option(
        0, help="Database augmentation: neighbours that each row of the index is averaged with; 0 = off."
    )
    augment_alpha: float = option(3.0, help="Power of the similarity that these are weighted by.")
    n_expand: int = option(0, help="Alpha query expansion: neighbours that each query is averaged with; 0 = off.")
    expand_alpha: float = option(3.0, help="Power of the similarity that these are weighted by.")
    n_rerank: int = option(
        0, help="Best rows that are scored again by their own neighbours (SuperGlobal), 100 or more; 0 = off."
    )
    rerank_neighbours: int = option(9, help="Neighbours that each of them is averaged with.")
    rerank_weight: float = option(0.15, help="Weight of these, times their similarity.")

    def __post_init__(self) -> None:
        for name in ("n_augment", "n_expand"):
            if not 0 <= getattr(self, name) <= MOST_REFINED:
                limits = f"0 (off) to {MOST_REFINED:,}"
                raise LmrError(f"`{name}` must be {limits}, got {getattr(self, name)}")
        for name in ("augment_alpha", "expand_alpha", "rerank_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise LmrError(f"`{name}` must be 0 or more, got {getattr(self, name)}")
        if self.n_rerank and not FEWEST_RERANKED <= self.n_rerank <= MOST_REFINED:
            limits = f"0 (off) or {FEWEST_RERANKED} to {MOST_REFINED:,}"
            raise LmrError(f"`n_rerank` must be {limits}, got {self.n_rerank}")
        if not 1 <= self.rerank_neighbours < FEWEST_RERANKED:
            raise LmrError(f"`rerank_neighbours` must lie in 1 to {FEWEST_RERANKED - 1}, got {self.rerank_neighbours}")

    @property
    def is_off(self) -> bool:
        """True where nothing is done beyond a search."""
        return not (self.n_augment or self.n_expand or self.n_rerank)


@dataclass(frozen=True, kw_only=True)
class VerifyJob(Job):
    """A job whose answers may be verified.

    n_verify_top, matcher: None = as the index was calibrated, else VERIFY_TOP and `nearest`.
    """

    verify: bool = option(
        False, help="Compare images with their best neighbours by local features (needs an index that has some)."
    )
    n_verify_top: int | None = option(
        None, low=1, high=MOST_REFINED, default_text="as calibrated, else 20", help="Neighbours that are compared."
    )
    matcher: MatcherName | None = option(
        None,
        default_text="as calibrated, else nearest",
        help="Pair local features by mutual nearest neighbours, or ALIKED's and XFeat's by LightGlue.",
    )

    def __post_init__(self) -> None:
        """Raises LmrError for settings of what is not asked for."""
        super().__post_init__()
        given = {"verify_top": self.n_verify_top, "matcher": self.matcher}
        for name, value in given.items():
            if value is not None and not self.verify:
                raise LmrError(f"`{name}` needs `verify`")
