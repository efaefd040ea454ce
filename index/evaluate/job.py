"""Evaluating an index folder on labelled queries, or leaving one out."""

import os
from contextlib import ExitStack
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from index.folder.config import INDEX_FOLDER
from index.queries import QueriesJob, embed_queries, local_queries, store_of
from retrieval.errors import LmrError
from retrieval.files.lock import output_locks
from retrieval.jobs import option
from retrieval.shard import ShardedJob

if TYPE_CHECKING:
    from index.evaluate.outcome import Outcomes
    from index.evaluate.result import EvaluationResult
    from index.evaluate.shares import Asking
    from retrieval.shard import Shard


@dataclass(frozen=True)
class EvaluateJob(QueriesJob):
    """Evaluate an index folder. queries: None where each image of the index is asked against the others."""

    queries: Path | None = option(None, is_argument=True)
    _: KW_ONLY
    index: Path = option(INDEX_FOLDER, help="Index folder.")
    leave_one_out: bool = option(False, help="Ask every image of the index, each against the others.")

    def __post_init__(self) -> None:
        """Refuses queries beside leave-one-out, and neither of them."""
        super().__post_init__()
        if (self.queries is None) != self.leave_one_out:
            raise LmrError("give `queries` or `leave_one_out`, one of them")
        if self.verify and self.queries is None:
            raise LmrError("`verify` needs `queries`; images of the index are left out by their descriptors alone")
        if self.within is not None and self.queries is None:
            raise LmrError("`within` does not go with `leave_one_out`, which asks for the landmarks of the index")


@dataclass(frozen=True)
class EvaluateShareJob(EvaluateJob, ShardedJob):
    """Embed and ask the queries of an evaluation, or a share of them, and keep what comes of it."""


@dataclass(frozen=True, slots=True)
class ShareReport:
    """A file of what the answers to queries come to. state: `unchanged` where the same one was there already."""

    output: Path
    state: Literal["written", "unchanged"]
    n_queries: int


def evaluate(job: EvaluateJob) -> "EvaluationResult":
    """Evaluates the answers to queries, embedded where they are not yet, or to the images of the index itself.

    Of more than one block of queries what is known stays beside their store while it goes on, for another run to go on
    with; what shares found and `lmr join` joined is taken from there. Verified answers are measured beside plain ones.
    Raises LmrError for queries that cannot be used, and for an index that cannot be read.
    """
    from index.evaluate.result import measure

    asking, source, place = _asking(job)
    verified = _verified(asking, job) if job.verify else None
    outcomes = _outcomes(asking, place, job)
    if verified is None:
        return measure(asking, outcomes, source)
    return measure(verified, _outcomes(verified, place, job), source, (asking.questions, outcomes))


def _outcomes(asking: "Asking", place: Path, job: EvaluateJob) -> "Outcomes":
    """What the answers come to. place: beside what they are kept meanwhile."""
    from index.evaluate.outcome import find_outcomes
    from index.evaluate.shares import kept_outcomes, outcomes_path
    from index.recognition import BLOCK_QUERIES, BLOCK_VERIFIED

    n, most = len(asking.questions.queries), BLOCK_VERIFIED if asking.verification else BLOCK_QUERIES
    joined = outcomes_path(place, verified=bool(asking.verification))
    with ExitStack() as held:
        kept, is_joined = None, False
        if joined.is_file() or (n > most and os.access(place.absolute().parent, os.W_OK)):
            kept, is_joined = kept_outcomes(asking, place, job.progress)
            if not is_joined:
                held.enter_context(output_locks(kept.path, wait=job.wait, progress=job.progress))
        outcomes = find_outcomes(asking.questions, kept, n_workers=_n_workers(job), progress=job.progress)
        if asking.verifying is not None:
            asking.verifying.verification.ledger.tell(job.progress)
        if kept is not None and not is_joined:
            kept.remove()
    return outcomes


def evaluate_share(job: EvaluateShareJob) -> ShareReport:
    """Embeds and asks a share of the queries, and writes what comes of it, beside the store of the queries.

    Raises LmrError as `evaluate`, and for another file in the output's place.
    """
    from index.evaluate.outcome import find_outcomes
    from index.evaluate.shares import is_finished, outcomes_path, unfinished

    place = job.index if job.queries is None else store_of(job.queries, job)
    output = outcomes_path(place, job.share, verified=job.verify)
    with output_locks(output, wait=job.wait, progress=job.progress):
        asking, _, _ = _asking(job, job.share)
        if job.verify:
            asking = _verified(asking, job, job.share)
        content = asking.content()
        kept = unfinished(output, content)
        if not job.overwrite and is_finished(output, content):
            kept.remove()
            return ShareReport(output, "unchanged", content["n"])
        find_outcomes(asking.questions, kept, n_workers=_n_workers(job), progress=job.progress)
        if asking.verifying is not None:
            asking.verifying.verification.ledger.tell(job.progress)
        kept.finish(output)
    return ShareReport(output, "written", content["n"])


def _verified(asking: "Asking", job: EvaluateJob, share: "Shard | None" = None) -> "Asking":
    """The same queries, asked with verified neighbours."""
    from index.evaluate.outcome import ask_store
    from index.folder.verified import Computing, Verifying, open_verification

    assert job.queries is not None
    assert asking.store is not None
    folder, verification = open_verification(asking.questions.folder, job, Computing.of(job))
    local = local_queries(job.queries, folder, job, share)
    verifying = Verifying.of_store(verification, local, asking.store.image_id)
    questions = ask_store(folder, asking.store, asking.questions.queries, verifying)
    return replace(asking, questions=questions, verifying=verifying)


def _n_workers(job: EvaluateJob) -> int:
    from retrieval.parallel import count_workers

    return max(1, count_workers(job.workers, job.progress))


def _asking(job: EvaluateJob, share: "Shard | None" = None) -> "tuple[Asking, str, Path]":
    """The queries, or a share of them, what they are called, and beside what their outcomes are kept."""
    import numpy as np

    from index.evaluate.leave_one_out import ask_left_out
    from index.evaluate.outcome import ask_store
    from index.evaluate.result import LEAVE_ONE_OUT
    from index.evaluate.shares import Asking
    from index.folder.changes import tell_changed
    from index.folder.folder import open_folder
    from index.folder.verified import Computing, open_verification, require_calibrated
    from retrieval.data.overview import require_there

    if job.queries is not None:
        require_there(job.queries)
    folder = open_folder(
        job.index,
        device=job.device,
        threads=job.threads,
        with_local=job.verify,
        on_server=job.queries is not None,
        progress=job.progress,
    )
    for line in tell_changed(folder):
        job.progress.warn(f"warning: {line}")
    if job.verify:
        open_verification(folder, job, Computing.of(job))  # refused now, not after the images were embedded
        require_calibrated(folder)
    if job.queries is None:
        questions = ask_left_out(folder)
        if share is not None:
            questions = questions.select(np.array(share.rows_of(job.index, len(questions.queries)), np.int64))
        return Asking(questions, folder.info.inputs_digest, shard=share), LEAVE_ONE_OUT, job.index
    store, queries = embed_queries(job.queries, folder, job, share)
    asking = Asking(ask_store(folder, store, queries), store.info.manifest_digest, store, share)
    return asking, store.source, store_of(job.queries, job)
