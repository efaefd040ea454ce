"""Answering the images of a test set with an index folder, as a Kaggle submission."""

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from index.folder.config import INDEX_FOLDER
from index.rerank.config import VerifyJob
from retrieval.embed.complete import complete_store
from retrieval.embed.job import AskingJob, of_share
from retrieval.embed.store_name import find_store
from retrieval.errors import LmrError
from retrieval.files.lock import output_locks
from retrieval.jobs import WritingJob, option
from retrieval.shard import ShardedJob
from retrieval.words import agreeing

if TYPE_CHECKING:
    from index.folder.folder import IndexFolder
    from index.folder.verified import Verifying
    from index.rerank.verification import Verification
    from retrieval.progress import Progress
    from retrieval.store.store import Descriptors

_THRESHOLD = "--threshold"  # its name in the records of submissions


@dataclass(frozen=True)
class SubmitJob(AskingJob, VerifyJob, ShardedJob, WritingJob):
    """Write a submission for the images of a manifest, or a share of them."""

    test: Path = option(Path("test.csv"), is_argument=True)
    _: KW_ONLY
    index: Path = option(INDEX_FOLDER, help="Index folder, or milvus://HOST/COLLECTION.")
    store: Path | None = option(
        None, default_text="TEST with .h5, beside it", help="Descriptors of the images of the test set."
    )
    output: Path = option(Path("submission.csv"), help="Submission to write.")
    threshold: float | None = option(
        None,
        low=0,
        high=1,
        default_text="the calibrated one that costs no GAP",
        help="Confidence below which a line stays blank.",
    )


@dataclass(frozen=True, slots=True)
class SubmitReport:
    """A submission. state: `written`, or `unchanged` where the same one was there already, uncounted."""

    output: Path
    state: Literal["written", "unchanged"]
    n_lines: int
    n_answered: int | None = None


def submit(job: SubmitJob) -> SubmitReport:
    """Embeds the images that have no descriptor yet, answers all of them, and writes the submission.

    Verified answers compare all of the best neighbours, since every confidence counts.
    Raises LmrError for a manifest or an index that cannot be used, and for another file in the submission's place.
    """
    from index.folder.changes import tell_changed
    from index.folder.folder import open_folder
    from index.kaggle.shares import share_path
    from retrieval.data.overview import require_there
    from retrieval.files.made_of import require_no_folder

    share = job.share
    output = job.output if share is None else share_path(job.output, share)
    with output_locks(output, wait=job.wait, progress=job.progress):
        require_no_folder(output)
        _is_there(job, output, {})  # refused now, not after the images were embedded
        require_there(job.test)
        folder = open_folder(
            job.index,
            device=job.device,
            threads=job.threads,
            with_local=job.verify,
            on_server=True,
            progress=job.progress,
        )
        for line in tell_changed(folder):
            job.progress.warn(f"warning: {line}")
        verification = None
        if job.verify:
            folder, verification = _verification(folder, job)
        made_with: dict[str, Any] = {**folder.made_of, _THRESHOLD: job.threshold}
        if verification is not None:
            made_with = {**verification.made_of, **made_with}
        threshold = _threshold_logit(folder, job.threshold, job.progress)
        if share is not None:
            made_with["shard"] = str(share)
        _is_there(job, output, {"verification": None, **made_with})  # named before the calibration that goes with it
        store, verifying = _embed_test(folder, verification, job)
        n_missing = int((~store.done).sum())
        if n_missing:
            job.progress.warn(
                f"{n_missing:,} of the blank lines "
                f"{agreeing(n_missing, 'is a picture that is', 'are pictures that are')} missing or unreadable"
            )
        return _answer(job, output, Asked(folder, store, threshold, verifying), made_with)


@dataclass(frozen=True, slots=True)
class Asked:
    """Images that a folder is asked. threshold: ranking key from which on they are answered."""

    folder: "IndexFolder"
    store: "Descriptors"
    threshold: float
    verifying: "Verifying | None"


def _answer(job: SubmitJob, output: Path, asked: Asked, made_with: dict[str, Any]) -> SubmitReport:
    """Answers the images and writes the file, unless it is there already."""
    from index.kaggle.shares import answered_beside, inputs_of, predict_store, share_lines
    from index.kaggle.submission import submission_lines
    from retrieval.files.made_of import write_with_record

    store = asked.store
    made_with = inputs_of(output, made_with, store, asked.verifying)
    answered = answered_beside(output, made_with)
    if _is_there(job, output, made_with):
        answered.remove()
        return SubmitReport(output, "unchanged", len(store))
    predictions = predict_store(asked.folder, store, asked.threshold, answered, job.progress, verifying=asked.verifying)
    if job.share is None:
        lines = submission_lines(predictions)
    else:
        lines = share_lines(job.share, predictions, store.info.manifest_digest, made_with)
    write_with_record(output, lines, made_with)
    answered.remove()
    if asked.verifying is not None:
        asked.verifying.verification.ledger.tell(job.progress)
    return SubmitReport(output, "written", len(store), int(predictions.answered.sum()))


def _is_there(job: SubmitJob, output: Path, inputs: dict[str, Any]) -> bool:
    from retrieval.files.made_of import is_made_of

    return not job.overwrite and is_made_of(output, inputs, "give `overwrite` or another `output`")


def _verification(folder: "IndexFolder", job: SubmitJob) -> "tuple[IndexFolder, Verification]":
    from index.folder.verified import Computing, open_verification, require_calibrated

    found = open_verification(folder, job, Computing.of(job))
    require_calibrated(folder)
    return found


def _embed_test(
    folder: "IndexFolder", verification: "Verification | None", job: SubmitJob
) -> "tuple[Descriptors, Verifying | None]":
    """The store of the images, made or completed where it is not there yet, and how they are verified."""
    from index.folder.verified import Verifying, complete_local_of
    from index.queries import require_local_of
    from retrieval.data.image_source import images_folder, index_tars
    from retrieval.data.overview import load_manifest

    index_tars(job.test, job.progress)
    manifest = load_manifest(job.test, job.progress).share(job.share)
    output = of_share(job.store or find_store(job.test, "store", job.progress), job.share)
    images = images_folder(job.images, job.test, job.progress)
    how: dict[str, Any] = {"job": job, "overwrite": job.overwrite, "wait": job.wait}
    if verification is not None:
        require_local_of(folder, manifest, images, output, job=job, overwrite=job.overwrite)
    store = complete_store(manifest, images, folder.model_path, output, **how)
    if verification is None:
        return store, None
    local = complete_local_of(folder, manifest, images, output, **how)
    return store, Verifying.of_store(verification, local, store.image_id)


def _threshold_logit(folder: "IndexFolder", asked: float | None, progress: "Progress") -> float:
    """The ranking key from which on a line is filled."""
    from index.confidence import logit_of

    if folder.calibration is None:
        if asked is not None:
            raise LmrError(f"`threshold` {asked}: {folder} is not calibrated; run lmr calibrate first")
        progress.warn(
            f"{folder} is not calibrated: ranked by score, every picture answered; lmr calibrate sets a threshold"
        )
        return float("-inf")
    return folder.calibration.threshold_gap.logit if asked is None else logit_of(asked)
