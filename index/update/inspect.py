"""State of an index folder: what it is and what was changed in it, whether it is whole, and a list of its images."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from index.folder.config import INDEX_FOLDER
from index.search.address import Address, address_of
from index.search.config import MilvusKind
from retrieval.errors import DamageError, WordsError
from retrieval.files.lock import output_locks
from retrieval.jobs import Job, WritingJob, option

if TYPE_CHECKING:
    from index.folder.folder import IndexFolder

N_ASKED = 1000  # rows that are asked for themselves
LEAST_SELF_RECALL = 0.9  # of an inverted file; exact search finds every row
N_TOLD = 10  # changes, the last ones


@dataclass(frozen=True)
class IndexInfoJob(Job):
    """Tell what an index is and what was changed in it."""

    index: Path = option(INDEX_FOLDER, is_argument=True)


@dataclass(frozen=True)
class IndexVerifyJob(Job):
    """Read an index whole and ask it for its own rows."""

    index: Path = option(INDEX_FOLDER, is_argument=True)
    _: KW_ONLY
    threads: int | None = option(None, low=1, default_text="all cores", help="CPU threads.")


@dataclass(frozen=True)
class IndexExportJob(WritingJob):
    """Write the images of an index as a manifest, or the index to a server."""

    output: Path = option(is_argument=True)
    _: KW_ONLY
    index: Path = option(INDEX_FOLDER, help="Index folder to read.")
    kind: MilvusKind | None = option(
        None, default_text="flat, exact", help="Kind of index that a server makes; Milvus Lite has not all of them."
    )
    recall: float | None = option(
        None,
        low=0,
        high=1,
        low_open=True,
        default_text="0.99",
        help="Share of the exact 10 nearest that a kind of a server must find that is not exact.",
    )
    leave_out: tuple[Literal["local", "thumbnails"], ...] = option(
        (), help="What a server does not get of the index; repeat it for both."
    )


@dataclass(frozen=True, slots=True)
class IndexVerified:
    """What was read and found whole. self_recall: share of n_asked rows that are found when they are asked."""

    n_files: int
    n_bytes: int
    n_rows: int
    n_landmarks: int
    n_changes: int
    n_asked: int
    self_recall: float


@dataclass(frozen=True, slots=True)
class IndexExported:
    """The manifest that was written, or was there already; or the index on a server.

    engine: name and version of the server, '' for a manifest. kind: of the index there; recall: share of the 10 nearest
    that it finds, measured where it is not exact.
    """

    state: Literal["written", "unchanged"]
    n_images: int
    engine: str = ""
    kind: str = ""
    recall: float = 1.0


def info(job: IndexInfoJob) -> Mapping[str, Any]:
    """Facts of an index, its changes and the last lines of its journal, as JSON has them. Raises LmrError."""
    from index.folder.changes import read_journal, tell_changed
    from index.folder.folder import open_folder
    from index.folder.info import local_facts
    from retrieval.embed.load import told_engine

    folder = open_folder(job.index, device="cpu", on_server=True)
    known, search = folder.info, folder.info.search
    facts: dict[str, Any] = {
        "images": known.n_rows,
        "landmarks": known.n_landmarks,
        "background": known.n_background,
        "d": known.d,
        "storage": folder.index.storage,
        "bytes": sum(listed["size"] for listed in known.files.values()),
        "engine": told_engine(folder.model_path),
        "export": None if known.export is None else asdict(known.export),
        "search": {"kind": "flat"} if search is None else asdict(search),
        "shards": known.n_shards,
        "local": None if known.local is None else local_facts(known),
        "calibrated_on": None if folder.calibration is None else folder.calibration.origin.source,
        "changes": None if known.changes is None else asdict(known.changes),
        "last_changes": [asdict(entry) for entry in read_journal(folder.path)[-N_TOLD:]],
        "warnings": tell_changed(folder),
    }
    return facts


def verify(job: IndexVerifyJob) -> IndexVerified:
    """Compares every file of an index with its sha256, its counts with each other, and asks it for its own rows.

    Raises LmrError that names what differs.
    """
    from index.folder.changes import JOURNAL, read_journal
    from index.folder.folder import open_folder

    folder = open_folder(job.index, device="cpu", threads=job.threads, verify="full")
    known, journal = folder.info, read_journal(folder.path)
    if journal and (journal[-1].index_digest, journal[-1].n_rows) != (known.inputs_digest, known.n_rows):
        raise DamageError(f"{folder.path / JOURNAL} does not end with this index; copy the folder again")
    _require_thumbnails(folder)
    if folder.local is not None:
        folder.local.require_whole()
    n_asked, found = _ask_own(folder)
    least = 1.0 if known.search is None else LEAST_SELF_RECALL
    if found < least:
        raise DamageError(
            f"{job.index} finds {found:.3f} of {n_asked:,} of its own rows; lmr index compact trains it anew"
        )
    return IndexVerified(
        n_files=len(known.files),
        n_bytes=sum(listed["size"] for listed in known.files.values()),
        n_rows=known.n_rows,
        n_landmarks=known.n_landmarks,
        n_changes=len(journal),
        n_asked=n_asked,
        self_recall=found,
    )


def export(job: IndexExportJob) -> IndexExported:
    """Writes image_id, landmark_id and path of the rows of an index, as a CSV manifest; or the index to a server.

    Raises LmrError for another file or index in its place, which `overwrite` replaces.
    """
    if (address := address_of(job.output)) is not None:
        return _export_to(address, job)
    given = {"kind": job.kind, "recall": job.recall, "leave_out": job.leave_out or None}
    if words := [word for word, value in given.items() if value is not None]:
        raise WordsError(f"`{words[0]}` is for an index on a server; give milvus://HOST/COLLECTION as the output")
    from index.folder.folder import open_folder
    from retrieval.data.csv_cells import csv_line
    from retrieval.files.made_of import is_made_of, write_with_record

    with output_locks(job.output, wait=job.wait, progress=job.progress):
        folder = open_folder(job.index, device="cpu", calibrated=False)
        rows, inputs = folder.rows, {"index": folder.info.inputs_digest}
        if not job.overwrite and is_made_of(job.output, inputs, "give `overwrite` or another name"):
            return IndexExported("unchanged", len(rows))
        columns = zip(rows.image_id, rows.landmark.tolist(), rows.path, strict=True)
        lines = (csv_line((image_id, rows.landmarks[code], path)) for image_id, code, path in columns)
        write_with_record(job.output, [csv_line(("image_id", "landmark_id", "path")), *lines], inputs)
    return IndexExported("written", len(rows))


def _export_to(address: Address, job: IndexExportJob) -> IndexExported:
    from index.folder.folder import open_folder
    from index.update.export import send_index

    sent = send_index(open_folder(job.index, device="cpu", searched=False), address, job)
    export = sent.export
    return IndexExported(sent.state, export.n_rows, sent.engine, export.kind, export.recall)


def _require_thumbnails(folder: "IndexFolder") -> None:
    """Raises DamageError where there are not as many thumbnails as rows."""
    from retrieval.files.hdf5 import open_hdf5

    if folder.thumbnails is None:
        return
    with open_hdf5(folder.thumbnails.path, "a file of thumbnails", "run lmr build-index again") as file:
        if len(file["offset"]) != len(folder.rows) + 1 or file.attrs["index_digest"] != folder.thumbnails.digest:
            raise DamageError(f"{folder.thumbnails.path} is of another index; copy the folder again")


def _ask_own(folder: "IndexFolder") -> tuple[int, float]:
    """How many rows were asked for their nearest, and the share that found themselves or an equal one."""
    import numpy as np

    n = len(folder.rows)
    own = np.sort(np.random.default_rng(0).permutation(n)[:N_ASKED])
    rows = folder.searched_flat
    vectors = rows.vectors(own)
    best = folder.searched.search(vectors, 1).scores[:, 0]
    itself = np.einsum("nd,nd->n", vectors, vectors)
    return len(own), float(np.mean(best >= itself - rows.tolerance * np.sqrt(itself)))
