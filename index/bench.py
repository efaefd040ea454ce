"""Kinds of index on the rows of an index folder: recall, speed, memory and building time of each."""

import os
import time
from collections.abc import Iterator
from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from index.folder.config import INDEX_FOLDER
from retrieval.errors import LmrError
from retrieval.jobs import Job, option
from retrieval.threads import require_threads

if TYPE_CHECKING:
    from index.search.choose import Sample
    from index.search.flat import FlatIndex
    from index.search.plan import IndexPlan

RECALLS = (0.9, 0.95, 0.98, 0.99, 0.999)
LEAST_ROWS = 1_000  # below, every kind takes less than a millisecond


@dataclass(frozen=True)
class BenchJob(Job):
    """Measure kinds of index. n_rows: None = all. memory_gb: None = what the machine has."""

    index: Path = option(INDEX_FOLDER, is_argument=True)
    _: KW_ONLY
    n_rows: int | None = option(None, low=LEAST_ROWS, default_text="all", help="Rows to measure on: the first of them.")
    memory_gb: float | None = option(
        None,
        name="memory",
        low=0,
        low_open=True,
        default_text="what the machine has",
        help="Leave out kinds that need more GB.",
    )
    threads: int | None = option(None, default_text="all cores", help="CPU threads.")

    def __post_init__(self) -> None:
        """Raises LmrError for a number of threads that cannot be."""
        super().__post_init__()
        if self.threads is not None:
            require_threads(self.threads)


@dataclass(frozen=True, slots=True)
class BenchRow:
    """A kind of index at one recall, as `SearchInfo` has it. build_s: wall time; 0 for exact search, which is there."""

    kind: str
    name: str
    target: float
    n_probe: int
    n_candidates: int
    recall: float
    top1: float
    queries_per_s: float
    speedup: float
    memory_bytes: int
    build_s: float


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Kinds on n rows of d numbers, exact search first, with which the others are compared whether or not it fits.

    n_queries: rows that were asked, each without itself. threads: None = all cores. memory_bytes: that a kind may take,
    None = any number.
    """

    source: str
    n: int
    d: int
    n_queries: int
    threads: int | None
    memory_bytes: int | None
    rows: tuple[BenchRow, ...]

    @property
    def quickest(self) -> dict[float, BenchRow]:
        """For each recall the row that takes the least processor time of those that fit and reach it.

        Exact search if equal; none for a recall that no kind reaches in the memory.
        """
        fitting = [row for row in self.rows if self.memory_bytes is None or row.memory_bytes <= self.memory_bytes]
        reaching = {target: [row for row in fitting if row.recall >= target] for target in RECALLS}
        return {target: max(rows, key=lambda row: row.speedup) for target, rows in reaching.items() if rows}

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self) | {"quickest": {f"{target:g}": row.kind for target, row in self.quickest.items()}}


def bench(job: BenchJob) -> Benchmark:
    """Builds the kinds that fit over the rows of an index folder, and measures each at several recalls.

    Nothing is written. A kind that does not reach a recall has its best one there, once. Raises LmrError for a folder
    that cannot be read or has too few rows.
    """
    from index.folder.folder import open_folder
    from index.search.choose import take_sample

    folder = open_folder(job.index, device="cpu", threads=job.threads, calibrated=False)
    rows = folder.searched_flat
    n = min(len(rows), job.n_rows or len(rows))
    if n < LEAST_ROWS:
        raise LmrError(
            f"{job.index} has {n:,} rows; below {LEAST_ROWS:,} exact search takes less than a millisecond, and there "
            "is nothing to choose"
        )
    rows = rows.part(0, n)
    sample = take_sample(rows)
    memory = _machine_bytes() if job.memory_gb is None else round(job.memory_gb * 1e9)
    measured = [_exact(rows, sample)]
    for plan in _plans(job, rows, memory):
        measured += _measure(rows, plan, sample, job)
    return Benchmark(str(job.index), n, rows.d, len(sample.queries), job.threads, memory, tuple(measured))


def _plans(job: BenchJob, rows: "FlatIndex", memory: int | None) -> "Iterator[IndexPlan]":
    """The kinds that the dimensions and the memory allow, smallest first."""
    from index.search.plan import BY_SIZE, make_plan

    for kind in BY_SIZE:
        try:
            yield make_plan(kind, len(rows), rows.d, memory_bytes=memory, recall=RECALLS[0])
        except LmrError as error:
            job.progress.warn(f"{kind} is left out: {error}")


def _machine_bytes() -> int | None:
    """Memory of the machine, None where it does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _measure(rows: "FlatIndex", plan: "IndexPlan", sample: "Sample", job: BenchJob) -> "Iterator[BenchRow]":
    """A row for each recall that other settings reach."""
    from index.search.choose import tune
    from index.search.ivf_builder import build_ivf

    job.progress.begin(f"building {plan.name}", len(rows), "rows")
    begun = time.perf_counter()
    built = build_ivf(rows, plan, progress=job.progress)
    build_s = time.perf_counter() - begun
    job.progress.end()
    reached, seen = 0.0, set()
    for target in RECALLS:
        if target <= reached:
            continue
        index, found = tune(built, target, sample)
        reached = found.recall
        if index.settings in seen:
            continue
        seen.add(index.settings)
        yield BenchRow(
            kind=plan.kind,
            name=plan.name,
            target=target,
            n_probe=index.settings.n_probe,
            n_candidates=index.settings.n_candidates,
            recall=found.recall,
            top1=found.top1,
            queries_per_s=round(found.queries_per_s, 1),
            speedup=round(found.speedup, 2),
            memory_bytes=plan.memory_bytes,
            build_s=round(build_s, 1),
        )


def _exact(rows: "FlatIndex", sample: "Sample") -> BenchRow:
    from index.search.plan import IndexPlan

    return BenchRow(
        kind="flat",
        name="Flat",
        target=1.0,
        n_probe=0,
        n_candidates=0,
        recall=1.0,
        top1=1.0,
        queries_per_s=round(len(sample.queries) / sample.taken.wall_s, 1),
        speedup=1.0,
        memory_bytes=IndexPlan("flat", len(rows), rows.d, rows.storage).memory_bytes,
        build_s=0.0,
    )
