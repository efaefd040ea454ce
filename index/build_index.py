"""Building an index folder from descriptor stores, and calibrating it again where its calibration ends."""

import os
import shutil
import tempfile
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from index.folder.config import DEFAULT_PX, INDEX_FOLDER, MOST_PX, BuildOptions, ThumbnailPlan
from retrieval.errors import LmrError
from retrieval.files.lock import output_locks
from retrieval.jobs import ComputingJob, WritingJob, option

if TYPE_CHECKING:
    from index.calibration import Calibration
    from index.folder.build import BuildReport
    from index.folder.inputs import BuildInputs

STORE = Path("train.h5")


@dataclass(frozen=True)
class BuildJob(ComputingJob, WritingJob):
    """Build an index folder."""

    stores: tuple[Path, ...] = option((STORE,), is_argument=True)
    _: KW_ONLY
    output: Path = option(INDEX_FOLDER, help="Index folder to write.")
    model: Path = option(Path("model"), help="Model folder or file of lmr export that made the descriptors.")
    background: tuple[Path, ...] = option((), help="Store of non-landmarks, besides unlabelled rows.")
    names: Path | None = option(None, help="CSV that gives landmarks a name and an address.")
    options: BuildOptions = field(default_factory=BuildOptions)
    thumbnails: int = option(
        DEFAULT_PX,
        low=0,
        high=MOST_PX,
        help="Longer side in pixels of the thumbnails that the folder keeps of its rows; 0 = none.",
    )
    recalibrate: bool = option(
        False, help="Where `overwrite` ends the calibration, make it again from the store of its queries."
    )


def build_index(job: BuildJob) -> "BuildReport":
    """Builds an index folder, or finds it built already; what was done.

    Raises LmrError for stores that do not fit each other or the model, for a folder that was made from something else,
    and for a calibration that could not be made again.
    """
    from index.evaluate.leave_one_out import agreement
    from index.folder.build import build_folder
    from retrieval.parallel import count_workers

    with output_locks(job.output, wait=job.wait, progress=job.progress):
        if job.recalibrate:
            _require_queries(job.output)
        with tempfile.TemporaryDirectory() as scratch:
            report = build_folder(
                job.output,
                _read_inputs(job, Path(scratch) / "model"),
                job.options,
                overwrite=job.overwrite,
                device=job.device,
                thumbnails=ThumbnailPlan(job.thumbnails, max(1, count_workers(job.workers, job.progress))),
                agreement=agreement,
                progress=job.progress,
            )
        if report.lost is not None and job.recalibrate:
            report = replace(report, recalibrated=_recalibrate(job, report.lost))
    return report


def _read_inputs(job: BuildJob, model: Path) -> "BuildInputs":
    """Reads everything the index is built from. model: folder to make, with the model as it made the stores."""
    from index.folder.inputs import BuildInputs
    from retrieval.data.names import of_no_landmark, read_names
    from retrieval.embed.load import card_of_store, model_files
    from retrieval.models.folder import write_card
    from retrieval.store.store import open_descriptors

    read = [open_descriptors(path) for path in job.stores]
    card = card_of_store(job.model, read[0])
    names = read_names(job.names, job.progress) if job.names else {}
    landmarks = (label for store in read for label in store.landmarks)
    if job.names and (line := of_no_landmark(names, landmarks, job.names, job.stores[0])):
        job.progress.warn(line if len(read) == 1 else f"{line} and the other stores")
    model.mkdir()
    for name, path in model_files(job.model, card).items():
        _link(path.resolve(), model / name)
    write_card(model, card)
    return BuildInputs(read, model, [open_descriptors(path) for path in job.background], names)


def _link(source: Path, target: Path) -> None:
    """A symbolic link, or a copy where there are none: weights are large."""
    try:
        os.symlink(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _require_queries(output: Path) -> None:
    """Refuses, before anything is replaced, a calibration that could not be made again."""
    from index.folder.folder import read_calibration
    from index.folder.info import read_info

    calibration = read_calibration(output, read_info(output)) if output.exists() else None
    if calibration is None:
        raise LmrError(
            f"`recalibrate`: {output} has no calibration to make again; build without it, and lmr calibrate makes one"
        )
    if not Path(calibration.origin.source).is_file():
        raise LmrError(
            f"`recalibrate`: {calibration.origin.source}, which {output} was calibrated on, is not there; run it where "
            "it is, or lmr calibrate afterwards"
        )


def _recalibrate(job: BuildJob, lost: "Calibration") -> "Calibration":
    """Calibrates the index on the queries of its lost calibration, with the settings of that."""
    from index.calibrate.fit import calibrate_folder
    from index.folder.folder import open_folder
    from index.queries import queries_of
    from retrieval.store.store import open_descriptors

    folder = open_folder(job.output, device=job.device, threads=job.threads, calibrated=False, progress=job.progress)
    store = open_descriptors(Path(lost.origin.source))
    return calibrate_folder(folder, store, queries_of(store), lost.settings)
