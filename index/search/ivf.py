"""Approximate search: an inverted file proposes rows, which are then scored by the rows themselves.

Jegou, Douze, Schmid: Product quantization for nearest neighbor search, 2011; the 4-bit codes are those of Andre et al.,
Cache locality is not enough, 2015, as FAISS scans them.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from index.search.base import MARGIN, Neighbours, best, checked_queries, scores_of, step_of
from index.search.config import Storage
from index.search.faiss_io import faiss_switches, is_inner_product, limited_blas, read_faiss, write_faiss
from index.search.flat import BLOCK_BYTES, FlatIndex
from index.search.gpu import MAX_WIDTH, ROWS_FROM, OnGpus, flat_on, ivf_on
from index.search.kmeans import train_centroids
from index.search.plan import MOST_TRAINING_BYTES, ROWS_PER_LIST, IndexPlan
from index.search.scan import nearest_centroid
from retrieval.arrays import FloatArray, LongArray, UInt8Array
from retrieval.errors import LmrError
from retrieval.progress import SILENT, Progress

GPU_FROM_QUERIES = 1_000  # to put the codes on a GPU takes as long as to search for about so many
REFINED_MARGIN = 2  # rows kept beyond k of those that FAISS scored by the rows: the rest is its rounding
TRAINING_ROUNDS = 6  # of k-means of the lists
CODE_ROUNDS = 8  # of k-means of each part of the codes
CODE_ROWS_PER_CENTROID = 256  # rows that codes are trained on, for each of the 16 centroids of a part
ADDED_ROWS = 1 << 13  # at a time, to an inverted file that is there
PACKED_ROWS = 1 << 18  # whose codes are put in FAISS's order at a time, and held twice meanwhile
_CODES = {"ivf-flat": "QT_fp16", "ivf-sq8": "QT_8bit"}


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How thoroughly an inverted file is searched.

    n_probe: lists that are read for a query. n_candidates: rows scored again for each neighbour asked for.
    """

    n_probe: int = 16
    n_candidates: int = 10

    def __post_init__(self) -> None:
        if min(self.n_probe, self.n_candidates) < 1:
            raise ValueError(f"n_probe and n_candidates must be at least 1, got {self.n_probe}, {self.n_candidates}")


class IvfIndex:
    """An inverted file over rows that are kept beside it; made by `build` or `load`.

    rows: the stored rows, which score what is proposed. settings: of the search. threads: of the CPU, None = FAISS's
    own choice.
    """

    __slots__ = ("_ivf", "_on_gpus", "_refined", "rows", "settings", "threads")

    def __init__(self, ivf: Any, rows: FlatIndex, settings: SearchSettings, threads: int | None = None) -> None:
        from index.search.library import faiss

        if int(ivf.ntotal) != len(rows) or int(ivf.d) != rows.d:
            raise ValueError(f"an inverted file of {ivf.ntotal} x {ivf.d} does not fit {len(rows)} x {rows.d} rows")
        self._ivf, self.rows, self.settings, self.threads = ivf, rows, settings, threads
        self._refined = faiss.IndexRefine(ivf, rows.faiss_rows)
        gpus = rows.gpus if self._has_gpu_form and len(rows) >= ROWS_FROM else ()
        self._on_gpus = OnGpus(gpus, self._copy_to, rows.progress, pays_from=GPU_FROM_QUERIES)

    @classmethod
    def load(cls, path: Path, rows: FlatIndex, settings: SearchSettings, threads: int | None = None) -> Self:
        """The inverted file that `save` wrote. Raises LmrError: missing, damaged, or of other rows."""
        ivf = read_faiss(path, is_mapped=True)
        try:
            if not is_inner_product(ivf) or not hasattr(ivf, "invlists"):
                raise ValueError("not an inverted file")
            index = cls(ivf, rows, settings, threads)
        except ValueError as error:
            raise LmrError(f"{path}: {error}; run lmr build-index again") from None
        if rows.gpus and rows.device != "auto" and not index._has_gpu_form:
            rows.progress.warn(
                f"`device` {rows.device}: FAISS has no GPU form of this inverted file, which the CPU searches; "
                "lmr build-index with `kind` flat or ivf-sq8 makes an index that a GPU searches"
            )
        return index

    @classmethod
    def changed(
        cls,
        path: Path,
        rows: FlatIndex,
        settings: SearchSettings,
        kept: LongArray | None = None,
        progress: Progress = SILENT,
    ) -> Self:
        """The inverted file that `save` wrote, for other rows: without some, and with further ones.

        kept: those of before that stay, ascending, None = all. rows: these, in their order, then the new ones. Lists
        and codes stay as they were trained. Raises LmrError as `load`.
        """
        ivf = read_faiss(path, is_mapped=False)
        if kept is not None:
            _keep(ivf, kept)
        with faiss_switches(rows.d, rows.threads):
            for start in range(int(ivf.ntotal), len(rows), ADDED_ROWS):
                ivf.add(rows.vectors(np.arange(start, min(start + ADDED_ROWS, len(rows)))))
                progress.add(min(ADDED_ROWS, len(rows) - start))
        return cls(ivf, rows, settings, rows.threads)

    def save(self, path: Path) -> None:
        """Writes the inverted file, without the rows. Raises LmrError where that is not possible."""
        write_faiss(self._ivf, path)

    def with_settings(self, settings: SearchSettings) -> "IvfIndex":
        """The same inverted file, searched otherwise."""
        return IvfIndex(self._ivf, self.rows, settings, self.threads)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def d(self) -> int:
        return self.rows.d

    @property
    def storage(self) -> Storage:
        return self.rows.storage

    @property
    def n_lists(self) -> int:
        """Lists of the inverted file."""
        return int(self._ivf.nlist)

    def vectors(self, rows: LongArray) -> FloatArray:
        """The stored vectors of these rows, (..., d) float32."""
        return self.rows.vectors(rows)

    def choose(self, queries: FloatArray, proposed: LongArray, k: int) -> Neighbours:
        """As `FlatIndex.choose`."""
        return self.rows.choose(queries, proposed, k)

    def search(self, queries: FloatArray, k: int) -> Neighbours:
        """The k rows with the largest inner product for each query, of those that the inverted file proposes.

        queries: (q, d) float. A query whose lists hold fewer than k rows is compared with every row. Raises ValueError
        for another d, NaN or infinity, or k < 1.
        """
        queries = checked_queries(queries, self.d, k)
        self._on_gpus.expect(len(queries))
        n_found = min(k, len(self))
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        step = step_of((n_found + REFINED_MARGIN) * self.d, BLOCK_BYTES)
        with faiss_switches(self.d, self.threads):
            for start in range(0, len(queries), step):
                part = slice(start, start + step)
                rows[part, :n_found], scores[part, :n_found] = self._search(queries[part], n_found)
        lacking = np.flatnonzero(rows[:, n_found - 1] < 0) if n_found else np.empty(0, np.int64)
        if len(lacking):
            found = self.rows.search(queries[lacking], n_found)
            rows[lacking, :n_found], scores[lacking, :n_found] = found.rows, found.scores
        return Neighbours(rows, scores)

    def propose(self, queries: FloatArray, width: int) -> LongArray:
        """(q, width) int64: the rows that the inverted file itself finds nearest, best first, -1 = none."""
        with faiss_switches(self.d, self.threads):
            _, rows = self._ivf.search(queries, width, params=self._of_lists())
        return np.asarray(rows, dtype=np.int64)

    def _search(self, queries: FloatArray, k: int) -> tuple[LongArray, FloatArray]:
        """The best k of the proposed rows; where the last may be tied with one that was dropped, of all of them."""
        width = min(max(k * self.settings.n_candidates, k + MARGIN), len(self))
        kept = min(k + REFINED_MARGIN, width)
        near, proposed = self._refine(queries, kept, width)
        rows, scores = self._score(queries, proposed, k)
        slack = self.rows.tolerance * np.linalg.norm(queries, axis=1)
        tied = np.flatnonzero((scores[:, -1] <= near[:, -1] + slack) & (proposed[:, -1] >= 0)) if kept < width else ()
        for i in tied:
            one = slice(i, i + 1)
            rows[one], scores[one] = self._score(queries[one], self.propose(queries[one], width), k)
        return rows, scores

    def _refine(self, queries: FloatArray, kept: int, width: int) -> tuple[FloatArray, LongArray]:
        """Scores and rows (q, kept) that FAISS finds best by the rows, of `width` that the inverted file proposes."""

        def search(refined: Any) -> tuple[FloatArray, LongArray]:
            scores, rows = refined.search(queries, kept, params=self._of_refined(width / kept))
            return scores, np.asarray(rows, dtype=np.int64)

        found = self._on_gpus.use(search) if width <= MAX_WIDTH else None
        return search(self._refined) if found is None else found

    @property
    def _n_probe(self) -> int:
        return min(self.settings.n_probe, self.n_lists)

    @property
    def _has_gpu_form(self) -> bool:
        from index.search.library import faiss

        return isinstance(self._ivf, faiss.IndexIVFScalarQuantizer) and self._n_probe <= MAX_WIDTH

    def _copy_to(self, gpus: tuple[int, ...]) -> Any:
        from index.search.library import faiss

        return faiss.IndexRefine(ivf_on(gpus, self._ivf), self.rows.faiss_rows)

    def _score(self, queries: FloatArray, proposed: LongArray, k: int) -> tuple[LongArray, FloatArray]:
        scores = np.where(proposed >= 0, scores_of(queries, self.vectors(proposed)), np.float32(-np.inf))
        return best(proposed, scores, k)

    def _of_lists(self) -> Any:
        from index.search.library import faiss

        parameters: Any = faiss.SearchParametersIVF
        return parameters(nprobe=self._n_probe)

    def _of_refined(self, factor: float) -> Any:
        from index.search.library import faiss

        parameters: Any = faiss.IndexRefineSearchParameters
        return parameters(k_factor=factor, base_index_params=self._of_lists())


class IvfBuilder:
    """An inverted file that rows are added to in blocks, after it has learnt from a sample of them."""

    def __init__(
        self,
        plan: IndexPlan,
        sample: FloatArray,
        seed: int = 0,
        gpus: tuple[int, ...] = (),
        progress: Progress = SILENT,
    ) -> None:
        """sample: (s, d) float32 rows, at least as many as lists; `n_training_rows` says how many are enough.

        gpus: the first one finds the centroids and the lists of the rows; progress is told where it cannot.
        """
        from index.search.library import faiss

        self._on_gpu = OnGpus(gpus[:1], lambda numbers: flat_on(numbers[0], plan.d), progress)
        learn = partial(train_centroids, sample, plan.n_lists, seed, TRAINING_ROUNDS)
        centroids = self._on_gpu.use(learn)
        self._centroids = learn() if centroids is None else centroids
        self._quantiser = faiss.IndexFlatIP(plan.d)  # kept here: the inverted file does not own it
        self._quantiser.add(self._centroids)
        ivf: Any
        if plan.n_parts:
            ivf = faiss.IndexIVFPQ(self._quantiser, plan.d, plan.n_lists, plan.n_parts, 4, faiss.METRIC_INNER_PRODUCT)
            ivf.pq.cp.seed, ivf.pq.cp.niter = seed, CODE_ROUNDS
        else:
            code = getattr(faiss.ScalarQuantizer, _CODES[plan.kind])
            ivf = faiss.IndexIVFScalarQuantizer(self._quantiser, plan.d, plan.n_lists, code, faiss.METRIC_INNER_PRODUCT)
        step = max(1, len(sample) // (16 * CODE_ROWS_PER_CENTROID))
        with faiss_switches(plan.d, threads=1):  # the parts are so small that threads wait for each other
            ivf.train(np.ascontiguousarray(sample[::step], dtype=np.float32))
        self._plan, self._ivf = plan, ivf
        self._lists = np.empty(plan.n if plan.n_parts else 0, dtype=np.int32)
        self._codes = np.empty((len(self._lists), int(ivf.code_size)), dtype=np.uint8)
        self._n_coded = 0

    def add(self, vectors: FloatArray) -> None:
        """Adds the next rows, (n, d) float, of the plan's n."""
        from index.search.library import faiss

        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        lists = self._on_gpu.use(lambda centroids: np.ascontiguousarray(centroids.search(vectors, 1)[1][:, 0]))
        if lists is None:
            lists = nearest_centroid(vectors, self._centroids)
        if self._plan.n_parts:
            part = slice(self._n_coded, self._n_coded + len(vectors))
            self._lists[part] = lists
            codes = self._codes[part]
            self._ivf.encode_vectors(len(vectors), *map(faiss.swig_ptr, (vectors, lists, codes)))
            self._n_coded += len(vectors)
        else:
            self._ivf.add_core(len(vectors), faiss.swig_ptr(vectors), None, faiss.swig_ptr(lists))

    def finish(self, rows: FlatIndex, settings: SearchSettings, threads: int | None = None) -> IvfIndex:
        """The inverted file over these rows, all of which were added in their order."""
        ivf = self._packed() if self._plan.n_parts else self._ivf
        ivf.referenced_objects = [self._quantiser]
        return IvfIndex(ivf, rows, settings, threads)

    def _packed(self) -> Any:
        """The codes in the lists as FastScan reads them; some lists at a time, so that few codes are held twice."""
        from index.search.library import faiss

        packed: Any = faiss.IndexIVFPQFastScan(self._ivf)
        order = np.argsort(self._lists, kind="stable")
        ends = np.cumsum(np.bincount(self._lists, minlength=self._plan.n_lists))
        first = 0
        while first < len(ends):
            start = int(ends[first - 1]) if first else 0
            last = max(first + 1, int(np.searchsorted(ends, start + PACKED_ROWS, side="right")))
            self._pack(packed, order[start : ends[last - 1]])
            first = last
        packed.ntotal = len(order)
        return packed

    def _pack(self, packed: Any, rows: LongArray) -> None:
        """Puts the codes of these rows, which are all of their lists, where `packed` looks for them."""
        from index.search.library import faiss

        library: Any = faiss
        lists, starts = np.unique(self._lists[rows], return_index=True)
        unpacked = library.ArrayInvertedLists(self._plan.n_lists, self._codes.shape[1])
        unpacked.this.disown()
        self._ivf.replace_invlists(unpacked, True)
        for number, own in zip(lists.tolist(), np.split(rows, starts[1:]), strict=True):
            codes = self._codes[own]
            unpacked.add_entries(number, len(own), faiss.swig_ptr(own), faiss.swig_ptr(codes))
        self._ivf.ntotal = len(rows)
        part = library.IndexIVFPQFastScan(self._ivf)
        for number in lists.tolist():
            one = part.invlists
            packed.invlists.add_entries(number, one.list_size(number), one.get_ids(number), one.get_codes(number))


def build_ivf(rows: FlatIndex, plan: IndexPlan, seed: int = 0, progress: Progress = SILENT) -> IvfIndex:
    """An inverted file over stored rows, which are read in blocks; it is searched on the CPU."""
    sample = np.sort(np.random.default_rng(seed).permutation(len(rows))[: n_training_rows(plan)])
    with faiss_switches(plan.d, rows.threads), limited_blas(rows.threads):
        builder = IvfBuilder(plan, rows.vectors(sample), seed, rows.gpus, progress)
        for block in rows.blocks():
            builder.add(block)
            progress.add(len(block))
        return builder.finish(rows.on_cpu(), SearchSettings(), rows.threads)


def n_training_rows(plan: IndexPlan) -> int:
    """Rows of a sample that centroids and codes are trained on."""
    wanted = max(plan.n_lists * ROWS_PER_LIST, 16 * CODE_ROWS_PER_CENTROID)
    return min(plan.n, wanted, max(plan.n_lists, MOST_TRAINING_BYTES // (4 * plan.d)))


def _keep(ivf: Any, kept: LongArray) -> None:
    """Removes the other rows from an inverted file and numbers the ones that stay anew."""
    from index.search.library import faiss

    library: Any = faiss
    number = np.full(int(ivf.ntotal), -1, dtype=np.int64)
    number[kept] = np.arange(len(kept))
    ivf.remove_ids(library.IDSelectorBitmap(np.packbits(number < 0, bitorder="little")))
    lists = faiss.downcast_InvertedLists(ivf.invlists)
    places = _bits_of_places(lists) if isinstance(lists, library.BlockInvertedLists) else None
    for i in range(int(ivf.nlist)):
        size = int(lists.list_size(i))
        if size:
            ids = faiss.rev_swig_ptr(lists.get_ids(i), size)
            ids[:] = number[ids]
        if size and places is not None:
            n_blocks = -(-size // len(places))
            codes = faiss.rev_swig_ptr(lists.get_codes(i), n_blocks * places.shape[1]).reshape(n_blocks, -1)
            codes[-1] &= places[(size - 1) % len(places)]


def _bits_of_places(lists: Any) -> UInt8Array:
    """(places, bytes of a block): the bits of a list's block that hold the codes up to each of its places.

    FAISS 1.15 leaves the codes of removed rows behind the last one, and adds those of new rows by OR: a fifth of them
    got lost.
    """
    block = np.zeros((1, int(lists.block_size)), dtype=np.uint8)
    every = np.full(lists.packer.code_size, 0xFF, dtype=np.uint8)
    found = []
    for place in range(int(lists.n_per_block)):
        lists.packer.pack_1(every, place, block)
        found.append(block[0].copy())
    return np.array(found)
