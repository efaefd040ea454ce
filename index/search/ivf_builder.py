"""An inverted file made of rows: learnt from a sample of them, each row coded, and the codes of a shard packed.

Every row is coded by itself, so that codes which are made elsewhere, of some of the rows, pack into the same file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from index.search.faiss_io import faiss_switches, limited_blas, read_faiss, write_faiss
from index.search.flat import FlatIndex
from index.search.gpu import OnGpus, flat_on
from index.search.ivf import IvfIndex, IvfShards, SearchSettings
from index.search.kmeans import train_centroids
from index.search.plan import MOST_TRAINING_BYTES, ROWS_PER_LIST, IndexPlan
from index.search.scan import nearest_centroid
from index.search.shards import first_rows, shard_sizes
from retrieval.arrays import FloatArray, IntArray, LongArray, UInt8Array
from retrieval.progress import SILENT, Progress

TRAINING_ROUNDS = 6  # of k-means of the lists
CODE_ROUNDS = 8  # of k-means of each part of the codes
CODE_ROWS_PER_CENTROID = 256  # rows that codes are trained on, for each of the 16 centroids of a part
CODED_ROWS = 1 << 14  # at a time, from multiples of it on
PACKED_ROWS = 1 << 18  # whose codes are put in FAISS's order at a time, and held twice meanwhile
_CODES = {"ivf-flat": "QT_fp16", "ivf-sq8": "QT_8bit"}


@dataclass(frozen=True, slots=True)
class Coded:
    """What an inverted file holds of rows: lists (n,) int32, their lists; codes (n, bytes) uint8."""

    lists: IntArray
    codes: UInt8Array


class Coder:
    """What an inverted file has learnt: the centroids of its lists, and how rows are coded. Made by `learn` or `load`.

    gpus: holds the centroids where that was asked for.
    """

    def __init__(self, ivf: Any, plan: IndexPlan, gpus: OnGpus[Any] | None = None) -> None:
        from index.search.library import faiss

        self.ivf, self.plan = ivf, plan
        self._gpus: OnGpus[Any] = gpus or OnGpus((), lambda _: None, SILENT)
        quantiser: Any = faiss.downcast_index(ivf.quantizer)
        self.centroids: FloatArray = np.asarray(quantiser.reconstruct_n(0, plan.n_lists), dtype=np.float32)

    @classmethod
    def learn(
        cls,
        plan: IndexPlan,
        sample: FloatArray,
        seed: int = 0,
        gpus: tuple[int, ...] = (),
        progress: Progress = SILENT,
    ) -> Self:
        """Learns from (s, d) float32 rows, at least as many as lists; `n_training_rows` says how many are enough.

        gpus: the first one finds the centroids and the lists of the rows; progress is told where it cannot.
        """
        from index.search.library import faiss

        on_gpu: OnGpus[Any] = OnGpus(gpus[:1], lambda numbers: flat_on(numbers[0], plan.d), progress)
        learn = partial(train_centroids, sample, plan.n_lists, seed, TRAINING_ROUNDS)
        found = on_gpu.use(learn)
        quantiser = faiss.IndexFlatIP(plan.d)
        quantiser.add(learn() if found is None else found)
        ivf: Any
        if plan.n_parts:
            ivf = faiss.IndexIVFPQ(quantiser, plan.d, plan.n_lists, plan.n_parts, 4, faiss.METRIC_INNER_PRODUCT)
            ivf.pq.cp.seed, ivf.pq.cp.niter = seed, CODE_ROUNDS
        else:
            code = getattr(faiss.ScalarQuantizer, _CODES[plan.kind])
            ivf = faiss.IndexIVFScalarQuantizer(quantiser, plan.d, plan.n_lists, code, faiss.METRIC_INNER_PRODUCT)
        ivf.referenced_objects = [quantiser]  # which the inverted file does not own
        step = max(1, len(sample) // (16 * CODE_ROWS_PER_CENTROID))
        with faiss_switches(plan.d, threads=1):  # the parts are so small that threads wait for each other
            ivf.train(np.ascontiguousarray(sample[::step], dtype=np.float32))
        return cls(ivf, plan, on_gpu)

    @classmethod
    def load(cls, path: Path, plan: IndexPlan) -> Self:
        """What `save` wrote. Raises LmrError for a file that is missing or damaged."""
        return cls(read_faiss(path, is_mapped=False), plan)

    def save(self, path: Path) -> None:
        """Writes what was learnt. Raises LmrError where that is not possible."""
        write_faiss(self.ivf, path)

    def encode(self, vectors: FloatArray) -> Coded:
        """The lists and codes of rows, (n, d) float."""
        from index.search.library import faiss

        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        found = self._gpus.use(lambda centroids: np.ascontiguousarray(centroids.search(vectors, 1)[1][:, 0]))
        lists = nearest_centroid(vectors, self.centroids) if found is None else found
        codes = np.empty((len(vectors), int(self.ivf.code_size)), dtype=np.uint8)
        self.ivf.encode_vectors(len(vectors), *map(faiss.swig_ptr, (vectors, lists, codes)))
        return Coded(lists.astype(np.int32), codes)


class Packer:
    """Lists and codes of the rows of a shard, put in their lists: `add` in the order of the rows, then `finish`.

    Codes of parts of a row are kept until all are there, as FastScan packs whole lists.
    """

    def __init__(self, coder: Coder, n: int) -> None:
        from index.search.library import faiss

        self._coder, self._n = coder, 0
        self._ivf: Any = None if coder.plan.n_parts else faiss.clone_index(coder.ivf)
        n_kept = n if coder.plan.n_parts else 0
        self._lists = np.empty(n_kept, dtype=np.int32)
        self._codes = np.empty((n_kept, int(coder.ivf.code_size)), dtype=np.uint8)

    def add(self, coded: Coded) -> None:
        """Adds the next rows."""
        n = len(coded.lists)
        if self._ivf is None:
            part = slice(self._n, self._n + n)
            self._lists[part], self._codes[part] = coded.lists, coded.codes
        elif n:
            of_list = coded.lists.astype("<i8").view(np.uint8).reshape(n, 8)[:, : self._ivf.coarse_code_size()]
            self._ivf.add_sa_codes(np.concatenate([of_list, coded.codes], axis=1))
        self._n += n

    def finish(self) -> Any:
        """The inverted file of FAISS."""
        return self._packed() if self._ivf is None else self._ivf

    def _packed(self) -> Any:
        """The codes in the lists as FastScan reads them; some lists at a time, so that few codes are held twice."""
        from index.search.library import faiss

        packed: Any = faiss.IndexIVFPQFastScan(self._coder.ivf)
        packed.referenced_objects = [self._coder.ivf]
        order = np.argsort(self._lists, kind="stable")
        ends = np.cumsum(np.bincount(self._lists, minlength=self._coder.plan.n_lists))
        first = 0
        while first < len(ends):
            start = int(ends[first - 1]) if first else 0
            last = max(first + 1, int(np.searchsorted(ends, start + PACKED_ROWS, side="right")))
            if ends[last - 1] > start:
                self._pack(packed, order[start : ends[last - 1]])
            first = last
        packed.ntotal = len(order)
        self._use(0)
        return packed

    def _pack(self, packed: Any, rows: LongArray) -> None:
        """Puts the codes of these rows, which are all of their lists, where `packed` looks for them."""
        from index.search.library import faiss

        library: Any = faiss
        lists, starts = np.unique(self._lists[rows], return_index=True)
        unpacked = self._use(len(rows))
        for number, own in zip(lists.tolist(), np.split(rows, starts[1:]), strict=True):
            codes = self._codes[own]
            unpacked.add_entries(number, len(own), faiss.swig_ptr(own), faiss.swig_ptr(codes))
        part = library.IndexIVFPQFastScan(self._coder.ivf)
        for number in lists.tolist():
            one = part.invlists
            packed.invlists.add_entries(number, one.list_size(number), one.get_ids(number), one.get_codes(number))

    def _use(self, n: int) -> Any:
        """Empty lists, which n rows are to be put into, in the place of those that were used before."""
        from index.search.library import faiss

        library: Any = faiss
        lists = library.ArrayInvertedLists(self._coder.plan.n_lists, self._codes.shape[1])
        lists.this.disown()
        self._coder.ivf.replace_invlists(lists, True)
        self._coder.ivf.ntotal = n
        return lists


def build_ivf(rows: FlatIndex, plan: IndexPlan, seed: int = 0, progress: Progress = SILENT) -> IvfShards:
    """An inverted file over stored rows, which are read in blocks, in the shards of the plan.

    It is searched on the CPU, so that settings which are chosen with it are right on any machine.
    """
    with faiss_switches(plan.d, rows.threads), limited_blas(rows.threads):
        coder = Coder.learn(plan, rows.vectors(training_rows(plan, seed)), seed, rows.gpus, progress)
        on_cpu, sizes = rows.on_cpu(), shard_sizes(len(rows), plan.n_shards)
        blocks = _coded_blocks(rows, coder, sizes, progress)
        parts = []
        for first, n in zip(first_rows(sizes), sizes, strict=True):
            packer, missing = Packer(coder, n), n
            while missing:
                coded = next(blocks)
                packer.add(coded)
                missing -= len(coded.lists)
            parts.append(IvfIndex(packer.finish(), on_cpu.part(first, n), SearchSettings(), rows.threads))
    return IvfShards(parts, on_cpu)


def _coded_blocks(rows: FlatIndex, coder: Coder, sizes: Sequence[int], progress: Progress) -> Iterator[Coded]:
    """Lists and codes of successive blocks of rows, cut where a shard ends."""
    ends = np.cumsum(sizes)
    for start in range(0, len(rows), CODED_ROWS):
        coded = coder.encode(rows.vectors(np.arange(start, min(start + CODED_ROWS, len(rows)))))
        cuts = [int(end) - start for end in ends if start < end < start + len(coded.lists)]
        for lists, codes in zip(np.split(coded.lists, cuts), np.split(coded.codes, cuts), strict=True):
            yield Coded(lists, codes)
        progress.add(len(coded.lists))


def training_rows(plan: IndexPlan, seed: int = 0) -> LongArray:
    """Rows of the sample that an inverted file learns from, ascending."""
    return np.sort(np.random.default_rng(seed).permutation(plan.n)[: n_training_rows(plan)])


def n_training_rows(plan: IndexPlan) -> int:
    """Rows of a sample that centroids and codes are trained on."""
    wanted = max(plan.n_lists * ROWS_PER_LIST, 16 * CODE_ROWS_PER_CENTROID)
    return min(plan.n, wanted, max(plan.n_lists, MOST_TRAINING_BYTES // (4 * plan.d)))
