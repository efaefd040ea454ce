"""Rows of an index that a vector database holds: its address, what lmr asks of it, and exact answers out of that."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from index.search.address import Address
from index.search.base import MARGIN, Neighbours, best, checked_queries, scores_of, step_of
from index.search.config import MilvusKind, Storage
from retrieval.arrays import BoolArray, FloatArray, LongArray
from retrieval.errors import LmrError

VECTOR, AUGMENTED = "vector", "augmented"  # fields of rows: the images' own descriptors, and those that are searched
REFINED = 3  # rows fetched for each neighbour where a server scores by codes and not by the vectors

_BLOCK_BYTES = 1 << 25  # of vectors that one answer of a server holds
Held = Literal["nothing", "rows", "files", "other"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Successive rows on their way to a server. first: number of the first; vectors: (b, d) float32 by field."""

    first: int
    vectors: Mapping[str, FloatArray]
    image_id: Sequence[str]
    landmark_id: Sequence[str]


@dataclass(frozen=True, slots=True)
class Proposed:
    """Rows that a server takes for the nearest, its best first. rows: (q, w), -1 = none; vectors: (q, w, d) float32.

    scores: (q, w) float32, the server's own, by which it stopped.
    """

    rows: LongArray
    scores: FloatArray
    vectors: FloatArray


class Engine(Protocol):
    """A vector database, as far as lmr asks anything of one.

    Rows have numbers, one or two vectors and two texts; files are texts by keys. Writing the same again changes
    nothing. Methods raise LmrError in one line, UnreachableError where nobody answers.
    """

    most: int  # rows that one search gives

    def told(self) -> str:
        """Name and version of the server."""

    def require_kind(self, kind: MilvusKind) -> None:
        """Raises LmrError for a kind that the server takes without having it, or has not."""

    def held(self, name: str) -> Held:
        """What a collection of this name holds."""

    def create(self, name: str, d: int, fields: Sequence[str]) -> None:
        """Makes a collection for rows. fields: of their vectors, none = for files."""

    def drop(self, name: str) -> None:
        """Removes a collection, if it is there."""

    def publish(self, name: str, target: str) -> None:
        """Makes a name stand for a collection, in one step."""

    def write(self, name: str, batch: Batch) -> None:
        """Writes rows."""

    def count(self, name: str) -> int:
        """Number of rows."""

    def length(self, name: str, field: str) -> int:
        """Length of the vectors of a field."""

    def build(self, name: str, fields: Sequence[str], kind: MilvusKind, n: int) -> None:
        """Makes all n rows searchable, and waits until they are. Raises LmrError for a kind that there is not."""

    def propose(self, name: str, field: str, queries: FloatArray, width: int, effort: int) -> Proposed:
        """The nearest rows. effort: how hard a kind that is not exact looks, 0 = as the server has it."""

    def vectors(self, name: str, field: str, rows: LongArray) -> FloatArray:
        """The vectors of these rows, (r, d) float32; each row is there once."""

    def put(self, name: str, texts: Mapping[str, str]) -> None:
        """Writes texts of at most 60,000 characters."""

    def get(self, name: str, keys: Sequence[str]) -> Mapping[str, str]:
        """Those of the texts that are there."""

    def there(self, name: str, keys: Sequence[str]) -> set[str]:
        """Those of the keys that have a text."""

    def delete(self, name: str, keys: Iterable[str]) -> None:
        """Removes texts."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows that are searchable on a server. exact: nearest rows are never missed. coded: scores are of codes.

    largest_norm: length of the longest vector.
    """

    name: str
    n: int
    d: int
    storage: Storage
    exact: bool = True
    coded: bool = False
    effort: int = 0
    largest_norm: float = 1.0


class ServedIndex:
    """Search of rows that a server holds.

    It proposes rows, and gives their vectors with them, from which the scores are computed as those of all kinds are.
    """

    def __init__(self, engine: Engine, table: Table, field: str = VECTOR) -> None:
        self.engine, self.table, self.field = engine, table, field

    def __len__(self) -> int:
        return self.table.n

    @property
    def d(self) -> int:
        """Length of the vectors."""
        return self.table.d

    @property
    def storage(self) -> Storage:
        """Storage dtype of the rows in the folder that was exported; the server holds the same numbers as float32."""
        return self.table.storage

    def vectors(self, rows: LongArray) -> FloatArray:
        """The stored vectors of these rows, (..., d) float32."""
        rows = np.asarray(rows, dtype=np.int64)
        wanted, place = np.unique(rows, return_inverse=True)
        if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < len(self):
            raise IndexError(f"rows must lie in [0, {len(self)})")
        found = np.empty((len(wanted), self.d), dtype=np.float32)
        step = step_of(self.d, _BLOCK_BYTES)
        for start in range(0, len(wanted), step):
            part = wanted[start : start + step]
            found[start : start + step] = self.engine.vectors(self.table.name, self.field, part)
        return found[place.reshape(rows.shape)]

    def search(self, queries: FloatArray, k: int) -> Neighbours:
        """The k rows with the largest inner product for each query; queries: (q, d) float.

        Raises ValueError for another d, NaN or infinity, or k < 1; LmrError for more rows than the server gives.
        """
        queries = checked_queries(queries, self.d, k)
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        n_found = min(k, len(self))
        if n_found > self.engine.most:
            raise LmrError(
                f"{self.table.name}: {n_found:,} nearest rows were asked for, {self.engine.told()} gives at most "
                f"{self.engine.most:,} at once; ask for fewer"
            )
        if n_found:
            rows[:, :n_found], scores[:, :n_found] = self._widen(queries, n_found)
        return Neighbours(rows, scores)

    def choose(self, queries: FloatArray, proposed: LongArray, k: int) -> Neighbours:
        """The best k of the rows that are proposed for each query, (q, c) with -1 = none and c >= k."""
        return self._best(queries, proposed, self.vectors(np.maximum(proposed, 0)), k)

    def _widen(self, queries: FloatArray, k: int) -> tuple[LongArray, FloatArray]:
        """Rows and scores (q, k), k <= n, fetched wider until no tie at the end can be missed."""
        rows = np.empty((len(queries), k), dtype=np.int64)
        scores = np.empty((len(queries), k), dtype=np.float32)
        most = min(len(self), self.engine.most)
        width = min(max(k + MARGIN, REFINED * k if self.table.coded else 0), most)
        todo = np.arange(len(queries))
        while len(todo):
            unsure = []
            for part in np.array_split(todo, -(-len(todo) // step_of(width * self.d, _BLOCK_BYTES))):
                rows[part], scores[part], sure = self._fetch(queries[part], k, width)
                unsure.append(part[~sure])
            todo = np.concatenate(unsure) if width < most else todo[:0]
            width = min(4 * width, most)
        return rows, scores

    def _fetch(self, queries: FloatArray, k: int, width: int) -> tuple[LongArray, FloatArray, BoolArray]:
        """The best k of `width` proposed rows, and (q,) bool: no other row can be among them."""
        found = self.engine.propose(self.table.name, self.field, queries, width, self.table.effort)
        kept = self._best(queries, found.rows, found.vectors, k)
        if not self.table.exact:
            return kept.rows, kept.scores, np.ones(len(queries), dtype=np.bool_)
        error = 2 * self.d * 2.0**-24 * self.table.largest_norm * np.linalg.norm(queries, axis=1)
        return kept.rows, kept.scores, kept.scores[:, -1] > found.scores[:, -1] + error

    def _best(self, queries: FloatArray, rows: LongArray, vectors: FloatArray, k: int) -> Neighbours:
        scores = np.where(rows >= 0, scores_of(queries, vectors), np.float32(-np.inf))
        return Neighbours(*best(rows, scores, k))


def open_engine(address: Address) -> Engine:
    """A connection to the server of an address. Raises LmrError where it does not answer or refuses."""
    from index.search.milvus import MilvusEngine

    return MilvusEngine(address)
