"""Evaluating an index folder on labelled queries, or leaving one out."""

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from index.folder.config import INDEX_FOLDER
from index.queries import QueriesJob, embed_queries
from retrieval.errors import LmrError
from retrieval.jobs import option

if TYPE_CHECKING:
    from index.evaluate.result import EvaluationResult


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


def evaluate(job: EvaluateJob) -> "EvaluationResult":
    """Evaluates the answers to queries, embedded where they are not yet, or to the images of the index itself.

    Raises LmrError for queries that cannot be used, and for an index that cannot be read.
    """
    from index.evaluate.result import evaluate_left_out, evaluate_store
    from index.folder.changes import tell_changed
    from index.folder.folder import open_folder
    from retrieval.data.overview import require_there
    from retrieval.parallel import count_workers

    if job.queries is not None:
        require_there(job.queries)
    folder = open_folder(job.index, device=job.device, threads=job.threads)
    for line in tell_changed(folder):
        job.progress.warn(f"warning: {line}")
    embedded = None if job.queries is None else embed_queries(job.queries, folder, job)
    n_workers = max(1, count_workers(job.workers, job.progress))
    if embedded is None:
        return evaluate_left_out(folder, n_workers=n_workers, progress=job.progress)
    return evaluate_store(folder, *embedded, n_workers=n_workers, progress=job.progress)
