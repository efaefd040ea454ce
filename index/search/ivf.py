"""Approximate search: an inverted file proposes rows, which are then scored by the rows themselves.

Jegou, Douze, Schmid: Product quantization for nearest neighbor search, 2011; the 4-bit codes are those of Andre et al.,
Cache locality is not enough, 2015, as FAISS scans them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from index.search.base import MARGIN, Neighbours, best, checked_queries, scores_of, step_of
from index.search.config import Storage
from index.search.faiss_io import faiss_switches, is_inner_product, read_faiss, write_faiss
from index.search.flat import BLOCK_BYTES, FlatIndex
from index.search.gpu import MAX_WIDTH, ROWS_FROM, OnGpus, ivf_on
from index.search.shards import ShardedIndex, first_rows
from retrieval.arrays import FloatArray, LongArray, UInt8Array
from retrieval.errors import LmrError
from retrieval.progress import SILENT, Progress

GPU_FROM_QUERIES = 1_000  # to put the codes on a GPU takes as long as to search for about so many
REFINED_MARGIN = 2  # rows kept beyond k of those that FAISS scored by the rows: the rest is its rounding
ADDED_ROWS = 1 << 13  # at a time, to an inverted file that is there


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
        gpus = rows.gpus if self.has_gpu_form and len(rows) >= ROWS_FROM else ()
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
            for start in range(0, len(queries) if n_found else 0, step):
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
    def has_gpu_form(self) -> bool:
        """True where FAISS searches it on GPUs too."""
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


class IvfShards(ShardedIndex):
    """Inverted files over the shards of the rows, with the same lists and codes; each proposes rows of its own.

    parts: one for each shard, in the order of their rows. rows: all of them.
    """

    def __init__(self, parts: Sequence[IvfIndex], rows: FlatIndex) -> None:
        super().__init__(parts)
        self.parts, self.rows = tuple(parts), rows

    @classmethod
    def load(
        cls,
        paths: Sequence[Path],
        rows: FlatIndex,
        sizes: Sequence[int],
        settings: SearchSettings,
        threads: int | None = None,
    ) -> Self:
        """The inverted files that `save` wrote over so many rows each. Raises LmrError as `IvfIndex.load`."""
        places = zip(paths, first_rows(sizes), sizes, strict=True)
        parts = [IvfIndex.load(path, rows.part(first, n), settings, threads) for path, first, n in places]
        if rows.gpus and rows.device != "auto" and not parts[0].has_gpu_form:
            rows.progress.warn(
                f"`device` {rows.device}: FAISS has no GPU form of this inverted file, which the CPU searches; "
                "lmr build-index with `kind` flat or ivf-sq8 makes an index that a GPU searches"
            )
        return cls(parts, rows)

    def save(self, paths: Sequence[Path]) -> None:
        """Writes the inverted files, without the rows. Raises LmrError where that is not possible."""
        for part, path in zip(self.parts, paths, strict=True):
            part.save(path)

    @property
    def settings(self) -> SearchSettings:
        """How thoroughly each shard is searched."""
        return self.parts[0].settings

    @property
    def n_lists(self) -> int:
        """Lists of the inverted file, the same in each shard."""
        return self.parts[0].n_lists

    def with_settings(self, settings: SearchSettings) -> "IvfShards":
        """The same inverted files, searched otherwise."""
        return IvfShards([part.with_settings(settings) for part in self.parts], self.rows)

    def propose(self, queries: FloatArray, width: int) -> LongArray:
        """(q, n_shards * width) int64: the rows that each shard itself finds nearest, shard by shard, -1 = none."""
        found = [part.propose(queries, width) for part in self.parts]
        firsts = [shard.first for shard in self.shards]
        return np.concatenate([np.where(one < 0, one, one + n) for one, n in zip(found, firsts, strict=True)], axis=1)


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
