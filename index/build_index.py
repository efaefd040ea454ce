"""Building an index folder from descriptor stores, and calibrating it again where its calibration ends."""

import os
import shutil
import tempfile
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from index.folder.config import DEFAULT_PX, INDEX_FOLDER, MOST_PX, BuildOptions, ThumbnailPlan
from index.search.address import require_folder
from retrieval.embed.engine import Engine, asked_engine
from retrieval.errors import LmrError
from retrieval.files.lock import output_locks
from retrieval.jobs import ComputingJob, WritingJob, option
from retrieval.progress import SILENT
from retrieval.spark.config import SparkJob

if TYPE_CHECKING:
    from index.calibration import Calibration
    from index.folder.build import BuildReport, Digests
    from index.folder.info import FolderInfo
    from index.folder.inputs import BuildInputs
    from index.search.choose import Tuned
    from index.spark.search_tasks import Made
    from index.spark.staged import BuildWork, Looked
    from retrieval.arrays import FloatArray
    from retrieval.spark.task import Place

STORE = Path("train.h5")
N_COMPARED = 16  # images whose descriptors by an exported network are compared with their rows


@dataclass(frozen=True)
class BuildJob(ComputingJob, WritingJob, SparkJob):
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
    engine: Literal["auto", "local", "spark", "onnx", "torch"] = option(
        "auto",
        default_text="this machine, and what starts fastest",
        help="What computes: auto or local (this machine), spark (a cluster); onnx exports the network for queries, "
        "torch leaves that out.",
    )

    def __post_init__(self) -> None:
        """Raises LmrError for a GPU where a cluster builds."""
        super().__post_init__()
        if self.on_spark and self.device not in ("auto", "cpu"):
            raise LmrError(f"`device` {self.device}: a cluster builds an index on CPUs; leave `device` out")

    @property
    def exporting(self) -> Engine:
        """Whether the network is exported for queries."""
        return "auto" if self.engine in ("local", "spark") else cast(Engine, self.engine)


def build_index(job: BuildJob) -> "BuildReport":
    """Builds an index folder, or finds it built already; what was done.

    Raises LmrError for stores that do not fit each other or the model, for a folder that was made from something else,
    for a calibration that could not be made again, for `engine` onnx without what makes an export, and for `local`
    without a local store.
    """
    require_folder(job.output)
    if job.on_spark:
        from index.spark.driver import build_on_spark

        return build_on_spark(job)
    return _build(job)


def _build(job: BuildJob, digests: "Digests | None" = None, made: "Made | None" = None) -> "BuildReport":
    """Builds an index folder here. digests, made: as of `build_folder`."""
    from index.evaluate.leave_one_out import agreement
    from index.folder.build import build_folder
    from retrieval.embed.export import PACKAGES
    from retrieval.extras import require_extra
    from retrieval.parallel import count_workers

    if asked_engine(job.exporting) == "onnx":
        require_extra("`engine` onnx", "onnx", *PACKAGES)
    with output_locks(job.output, wait=job.wait, progress=job.progress):
        if job.recalibrate:
            _require_queries(job.output)
        with tempfile.TemporaryDirectory() as scratch:
            inputs = read_inputs(job, Path(scratch) / "model")
            report = build_folder(
                job.output,
                inputs,
                job.options,
                overwrite=job.overwrite,
                device=job.device,
                thumbnails=ThumbnailPlan(job.thumbnails, max(1, count_workers(job.workers, job.progress))),
                agreement=agreement,
                digests=digests,
                made=made,
                progress=job.progress,
            )
            report = replace(report, info=_with_export(job, report.info, inputs, Path(scratch)))
        if report.lost is not None and job.recalibrate:
            report = replace(report, recalibrated=_recalibrate(job, report.lost))
    return report


def look(job: BuildJob, place: "Place") -> "Looked":
    """Reads and checks what is given, in a task: what there is to build."""
    from index.folder.build import digests_of, find_same, plan_folder
    from index.folder.inputs import gather
    from index.folder.vectors import pairs_of
    from index.spark.staged import Looked
    from retrieval.store.stored import file_identity

    job = replace(job, progress=place.progress)
    states = tuple(file_identity(path)[2:] for path in (*job.stores, *job.background))
    with tempfile.TemporaryDirectory() as scratch:
        inputs = read_inputs(job, Path(scratch) / "model")
        gathered = gather(inputs)
        plan = plan_folder(gathered, job.options)
        digests = digests_of(gathered, inputs, job.options, plan, SILENT)
    is_there = not job.overwrite and find_same(job.output, digests, job.thumbnails, gathered.local) is not None
    n_pairs = pairs_of(gathered.landmark, len(gathered.both)).n_blocks if job.options.whitening == "supervised" else 0
    n_both, d = gathered.both.shape
    return Looked(len(gathered.vectors), n_both, d, n_pairs, plan, digests, is_there, states)


def finish(item: "tuple[BuildJob, Looked, BuildWork | None, Tuned | None]", place: "Place") -> "BuildReport":
    """Writes the index folder of what the tasks made, in a task; or finds it there."""
    from index.spark.search_tasks import made_of

    job, looked, work, tuned = item
    return _build(place.give(job), looked.digests, None if work is None else made_of(work, tuned))


def read_inputs(job: BuildJob, model: Path) -> "BuildInputs":
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

    folder, asked = current_folder(job.output), asked_engine(job.exporting)
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
    from index.evaluate.places import placed_index
    from index.folder.folder import open_folder
    from index.queries import queries_of
    from retrieval.store.store import open_descriptors

    if lost.verified is not None:
        warn_unverified(job.output, job.progress)
    folder = open_folder(job.output, device=job.device, threads=job.threads, calibrated=False, progress=job.progress)
    store = open_descriptors(Path(lost.origin.source))
    queries = queries_of(store)
    if lost.origin.within_m is not None:
        placed = placed_index(folder.rows, str(folder), lost.origin.within_m)
        placed.require(store.columns, store.image_id, store.source)
        queries = placed.label(queries, store.columns)
    return calibrate_folder(folder, store, queries, lost.settings)
