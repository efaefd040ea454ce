"""Training the inverted file of an index anew over the rows that it has now, or making another kind of it."""

from dataclasses import KW_ONLY, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from index.search.config import MOST_SHARDS, Kind, SearchOptions
from index.update.job import ChangingJob
from retrieval.files.lock import output_locks
from retrieval.jobs import option

if TYPE_CHECKING:
    from pathlib import Path

    from index.folder.folder import IndexFolder
    from index.folder.info import FolderInfo, LocalSummary


@dataclass(frozen=True)
class IndexCompactJob(ChangingJob):
    """Train the inverted file of an index anew."""

    _: KW_ONLY
    kind: Kind | None = option(None, default_text="as it is", help="Kind of index to make of the rows.")
    recall: float | None = option(
        None, low=0, high=1, low_open=True, default_text="as it is", help="Share of the exact 10 nearest to find."
    )
    n_shards: int | None = option(
        None,
        low=1,
        high=MOST_SHARDS,
        default_text="as they are",
        help="Shards of the rows, all of as many.",
    )


@dataclass(frozen=True, slots=True)
class Compacted:
    """What was done. lost: there was a calibration, and the answers are no longer those that it was made for."""

    state: Literal["changed", "unchanged"]
    info: "FolderInfo"
    lost: bool = False


def compact(job: IndexCompactJob) -> Compacted:
    """Trains the inverted file of an index anew over its rows, tunes and measures it; what was done.

    The rows, their labels and the whitening stay. Raises LmrError for a kind that cannot be, and for damage.
    """
    from index.folder.folder import open_folder
    from retrieval.files.folders import remove_leftovers, replacing_folder

    with output_locks(job.index, wait=job.wait, progress=job.progress):
        remove_leftovers(job.index.resolve())
        folder = open_folder(job.index, device="cpu", threads=job.threads)
        options = _options(job, folder.info)
        if _is_as_asked(folder.info, options):
            return Compacted("unchanged", folder.info)
        with replacing_folder(job.index) as target:
            info = _write(folder, options, target, job)
            lost = folder.calibration is not None and not _keep_calibration(folder, info, target)
    return Compacted("changed", info, lost)


def _options(job: IndexCompactJob, info: "FolderInfo") -> SearchOptions:
    """The kind, recall and shards that are asked for, else those of the index."""
    search, plain = info.search, SearchOptions()
    kind = job.kind or ("flat" if search is None else search.kind)
    recall = job.recall or (plain.recall if search is None else search.target)
    return SearchOptions(kind, recall, n_shards=job.n_shards or info.n_shards)


def _is_as_asked(info: "FolderInfo", options: SearchOptions) -> bool:
    """True for an index that was trained over the rows that it has, in such shards, is of that kind, and has the rows
    in one file."""
    from index.folder.info import ADDED
    from index.search.choose import plan_search
    from index.search.shards import shard_sizes

    kind = options.kind
    if kind == "auto":
        kind = plan_search(options, info.options["storage"], info.n_rows, info.d).kind
    if ADDED in info.files or _is_scattered(info.local):
        return False
    if info.shard_sizes != shard_sizes(info.n_rows, options.n_shards):
        return False
    if info.search is None:
        return kind == "flat"
    changes = info.changes
    is_trained = changes is None or not changes.added + changes.removed
    return is_trained and (kind, options.recall) == (info.search.kind, info.search.target)


def _is_scattered(local: "LocalSummary | None") -> bool:
    """True for local features in several files, or beside those of rows that are gone."""
    return local is not None and (len(local.files) > 1 or local.n_gone > 0)


def _write(folder: "IndexFolder", options: SearchOptions, target: "Path", job: IndexCompactJob) -> "FolderInfo":
    """Writes the new version of the folder, without the calibration."""
    import numpy as np

    from index.folder.changes import Entry, count_changes
    from index.folder.info import ADDED, INDEX, SAMPLE, THUMBNAILS, Listed, files_of_local, search_names
    from index.folder.local_rows import write_one_store
    from index.folder.thumbnails import change_thumbnails
    from index.search.choose import build_search, plan_search
    from index.search.kept_sample import write_sample
    from index.search.shards import shard_sizes
    from index.update.write import copy_rows, finish_version, link_files, list_version, next_digest
    from retrieval.files.digest import sha256_json

    rows = folder.searched_flat
    plan = plan_search(options, rows.storage, len(rows), rows.d)
    stays = np.ones(len(rows), dtype=np.bool_)
    in_two = {INDEX, ADDED} if ADDED in folder.info.files else set()
    local, stores = folder.info.local, dict[str, Listed]()
    if folder.local is not None and _is_scattered(local):
        in_two |= files_of_local(folder.info)
        local, stores = write_one_store(target, folder.local, folder.rows.image_id)
    link_files(folder, target, without={*search_names(folder.info.n_shards), SAMPLE, THUMBNAILS, *in_two})
    if ADDED in folder.info.files:
        copy_rows(target / INDEX, folder.own_flat, stays, job.progress)
    found = build_search(rows, plan, options, job.progress)
    if found:
        found[0].save([target / name for name in search_names(options.n_shards)])
        write_sample(target / SAMPLE, found[2])
    stated = {name: value for name, value in folder.info.options.items() if name not in ("search", "n_shards")}
    of_shards = {"n_shards": options.n_shards} if options.n_shards > 1 else {}
    if found:
        how = {"kind": found[1].kind, "n_lists": found[0].n_lists, "recall": options.recall}
        stated["search"] = how | of_shards
    else:
        stated |= of_shards
    digest = sha256_json(["compact", stated])
    counts = count_changes(
        folder.info.changes, len(rows), folder.calibration, {"added": 0, "removed": 0, "relabelled": 0, "moved": 0}
    )
    info = replace(
        folder.info,
        options=stated,
        files=list_version(folder, target, stores),
        search=found[1] if found else None,
        recall=found[1].recall if found else folder.info.recall,
        inputs_digest=next_digest(folder.info.inputs_digest, digest),
        answers_digest=next_digest(folder.info.answers_digest, digest),
        shards=shard_sizes(len(rows), options.n_shards) if options.n_shards > 1 else (),
        changes=replace(counts, n_trained=len(rows), added=0, removed=0, relabelled=0),
        local=local,
    )
    if THUMBNAILS in folder.info.files:  # which say what index they are of
        change_thumbnails(folder.path / THUMBNAILS, target / THUMBNAILS, stays, (), info.inputs_digest)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    kind = "flat" if info.search is None else info.search.name
    entry = Entry(at, "compact", (kind,), digest, info.inputs_digest, len(rows))
    return finish_version(replace(folder, calibration=None), info, target, entry, stores)


def _keep_calibration(folder: "IndexFolder", info: "FolderInfo", target: "Path") -> bool:
    """Takes the calibration over where nearly all of a sample of questions are answered alike."""
    from index.evaluate.leave_one_out import agreement
    from index.folder.build import LEAST_AGREEMENT
    from index.folder.folder import open_folder, replace_calibration

    assert folder.calibration is not None
    other = replace(open_folder(target, device="cpu"), calibration=folder.calibration)
    if agreement(folder, other) < LEAST_AGREEMENT:
        return False
    origin = replace(folder.calibration.origin, index_digest=info.inputs_digest)
    replace_calibration(target, replace(folder.calibration, origin=origin))
    return True
