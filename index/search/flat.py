"""Exact nearest neighbours by inner product.

FAISS and BLAS sum a score in an order that depends on the batch size, and on a GPU of float16 numbers. So they only
propose rows, a few more than asked for; their scores are computed again in one float32 path and ordered by lower row
where they are equal. A query whose last neighbour might be tied with a row that was not proposed is searched wider.
FAISS is imported where it is used, since commands that refuse their input or find nothing to do import this module.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np

from index.search.base import MARGIN, Neighbours, best, checked_queries, scores_of, step_of, to_float32
from index.search.config import Storage
from index.search.faiss_io import (
    faiss_switches,
    is_inner_product,
    is_whole,
    limited_blas,
    read_faiss,
    write_faiss,
)
from index.search.gpu import MAX_WIDTH, ROWS_FROM, GpuRows, OnGpus, gpus_of
from index.search.joined_rows import read_joined
from index.search.scan import MORE_GROUPS, QUERIES, propose_groups
from index.search.shards import ShardedIndex, first_rows
from retrieval.arrays import FloatArray, LongArray, read_only
from retrieval.errors import LmrError
from retrieval.parallel import count_cores
from retrieval.progress import PYTHON_WARNINGS, Progress

WIDEN = 4  # factor between one width and the next
BLOCK_BYTES = 1 << 26  # working memory of one step
SCAN_FROM_QUERIES = 32  # batches from this size are compared with all rows by matrix products of numpy
SCAN_FROM_ROWS = 1 << 14
GPU_FROM_QUERIES = 32  # to put the rows on a GPU they are all read once, as to scan them
MOST_SCORING = 8  # threads, with about 100 MB each
Found = tuple[LongArray, FloatArray]  # rows and scores (q, k)


class FlatIndex:
    """Every query compared with every row; the rows of a file that was loaded stay in the file.

    Made by `build` or `load`. device: auto | cpu | cuda[:n[,n]]; mps is the CPU, FAISS has nothing for it.
    threads: CPU threads of a search, None for FAISS's own choice (all cores). largest_norm: length of the longest row
    where it is known; without it all rows are read, and checked for NaN and infinity. progress: is told of GPUs.
    """

    __slots__ = ("_flat", "_on_gpus", "_vectors", "device", "gpus", "largest_norm", "progress", "threads", "tolerance")

    def __init__(
        self,
        flat: Any,
        device: str,
        threads: int | None,
        largest_norm: float | None = None,
        progress: Progress = PYTHON_WARNINGS,
    ) -> None:
        self._flat = flat
        self._vectors = _stored_vectors(flat)
        self.threads, self.progress = threads, progress
        self.device, self.gpus = device, gpus_of(device, progress)
        self.largest_norm = self._measure_norms() if largest_norm is None else largest_norm
        # No order of summing d float32 products of one query with one row errs by more than this times |query|.
        self.tolerance = self.d * 2.0**-24 * self.largest_norm
        self._on_gpus = OnGpus(
            self.gpus if len(self) >= ROWS_FROM else (), self._copy_to, progress, pays_from=GPU_FROM_QUERIES
        )

    def _measure_norms(self) -> float:
        """Length of the longest row. Raises ValueError for NaN or infinity."""
        largest = 0.0
        for start, block in self._blocks():
            norms = np.sqrt(np.einsum("nd,nd->n", block, block, dtype=np.float64))
            if not np.isfinite(norms).all():
                row = start + int(np.flatnonzero(~np.isfinite(norms))[0])
                raise ValueError(f"vectors[{row}] holds NaN or infinity")
            largest = max(largest, float(norms.max()))
        return largest

    @classmethod
    def build(
        cls,
        vectors: FloatArray,
        storage: Storage = "float32",
        device: str = "auto",
        threads: int | None = None,
        progress: Progress = PYTHON_WARNINGS,
    ) -> Self:
        """An index over these rows.

        vectors: (n, d) finite, unit length where the inner product is to be the cosine. Raises ValueError
        for NaN or infinity, also for what float16 cannot hold; LmrError for a device that is not there.
        """
        if vectors.ndim != 2 or vectors.shape[1] == 0:
            raise ValueError(f"vectors must be (n, d) with d > 0, not {vectors.shape}")
        flat = _empty(vectors.shape[1], storage)
        for start in range(0, len(vectors), 1 << 14):
            flat.add(np.ascontiguousarray(vectors[start : start + (1 << 14)], dtype=np.float32))
        return cls(flat, device, threads, progress=progress)

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str = "auto",
        threads: int | None = None,
        largest_norm: float | None = None,
        progress: Progress = PYTHON_WARNINGS,
        *,
        added: Path | None = None,
    ) -> Self:
        """The index that `save` wrote, mapped. added: the file of further rows, None = there is none.

        Raises LmrError for a file that is missing, damaged or of another kind.
        """
        flat = (
            read_faiss(Path(path), is_mapped=is_whole(Path(path))) if added is None else read_joined(Path(path), added)
        )
        if not is_inner_product(flat) or _storage(flat) is None or flat.codes.size() != flat.ntotal * flat.code_size:
            raise LmrError(f"{path}: not an index that lmr wrote; run lmr build-index")
        try:
            return cls(flat, device, threads, largest_norm, progress)
        except ValueError as error:
            raise LmrError(f"{path}: damaged: {error}; run lmr build-index again") from None

    def save(self, path: str | Path) -> None:
        """Write the rows as one FAISS file. Raises LmrError where that is not possible."""
        write_faiss(self._flat, Path(path))

    def part(self, first: int, n: int) -> "FlatIndex":
        """Exact search of n rows from one on, which stay where they are."""
        if not 0 <= first <= first + n <= len(self):
            raise ValueError(f"{n} rows from {first} on are not among {len(self)}")
        if n == len(self):
            return self
        return FlatIndex(_view(self._flat, first, n), self.device, self.threads, self.largest_norm, self.progress)

    def shards(self, sizes: Sequence[int]) -> ShardedIndex:
        """Exact search of these rows in stretches of so many."""
        return ShardedIndex([self.part(first, n) for first, n in zip(first_rows(sizes), sizes, strict=True)])

    def on_cpu(self) -> "FlatIndex":
        """The same rows, searched on the CPU."""
        return FlatIndex(self._flat, "cpu", self.threads, self.largest_norm) if self.gpus else self

    @property
    def faiss_rows(self) -> Any:
        """The FAISS index that holds the rows, for kinds that score what they propose by them."""
        return self._flat

    def __len__(self) -> int:
        return int(self._flat.ntotal)

    @property
    def d(self) -> int:
        """Length of a descriptor."""
        return int(self._flat.d)

    @property
    def storage(self) -> Storage:
        """Storage dtype of the descriptors."""
        return "float16" if self._vectors.dtype == np.float16 else "float32"

    @property
    def stored(self) -> FloatArray:
        """The rows as they are stored, (n, d) in the stored type, read-only."""
        return self._vectors

    def vectors(self, rows: LongArray) -> FloatArray:
        """The stored vectors of these rows, (..., d) float32."""
        return to_float32(self._vectors[rows])

    def search(self, queries: FloatArray, k: int) -> Neighbours:
        """The k rows with the largest inner product for each query.

        queries: (q, d) float. Raises ValueError for another d, NaN or infinity, or k < 1.
        """
        queries = checked_queries(queries, self.d, k)
        self._on_gpus.expect(len(queries))
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        n_found = min(k, len(self))
        if n_found:
            step = _step(min(n_found + MARGIN, len(self)) * self.d)
            with faiss_switches(self.d, self.threads):
                todo = (
                    self._scan(queries, n_found, rows, scores) if self._is_scanned(queries) else np.arange(len(queries))
                )
                parts = [todo[start : start + step] for start in range(0, len(todo), step)]
                found = self._in_turn(lambda part: self._widen(queries[part], n_found), parts)
                for part, (found_rows, found_scores) in zip(parts, found, strict=True):
                    rows[part, :n_found], scores[part, :n_found] = found_rows, found_scores
        return Neighbours(rows, scores)

    def choose(self, queries: FloatArray, proposed: LongArray, k: int) -> Neighbours:
        """The best k of the rows that are proposed for each query, (q, c) with -1 = none and c >= k."""
        return Neighbours(*best(proposed, self._scores(queries, proposed), k))

    def _in_turn(self, work: Callable[[LongArray], Found], parts: list[LongArray]) -> Iterator[Found]:
        """What work makes of each part; threads score what a GPU proposes, which takes longer than to propose it."""
        n_threads = min(MOST_SCORING, self.threads or count_cores(), len(parts))
        if not self._on_gpus.is_used or n_threads < 2:
            yield from map(work, parts)
            return
        with ThreadPoolExecutor(n_threads) as pool:
            yield from pool.map(work, parts)

    def _is_scanned(self, queries: FloatArray) -> bool:
        """Tells whether a batch is large enough for matrix products of float16 rows, made float32 once for all of it.

        FAISS converts them for every query. Over float32 rows its own products are as quick.
        """
        is_large = len(queries) >= SCAN_FROM_QUERIES and len(self) >= SCAN_FROM_ROWS
        return is_large and self.storage == "float16" and not self._on_gpus.is_used

    def _scan(self, queries: FloatArray, k: int, rows: LongArray, scores: FloatArray) -> LongArray:
        """Fills in the best k of all rows; gives the queries whose last one may be tied with a row not proposed."""
        unsure = []
        with limited_blas(self.threads):
            for start in range(0, len(queries), QUERIES):
                some = queries[start : start + QUERIES]
                proposed, bound = propose_groups(some, len(self), self._blocks_of, k + MORE_GROUPS)
                slack = self.tolerance * np.linalg.norm(some, axis=1)
                for chunk in np.array_split(np.arange(len(some)), -(-len(some) // _step(proposed.shape[1] * self.d))):
                    found_rows, found = best(proposed[chunk], self._scores(some[chunk], proposed[chunk]), k)
                    rows[start + chunk, :k], scores[start + chunk, :k] = found_rows, found
                    unsure.append(start + chunk[found[:, -1] <= bound[chunk] + slack[chunk]])
        return np.concatenate(unsure)

    def _scores(self, queries: FloatArray, rows: LongArray) -> FloatArray:
        """(q, c) float32 of each query with its own rows (q, c); -inf for row -1."""
        return np.where(rows >= 0, scores_of(queries, self.vectors(rows)), np.float32(-np.inf))

    def _widen(self, queries: FloatArray, k: int) -> tuple[LongArray, FloatArray]:
        """Rows and scores (q, k), k <= n, fetched wider and wider until no tie at the end can be missed."""
        rows = np.empty((len(queries), k), dtype=np.int64)
        scores = np.empty((len(queries), k), dtype=np.float32)
        todo = np.arange(len(queries))
        width = min(k + MARGIN, len(self))
        while len(todo) and (width <= MAX_WIDTH or width == k + MARGIN):
            unsure = []
            for chunk in np.array_split(todo, -(-len(todo) // _step(width * self.d))):
                rows[chunk], scores[chunk], sure = self._fetch(queries[chunk], k, width)
                unsure.append(chunk[~sure])
            todo = np.concatenate(unsure)
            width = min(width * WIDEN, len(self)) if width < MAX_WIDTH else MAX_WIDTH + 1
        for i in todo:
            rows[i], scores[i] = self._compare_all(queries[i], k)
        return rows, scores

    def _fetch(self, queries: FloatArray, k: int, width: int) -> tuple[LongArray, FloatArray, Any]:
        """The best k of `width` proposed rows, and (q,) bool: no other row can be among them."""
        proposed, bound = self._propose(queries, width)
        rows, scores = best(proposed, self._scores(queries, proposed), k)
        if width >= len(self):
            return rows, scores, np.ones(len(queries), dtype=np.bool_)
        return rows, scores, scores[:, -1] > bound

    def _propose(self, queries: FloatArray, width: int) -> tuple[LongArray, FloatArray]:
        """Rows (q, width), and (q,) the most that any other row scores."""
        if width <= MAX_WIDTH:
            found = self._on_gpus.use(lambda rows: rows.propose(queries, width))
            if found is not None:
                return found
        scores, proposed = self._flat.search(queries, width)
        return proposed.astype(np.int64), scores[:, -1] + self.tolerance * np.linalg.norm(queries, axis=1)

    def _compare_all(self, query: FloatArray, k: int) -> tuple[LongArray, FloatArray]:
        """The best k of all rows for one query, (k,) each: for those with thousands of near-equal rows."""
        scores = np.concatenate([np.einsum("d,nd->n", query, block, dtype=np.float32) for _, block in self._blocks()])
        rows, scores = best(np.arange(len(self), dtype=np.int64)[None], scores[None], k)
        return rows[0], scores[0]

    def blocks(self) -> Iterator[FloatArray]:
        """The stored vectors in successive blocks, float32."""
        return (block for _, block in self._blocks())

    def _blocks(self) -> Iterator[tuple[int, FloatArray]]:
        """(first row, vectors float32) of successive rows."""
        return self._blocks_of(_step(self.d))

    def _blocks_of(self, n: int) -> Iterator[tuple[int, FloatArray]]:
        """(first row, vectors float32) of successive blocks of n rows."""
        for start in range(0, len(self), n):
            yield start, to_float32(self._vectors[start : start + n])

    def _copy_to(self, gpus: tuple[int, ...]) -> GpuRows:
        return GpuRows(self._vectors, self.largest_norm, gpus, self.progress)


def _empty(d: int, storage: Storage) -> Any:
    from index.search.library import faiss

    if storage == "float32":
        return faiss.IndexFlatIP(d)
    if storage == "float16":
        return faiss.IndexScalarQuantizer(d, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    raise ValueError(f"storage must be float32 or float16, not {storage}")


def _storage(flat: Any) -> Storage | None:
    """Storage dtype of the rows of this FAISS index, None if it is of another kind."""
    from index.search.library import faiss

    if isinstance(flat, faiss.IndexFlat):
        return "float32"
    if isinstance(flat, faiss.IndexScalarQuantizer) and flat.sq.qtype == faiss.ScalarQuantizer.QT_fp16:
        return "float16"
    return None


def _stored_vectors(flat: Any) -> FloatArray:
    """The rows in FAISS's own memory, (n, d) in the stored type; valid while `flat` lives."""
    dtype = np.dtype(_storage(flat))
    if flat.ntotal == 0:
        return np.empty((0, flat.d), dtype=dtype)
    from index.search.library import faiss

    codes = faiss.rev_swig_ptr(flat.codes.data(), flat.ntotal * flat.code_size)
    return read_only(codes.view(dtype).reshape(flat.ntotal, flat.d))


def _view(flat: Any, first: int, n: int) -> Any:
    """A FAISS index of n rows of another one, in whose memory they stay."""
    from index.search.library import faiss

    view = _empty(int(flat.d), "float32" if isinstance(flat, faiss.IndexFlat) else "float16")
    if n:
        size = int(flat.code_size)
        rows = faiss.rev_swig_ptr(flat.codes.data(), int(flat.ntotal) * size)[first * size : (first + n) * size]
        codes, place = view.codes, faiss.swig_ptr(rows)
        codes.is_owned = False
        codes.view_data = codes.c_ptr = place
        codes.view_size = codes.c_size = len(rows)
        view.ntotal = n
    view.referenced_objects = [flat]
    return view


def _step(n_numbers: int) -> int:
    return step_of(n_numbers, BLOCK_BYTES)
