"""Answers whose searches are done elsewhere: what the first ones found is known, and the next one is asked for.

`answer` runs on a folder that knows what its searches found, in their order, and stops by `Asks` at the first one
that it does not know. Once that is searched, it runs again from the beginning with one more known, and so on until it
ends. So expansion, reranking and verification need nothing of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Literal

import numpy as np

from index.folder.folder import N_OF_AUGMENTED, IndexFolder
from index.search.base import Neighbours, SearchIndex, checked_queries
from index.search.config import Storage
from retrieval.arrays import FloatArray, LongArray, read_only

Where = Literal["searched", "own"]  # what answers are found in, or the images' own descriptors, compared exactly


@dataclass(frozen=True, slots=True)
class Question:
    """A search: the k rows nearest to each of some queries, (q, d) float32 in the space of the index."""

    where: Where
    queries: FloatArray
    k: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "queries", read_only(self.queries))


class Asks(Exception):  # noqa: N818 - not an error: the work goes on elsewhere
    """The next search that is needed."""

    def __init__(self, question: Question) -> None:
        super().__init__(question)
        self.question = question


class Replies:
    """What the searches so far found, given out one after the other."""

    def __init__(self, known: Sequence[Neighbours]) -> None:
        self._known = list(known)
        self._n_given = 0

    def find(self, question: Question) -> Neighbours:
        """What the next search found. Raises Asks where that is not known, ValueError where it was of others."""
        n = len(question.queries)
        if n == 0:
            return Neighbours(np.empty((0, question.k), np.int64), np.empty((0, question.k), np.float32))
        if self._n_given == len(self._known):
            raise Asks(question)
        found = self._known[self._n_given]
        if found.rows.shape != (n, question.k):
            raise ValueError(f"search {self._n_given} found {found.rows.shape}, {(n, question.k)} is asked for")
        self._n_given += 1
        return found


@dataclass(frozen=True, slots=True)
class ReplayedFolder(IndexFolder):
    """An index folder that was opened without its inverted file, and answers by what is known."""

    replies: Replies = field(default_factory=lambda: Replies(()))

    @classmethod
    def of(cls, folder: IndexFolder, known: Sequence[Neighbours]) -> "ReplayedFolder":
        """The folder as it answers by what its searches found."""
        values = {item.name: getattr(folder, item.name) for item in fields(IndexFolder)}
        return cls(**values, replies=Replies(known))

    @property
    def searched(self) -> SearchIndex:
        """As that of the folder."""
        return _Replayed(self.index if self.augmented is None else self.augmented, "searched", self.replies)

    def nearest(self, vectors: FloatArray, k: int) -> Neighbours:
        """As that of the folder."""
        if self.info.search is None:
            return _Replayed(self.index, "own", self.replies).search(vectors, k)
        if self.augmented is None:
            return self.searched.search(vectors, k)
        return self.index.choose(vectors, self.searched.search(vectors, k * N_OF_AUGMENTED).rows, k)


@dataclass(frozen=True, slots=True)
class _Replayed:
    """Rows that are read here and searched elsewhere."""

    rows: SearchIndex
    where: Where
    replies: Replies

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def d(self) -> int:
        return self.rows.d

    @property
    def storage(self) -> Storage:
        return self.rows.storage

    def vectors(self, rows: LongArray) -> FloatArray:
        """The stored vectors of these rows, (..., d) float32."""
        return self.rows.vectors(rows)

    def choose(self, queries: FloatArray, proposed: LongArray, k: int) -> Neighbours:
        """As that of the rows."""
        return self.rows.choose(queries, proposed, k)

    def search(self, queries: FloatArray, k: int) -> Neighbours:
        """What the next search found. Raises Asks where that is not known."""
        return self.replies.find(Question(self.where, checked_queries(queries, self.d, k), k))
