"""Fills a descriptor store from a manifest: begins it, goes on with it, or finds it finished."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from retrieval.arrays import LongArray
from retrieval.data.image_source import ImageSource
from retrieval.data.manifest import Manifest
from retrieval.embed.embedder import Embedder
from retrieval.embed.profile import Profile, profile_of
from retrieval.errors import LmrError
from retrieval.files.lock import output_lock
from retrieval.files.urls import remote_url
from retrieval.images.crashes import CRASHED, Careful, Flight
from retrieval.local.job import LocalReport
from retrieval.models.card import Card
from retrieval.progress import SILENT, Progress
from retrieval.shard import Shard
from retrieval.stopwatch import Running
from retrieval.store.changes import Changes, Check, WatchedSource, find_changes
from retrieval.store.join import renew_columns
from retrieval.store.store import (
    TODO,
    UNREADABLE,
    StoreInfo,
    StoreWriter,
    create_store,
    partial_path,
    read_labels,
    read_store_facts,
    read_store_info,
    read_store_reasons,
    reopen_store,
    resume_store,
)
from retrieval.version import program_version
from retrieval.words import counted, shortened

StoreDtype = Literal["float16", "float32"]


@dataclass(frozen=True, slots=True)
class FillRun:
    """The filling of a store, and who is told of it.

    retry_unreadable: also tries the unreadable images of a finished store again. check: what of an image must be the
    same for it to count as unchanged. n_workers: threads that look at the images of a store that is there. profile:
    also measures where the time goes.
    """

    dtype: StoreDtype = "float16"
    overwrite: bool = False
    retry_unreadable: bool = False
    check: Check = "size"
    n_workers: int = 2
    progress: Progress = SILENT
    profile: bool = False


@dataclass(frozen=True, slots=True)
class FillReport:
    """Outcome of a filling. unreadable: image_id -> reason, of the images met in this run.

    changes: of the images since the store that was there was made. `updated`: a finished store of which some rows
    were done anew. profile: where it was asked for and something was done.
    """

    state: Literal["made", "resumed", "updated", "unchanged"]
    n_pictures: int
    n_unreadable: int
    unreadable: Mapping[str, str] = field(default_factory=dict)
    changes: Changes = field(default_factory=Changes, compare=False)
    profile: Profile | None = field(default=None, compare=False)
    local: LocalReport | None = None


def fill_store(
    path: Path,
    manifest: Manifest,
    source: ImageSource,
    card: Card,
    load: Callable[[int], Embedder],
    *,
    run: FillRun,
) -> FillReport:
    """Descriptors of every image of the manifest, in its order.

    card: of the model. load: loads its embedder for so many images; it is called only when there is something to do.
    Raises LmrError when the store that is there, finished or not, was begun for something else.
    """
    with output_lock(path):
        return _fill_store(path, manifest, source, card, load, run=run)


def _fill_store(
    path: Path,
    manifest: Manifest,
    source: ImageSource,
    card: Card,
    load: Callable[[int], Embedder],
    *,
    run: FillRun,
) -> FillReport:
    """Fills the store whose lock is held."""
    require_same_job(path, manifest, card, run)
    there = [] if run.overwrite else [place for place in (path, partial_path(path)) if place.exists()]
    changes, again, n_left = Changes(), np.zeros(0, np.int64), len(manifest)
    crashed: list[int] = []
    if there:
        for place in there:
            renew_columns(place, manifest.columns, run.progress)
        state, facts = read_store_facts(there[0])
        changes = find_changes(state, facts, source, run.check, run.n_workers)
        again = changes.to_do
        if run.retry_unreadable and there[0] == path:
            again = np.union1d(again, np.flatnonzero(state == UNREADABLE))
        if there[0] == path and not len(again):
            return FillReport("unchanged", len(state), int((state == UNREADABLE).sum()), changes=changes)
        n_left = len(again) + int((state == TODO).sum())
        reasons = read_store_reasons(there[0])
        crashed = [row for row in again.tolist() if reasons[row].startswith(CRASHED)]
    embedder = load(n_left)
    if there:
        writer = reopen_store(path) if there[0] == path else resume_store(path)
        writer.write_todo(again)
        changes = replace(changes, damaged=writer.damaged)
    else:
        places = [_whole_path(place) for place in map(source.where, range(len(manifest)))]
        writer = create_store(path, manifest, places, store_info(card, manifest, run.dtype, embedder.d))
    rows = np.flatnonzero(writer.state == TODO)
    watch, began = Running(), time.perf_counter()
    if run.profile:
        embedder.measure_with(watch)
    unreadable = _fill(writer, rows, manifest, source, embedder, crashed, progress=run.progress)
    profile = None
    if run.profile:
        profile = profile_of(
            watch.seconds,
            n_images=len(rows),
            wall_s=time.perf_counter() - began,
            n_workers=embedder.n_workers,
            is_ahead=embedder.ahead > 0,
        )
    n_unreadable = int((writer.state == UNREADABLE).sum())
    how: Literal["made", "resumed", "updated"] = "made" if not there else "updated" if there[0] == path else "resumed"
    return FillReport(how, len(manifest), n_unreadable, unreadable, changes, profile)


def _whole_path(place: str) -> str:
    """A path that holds in other working folders; '' and URLs as they are."""
    return place if not place or remote_url(place) == place else os.path.abspath(place)


def require_same_job(path: Path, manifest: Manifest, card: Card, run: FillRun) -> None:
    """Raises LmrError when the store that is there, finished or not, was begun for something else."""
    if path.is_dir():
        raise LmrError(f"{path} is a folder; give the store another name")
    info = store_info(card, manifest, run.dtype, 1)
    for place in () if run.overwrite else (path, partial_path(path)):
        if place.exists():
            found, _ = read_store_info(place)
            difference = found.difference(info)
            if difference:
                is_alike = (found.fingerprint, found.shard) == (info.fingerprint, info.shard)
                changed = _rows_changed(place, manifest) if is_alike else ""
                raise LmrError(f"{place} was made with {difference}{changed}; give `overwrite` or another file name")


def _rows_changed(store: Path, manifest: Manifest) -> str:
    """In what rows a manifest differs from that of a store, for a person; '' when it is something else."""
    before = read_labels(store)
    labels = (*manifest.landmarks, "")
    now = {name: labels[code] for name, code in zip(manifest.image_id, manifest.landmark, strict=True)}
    n_new, n_gone = len(now.keys() - before.keys()), len(before.keys() - now.keys())
    n_labels = sum(now[name] != before[name] for name in now.keys() & before.keys())
    counts = ((n_new, "new"), (n_gone, "gone"), (n_labels, "with another landmark"))
    said = ", ".join(f"{n:,} {what}" for n, what in counts if n)
    return f": of its {counted(len(now), 'image')} {said}" if said else ""


def store_info(card: Card, manifest: Manifest, dtype: StoreDtype, d: int) -> StoreInfo:
    """The account that a store of this model and manifest gives of itself."""
    return info_of(card, manifest.digest, dtype, d, manifest.shard, manifest.mapped)


def info_of(
    card: Card,
    manifest_digest: str,
    dtype: StoreDtype,
    d: int,
    shard: Shard | None = None,
    mapped: tuple[str, ...] = (),
) -> StoreInfo:
    """As `store_info`, of a manifest by its digest."""
    model, image_spec = card.of_store()
    return StoreInfo(
        fingerprint=card.fingerprint,
        model=model,
        image_spec=image_spec,
        program_version=program_version(),
        manifest_digest=manifest_digest,
        dtype=dtype,
        d=d,
        shard=shard,
        mapped=mapped,
    )


def _fill(
    writer: StoreWriter,
    rows: LongArray,
    manifest: Manifest,
    source: ImageSource,
    embedder: Embedder,
    crashed: Sequence[int],
    *,
    progress: Progress,
) -> dict[str, str]:
    """Embeds these rows and finishes the store. Returns the unreadable ones: image_id -> reason.

    crashed: rows whose image crashed its decoder before.
    """
    unreadable: dict[str, str] = {}
    watched = WatchedSource(source)
    careful = Careful(
        Flight(writer.path.with_name(f".{writer.path.name}.decoding"), manifest.digest),
        embedder.prepare_apart,
        lambda row: shortened(manifest.image_id[row]),
        n_workers=embedder.n_workers,
        progress=progress,
    )
    with writer:
        with careful:
            careful.begin(rows.tolist(), watched.read, crashed)
            progress.begin("embedding", len(rows))
            for batch in embedder.embed(watched, rows, careful):
                with embedder.watch.at("write"):
                    writer.write(batch.rows, batch.vectors, watched.take(batch.rows))
                    for row, reason in batch.unreadable.items():
                        writer.write_unreadable(row, reason, watched.take(np.array([row])))
                        unreadable[manifest.image_id[row]] = reason
                progress.add(len(batch.rows) + len(batch.unreadable))
            progress.end()
        with embedder.watch.at("write"):
            writer.finish()
    return unreadable
