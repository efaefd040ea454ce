"""Answering the images of a test set with an index folder, as a Kaggle submission."""

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from index.folder.config import INDEX_FOLDER
from retrieval.embed.job import AskingJob, complete_store, of_share
from retrieval.embed.store_name import find_store
from retrieval.errors import LmrError
from retrieval.files.lock import output_locks
from retrieval.jobs import WritingJob, option
from retrieval.shard import ShardedJob
from retrieval.words import agreeing

if TYPE_CHECKING:
    from index.folder.folder import IndexFolder
    from retrieval.progress import Progress
    from retrieval.store.store import Descriptors

_THRESHOLD = "--threshold"  # its name in the records of submissions


@dataclass(frozen=True)
class SubmitJob(AskingJob, ShardedJob, WritingJob):
    """Write a submission for the images of a manifest, or a share of them."""

    test: Path = option(Path("test.csv"), is_argument=True)
    _: KW_ONLY
    index: Path = option(INDEX_FOLDER, help="Index folder.")
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

    Raises LmrError for a manifest or an index that cannot be used, and for another file in the submission's place.
    """
    from index.folder.changes import tell_changed
    from index.folder.folder import open_folder
    from index.kaggle.shares import answered_beside, inputs_of, predict_store, share_lines, share_path
    from index.kaggle.submission import submission_lines
    from retrieval.data.overview import require_there
    from retrieval.files.made_of import is_made_of, require_no_folder, write_with_record

    share = job.share
    output = job.output if share is None else share_path(job.output, share)

    def is_there(inputs: dict[str, Any]) -> bool:
        return not job.overwrite and is_made_of(output, inputs, "give `overwrite` or another `output`")

    with output_locks(output, wait=job.wait, progress=job.progress):
        require_no_folder(output)
        is_there({})  # refused now, not after the images were embedded
        require_there(job.test)
        folder = open_folder(job.index, device=job.device, threads=job.threads, progress=job.progress)
        for line in tell_changed(folder):
            job.progress.warn(f"warning: {line}")
        threshold = _threshold_logit(folder, job.threshold, job.progress)
        made_with: dict[str, Any] = {**folder.made_of, _THRESHOLD: job.threshold}
        if share is not None:
            made_with["shard"] = str(share)
        is_there(made_with)
        store = _embed_test(folder, job)
        n_missing = int((~store.done).sum())
        if n_missing:
            job.progress.warn(
                f"{n_missing:,} of the blank lines "
                f"{agreeing(n_missing, 'is a picture that is', 'are pictures that are')} missing or unreadable"
            )
        made_with = inputs_of(output, made_with, store)
        answered = answered_beside(output, made_with)
        if is_there(made_with):
            answered.remove()
            return SubmitReport(output, "unchanged", len(store))
        predictions = predict_store(folder, store, threshold, answered, job.progress)
        if share is None:
            lines = submission_lines(predictions)
        else:
            lines = share_lines(share, predictions, store.info.manifest_digest, made_with)
        write_with_record(output, lines, made_with)
        answered.remove()
    return SubmitReport(output, "written", len(store), int(predictions.answered.sum()))


def _embed_test(folder: "IndexFolder", job: SubmitJob) -> "Descriptors":
    """The store of the images, made or completed where it is not there yet."""
    from retrieval.data.image_source import images_folder, index_tars
    from retrieval.data.overview import load_manifest

    index_tars(job.test, job.progress)
    manifest = load_manifest(job.test, job.progress).share(job.share)
    output = of_share(job.store or find_store(job.test, "store", job.progress), job.share)
    images = images_folder(job.images, job.test, job.progress)
    return complete_store(manifest, images, folder.model_path, output, job=job, overwrite=job.overwrite, wait=job.wait)


def _threshold_logit(folder: "IndexFolder", asked: float | None, progress: "Progress") -> float:
    """The ranking key from which on a line is filled."""
    from index.confidence import logit_of

    if folder.calibration is None:
        if asked is not None:
            raise LmrError(f"`threshold` {asked}: {folder.path} is not calibrated; run lmr calibrate first")
        progress.warn(
            f"{folder.path} is not calibrated: ranked by score, every picture answered; lmr calibrate sets a threshold"
        )
        return float("-inf")
    return folder.calibration.threshold_gap.logit if asked is None else logit_of(asked)
