"""Options of an index: storage, whitening, reranking, and the thumbnails of its rows."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from index.rerank.config import Refinement
from index.search.config import SearchOptions, Storage
from index.vote_rule import VoteRule
from retrieval.errors import LmrError
from retrieval.jobs import option

INDEX_FOLDER = Path("landmarks")  # where an index is, unless another is named
DEFAULT_PX = 160  # longer side of a thumbnail: about 5 kB each
MOST_PX = 1024


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """Options of turning descriptors into an index.

    storage: None = float32 for exact search, float16 for other kinds. whitening_power: None or 0 = not whitened, kept
    as None. n_dimensions: None = min(512, d). m: background neighbours of b(i). refinement: what is done with
    neighbours beyond one search. search: the kind of index.
    """

    storage: Storage | None = option(
        None,
        default_text="float32 for exact search, else float16",
        help="Storage dtype of the descriptors in the index.",
    )
    whitening: Literal["pca", "supervised"] = option(
        "pca", help="Learn the whitening from all descriptors, or from the differences of images of one landmark."
    )
    whitening_power: float | None = option(
        0.5,
        low=0,
        high=1,
        help="w: directions are divided by their standard deviation to this power; 0 = no whitening.",
    )
    n_dimensions: int | None = option(
        None, low=1, default_text="min(512, d)", help="Dimensions that the whitening keeps."
    )
    m: int = VoteRule().m
    refinement: Refinement = field(default_factory=Refinement)
    search: SearchOptions = field(default_factory=SearchOptions)

    def __post_init__(self) -> None:
        if self.whitening_power == 0:
            object.__setattr__(self, "whitening_power", None)
        if self.whitening_power is None and (self.n_dimensions is not None or self.whitening != "pca"):
            given = (
                f"`whitening` {self.whitening}" if self.n_dimensions is None else f"`n_dimensions` {self.n_dimensions}"
            )
            raise LmrError(f"{given} is of the whitening, which `whitening_power` 0 leaves out; give one of them")


@dataclass(frozen=True, slots=True)
class ThumbnailPlan:
    """Thumbnails of side_px pixels on the longer side, 0 = none, made by n_workers processes."""

    side_px: int = 0
    n_workers: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.side_px <= MOST_PX:
            raise LmrError(f"thumbnails must have 0 (none) to {MOST_PX} pixels, got {self.side_px}")
