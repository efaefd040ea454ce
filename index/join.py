"""Joining what shares of one job made into what the whole job would have made."""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from index.verify import STORES
from retrieval.errors import LmrError
from retrieval.files.lock import output_locks
from retrieval.jobs import WritingJob, option, told
from retrieval.local.config import LOCAL_STORE

Kind = Literal["store", "local", "submission", "evaluation", "facts"]
_Join = Callable[[Sequence[Path], Path], tuple[Literal["joined", "unchanged"], int]]

_SQLITE = b"SQLite format 3\0"
_WHAT = {
    "store": "stores",
    "local": "stores of local features",
    "submission": "shares of a submission",
    "evaluation": "outcomes of queries",
    "facts": "files of picture facts",
}


@dataclass(frozen=True)
class JoinJob(WritingJob):
    """Join what the shares of one job made."""

    parts: tuple[Path, ...] = field(metadata=told(is_argument=True, metavar="PARTS..."))
    _: KW_ONLY
    output: Path = option(
        help="File to write: a store, a submission, outcomes of queries or picture facts, as the parts are."
    )


@dataclass(frozen=True, slots=True)
class JoinReport:
    """What was joined. n_rows: images or queries of the whole; of facts those that could be measured."""

    output: Path
    kind: Kind
    state: Literal["joined", "unchanged"]
    n_parts: int
    n_rows: int


def join(job: JoinJob) -> JoinReport:
    """Joins stores, submissions, outcomes or picture facts of all shares, each once, of one manifest and one model.

    Stores are of descriptors or of local features.

    The result is equal to that of the job without shares. Raises LmrError for parts that do not belong together, and
    for something else in the place of the output.
    """
    if not job.parts:
        raise LmrError("give the parts to join, such as lmr join train-*-of-4.h5 `output` train.h5")
    with output_locks(job.output, wait=job.wait, progress=job.progress):
        kinds = [_kind_of(path) for path in job.parts]
        for path, kind in zip(job.parts, kinds, strict=True):
            if path.resolve() == job.output.resolve():
                raise LmrError(f"{path} is a part and the output; give another `output`")
            if kind != kinds[0]:
                raise LmrError(f"{path} and {job.parts[0]} do not go together; give {_WHAT[kinds[0]]} alone")
        state, n_rows = _join_of(kinds[0], job)(job.parts, job.output)
    return JoinReport(job.output, kinds[0], state, len(job.parts), n_rows)


def _kind_of(path: Path) -> Kind:
    from index.evaluate.shares import HEAD

    if path.name.endswith(LOCAL_STORE):
        return "local"
    if path.suffix in STORES:
        return "store"
    if not path.is_file():
        raise LmrError(f"{path}: there is no such file; give what was made with `shard`")
    with path.open("rb") as file:
        head = file.read(len(_SQLITE))
    if head == _SQLITE:
        return "facts"
    if head.startswith(b"{"):
        return "submission"
    if head.startswith(HEAD):
        return "evaluation"
    raise LmrError(f"{path} was not made with `shard`; give stores, shares of a submission, outcomes or picture facts")


def _join_of(kind: Kind, job: JoinJob) -> _Join:
    if kind == "store":
        from retrieval.store.join import join_stores

        return partial(join_stores, overwrite=job.overwrite, progress=job.progress)
    if kind == "local":
        from retrieval.local.writer import join_local

        return partial(join_local, overwrite=job.overwrite, progress=job.progress)
    if kind == "submission":
        from index.kaggle.shares import join_submissions

        return partial(join_submissions, overwrite=job.overwrite)
    if kind == "evaluation":
        from index.evaluate.shares import join_evaluations

        return partial(join_evaluations, overwrite=job.overwrite)
    from retrieval.data.facts_shares import join_facts

    return partial(join_facts, overwrite=job.overwrite)
