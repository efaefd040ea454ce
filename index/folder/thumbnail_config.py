"""How the thumbnails of an index are made."""

from collections.abc import Callable
from dataclasses import dataclass

from retrieval.errors import LmrError

DEFAULT_PX = 160  # of the longer side: about 5 kB each
MOST_PX = 1024


@dataclass(frozen=True, slots=True)
class ThumbnailPlan:
    """Thumbnails of side_px pixels on the longer side, 0 = none, made by n_workers processes.

    on_begin: told how many rows there are, before the first. on_done: told of each n more.
    """

    side_px: int = 0
    n_workers: int = 1
    on_begin: Callable[[int], None] = lambda _: None
    on_done: Callable[[int], None] = lambda _: None

    def __post_init__(self) -> None:
        if not 0 <= self.side_px <= MOST_PX:
            raise LmrError(f"thumbnails must have 0 (none) to {MOST_PX} pixels, got {self.side_px}")
