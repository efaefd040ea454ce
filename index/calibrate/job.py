"""Calibrating an index folder on labelled queries."""

import json
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from index.calibrate.config import CalibrationSettings
from index.folder.config import INDEX_FOLDER
from index.queries import QueriesJob, embed_queries, local_queries
from index.search.address import require_folder
from retrieval.errors import DamageError, LmrError
from retrieval.files.lock import output_locks
from retrieval.jobs import option, told

if TYPE_CHECKING:
    from index.calibration import Calibration
    from index.folder.folder import IndexFolder
    from index.rerank.verification import Verification
    from retrieval.progress import Progress


@dataclass(frozen=True)
class CalibrateJob(QueriesJob):
    """Calibrate an index folder on labelled queries."""

    queries: Path = field(metadata=told(is_argument=True))
    _: KW_ONLY
    index: Path = option(INDEX_FOLDER, help="Index folder.")
    settings: CalibrationSettings = field(default_factory=CalibrationSettings)


def calibrate(job: CalibrateJob) -> "Calibration":
    """Tunes the vote and fits the confidence, and writes both into the index folder unless they are there already.

    A part for verified answers is added to a calibration that is there, and stays where the same one is made without
    it. Raises LmrError for queries that cannot be used, and for another calibration that is there.
    """
    from index.calibrate.fit import calibration_of
    from index.folder.folder import open_folder, replace_calibration
    from index.folder.info import CALIBRATION
    from index.folder.verified import Verifying, described
    from retrieval.data.overview import require_there

    require_folder(job.index)
    with output_locks(job.index, wait=job.wait, progress=job.progress):
        require_there(job.queries)
        how: dict[str, Any] = {"device": job.device, "threads": job.threads, "progress": job.progress}
        folder = open_folder(job.index, calibrated=False, with_local=job.verify, **how)
        verification = _verification(folder, job) if job.verify else None
        store, queries = embed_queries(job.queries, folder, job)
        verifying = None
        if verification is not None:
            local = local_queries(job.queries, folder, job)
            verifying = Verifying(verification, described(local, store.image_id), progress=job.progress)
        calibration = calibration_of(folder, store, queries, job.settings, verifying)
        before = _calibration_of(folder)
        is_same = before is not None and _content(before.plain) == _content(calibration.plain)
        if before is not None and is_same and calibration.verified in (None, before.verified):
            job.progress.warn(f"{job.index}: calibrated already, nothing to do")
            return before
        if before is not None and not job.overwrite and not (is_same and before.verified is None):
            raise LmrError(
                f"{job.index / CALIBRATION} was made from {before.origin.source} with other queries or settings; "
                "give `overwrite` to replace it"
            )
        if before is not None and before.verified is not None and calibration.verified is None:
            warn_unverified(job.index, job.progress)
        replace_calibration(folder.path, calibration)
    return calibration


def warn_unverified(index: Path, progress: "Progress") -> None:
    """Says that an index folder loses the part of its calibration for verified answers."""
    progress.warn(f"warning: {index} is not calibrated for verified answers any more; lmr calibrate `verify` does that")


def _verification(folder: "IndexFolder", job: CalibrateJob) -> "Verification":
    from index.folder.verified import Computing, open_verification

    return open_verification(folder, job, Computing.of(job))[1]


def _calibration_of(folder: "IndexFolder") -> "Calibration | None":
    """The calibration that is there; None without one, or where it is damaged and has to be made again.

    Raises LmrError for one that cannot be read, or is of another version.
    """
    from index.folder.folder import read_calibration

    try:
        return read_calibration(folder.path, folder.info)
    except DamageError:
        return None


def _content(calibration: "Calibration") -> str:
    return json.dumps(calibration.to_json())
