"""A share of the rows embedded, as by an executor of a cluster, and what its driver asks before and after it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.data.csv_cells import csv_line
from retrieval.data.image_source import ImageSource, images_folder, index_tars
from retrieval.data.manifest import Manifest, read_manifest
from retrieval.data.overview import load_manifest
from retrieval.embed.complete import N_LISTED, plan_loading, tell_changes
from retrieval.embed.embedder import Embedder
from retrieval.embed.engine import Engine
from retrieval.embed.fill import FillReport, FillRun, fill_store
from retrieval.embed.job import EmbedJob, embed
from retrieval.embed.load import adjusted_card, open_card
from retrieval.errors import LmrError
from retrieval.files.atomic import write_text
from retrieval.files.lock import output_lock
from retrieval.files.urls import remote_url
from retrieval.local.config import LOCAL_STORE
from retrieval.local.job import LocalReport, LocalRun, fill_local, require_local
from retrieval.local.store import local_path, open_local
from retrieval.local.writer import join_local
from retrieval.models.card import Card
from retrieval.progress import SILENT, Progress
from retrieval.shard import Shard
from retrieval.spark.staging import staging_path
from retrieval.spark.task import Place
from retrieval.store.changes import Changes
from retrieval.store.file import PARTIAL, open_store, read_info, require_whole
from retrieval.store.info import StoreInfo
from retrieval.store.join import join_stores, renew_columns
from retrieval.store.layout import UNREADABLE
from retrieval.store.store import open_descriptors, partial_path

_COLUMNS = ("image_id", "path", "reason")  # of the table of unreadable images

# What this process of an executor keeps from one of its tasks to the next, each with what it is of.
_manifests: dict[str, Manifest] = {}
_embedders: dict[tuple[Any, ...], Embedder] = {}


@dataclass(frozen=True, slots=True)
class Work:
    """What every task is told. folder: where the driver works. run: tells this command from others.

    table: to write of the images that cannot be read. model, weights: names by which the model, and weights of local
    features, were shared. digest: of the manifest.
    """

    job: EmbedJob
    folder: Path
    run: str
    engine: Engine | None
    table: Path
    model: str = ""
    weights: str = ""
    digest: str = ""

    def at(self, place: Place) -> EmbedJob:
        """The job as an executor does it."""
        job = self.job
        options = job.local_features
        if self.weights:
            options = replace(options, weights=place.shared(self.weights))
        return replace(
            place.give(job),
            manifest=self._there(job.manifest),
            images=None if job.images is None else self._there(job.images),
            output=None if job.output is None else self._there(job.output),
            model=place.shared(self.model) if self.model else job.model,
            network=None,
            local_features=options,
        )

    def _there(self, path: Path) -> Path:
        """A path of the driver's, or a URL, as it is for an executor, which may not work in the driver's folder."""
        return path if Path.cwd() == self.folder or remote_url(str(path)) else self.folder / path


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is to do. store: of what a store in the output's place is, finished or not."""

    n_rows: int
    digest: str
    store: StoreInfo | None
    is_finished: bool
    has_local: bool


@dataclass(frozen=True, slots=True)
class Share:
    """A share of the rows, and what is made of it: descriptors, local features or both."""

    shard: Shard
    vectors: bool
    local: bool


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a share. unreadable: the first of them, by their names for people."""

    was_there: bool = False
    was_damaged: bool = False
    unreadable: Mapping[str, str] = field(default_factory=dict)


def plan_local(manifest: Manifest, images: Path, store: Path, job: EmbedJob) -> Callable[[], LocalReport | None]:
    """A function that fills the local store beside a store, where one is asked for.

    Raises LmrError, before anything is embedded, for what is missing and for a local store of something else.
    """
    options = job.local_features
    if options.kind is None:
        return lambda: None
    run = LocalRun(job.overwrite, job.retry_unreadable, job.check, options.weights)
    given: dict[str, Any] = {"job": job, "run": run}
    filling = local_path(store), manifest, ImageSource(manifest, images), options
    require_local(*filling, **given)
    return lambda: fill_local(*filling, **given, wait=job.wait)


def share_path(output: Path, shard: Shard) -> Path:
    """The store of a share in the staging of the whole, beside which that of its local features lies."""
    return shard.beside(staging_path(output) / output.name)


def look(work: Work, place: Place) -> Seen:
    """Reads the manifest, and what is there of its stores. LmrError: what cannot be used, other local features."""
    job = work.at(place)
    output, local = _output(job), local_path(_output(job))
    index_tars(job.manifest, place.progress)
    manifest = _manifest(work, job, place.progress)
    images = images_folder(job.images, job.manifest, place.progress)
    plan_local(manifest, images, output, job)
    there = None if job.overwrite else info_at(output)
    return Seen(len(manifest), manifest.digest, there, there is not None and output.exists(), local.exists())


def info_at(output: Path) -> StoreInfo | None:
    """Of what the store in this place is, finished or not; None where there is none."""
    for path in (output, partial_path(output)):
        if path.exists():
            with open_store(path) as (file, _):
                return read_info(file)
    return None


def find_finished(item: tuple[Work, bool], place: Place) -> FillReport:
    """Finds a finished store finished, or does its pictures again that changed. with_local: its local features too."""
    work, with_local = item
    job = work.at(place)
    if not with_local:
        job = replace(job, local_features=type(job.local_features)())
    output, report = embed(job)
    _write_unreadable(output, work.table)
    return replace(report, unreadable={}, changes=Changes())


def embed_share(item: tuple[Work, Share], place: Place) -> Made:
    """Makes a share, or finds it made. Another run of the same task, such as one that was given up, is waited for."""
    work, share = item
    job, made = work.at(place), Made()
    manifest = _manifest(work, job, SILENT)
    if manifest.digest != work.digest:
        raise LmrError(f"{job.manifest} is not what it was when this began, or another one there; run this again")
    manifest = manifest.share(share.shard)
    images, path = images_folder(job.images, job.manifest, SILENT), share_path(_output(job), share.shard)
    with output_lock(path, wait=True, progress=place.progress):
        if share.vectors:
            made = _embed(work, job, manifest, images, path)
        if share.local:
            was_damaged = _remove_damaged(local_path(path), place.progress)
            made = replace(made, was_damaged=made.was_damaged or was_damaged)
            plan_local(manifest, images, path, replace(job, overwrite=False, retry_unreadable=False, wait=True))()
    return made


def _embed(work: Work, job: EmbedJob, manifest: Manifest, images: Path, path: Path) -> Made:
    was_damaged = _remove_damaged(path, job.progress) | _remove_damaged(partial_path(path), job.progress)
    if path.exists():
        renew_columns(path, manifest.columns, job.progress)
        return Made(was_there=True, was_damaged=was_damaged, unreadable=_unreadable(path, manifest))
    card = _card(work, job)
    workers, load = plan_loading(job.model, card, job=job, batch_size=job.batch_size, engine=work.engine)

    def kept(n_images: int) -> Embedder:
        key = (card.fingerprint, job.device, job.threads, workers, job.batch_size, work.engine)
        if key not in _embedders:
            _embedders.clear()
            _embedders[key] = load(n_images)
        return _embedders[key]

    run = FillRun(job.dtype, check=job.check, n_workers=workers, progress=job.progress)
    report = fill_store(path, manifest, ImageSource(manifest, images), card, kept, run=run)
    tell_changes(report.changes, manifest, path, job.progress)
    return Made(was_damaged=was_damaged, unreadable=_unreadable(path, manifest) if report.n_unreadable else {})


def join_shares(item: tuple[Work, tuple[Share, ...]], place: Place) -> FillReport:
    """Writes the whole of all shares, and the table of what could not be read."""
    work, shares = item
    job, local = work.at(place), None
    whole = _output(job)
    paths = [share_path(whole, share.shard) for share in shares]
    how: dict[str, Any] = {"overwrite": job.overwrite, "progress": SILENT}
    wait = job.wait or place.attempt > 0  # for a try that was given up and has not ended yet
    with output_lock(whole, wait=wait, progress=place.progress):
        if shares[0].vectors:
            join_stores(paths, whole, **how)
        n, n_unreadable = _write_unreadable(whole, work.table)
    if shares[0].local:
        output = local_path(whole)
        with output_lock(output, wait=wait, progress=place.progress):
            join_local(list(map(local_path, paths)), output, **how)
            local = _local_report(output)
    return FillReport("made", n, n_unreadable, local=local)


def _output(job: EmbedJob) -> Path:
    assert job.output is not None
    return job.output


def _local_report(path: Path) -> LocalReport:
    store = open_local(path)
    n_unreadable = int((store.columns.state == UNREADABLE).sum())
    return LocalReport(path, "made", len(store), n_unreadable, int(store.offsets[-1]), path.stat().st_size)


def _write_unreadable(output: Path, path: Path) -> tuple[int, int]:
    """Writes the table of unreadable images, where there are any; the number of all images, and of these."""
    store = open_descriptors(output)
    rows = np.flatnonzero(store.state == UNREADABLE).tolist()
    reason = store.reason
    assert reason is not None

    def lines() -> Iterator[str]:
        yield csv_line(_COLUMNS)
        for row in rows:
            yield csv_line((store.image_id[row], store.path[row], reason[row]))

    if rows:
        write_text(path, lines())
    else:
        with suppress(FileNotFoundError):
            path.unlink()
    return len(store), len(rows)


def _unreadable(path: Path, manifest: Manifest) -> dict[str, str]:
    """The first unreadable images of a share, by their names for people."""
    store = open_descriptors(path, manifest.shard)
    rows = np.flatnonzero(store.state == UNREADABLE)[: N_LISTED + 1].tolist()
    assert store.reason is not None
    return {manifest.name_unreadable(row, str(store.reason[row])): str(store.reason[row]) for row in rows}


def _remove_damaged(path: Path, progress: Progress) -> bool:
    """Removes a file of a share that is not as it was written, so that it is made again; tells whether it did."""
    if not path.exists():
        return False
    try:
        if path.name.endswith(LOCAL_STORE):
            open_local(path).require_whole()
        elif path.name.endswith(PARTIAL):
            info_at(path)
        else:
            require_whole(path)
    except LmrError as error:
        progress.warn(f"{error}; the share is made again")
        path.unlink()
        return True
    return False


def _manifest(work: Work, job: EmbedJob, progress: Progress) -> Manifest:
    """The manifest, read once in each process for one command."""
    if work.run not in _manifests:
        _manifests.clear()
        is_first = progress is not SILENT
        read = load_manifest if is_first else read_manifest
        _manifests[work.run] = job.labelled(read(job.manifest, progress, job.column_names), progress)
    return _manifests[work.run]


def _card(work: Work, job: EmbedJob) -> Card:
    return adjusted_card(job.model, open_card(job.model), job.embedding.settings())
