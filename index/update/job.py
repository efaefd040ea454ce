"""Changing an index folder: images added, removed or relabelled, another folder merged into it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from index.folder.config import INDEX_FOLDER
from index.search.address import require_folder
from retrieval.errors import LmrError
from retrieval.files.lock import output_locks
from retrieval.jobs import DecodingJob, option

if TYPE_CHECKING:
    from index.folder.folder import IndexFolder
    from index.folder.info import FolderInfo
    from index.update.change import Change

RECALL_LOST = 0.02  # below the recall that was asked for, from which on a line says so


@dataclass(frozen=True, kw_only=True)
class ChangingJob(DecodingJob):
    """A job that changes an index folder."""

    index: Path = option(INDEX_FOLDER, help="Index folder to change.")
    threads: int | None = option(None, low=1, default_text="all cores", help="CPU threads.")
    wait: bool = option(False, help="Wait for another run that writes the same output, instead of stopping.")

    def __post_init__(self) -> None:
        """Raises LmrError for an index on a server."""
        super().__post_init__()
        require_folder(self.index)


@dataclass(frozen=True)
class IndexAddJob(ChangingJob):
    """Add the images of stores to an index."""

    stores: tuple[Path, ...] = option(is_argument=True)
    _: KW_ONLY
    background: bool = option(
        False, help="Put images without a landmark into the background, instead of leaving them out."
    )
    names: Path | None = option(None, help="CSV that gives landmarks a name and an address.")
    local: bool = option(
        False,
        help="Take the local features of STORE.h5 from STORE.local.h5, beside it; an index that has local features "
        "takes them where they are.",
    )
    local_store: tuple[Path, ...] = option((), help="Local store that lies elsewhere; looked into for every store.")
    local_weights: Path | None = option(
        None, default_text="those of its package", help="Weights of the network that made the local features."
    )


@dataclass(frozen=True)
class IndexRemoveJob(ChangingJob):
    """Remove images from an index."""

    ids: tuple[str, ...] = option((), is_argument=True)
    _: KW_ONLY
    ids_file: Path | None = option(None, help="CSV with a column image_id, or text with one on each line.")


@dataclass(frozen=True)
class IndexMergeJob(ChangingJob):
    """Merge other index folders into one."""

    folders: tuple[Path, ...] = option(is_argument=True)
    _: KW_ONLY
    background: bool = option(False, help="Take over the backgrounds too, instead of leaving them out.")


@dataclass(frozen=True)
class IndexRelabelJob(ChangingJob):
    """Rename or merge landmarks, or relabel images."""

    labels: Path = option(is_argument=True)


@dataclass(frozen=True, slots=True)
class IndexChange:
    """What was done. n_moved: rows that got another name or place. n_there: images asked for that are there already, or
    are called so already.

    n_unlabelled, n_unreadable: left out, as they have no landmark or no descriptor. n_background: images that came
    into the background or went from it. n_local: images that were there and got local features; n_without_local: that
    were given without, to an index that has them. warnings: what to do next.
    """

    state: Literal["changed", "unchanged"]
    info: "FolderInfo"
    n_added: int = 0
    n_removed: int = 0
    n_relabelled: int = 0
    n_moved: int = 0
    n_there: int = 0
    n_unlabelled: int = 0
    n_unreadable: int = 0
    n_background: int = 0
    n_local: int = 0
    n_without_local: int = 0
    warnings: tuple[str, ...] = ()


def add(job: IndexAddJob) -> IndexChange:
    """Adds the labelled images of stores to an index; what was done.

    Those that it has already, with the same label and descriptor, are left as they are, but for own columns.
    Raises LmrError: stores of another model, an image that it has otherwise, damage, and what cannot be written.
    """
    from index.update.addition import plan_addition
    from index.update.images import images_of_store
    from retrieval.data.names import read_names

    def plan(folder: "IndexFolder") -> "Change":
        names = read_names(job.names, job.progress) if job.names else {}
        local = [(_local_stores(folder, job, store), job.local_weights) for store in job.stores]
        given = [images_of_store(folder, store, *one) for store, one in zip(job.stores, local, strict=True)]
        return plan_addition(folder, "add", given, names, to_background=job.background)

    return change_folder(job, plan)


def _local_stores(folder: "IndexFolder", job: IndexAddJob, store: Path) -> list[Path]:
    """Local stores that may have local features of a store; its own is among them where it is there or asked for."""
    from index.folder.local import beside

    own = beside(store)
    is_taken = job.local or (folder.local is not None and own.exists())
    return [*([own] if is_taken else []), *job.local_store]


def remove(job: IndexRemoveJob) -> IndexChange:
    """Removes images by their image_id from an index and its background; what was done.

    Raises LmrError for ids that are not there or are given twice, and where nothing would be left.
    """
    from index.update.change import plan_removal, removal_digest

    with output_locks(job.index, wait=job.wait, progress=job.progress):
        ids = [*job.ids, *(read_ids(job.ids_file) if job.ids_file else ())]
        source = str(job.ids_file) if job.ids_file else f"{len(ids)} given"
        return change_folder(job, lambda folder: plan_removal(folder, ids, source), removal_digest(ids))


def merge(job: IndexMergeJob) -> IndexChange:
    """Adds the rows of other index folders of the same model to an index; what was done.

    Raises LmrError as `add`, and for folders that were whitened otherwise, whose stores can be added instead.
    """
    from index.folder.folder import open_folder
    from index.update.addition import plan_addition
    from index.update.change import refuse_augmented
    from index.update.images import images_of_folder

    def plan(folder: "IndexFolder") -> "Change":
        refuse_augmented(folder, "merge")
        others = [open_folder(path, device="cpu", threads=job.threads, calibrated=False) for path in job.folders]
        given = [images for other in others for images in images_of_folder(folder, other)]
        return plan_addition(folder, "merge", given, {}, to_background=job.background)

    return change_folder(job, plan)


def relabel(job: IndexRelabelJob) -> IndexChange:
    """Gives landmarks or images other labels; what was done.

    Raises LmrError for a table that is neither `landmark_id,new_landmark_id` nor `image_id,landmark_id`, and for
    landmarks and images that the index does not have.
    """
    from index.update.change import plan_relabelling, relabelling_digest

    with output_locks(job.index, wait=job.wait, progress=job.progress):
        of_landmark, of_image = read_new_labels(job.labels)
        return change_folder(
            job,
            lambda folder: plan_relabelling(folder, of_landmark, of_image, job.labels),
            relabelling_digest(of_landmark, of_image),
        )


def change_folder(job: ChangingJob, plan: "Callable[[IndexFolder], Change]", digest: str | None = None) -> IndexChange:
    """Makes a change, unless the last one was the same; the folder is the old one or the new one at any moment.

    digest: of what is asked for, where that tells whether it was done already.
    """
    from index.folder.changes import read_journal, tell_unwhitened
    from index.folder.folder import open_folder
    from index.update.write import Writing, write_changed
    from retrieval.files.folders import remove_leftovers, replacing_folder
    from retrieval.parallel import count_workers

    with output_locks(job.index, wait=job.wait, progress=job.progress):
        remove_leftovers(job.index.resolve())
        folder = open_folder(job.index, device="cpu", threads=job.threads)
        journal = read_journal(folder.path)
        if digest is not None and journal and journal[-1].digest == digest:
            return IndexChange("unchanged", folder.info)
        change = plan(folder)
        if change.is_nothing:
            return _report("unchanged", folder.info, change)
        n_workers = max(1, count_workers(job.workers, job.progress))
        with replacing_folder(job.index) as target:
            info = write_changed(folder, change, target, Writing(n_workers, job.progress))
    if change.columns is not None:
        job.progress.tell(f"{job.index}: own columns of its images are as given now")
    told = _lost_recall(job.index, info)
    if change.added is not None:
        told += tell_unwhitened(job.index, info, folder.whitening)
    return _report("changed", info, change, told)


def _report(
    state: Literal["changed", "unchanged"], info: "FolderInfo", change: "Change", warnings: Sequence[str] = ()
) -> IndexChange:
    counts = change.counts
    return IndexChange(
        state,
        info,
        n_added=counts["added"],
        n_removed=counts["removed"],
        n_relabelled=counts["relabelled"],
        n_moved=counts["moved"],
        n_there=change.n_there,
        n_unlabelled=change.n_unlabelled,
        n_unreadable=change.n_unreadable,
        n_background=change.n_background,
        n_local=change.local.n_taken,
        n_without_local=change.local.n_without,
        warnings=tuple(warnings),
    )


def _lost_recall(path: Path, info: "FolderInfo") -> list[str]:
    """A line where the inverted file finds clearly less than what it was built for."""
    search = info.search
    if search is None or search.recall >= search.target - RECALL_LOST:
        return []
    return [
        f"{path}: {search.name} finds {search.recall:.3f} of the 10 nearest, {search.target:g} was asked for; "
        "lmr index compact trains it anew"
    ]


def read_ids(path: Path) -> Sequence[str]:
    """The image_ids of a CSV file with such a column, or of a text with one on each line. Raises LmrError."""
    from retrieval.data.columns import read_column
    from retrieval.data.csv_table import CsvTable

    table = CsvTable(path)
    for name in ("image_id", "id"):
        if (column := read_column(table, name)) is not None:
            return [str(one).strip() for one in column]
    if len(table.header) > 1:
        raise LmrError(f"{path} has no column image_id; give one, or a text with an image_id on each line")
    return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]


def read_new_labels(path: Path) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """New labels of landmarks, and of images, one of which is empty, by the header of a table.

    Raises LmrError for another header, bad rows by their line, and a landmark or image that is there twice.
    """
    from retrieval.data.columns import column_position
    from retrieval.data.csv_table import BadRows, CsvTable

    table = CsvTable(path)
    old_at, new_at = column_position(table, "landmark_id"), column_position(table, "new_landmark_id")
    image_at = next((at for name in ("image_id", "id") if (at := column_position(table, name)) is not None), None)
    if old_at is None or (new_at is None and image_at is None):
        raise LmrError(
            f"{path} has the columns {','.join(table.header)}; lmr index relabel takes landmark_id,new_landmark_id or "
            "image_id,landmark_id"
        )
    key_at, value_at = (old_at, new_at) if new_at is not None else (image_at or 0, old_at)
    found: dict[str, str] = {}
    bad = BadRows(table.source)
    for line, row in table.numbered(bad):
        key, value = row[key_at].strip(), row[value_at].strip()
        if not key or not value:
            bad.add(line, f"{table.header[value_at if key else key_at]} is missing; lmr index remove takes images out")
        elif found.setdefault(key, value) != value:
            bad.add(line, f"{key} is called {found[key]} on another line, {value} here")
    bad.refuse_any()
    if not found:
        raise LmrError(f"{path} holds a header and no rows; there is nothing to relabel")
    return (found, {}) if new_at is not None else ({}, found)
