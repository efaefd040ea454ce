"""The vectors of an index: whitened, compared with the background and stored, block by block."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from index.folder.config import BuildOptions
from index.folder.info import AUGMENTED, INDEX, WHITENING
from index.folder.inputs import Gathered
from index.folder.sums import MatrixSums, Pairs
from index.rerank.expansion import augment
from index.search.config import Storage
from index.search.faiss_io import RowsFile, limited_blas
from index.search.flat import FlatIndex
from index.vote import background_similarity
from index.whitening import Whitening, whitening_of
from retrieval.arrays import FloatArray, IntArray
from retrieval.files.atomic import write_error
from retrieval.parallel import count_cores, run_in_threads
from retrieval.progress import SILENT, Progress
from retrieval.store.stored import BLOCK_ROWS

RECALL_K = 20  # neighbours compared; as many as vote by default
N_RECALL_QUERIES = 200  # rows; the standard error of the recall is then below 0.01
N_RECALL_ROWS = 20_000  # among which they are found
Block = tuple[FloatArray, FloatArray | None]  # rows, and their b(i) where there is a background


@dataclass(frozen=True, slots=True)
class StoredIndex:
    """What was stored of the rows, which stay in their files, and the background in the space of the index.

    similarity: (n,) float32 b(i) of the rows that are searched, None without a background.
    """

    index: FlatIndex
    augmented: FlatIndex | None
    whitening: Whitening | None
    background: FloatArray
    similarity: FloatArray | None

    @property
    def searched(self) -> FlatIndex:
        """The rows that answers are found in."""
        return self.index if self.augmented is None else self.augmented


class Whiten:
    """Turns descriptors into rows of an index, with their b(i), None where there is no background; BLAS on one thread.

    So whatever else is computed meanwhile, and by how many threads, the same descriptors give the same bits.
    """

    def __init__(self, whitening: Whitening | None, background: FloatArray, m: int) -> None:
        self._whitening, self._background, self._m = whitening, background, m

    def __call__(self, block: FloatArray) -> Block:
        """Rows of descriptors (n, d), and their b(i)."""
        rows = _white(self._whitening, block)
        if not len(self._background):
            return rows, None
        return rows, background_similarity(rows, self._background, self._m)


def store_vectors(
    folder: Path, gathered: Gathered, options: BuildOptions, storage: Storage, device: str, progress: Progress
) -> StoredIndex:
    """Writes the whitening and the rows into a folder. Raises LmrError where they cannot be written or whitened."""
    whitening = _fit(gathered, options)
    if whitening:
        whitening.save(folder / WHITENING)
    with limited_blas(1):
        background = _white(whitening, gathered.background)
        progress.begin("writing", len(gathered.vectors), "rows")
        found: list[FloatArray] = []
        blocks = run_in_threads(Whiten(whitening, background, options.m), gathered.vectors.blocks(), count_cores())
        index = store_rows(folder / INDEX, _keeping(blocks, found, progress), storage, device, progress)
        progress.end()
    augmented = None
    if options.refinement.n_augment:
        found = []
        blocks = augmented_blocks(index, options, background, range(len(index)))
        augmented = store_rows(folder / AUGMENTED, _keeping(blocks, found, SILENT), storage, device, progress)
    return StoredIndex(index, augmented, whitening, background, np.concatenate(found) if found else None)


def measure_recall(gathered: Gathered, stored: StoredIndex) -> float:
    """Share of the exact float32 neighbours that the stored rows find, among a sample of them."""
    storage = stored.index.storage
    if storage == "float32":
        return 1.0
    drawn = np.random.default_rng(0).permutation(len(gathered.vectors))
    rows = np.sort(drawn[:N_RECALL_ROWS])
    vectors = _white(stored.whitening, gathered.vectors[rows])
    queries = vectors[np.searchsorted(rows, drawn[:N_RECALL_QUERIES])]
    k = min(RECALL_K, len(rows))
    exact = FlatIndex.build(vectors, "float32", "cpu").search(queries, k).rows
    found = FlatIndex.build(vectors, storage, "cpu").search(queries, k).rows
    return float(np.mean([np.isin(e, f).mean() for e, f in zip(exact, found, strict=True)]))


def _fit(gathered: Gathered, options: BuildOptions) -> Whitening | None:
    if options.whitening_power is None:
        return None
    sums = MatrixSums(
        gathered.both, pairs_of(gathered.landmark, len(gathered.both)) if options.whitening == "supervised" else None
    )
    return whitening_of(sums, options.whitening, options.whitening_power, options.n_dimensions)


def pairs_of(landmark: IntArray, n: int) -> Pairs:
    """The matching pairs among n vectors, the first of which have these landmarks."""
    of_all = np.full(n, -1, dtype=np.int32)
    of_all[: len(landmark)] = landmark
    return Pairs(of_all)


def _white(whitening: Whitening | None, vectors: FloatArray) -> FloatArray:
    return whitening.apply(vectors) if whitening else vectors


def _keeping(blocks: Iterable[Block], found: list[FloatArray], progress: Progress) -> Iterator[FloatArray]:
    """The rows of each block; their b(i) are put aside."""
    for rows, similarity in blocks:
        found += [] if similarity is None else [similarity]
        yield rows
        progress.add(len(rows))


def augmented_blocks(index: FlatIndex, options: BuildOptions, background: FloatArray, rows: range) -> Iterator[Block]:
    """Successive rows with what they borrow from their neighbours. rows: a stretch of those of the index."""
    as_it_is = Whiten(None, background, options.m)
    for start in range(rows.start, rows.stop, BLOCK_ROWS):
        own = np.arange(start, min(start + BLOCK_ROWS, rows.stop))
        augmented = augment(index, options.refinement.n_augment, options.refinement.augment_alpha, own)
        with limited_blas(1):
            block = as_it_is(augmented)
        yield block


def store_rows(
    path: Path, blocks: Iterator[FloatArray], storage: Storage, device: str, progress: Progress
) -> FlatIndex:
    """Writes rows as they come, and opens them where they lie. blocks: at least one. progress: is told of GPUs."""
    first = next(blocks)
    try:
        with path.open("wb") as file:
            rows = RowsFile(file, first.shape[1], storage)
            for block in chain([first], blocks):
                rows.write(block)
            rows.finish()
    except OSError as error:
        raise write_error(path, error) from error
    return FlatIndex.load(path, device, largest_norm=rows.largest_norm, progress=progress)
