"""Answering the images of a test set with an index folder, as a Kaggle submission."""

from dataclasses import KW_ONLY, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from index.folder.config import INDEX_FOLDER
from index.rerank.config import VerifyJob
from index.search.address import require_folder
from retrieval.embed.complete import complete_store
from retrieval.embed.job import AskingJob, StoreFilling, of_share
from retrieval.embed.store_name import find_store
from retrieval.errors import LmrError, WordsError
from retrieval.files.lock import output_locks
from retrieval.jobs import WritingJob, option
from retrieval.shard import ShardedJob
from retrieval.spark.config import SparkJob
from retrieval.words import agreeing

if TYPE_CHECKING:
    from index.folder.folder import IndexFolder
    from index.folder.verified import Verifying
    from index.rerank.verification import Verification
    from retrieval.progress import Progress
    from retrieval.store.store import Descriptors

_THRESHOLD = "--threshold"  # its name in the records of submissions


@dataclass(frozen=True)
class SubmitJob(StoreFilling, VerifyJob, ShardedJob, WritingJob, SparkJob):
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
        default_text="the calibrated one that cost no GAP on held-out pictures",
        help="Confidence below which a line stays blank.",
    )
    engine: Literal["local", "spark", "auto", "onnx", "torch"] = option(
        "local",
        default_text="what starts fastest on this machine",
        help="What computes: local or auto (this machine), spark (a cluster), onnx (the exported network beside the "
        "weights), or torch.",
    )

    def __post_init__(self) -> None:
        """Raises WordsError for a share of what a cluster divides itself."""
        super().__post_init__()
        if self.on_spark:
            require_folder(self.index)
        if self.on_spark and self.shard is not None:
            raise WordsError("`shard` does not go with `engine` spark, which makes shares by itself; leave one out")

    @property
    def asking(self) -> AskingJob:
        """The embedding of its images by the network of the index."""
        words: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(AskingJob)}
        return AskingJob(**{**words, "engine": "auto" if self.engine in ("local", "spark") else self.engine})


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
    from index.kaggle.shares import share_path

    if job.on_spark:
        from index.spark.driver import submit_on_spark

        return submit_on_spark(job)
    output = job.output if job.share is None else share_path(job.output, job.share)
    with output_locks(output, wait=job.wait, progress=job.progress):
        opened = open_index(job, output)
        store, verifying = embed_test(opened, job)
        return _answer(job, output, opened, store, verifying)


@dataclass(frozen=True, slots=True)
class Opened:
    """An index that is asked, and how. threshold: ranking key from which on images are answered.

    made_with: everything that the answers depend on beside the descriptors of the images.
    """

    folder: "IndexFolder"
    verification: "Verification | None"
    threshold: float
    made_with: dict[str, Any]


def open_index(job: SubmitJob, output: Path, *, searched: bool = True) -> Opened:
    """The index of a job, as it answers. searched: False leaves an inverted file closed.

    Warns of what is to be known of it. Raises LmrError for a manifest or an index that cannot be used, and for another
    file in the submission's place, before anything is embedded.
    """
    from index.folder.changes import tell_changed
    from index.folder.folder import open_folder
    from retrieval.data.overview import require_there
    from retrieval.files.made_of import require_no_folder

    require_no_folder(output)
    is_there(job, output, {})
    require_there(job.test)
    folder = open_folder(
        job.index,
        device=job.device,
        threads=job.threads,
        with_local=job.verify,
        searched=searched,
        on_server=searched,
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
    if job.share is not None:
        made_with["shard"] = str(job.share)
    is_there(job, output, {"verification": None, **made_with})  # named before the calibration that goes with it
    return Opened(folder, verification, threshold, made_with)


def _answer(
    job: SubmitJob, output: Path, opened: Opened, store: "Descriptors", verifying: "Verifying | None"
) -> SubmitReport:
    """Answers the images and writes the file, unless it is there already."""
    from index.kaggle.shares import answered_beside, inputs_of, predict_store, share_lines
    from index.kaggle.submission import submission_lines
    from retrieval.files.made_of import write_with_record

    made_with = inputs_of(output, opened.made_with, store, verifying)
    answered = answered_beside(output, made_with)
    if is_there(job, output, made_with):
        answered.remove()
        return SubmitReport(output, "unchanged", len(store))
    predictions = predict_store(opened.folder, store, opened.threshold, answered, job.progress, verifying=verifying)
    if job.share is None:
        lines = submission_lines(predictions)
    else:
        lines = share_lines(job.share, predictions, store.info.manifest_digest, made_with)
    write_with_record(output, lines, made_with)
    answered.remove()
    if verifying is not None:
        verifying.verification.ledger.tell(job.progress)
    return SubmitReport(output, "written", len(store), int(predictions.answered.sum()))


def is_there(job: SubmitJob, output: Path, inputs: dict[str, Any]) -> bool:
    """Tells whether the submission of these inputs is there. Raises LmrError for another file in its place."""
    from retrieval.files.made_of import is_made_of

    return not job.overwrite and is_made_of(output, inputs, "give `overwrite` or another `output`")


def _verification(folder: "IndexFolder", job: SubmitJob) -> "tuple[IndexFolder, Verification]":
    from index.folder.verified import Computing, open_verification, require_calibrated

    found = open_verification(folder, job, Computing.of(job))
    require_calibrated(folder)
    return found


def embed_test(opened: Opened, job: SubmitJob) -> "tuple[Descriptors, Verifying | None]":
    """The store of the images, made or completed where it is not there yet, and how they are verified.

    Warns of images that have no descriptor.
    """
    from index.folder.verified import Verifying, complete_local_of
    from index.queries import require_local_of
    from retrieval.data.image_source import images_folder, index_tars
    from retrieval.data.overview import load_manifest

    index_tars(job.test, job.progress)
    manifest = load_manifest(job.test, job.progress, job.column_names).share(job.share)
    output = of_share(job.store or find_store(job.test, "store", job.progress), job.share)
    images = images_folder(job.images, job.test, job.progress)
    how: dict[str, Any] = {"job": job.asking, "overwrite": job.overwrite, "wait": job.wait}
    folder, verification = opened.folder, opened.verification
    if verification is not None:
        require_local_of(folder, manifest, images, output, job=job.asking, overwrite=job.overwrite)
    store = complete_store(manifest, images, folder.model_path, output, **how)
    tell_missing(store, job.progress)
    if verification is None:
        return store, None
    local = complete_local_of(folder, manifest, images, output, **how)
    return store, Verifying.of_store(verification, local, store.image_id)


def tell_missing(store: "Descriptors", progress: "Progress") -> None:
    """Warns of images that have no descriptor."""
    n_missing = int((~store.done).sum())
    if n_missing:
        progress.warn(
            f"{n_missing:,} of the blank lines "
            f"{agreeing(n_missing, 'is a picture that is', 'are pictures that are')} missing or unreadable"
        )


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
