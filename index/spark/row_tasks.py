"""The rows of an index made by tasks of a cluster: whitening learnt, descriptors whitened, their parts joined."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from index.folder.info import AUGMENTED, INDEX, WHITENING
from index.folder.inputs import BuildInputs, UnitRows, join_codes, split_rows
from index.folder.sums import Pairs, groups_of, row_groups, sum_pairs, sum_products, sum_vectors
from index.folder.vectors import Whiten, augmented_blocks, pairs_of
from index.search.faiss_io import RowsFile, as_stored, largest_norm, limited_blas
from index.search.flat import FlatIndex
from index.spark.staged import BuildWork, StagedSums, read_part, seal, seal_of, sealed, write_part
from index.whitening import Whitening, load_whitening, mean_of, whitening_of
from retrieval.arrays import FloatArray
from retrieval.errors import LmrError
from retrieval.files.atomic import private_path, replacing
from retrieval.spark.task import Place
from retrieval.store.store import open_descriptors
from retrieval.store.stored import BLOCK_ROWS, file_identity

BACKGROUND_ROWS = "background.npz"  # in the space of the index


@dataclass(frozen=True)
class _Opened:
    """The descriptors of a build, which stay in their stores. both: the rows, then the background."""

    rows: UnitRows
    both: UnitRows
    background: UnitRows
    work: BuildWork

    @cached_property
    def pairs(self) -> Pairs:
        """The matching pairs among the rows."""
        rows, _ = split_rows(_inputs(self.work))
        return pairs_of(join_codes(rows)[0], len(self.both))


_kept: dict[tuple[object, ...], _Opened] = {}  # by this process of an executor, from one task to the next


def _inputs(work: BuildWork) -> BuildInputs:
    job = work.job
    stores, background = ([open_descriptors(path) for path in paths] for paths in (job.stores, job.background))
    return BuildInputs(stores, job.model, background)


def _open(work: BuildWork) -> _Opened:
    paths = (*work.job.stores, *work.job.background)
    found = [file_identity(path) for path in paths]
    for path, identity, state in zip(paths, found, work.looked.states, strict=True):
        if identity[2:] != state:
            raise LmrError(f"{path} was changed while the index was built; run the command again")
    key = (work.looked.digests.inputs, *found)  # the same may have been made again meanwhile
    if key not in _kept:
        _kept.clear()
        rows, others = split_rows(_inputs(work))
        _kept[key] = _Opened(UnitRows(rows), UnitRows([*rows, *others]), UnitRows(others), work)
    return _kept[key]


def add_vectors(item: tuple[BuildWork, int], place: Place) -> None:
    """The sum of a group of the vectors."""
    work, i = item
    if not (path := work.part("vectors", i)).exists():
        write_part(path, total=sum_vectors(_open(work).both, row_groups(work.looked.n_both)[i]))


def add_products(item: tuple[BuildWork, int], place: Place) -> None:
    """The sum of the products of a group of the vectors, less the mean of all."""
    work, i = item
    if (path := work.part("products", i)).exists():
        return
    mean = mean_of(StagedSums(work))
    with limited_blas(1):
        write_part(path, total=sum_products(_open(work).both, mean, row_groups(work.looked.n_both)[i]))


def add_pairs(item: tuple[BuildWork, int], place: Place) -> None:
    """The sums over a group of landmarks."""
    work, i = item
    if (path := work.part("pairs", i)).exists():
        return
    opened = _open(work)
    with limited_blas(1):
        found = sum_pairs(opened.both, opened.pairs, groups_of(work.looked.n_pairs)[i])
    write_part(path, n=found.n, n_free=found.n_free, fourth=found.fourth, products=found.products)


def learn_whitening(work: BuildWork, place: Place) -> None:
    """The whitening, by the sums, and the background in the space of the index."""
    path, options = work.folder / WHITENING, work.job.options
    is_learnt = options.whitening_power is None or seal_of(path).exists()
    if is_learnt and (work.folder / BACKGROUND_ROWS).exists():
        return
    whitening = None
    if options.whitening_power is not None:
        whitening = whitening_of(StagedSums(work), options.whitening, options.whitening_power, options.n_dimensions)
        private = private_path(path)
        whitening.save(private)
        private.replace(path)
        seal(path)
    with limited_blas(1):
        background = Whiten(whitening, np.zeros((0, 0)), options.m)(_open(work).background[:])[0]
    write_part(work.folder / BACKGROUND_ROWS, vectors=background)


def background_of(work: BuildWork) -> FloatArray:
    """(b, d) the background in the space of the index."""
    return read_part(work.folder / BACKGROUND_ROWS)["vectors"]


def whiten_part(item: tuple[BuildWork, int], place: Place) -> None:
    """A part of the rows, as they are stored, and their b(i)."""
    work, i = item
    if (path := work.part(INDEX, i)).exists() or seal_of(work.folder / INDEX).exists():
        return
    rows, make = work.rows_of(i), Whiten(_whitening(work), background_of(work), work.job.options.m)
    vectors = _open(work).rows
    starts = range(rows.start, rows.stop, BLOCK_ROWS)
    with limited_blas(1):
        _write_rows(work, path, rows.start, (make(vectors[at : min(at + BLOCK_ROWS, rows.stop)]) for at in starts))


def _whitening(work: BuildWork) -> Whitening | None:
    if work.job.options.whitening_power is None:
        return None
    sealed(work.folder / WHITENING)
    return load_whitening(work.folder / WHITENING)


def augment_part(item: tuple[BuildWork, int], place: Place) -> None:
    """A part of the rows with what they borrow, and their b(i)."""
    work, i = item
    if (path := work.part(AUGMENTED, i)).exists() or seal_of(work.folder / AUGMENTED).exists():
        return
    own, rows = open_rows(work, INDEX, place), work.rows_of(i)
    _write_rows(work, path, rows.start, augmented_blocks(own, work.job.options, background_of(work), rows))


def _write_rows(
    work: BuildWork, path: Path, first: int, blocks: Iterable[tuple[FloatArray, FloatArray | None]]
) -> None:
    storage, stored, similarity, start = work.looked.plan.storage, [], [np.zeros(0, np.float32)], first
    for rows, found in blocks:
        stored.append(as_stored(rows, storage, start))
        similarity += [] if found is None else [found]
        start += len(rows)
    whole = np.concatenate(stored)
    write_part(path, rows=whole, similarity=np.concatenate(similarity), norm=largest_norm(whole))


def join_rows(item: tuple[BuildWork, str], place: Place) -> int:
    """One file of all parts of the rows, which are removed; the length of a row. The name: INDEX or AUGMENTED."""
    work, name = item
    path, similarity, norm = work.folder / name, [], 0.0
    if seal_of(path).exists():
        return open_rows(work, name, place).d
    parts = [work.part(name, i) for i in range(work.n_parts)]
    with replacing(path) as file:
        rows: RowsFile | None = None
        for part in parts:
            held = read_part(part)
            rows = rows or RowsFile(file, held["rows"].shape[1], work.looked.plan.storage)
            rows.copy(held["rows"])
            similarity.append(held["similarity"])
            norm = max(norm, float(held["norm"]))
        assert rows is not None
        rows.finish()
    seal(path, norm=norm, similarity=np.concatenate(similarity))
    for part in parts:
        part.unlink(missing_ok=True)
    return open_rows(work, name, place).d


def searched_name(work: BuildWork) -> str:
    """The file of the rows that answers are found in."""
    return AUGMENTED if work.job.options.refinement.n_augment else INDEX


def open_rows(work: BuildWork, name: str, place: Place) -> FlatIndex:
    """The joined rows, which stay in their file."""
    path = work.folder / name
    norm = float(read_part(seal_of(path))["norm"])
    return FlatIndex.load(path, "cpu", place.n_threads, norm)
