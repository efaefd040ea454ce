"""Exact nearest neighbours by inner product: the only module that knows FAISS.

FAISS sums a score in an order that depends on the batch size and on the device. So it only proposes rows,
a few more than asked for; their scores are computed again in one float32 path and ordered by lower row where
they are equal. A query whose last neighbour might be tied with a row that was not proposed is searched wider.
FAISS is imported where it is used, since commands that refuse their input or find nothing to do import this module.
"""

import contextlib
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from retrieval.arrays import FloatArray, LongArray, read_only
from retrieval.errors import LmrError
from retrieval.files.atomic import write_error
from retrieval.files.utf8_path import utf8_path

Storage = Literal["float32", "float16"]

MARGIN = 10  # rows fetched beyond k; on 200,000 random rows none of 256 queries then needs a second search
WIDEN = 4  # factor between one width and the next
MAX_WIDTH = 2048  # FAISS on a GPU selects at most this many; wider queries are compared with every row
BLOCK_BYTES = 1 << 26  # working memory of one step
KMEANS_ITERATIONS = 20
BLAS_FROM_QUERIES = 8  # batches from this size use BLAS: scripts/bench/search_threshold.py


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The best rows of each query, best first; rows -1 and scores -inf where there were fewer than k.

    rows: (q, k) int64; scores: (q, k) float32. Equal scores are ordered by lower row.
    """

    rows: LongArray
    scores: FloatArray

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or self.rows.shape != self.scores.shape:
            raise ValueError(f"rows {self.rows.shape} and scores {self.scores.shape} must be equal (q, k)")
        if self.rows.dtype != np.int64 or self.scores.dtype != np.float32:
            raise ValueError(f"rows and scores must be int64 and float32, not {self.rows.dtype}, {self.scores.dtype}")
        object.__setattr__(self, "rows", read_only(self.rows))
        object.__setattr__(self, "scores", read_only(self.scores))

    @property
    def n_queries(self) -> int:
        """Number of queries, q."""
        return len(self.rows)

    @property
    def k(self) -> int:
        """Neighbours of each query, padding among them."""
        return int(self.rows.shape[1])


class FlatIndex:
    """Every row in memory, every query compared with every row.

    Made by `build` or `load`. device: auto | cpu | cuda[:n]; mps is the CPU, FAISS has nothing for it.
    threads: CPU threads of a search, None for FAISS's own choice (all cores).
    """

    __slots__ = ("_fast", "_flat", "_tolerance", "_vectors", "threads")

    def __init__(self, flat: Any, device: str, threads: int | None) -> None:
        self._flat = flat
        self._vectors = _stored_vectors(flat)
        self.threads = threads
        largest = 0.0
        for start, block in self._blocks():
            norms = np.sqrt(np.einsum("nd,nd->n", block, block, dtype=np.float64))
            if not np.isfinite(norms).all():
                row = start + int(np.flatnonzero(~np.isfinite(norms))[0])
                raise ValueError(f"vectors[{row}] holds NaN or infinity")
            largest = max(largest, float(norms.max()))
        # No order of summing d float32 products of one query with one row errs by more than this times |query|.
        self._tolerance = self.d * 2.0**-24 * largest
        self._fast = self._on_device(device)

    @classmethod
    def build(
        cls,
        vectors: FloatArray,
        storage: Storage = "float32",
        device: str = "auto",
        threads: int | None = None,
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
        return cls(flat, device, threads)

    @classmethod
    def load(cls, path: str | Path, device: str = "auto", threads: int | None = None) -> Self:
        """The index that `save` wrote. Raises LmrError for a file that is missing, damaged or of another kind."""
        if not Path(path).is_file():
            raise LmrError(f"{path}: there is no such file; run lmr build-index")
        import faiss

        try:
            with utf8_path(Path(path)) as place:
                flat: Any = faiss.read_index(place)
            sound = flat.metric_type == faiss.METRIC_INNER_PRODUCT and _storage(flat) is not None
            sound = sound and flat.codes.size() == flat.ntotal * flat.code_size
        except MemoryError:
            raise LmrError(
                f"{path}: there is not enough memory for it, or it is damaged; lmr info `verify` tells"
            ) from None
        except (OSError, RuntimeError) as error:
            with contextlib.suppress(OSError), Path(path).open("rb"):
                raise LmrError(f"{path}: damaged or cut short; run lmr build-index again") from None
            raise LmrError(f"{path} cannot be read; the file itself may be whole") from error
        if not sound:
            raise LmrError(f"{path}: not an index that lmr wrote; run lmr build-index")
        try:
            return cls(flat, device, threads)
        except ValueError as error:
            raise LmrError(f"{path}: damaged: {error}; run lmr build-index again") from None

    def save(self, path: str | Path) -> None:
        """Write the rows as one FAISS file. Raises LmrError where that is not possible."""
        import faiss

        try:
            with utf8_path(Path(path), is_new=True) as place:
                faiss.write_index(self._flat, place)
        except OSError as error:
            raise write_error(Path(path), error) from error
        except RuntimeError as error:
            reason = str(error).rsplit(": ", 1)[-1].strip()
            raise LmrError(
                f"{path}: the index cannot be written ({reason}); free space or choose another folder"
            ) from None

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

    def vectors(self, rows: LongArray) -> FloatArray:
        """The stored vectors of these rows, (..., d) float32."""
        return self._vectors[rows].astype(np.float32, copy=False)

    def search(self, queries: FloatArray, k: int) -> Neighbours:
        """The k rows with the largest inner product for each query.

        queries: (q, d) float. Raises ValueError for another d, NaN or infinity, or k < 1.
        """
        queries = self._checked(queries)
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        n_found = min(k, len(self))
        if n_found:
            step = _step(min(n_found + MARGIN, len(self)) * self.d)
            with self._switches():
                for start in range(0, len(queries), step):
                    part = slice(start, start + step)
                    rows[part, :n_found], scores[part, :n_found] = self._widen(queries[part], n_found)
        return Neighbours(rows, scores)

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
        index = self._flat if width > MAX_WIDTH else self._fast
        proposed_scores, proposed = index.search(queries, width)
        scores = np.einsum("qd,qcd->qc", queries, self.vectors(proposed))
        rows, scores = _best(proposed.astype(np.int64), scores, k)
        if width >= len(self):
            return rows, scores, np.ones(len(queries), dtype=np.bool_)
        slack = self._tolerance * np.linalg.norm(queries, axis=1)
        return rows, scores, scores[:, -1] > proposed_scores[:, -1] + slack

    def _compare_all(self, query: FloatArray, k: int) -> tuple[LongArray, FloatArray]:
        """The best k of all rows for one query, (k,) each: for those with thousands of near-equal rows."""
        scores = np.concatenate([np.einsum("d,nd->n", query, block, dtype=np.float32) for _, block in self._blocks()])
        rows, scores = _best(np.arange(len(self), dtype=np.int64)[None], scores[None], k)
        return rows[0], scores[0]

    def _blocks(self) -> Iterator[tuple[int, FloatArray]]:
        """(first row, vectors float32) of successive rows."""
        step = _step(self.d)
        for start in range(0, len(self), step):
            yield start, self._vectors[start : start + step].astype(np.float32, copy=False)

    def _checked(self, queries: FloatArray) -> FloatArray:
        if queries.ndim != 2 or queries.shape[1] != self.d:
            raise ValueError(f"queries must be (q, {self.d}), not {queries.shape}")
        bad = np.flatnonzero(~np.isfinite(queries).all(axis=1))
        if len(bad):
            raise ValueError(f"queries[{bad[0]}] holds NaN or infinity")
        return np.ascontiguousarray(queries, dtype=np.float32)

    @contextlib.contextmanager
    def _switches(self) -> Iterator[None]:
        """Process-wide switches of FAISS, put back at the end; only speed depends on them."""
        import faiss

        before = faiss.cvar.distance_compute_blas_threshold, faiss.omp_get_max_threads()
        faiss.cvar.distance_compute_blas_threshold = BLAS_FROM_QUERIES * (self.d if counts_products() else 1)
        faiss.omp_set_num_threads(before[1] if self.threads is None else self.threads)
        try:
            yield
        finally:
            faiss.cvar.distance_compute_blas_threshold = before[0]
            faiss.omp_set_num_threads(before[1])

    def _on_device(self, device: str) -> Any:
        """The index that searches: this one itself, or a float32 copy of it on a GPU."""
        number = _gpu(device)
        if number is None:
            return self._flat
        import faiss

        resources = faiss.StandardGpuResources()
        options = faiss.GpuIndexFlatConfig()
        options.device = number
        copy = faiss.GpuIndexFlatIP(resources, self.d, options)
        for _, block in self._blocks():
            copy.add(block)
        return copy


@functools.cache
def counts_products() -> bool:
    """True where FAISS compares its own threshold, before it is set here, with queries * d.

    Newer versions do (128,000); older ones compare theirs (20) with the number of queries.
    """
    import faiss

    return bool(faiss.cvar.distance_compute_blas_threshold > 1000)


def _gpu(device: str) -> int | None:
    """The number of the GPU that `device` means, None for the CPU."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
        raise LmrError(f"`device` {device}: not a device; use auto, cpu, cuda, cuda:N or mps")
    import faiss

    n_gpus = faiss.get_num_gpus() if hasattr(faiss, "StandardGpuResources") else 0
    if device in ("cpu", "mps") or (device == "auto" and n_gpus == 0):
        return None
    number = int(device.partition(":")[2] or 0)
    if number >= n_gpus:
        raise LmrError(f"`device` {device}: FAISS sees {n_gpus} GPUs; give `device` cpu or auto")
    return number


def _empty(d: int, storage: Storage) -> Any:
    import faiss

    if storage == "float32":
        return faiss.IndexFlatIP(d)
    if storage == "float16":
        return faiss.IndexScalarQuantizer(d, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    raise ValueError(f"storage must be float32 or float16, not {storage}")


def _storage(flat: Any) -> Storage | None:
    """Storage dtype of the rows of this FAISS index, None if it is of another kind."""
    import faiss

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
    import faiss

    codes = faiss.rev_swig_ptr(flat.codes.data(), flat.ntotal * flat.code_size)
    return read_only(codes.view(dtype).reshape(flat.ntotal, flat.d))


def _step(n_numbers: int) -> int:
    """Number of things of that many float32 numbers each that fit into one block."""
    return max(1, BLOCK_BYTES // (4 * max(1, n_numbers)))


def _best(rows: LongArray, scores: FloatArray, k: int) -> tuple[LongArray, FloatArray]:
    """The k best of each line, score descending, then row ascending."""
    order = np.lexsort((rows, -scores), axis=-1)[:, :k]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)


def train_centroids(vectors: FloatArray, k: int, seed: int) -> FloatArray:
    """(k, d) float32 centroids of unit length: spherical k-means over all these rows, on the CPU.

    vectors: (n, d) of unit length, n >= k. The same seed gives the same centroids.
    """
    import faiss

    n, d = vectors.shape
    limits = {"min_points_per_centroid": 1, "max_points_per_centroid": -(-n // k)}
    kmeans = faiss.Kmeans(d, k, niter=KMEANS_ITERATIONS, seed=seed, spherical=True, **limits)
    kmeans.train(np.ascontiguousarray(vectors, dtype=np.float32))
    return np.asarray(kmeans.centroids, dtype=np.float32)
