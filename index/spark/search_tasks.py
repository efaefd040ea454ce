"""An inverted file made by tasks of a cluster: learnt by one, rows coded by many, each shard packed by one."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.folder.info import AUGMENTED, INDEX, SAMPLE, WHITENING, Listed, search_names
from index.folder.vectors import StoredIndex
from index.search.choose import Tuned, info_of, take_sample, tune
from index.search.config import SearchInfo
from index.search.faiss_io import faiss_switches, limited_blas
from index.search.flat import FlatIndex
from index.search.ivf import IvfIndex, IvfShards, SearchSettings
from index.search.ivf_builder import CODED_ROWS, Coded, Coder, Packer, training_rows
from index.search.kept_sample import write_sample
from index.search.plan import IndexPlan
from index.search.shards import first_rows, shard_sizes
from index.spark.row_tasks import background_of, open_rows, searched_name
from index.spark.staged import BuildWork, PartDamageError, read_part, removed, seal, seal_of, sealed, write_part
from index.whitening import load_whitening
from retrieval.arrays import FloatArray
from retrieval.files.atomic import private_path
from retrieval.files.folders import link_or_copy
from retrieval.progress import Progress
from retrieval.spark.task import Place

Item = tuple[BuildWork, IndexPlan, int]  # the number of a part, or of a shard


@dataclass(frozen=True, slots=True)
class Made:
    """Files of an index that were made elsewhere, by the names that they have in an index folder.

    similarity: (n,) b(i) of the rows, None without a background; background: (b, d) in the space of the index. search:
    the inverted file, None where search is exact. listed: the files, as index.json lists them.
    """

    background: FloatArray
    similarity: FloatArray | None
    largest_norm: float
    largest_augmented_norm: float
    search: SearchInfo | None
    files: Mapping[str, Path]
    listed: Mapping[str, Listed]

    def put(self, folder: Path, device: str, progress: Progress) -> StoredIndex:
        """Links the files into an index folder, or copies them; what they hold."""
        for name, path in self.files.items():
            link_or_copy(path, folder / name)
        augmented = folder / AUGMENTED
        return StoredIndex(
            index=FlatIndex.load(folder / INDEX, device, largest_norm=self.largest_norm, progress=progress),
            augmented=FlatIndex.load(augmented, device, largest_norm=self.largest_augmented_norm, progress=progress)
            if AUGMENTED in self.files
            else None,
            whitening=load_whitening(folder / WHITENING) if WHITENING in self.files else None,
            background=self.background,
            similarity=self.similarity,
        )


def kind_folder(work: BuildWork, plan: IndexPlan) -> Path:
    """The folder of what is searched by a kind of inverted file."""
    return work.folder / plan.kind


def _coder_path(work: BuildWork, plan: IndexPlan) -> Path:
    return kind_folder(work, plan) / "coder.faiss"


def learn(item: Item, place: Place) -> None:
    """The centroids of the lists and the codes, by a sample of the rows."""
    work, plan, _ = item
    path = _coder_path(work, plan)
    if seal_of(path).exists():
        return
    path.parent.mkdir(exist_ok=True)
    rows = open_rows(work, searched_name(work), place)
    with faiss_switches(plan.d, rows.threads), limited_blas(rows.threads):
        coder = Coder.learn(plan, rows.vectors(training_rows(plan)))
    private = private_path(path)
    coder.save(private)
    private.replace(path)
    seal(path)


def encode(item: Item, place: Place) -> None:
    """Lists and codes of a part of the rows."""
    work, plan, i = item
    path = _codes_path(work, plan, i)
    if path.exists() or _all_packed(work, plan):
        return
    sealed(_coder_path(work, plan))
    coder, rows, part = Coder.load(_coder_path(work, plan), plan), open_rows(work, searched_name(work), place), []
    with faiss_switches(plan.d, rows.threads), limited_blas(rows.threads):
        of_part = work.rows_of(i)
        for start in range(of_part.start, of_part.stop, CODED_ROWS):
            block = np.arange(start, min(start + CODED_ROWS, of_part.stop))
            part.append(coder.encode(rows.vectors(block)))
    lists, codes = ([getattr(one, name) for one in part] for name in ("lists", "codes"))
    write_part(path, lists=np.concatenate(lists), codes=np.concatenate(codes))


def pack(item: Item, place: Place) -> None:
    """The inverted file of a shard, of the codes of its rows."""
    work, plan, i = item
    path = kind_folder(work, plan) / search_names(plan.n_shards)[i]
    if seal_of(path).exists():
        return
    rows = open_rows(work, searched_name(work), place)
    sizes = shard_sizes(len(rows), plan.n_shards)
    first, n = first_rows(sizes)[i], sizes[i]
    sealed(_coder_path(work, plan))
    coder = Coder.load(_coder_path(work, plan), plan)
    packer = Packer(coder, n)
    for number in range(work.n_parts):
        own = work.rows_of(number)
        inside = slice(max(first, own.start) - own.start, max(0, min(first + n, own.stop) - own.start))
        if inside.start < inside.stop:
            held = read_part(_codes_path(work, plan, number))
            packer.add(Coded(held["lists"][inside], held["codes"][inside]))
    private = private_path(path)
    IvfIndex(packer.finish(), rows.part(first, n), SearchSettings()).save(private)
    private.replace(path)
    seal(path)


def measure(item: Item, place: Place) -> Tuned:
    """The settings of the inverted file, by a sample of the rows, which is kept."""
    work, plan, _ = item
    folder, rows = kind_folder(work, plan), open_rows(work, searched_name(work), place)
    sizes = shard_sizes(len(rows), plan.n_shards)
    paths = [folder / name for name in search_names(plan.n_shards)]
    for path in paths:
        sealed(path)
    sample = take_sample(rows)
    index, measured = tune(
        IvfShards.load(paths, rows, sizes, SearchSettings(), rows.threads), work.job.options.search.recall, sample
    )
    private = private_path(folder / SAMPLE)
    write_sample(private, sample)
    private.replace(folder / SAMPLE)
    seal(folder / SAMPLE)
    return Tuned(plan, index.settings, measured)


def made_of(work: BuildWork, tuned: Tuned | None) -> Made:
    """What all tasks made, compared with what they wrote down of it; the finishing touch is `build_folder`."""
    places = {INDEX: work.folder / INDEX}
    if work.job.options.refinement.n_augment:
        places[AUGMENTED] = work.folder / AUGMENTED
    if work.job.options.whitening_power is not None:
        places[WHITENING] = work.folder / WHITENING
    if tuned is not None:
        folder = kind_folder(work, tuned.plan)
        places |= {name: folder / name for name in (SAMPLE, *search_names(tuned.plan.n_shards))}
    facts = {name: _sealed(work, name, path) for name, path in places.items()}
    searched, background = facts[searched_name(work)], background_of(work)
    return Made(
        background=background,
        similarity=searched["similarity"] if len(background) else None,
        largest_norm=float(facts[INDEX]["norm"]),
        largest_augmented_norm=float(facts[AUGMENTED]["norm"]) if AUGMENTED in facts else 0.0,
        search=None if tuned is None else info_of(tuned, work.job.options.search),
        files=places,
        listed={
            name: {"sha256": str(facts[name]["sha256"]), "size": path.stat().st_size} for name, path in places.items()
        },
    )


def _sealed(work: BuildWork, name: str, path: Path) -> dict[str, NDArray[Any]]:
    """As `sealed`; of rows that are damaged, all that was made of them is removed too."""
    try:
        return sealed(path)
    except PartDamageError:
        if name in (INDEX, AUGMENTED):
            for folder in (place for place in work.folder.iterdir() if place.is_dir()):
                shutil.rmtree(folder)
        if name == INDEX:
            removed(work.folder / AUGMENTED, seal_of(work.folder / AUGMENTED))
        raise


def _codes_path(work: BuildWork, plan: IndexPlan, i: int) -> Path:
    return kind_folder(work, plan) / f"codes-{i + 1:06}.npz"


def _all_packed(work: BuildWork, plan: IndexPlan) -> bool:
    return all(seal_of(kind_folder(work, plan) / name).exists() for name in search_names(plan.n_shards))
