"""Building an index folder from descriptor stores, and calibrating it again where its calibration ends."""

import os
import shutil
import tempfile
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from index.folder.config import DEFAULT_PX, INDEX_FOLDER, MOST_PX, BuildOptions, ThumbnailPlan
from index.search.engine import require_folder
from retrieval.embed.engine import EngineJob, asked_engine
from retrieval.errors import LmrError
from retrieval.files.lock import output_locks
from retrieval.jobs import ComputingJob, WritingJob, option

if TYPE_CHECKING:
    from index.calibration import Calibration
    from index.folder.build import BuildReport
    from index.folder.info import FolderInfo
    from index.folder.inputs import BuildInputs
    from retrieval.arrays import FloatArray

STORE = Path("train.h5")
N_COMPARED = 16  # images whose descriptors by an exported network are compared with their rows


@dataclass(frozen=True)
class BuildJob(ComputingJob, EngineJob, WritingJob):
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
    local: bool = option(
        False,
        help="Carry the local features of the rows, by which answers are verified: for each STORE.h5 those of "
        "STORE.local.h5, beside it.",
    )
    local_store: tuple[Path, ...] = option((), help="Local store that lies elsewhere; looked into for every store.")
    local_weights: Path | None = option(
        None, default_text="those of its package", help="Weights of the network that made the local features."
    )
    recalibrate: bool = option(
        False, help="Where `overwrite` ends the calibration, make it again from the store of its queries."
    )


def build_index(job: BuildJob) -> "BuildReport":
    """Builds an index folder, or finds it built already; what was done.

    Raises LmrError for stores that do not fit each other or the model, for a folder that was made from something else,
    for a calibration that could not be made again, for `engine` onnx without what makes an export, and for `local`
    without a local store.
    """
    from index.evaluate.leave_one_out import agreement
    from index.folder.build import build_folder
    from retrieval.embed.export import PACKAGES
    from retrieval.extras import require_extra
    from retrieval.parallel import count_workers

    require_folder(job.output)
    if asked_engine(job.engine) == "onnx":
        require_extra("`engine` onnx", "onnx", *PACKAGES)
    with output_locks(job.output, wait=job.wait, progress=job.progress):
        if job.recalibrate:
            _require_queries(job.output)
        with tempfile.TemporaryDirectory() as scratch:
            inputs = _read_inputs(job, Path(scratch) / "model")
            report = build_folder(
                job.output,
                inputs,
                job.options,
                overwrite=job.overwrite,
                device=job.device,
                thumbnails=ThumbnailPlan(job.thumbnails, max(1, count_workers(job.workers, job.progress))),
                agreement=agreement,
                progress=job.progress,
            )
            report = replace(report, info=_with_export(job, report.info, inputs, Path(scratch)))
        if report.lost is not None and job.recalibrate:
            report = replace(report, recalibrated=_recalibrate(job, report.lost))
    return report


def _read_inputs(job: BuildJob, model: Path) -> "BuildInputs":
    """Reads everything the index is built from. model: folder to make, with the model as it made the stores."""
    from index.folder.inputs import BuildInputs
    from index.folder.local import places_of_stores
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
    local = places_of_stores(read, job.local_store, job.local_weights, lie_beside=job.local)
    model.mkdir()
    for name, path in model_files(job.model, card).items():
        _link(path.resolve(), model / name)
    write_card(model, card)
    return BuildInputs(read, model, [open_descriptors(path) for path in job.background], names, local)


def _link(source: Path, target: Path) -> None:
    """A symbolic link, or a copy where there are none: weights are large."""
    try:
        os.symlink(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _with_export(job: BuildJob, info: "FolderInfo", inputs: "BuildInputs", scratch: Path) -> "FolderInfo":
    """index.json of the built folder, to which the exported network is added, or why there is none.

    A kill leaves the folder without one, which is whole; the next build of the same adds it.
    """
    from index.folder.info import EXPORT, MODEL, ExportInfo, Listed, write_info
    from retrieval.embed.export import PACKAGES, export_like_rows
    from retrieval.embed.load import onnx_path, open_card
    from retrieval.extras import missing
    from retrieval.files.atomic import write_bytes
    from retrieval.files.digest import sha256_file
    from retrieval.files.folders import current_folder

    folder, asked = current_folder(job.output), asked_engine(job.engine)
    if asked == "torch" or missing(*PACKAGES) or onnx_path(folder / MODEL) is not None:
        return info
    weights = tuple(member.card.weights_sha256 for member in open_card(folder / MODEL).members)
    known = info.export
    if known is not None and known.weights_sha256 == weights and not (known.refused and asked == "onnx"):
        return info
    from retrieval.embed.onnx_export import NotExportableError

    job.progress.tell("exporting the network to ONNX, by which queries start sooner; `engine` torch leaves that out")
    made, files = scratch / "model.onnx", {name: one for name, one in info.files.items() if name != EXPORT}
    try:
        exported, cosines = export_like_rows(folder / MODEL, made, *_some_rows(inputs))
    except NotExportableError as error:
        export = ExportInfo(weights, refused=str(error).replace(f"{made}: ", ""))
    else:
        write_bytes(folder / EXPORT, made.read_bytes())
        files[EXPORT] = Listed(sha256=sha256_file(made), size=exported.n_bytes)
        least = min(1.0, float(cosines.min())) if len(cosines) else None
        export = ExportInfo(weights, exported.difference, exported.tolerance, len(cosines), least)
    info = replace(info, files=files, export=export)
    write_info(folder, info)
    return info


def _some_rows(inputs: "BuildInputs") -> "tuple[list[str], FloatArray]":
    """Paths and descriptors of a few rows whose images are there, spread over the first store."""
    import numpy as np

    store = inputs.stores[0]
    done = np.flatnonzero(store.done)
    rows = done[np.unique(np.linspace(0, len(done) - 1, N_COMPARED).astype(np.int64))]
    there = np.array([row for row in rows.tolist() if os.path.isfile(store.path[row])], dtype=np.int64)
    return [store.path[row] for row in there.tolist()], np.asarray(store.vectors[there], dtype=np.float32)


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
    from index.calibrate.job import warn_unverified
    from index.folder.folder import open_folder
    from index.queries import queries_of
    from retrieval.store.store import open_descriptors

    if lost.verified is not None:
        warn_unverified(job.output, job.progress)
    folder = open_folder(job.output, device=job.device, threads=job.threads, calibrated=False, progress=job.progress)
    store = open_descriptors(Path(lost.origin.source))
    return calibrate_folder(folder, store, queries_of(store), lost.settings)
