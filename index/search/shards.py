"""Rows in several shards, stretches of one behind the other: each is searched, and what they find is merged."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from index.search.base import Neighbours, SearchIndex, best, scores_of
from index.search.config import Storage
from retrieval.arrays import BoolArray, FloatArray, LongArray


def shard_sizes(n: int, n_shards: int) -> tuple[int, ...]:
    """Rows of each of n_shards stretches of n rows, as equal as can be."""
    return tuple(n * (i + 1) // n_shards - n * i // n_shards for i in range(n_shards))


def first_rows(sizes: Sequence[int]) -> tuple[int, ...]:
    """The first row of each of these stretches."""
    return tuple(accumulate(sizes[:-1], initial=0))


def sizes_after(sizes: Sequence[int], kept: BoolArray, n: int) -> tuple[int, ...]:
    """Rows of each stretch once only some of the rows are kept and others come behind the last; n in all.

    No sizes stay none: rows that are in one stretch.
    """
    if not sizes:
        return ()
    left = [int(part.sum()) for part in np.split(kept, np.cumsum(sizes)[:-1])]
    return (*left[:-1], n - sum(left[:-1]))


def merge_neighbours(parts: Sequence[Neighbours], k: int) -> Neighbours:
    """The k best that several searches found of the same queries among other rows each, padded where they found fewer.

    Rows are numbered over all of the parts. Score descending, equal ones row ascending, as one search has them.
    """
    if not parts or k < 1:
        raise ValueError(f"{len(parts)} parts and k = {k} must be at least 1")
    rows = np.concatenate([part.rows for part in parts], axis=1)
    scores = np.concatenate([part.scores for part in parts], axis=1)
    lacking = max(0, k - rows.shape[1])
    rows, scores = best(rows, scores, k)
    return Neighbours(
        np.pad(rows, ((0, 0), (0, lacking)), constant_values=-1),
        np.pad(scores, ((0, 0), (0, lacking)), constant_values=-np.inf),
    )


@dataclass(frozen=True, slots=True)
class Shard:
    """One stretch of the rows of an index. index: of these alone, counted from 0; first: what their first row is."""

    index: SearchIndex
    first: int

    def __len__(self) -> int:
        return len(self.index)

    def search(self, queries: FloatArray, k: int) -> Neighbours:
        """As `SearchIndex.search`, the rows numbered as in the whole."""
        found = self.index.search(queries, k)
        return Neighbours(np.where(found.rows < 0, found.rows, found.rows + self.first), found.scores)


class ShardedIndex:
    """Search of rows that lie in several parts, one behind the other. parts: at least one, of the same d and storage.

    Each part proposes its own rows; where all of them are exact, so is the whole.
    """

    def __init__(self, parts: Sequence[SearchIndex]) -> None:
        if not parts:
            raise ValueError("parts is empty")
        if len({(part.d, part.storage) for part in parts}) > 1:
            raise ValueError("parts must have the same d and storage")
        firsts = first_rows([len(part) for part in parts])
        self.shards = tuple(Shard(part, first) for part, first in zip(parts, firsts, strict=True))

    def __len__(self) -> int:
        return self.shards[-1].first + len(self.shards[-1])

    @property
    def d(self) -> int:
        return self.shards[0].index.d

    @property
    def storage(self) -> Storage:
        return self.shards[0].index.storage

    def vectors(self, rows: LongArray) -> FloatArray:
        """The stored vectors of these rows, (..., d) float32."""
        made = np.empty((*rows.shape, self.d), dtype=np.float32)
        rows = np.where(rows < 0, rows + len(self), rows)
        of_shard = np.searchsorted([shard.first + len(shard) for shard in self.shards], rows, side="right")
        for i in np.unique(of_shard):
            here = of_shard == i
            made[here] = self.shards[i].index.vectors(rows[here] - self.shards[i].first)
        return made

    def choose(self, queries: FloatArray, proposed: LongArray, k: int) -> Neighbours:
        """The best k of the rows that are proposed for each query, (q, c) with -1 = none and c >= k."""
        scores = np.where(proposed >= 0, scores_of(queries, self.vectors(proposed)), np.float32(-np.inf))
        return Neighbours(*best(proposed, scores, k))

    def search(self, queries: FloatArray, k: int) -> Neighbours:
        """The k rows with the largest inner product for each query, of those that the parts find.

        queries: (q, d) float. Raises ValueError for another d, NaN or infinity, or k < 1.
        """
        return merge_neighbours([shard.search(queries, k) for shard in self.shards], k)
