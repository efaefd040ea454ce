"""Writes the changed version of an index folder beside it: what stays is linked, the rows are copied and added to."""

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import numpy as np

from index.folder.changes import JOURNAL, Entry, count_changes
from index.folder.folder import IndexFolder, replace_calibration
from index.folder.info import (
    ADDED,
    BACKGROUND,
    INDEX,
    NAMES,
    ROWS,
    SAMPLE,
    THUMBNAILS,
    FolderInfo,
    Listed,
    LocalSummary,
    check_files,
    files_of_local,
    list_files,
    search_names,
    write_info,
)
from index.folder.local import joined, nowhere
from index.folder.local_rows import write_local_rows
from index.folder.rows import Rows, write_background, write_rows
from index.folder.thumbnails import change_thumbnails
from index.search.choose import find_sample, take_sample
from index.search.config import SearchInfo
from index.search.faiss_io import RowsFile, largest_norm
from index.search.flat import FlatIndex
from index.search.ivf import IvfIndex, IvfShards, SearchSettings
from index.search.joined_rows import is_linked, write_added
from index.search.kept_sample import N_KEPT, follow, read_sample, write_sample
from index.search.plan import IndexPlan
from index.search.shards import first_rows, sizes_after
from index.update.change import Change, NewRows, join_labels, kept_rows
from index.vote import background_similarity
from retrieval.arrays import BoolArray, FloatArray
from retrieval.files.atomic import replacing, write_text
from retrieval.files.digest import sha256_json
from retrieval.files.folders import link_or_copy
from retrieval.own_columns import join_columns, select_columns
from retrieval.progress import SILENT, Progress
from retrieval.texts import Texts

COPIED_ROWS = 1 << 14  # at a time


@dataclass(frozen=True, slots=True)
class Writing:
    """The writing of a changed version. n_workers: thumbnails made at once."""

    n_workers: int = 1
    progress: Progress = field(default=SILENT)


def write_changed(folder: IndexFolder, change: Change, target: Path, writing: Writing = Writing()) -> FolderInfo:
    """Writes the changed version of an opened folder into an empty one, index.json last.

    Raises LmrError for what cannot be written.
    """
    kept = kept_rows(len(folder.rows), change.removed)
    moves = bool(len(change.removed)) or change.added is not None
    of_search = search_names(folder.info.n_shards)
    new = {ROWS, NAMES, THUMBNAILS, *((INDEX, ADDED, SAMPLE, *of_search) if moves else ())}
    if folder.info.local and _moves_local(change):
        new |= files_of_local(folder.info)
    link_files(folder, target, without=new if change.background is None else {*new, BACKGROUND})
    digest = next_digest(folder.info.inputs_digest, change.digest)
    if moves:
        _write_vectors(folder, change, kept, target, writing.progress)
    rows = _write_rows(folder, change, kept, target)
    largest = max(
        [folder.own_flat.largest_norm, *(() if change.added is None else (largest_norm(change.added.vectors),))]
    )
    search, shards = folder.info.search, sizes_after(folder.info.shards, kept, len(rows))
    if moves and search is not None:
        search = _write_search(folder, search, kept, target, shards, largest, writing.progress)
    if change.background is not None:
        write_background(target / BACKGROUND, change.background)
    _write_names(target / NAMES, folder, change, rows.landmarks)
    n_small = _write_thumbnails(folder, change, kept, target, digest, writing)
    local, listed = _write_local(folder, change, kept, target)
    info = replace(
        folder.info,
        inputs_digest=digest,
        answers_digest=next_digest(folder.info.answers_digest, change.digest),
        rows_digest=next_digest(folder.info.rows_digest, change.digest),
        n_rows=len(rows),
        n_landmarks=len(rows.landmarks),
        n_background=len(change.background) if change.background is not None else folder.info.n_background,
        recall=folder.info.recall if search is None else search.recall,
        thumbnails=folder.info.thumbnails and {**folder.info.thumbnails, "n": n_small},
        search=search,
        largest_norm=largest,
        changes=count_changes(folder.info.changes, len(folder.rows), folder.calibration, change.counts),
        files={**folder.info.files, **listed},
        local=local,
        shards=shards,
        mapped=tuple(sorted({*folder.info.mapped, *(() if change.added is None else change.added.mapped)})),
    )
    return finish_version(folder, info, target, entry_of(change, info), listed)


def finish_version(
    folder: IndexFolder,
    info: FolderInfo,
    target: Path,
    entry: Entry,
    known: Mapping[str, Listed] = MappingProxyType({}),
) -> FolderInfo:
    """Adds the journal and the calibration of the folder, then index.json; gives what it says.

    known: files whose sha256 is known, beside those that are linked. A calibration goes with the new version:
    `replace(folder, calibration=None)` leaves it behind.
    """
    journal = folder.path / JOURNAL
    lines = journal.read_text(encoding="utf-8") if journal.is_file() else ""
    (target / JOURNAL).unlink(missing_ok=True)
    write_text(target / JOURNAL, [lines, entry.to_line()])
    info = replace(info, files=list_version(folder, target, known))
    write_info(target, info)
    if folder.calibration is not None:
        origin = replace(folder.calibration.origin, index_digest=info.inputs_digest)
        replace_calibration(target, replace(folder.calibration, origin=origin))
    check_files(target, info, "size")
    return info


def link_files(folder: IndexFolder, target: Path, without: Iterable[str]) -> None:
    """Links what stays of a folder into its next version, or copies it where there are no links."""
    for name in folder.info.files:
        if name not in without:
            link_or_copy(folder.path / name, target / name)


def next_digest(before: str, of_change: str) -> str:
    """Digest of what a change made of an index with this digest; '' where that has none."""
    return before and sha256_json([before, of_change])


def entry_of(change: Change, info: FolderInfo) -> Entry:
    """The line of a change in the journal."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return Entry(at, change.kind, change.sources, change.digest, info.inputs_digest, info.n_rows, **change.counts)


def list_version(
    folder: IndexFolder, target: Path, known: Mapping[str, Listed] = MappingProxyType({})
) -> dict[str, Listed]:
    """sha256 and size of every file; linked ones are as they were listed. known: further ones whose sha256 is known."""
    linked = dict(known)
    for name, listed in folder.info.files.items():
        with contextlib.suppress(OSError):
            if (target / name).samefile(folder.path / name):
                linked[name] = listed
    return list_files(target, linked)


def _write_vectors(folder: IndexFolder, change: Change, kept: BoolArray, target: Path, progress: Progress) -> None:
    """The rows that stay as they are stored, then the new ones; those of a large file stay in it where none goes."""
    new, before = change.added, folder.path / INDEX
    if new is not None and kept.all() and is_linked(before, folder.path / ADDED, new.vectors.nbytes):
        link_or_copy(before, target / INDEX)
        with replacing(target / ADDED) as file:
            write_added(file, before, folder.path / ADDED, new.vectors)
        return
    copy_rows(target / INDEX, folder.own_flat, kept, progress, new)


def copy_rows(path: Path, index: FlatIndex, kept: BoolArray, progress: Progress, new: NewRows | None = None) -> None:
    """Writes the rows that stay, as they are stored, then new ones, into one file."""
    stored = index.stored
    progress.begin("copying rows", int(kept.sum()), "rows")
    with replacing(path) as file:
        rows = RowsFile(file, index.d, index.storage)
        for start in range(0, len(stored), COPIED_ROWS):
            part = slice(start, start + COPIED_ROWS)
            rows.copy(stored[part] if kept[part].all() else stored[part][kept[part]])
            progress.add(int(kept[part].sum()))
        if new is not None:
            rows.copy(new.vectors)
        rows.finish()
    progress.end()


def _write_rows(folder: IndexFolder, change: Change, kept: BoolArray, target: Path) -> Rows:
    """rows.h5: labels in the order of their names, of the landmarks that have rows."""
    rows, added = folder.rows, change.added
    parts = [(change.landmark[kept], change.landmarks)]
    stays = np.flatnonzero(kept)
    image_id = [(rows.image_id if change.image_id is None else change.image_id).select(stays)]
    path = [(rows.path if change.path is None else change.path).select(stays)]
    columns = [(select_columns(rows.columns if change.columns is None else change.columns, stays), len(stays))]
    if added is not None:
        parts.append((added.landmark, added.landmarks))
        image_id.append(added.image_id)
        path.append(added.path)
        columns.append((added.columns, len(added)))
    landmark, landmarks = join_labels(parts)
    changed = Rows(
        Texts.joined(image_id),
        landmark,
        landmarks,
        Texts.joined(path),
        _row_background(folder, change, kept),
        join_columns(columns),
    )
    write_rows(target / ROWS, changed)
    return changed


def _row_background(folder: IndexFolder, change: Change, kept: BoolArray) -> FloatArray | None:
    """b(i) of all rows; computed anew where the background changes."""
    added, before = change.added, folder.rows.background
    if change.background is not None:
        m, known = folder.info.options["m"], change.background.vectors
        parts = [background_similarity(block, known, m) for block in folder.own_flat.blocks()]
        similarity = np.concatenate(parts)[kept]
    elif before is None:
        return None
    else:
        similarity = before[kept]
    new = None if added is None else added.background
    return similarity if new is None else np.concatenate([similarity, new]).astype(np.float32)


def _write_search(
    folder: IndexFolder,
    before: SearchInfo,
    kept: BoolArray,
    target: Path,
    shards: Sequence[int],
    largest: float,
    progress: Progress,
) -> SearchInfo:
    """The inverted file without the rows that go and with those that come, as it was trained; measured again."""
    added = target / ADDED if (target / ADDED).exists() else None
    rows = FlatIndex.load(target / INDEX, "cpu", folder.own_flat.threads, largest, added=added)
    progress.begin("adding rows", len(rows) - int(kept.sum()), "rows")
    ivf = IvfShards(_changed_shards(folder, before, kept, target, rows, shards or (len(rows),), progress), rows)
    progress.end()
    if SAMPLE in folder.info.files:
        sample = follow(read_sample(folder.path / SAMPLE, folder.own_flat), kept, rows)
    else:
        sample = take_sample(rows, N_KEPT)
    write_sample(target / SAMPLE, sample)
    recall, top1 = find_sample(ivf, sample)
    plan = IndexPlan(before.kind, len(ivf), ivf.d, ivf.storage, ivf.n_lists, len(ivf.parts))
    return replace(before, recall=recall, top1=top1, n_queries=len(sample.own), memory_bytes=plan.memory_bytes)


def _changed_shards(
    folder: IndexFolder,
    before: SearchInfo,
    kept: BoolArray,
    target: Path,
    rows: FlatIndex,
    sizes: Sequence[int],
    progress: Progress,
) -> list[IvfIndex]:
    """The inverted files of the shards, written; those of which no row goes and none is added are linked."""
    settings = SearchSettings(before.n_probe, before.n_candidates)
    stays = np.split(kept, np.cumsum(folder.info.shard_sizes)[:-1])
    made = []
    for name, first, n, own in zip(search_names(len(sizes)), first_rows(sizes), sizes, stays, strict=True):
        part = rows.part(first, n)
        if own.all() and n == len(own):
            link_or_copy(folder.path / name, target / name)
            made.append(IvfIndex.load(target / name, part, settings, rows.threads))
            continue
        numbers = None if own.all() else np.flatnonzero(own)
        made.append(IvfIndex.changed(folder.path / name, part, settings, numbers, progress))
        made[-1].save(target / name)
    return made


def _write_names(path: Path, folder: IndexFolder, change: Change, landmarks: Sequence[str]) -> None:
    """names.json: of the landmarks that have rows; names that are given win."""
    known = {**folder.names, **change.names}
    kept = {label: asdict(known[label]) for label in landmarks if label in known}
    if kept:
        write_text(path, [json.dumps(kept, indent=1, ensure_ascii=False), "\n"])


def _write_thumbnails(
    folder: IndexFolder, change: Change, kept: BoolArray, target: Path, digest: str, writing: Writing
) -> int:
    """thumbnails.h5 of the rows that there are now; how many have one."""
    if THUMBNAILS not in folder.info.files:
        return 0
    side_px, added = folder.info.thumbnails["side_px"], change.added
    new = () if added is None else added.thumbnails(side_px, writing.n_workers)
    return change_thumbnails(folder.path / THUMBNAILS, target / THUMBNAILS, kept, new, digest)


def _write_local(
    folder: IndexFolder, change: Change, kept: BoolArray, target: Path
) -> tuple[LocalSummary | None, dict[str, Listed]]:
    """The local features of the rows that there are now, and how index.json lists their stores."""
    before, coming = folder.info.local, change.local
    places = coming.of_rows or (folder.local.places if folder.local else None)
    if places is None and coming.of_added is not None:
        places = nowhere(coming.of_added.card, len(kept))
    if places is None or not _moves_local(change):
        return before, {}
    parts = [places.select(kept)]
    if change.added is not None:
        parts.append(coming.of_added or nowhere(places.card, len(change.added)))
    summary, stores = write_local_rows(target, joined(parts))
    n_gone = int((places.there & ~kept).sum()) + (0 if before is None else before.n_gone)
    return replace(summary, n_gone=n_gone), stores


def _moves_local(change: Change) -> bool:
    """True where the local features of the rows have to be written down anew."""
    return bool(len(change.removed)) or change.added is not None or change.local.of_rows is not None
