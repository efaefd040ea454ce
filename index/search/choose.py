"""The kind of index that rows get: planned, built, tuned and measured."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from index.search.base import SearchIndex
from index.search.config import BuiltKind, SearchInfo, SearchOptions, Storage, gigabytes
from index.search.flat import FlatIndex
from index.search.ivf import IvfShards, SearchSettings
from index.search.ivf_builder import build_ivf
from index.search.plan import BY_SIZE, RECALL_K, IndexPlan, make_plan
from retrieval.arrays import FloatArray, LongArray
from retrieval.progress import Progress

N_QUERIES = 1_000  # rows asked for their neighbours; the standard error of a recall of 0.99 is then about 0.001
MOST_PRODUCTS = 2 * 10**12  # numbers multiplied for the exact answers: fewer queries are asked of more rows
CANDIDATES = (2, 3, 5, 7, 10, 15, 20, 30, 50)  # for each neighbour
TIMED_QUERIES = 256  # of the sample, asked for the time of settings
TIMINGS = 3  # of which the median is taken
SEED = 1
_LARGER: dict[BuiltKind, BuiltKind] = dict(zip(BY_SIZE, (*BY_SIZE[1:], "flat"), strict=True))


@dataclass(frozen=True, slots=True)
class Measured:
    """A search on a sample of the rows, each asked for the RECALL_K rows nearest to it besides itself.

    recall: share of the exact ones that it finds. top1: share of queries whose nearest row it finds.
    queries_per_s: in batches, by the clock, on the processors that it may use. speedup: processor time of exact search
    over its own, which other work on the machine changes little.
    """

    recall: float
    top1: float
    queries_per_s: float
    speedup: float
    n_queries: int


@dataclass(frozen=True, slots=True)
class Taken:
    """Seconds that some work took: by the clock, and of all processors together."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows that are asked. queries: (q, d); own: (q,) their rows; exact: (q, RECALL_K) the exact answers.

    exact ends in -1 where fewer are known. taken: by exact search, for all of them.
    """

    queries: FloatArray
    own: LongArray
    exact: LongArray
    taken: Taken


def plan_search(options: SearchOptions, storage: Storage | None, n: int, d: int) -> IndexPlan:
    """The kind for n rows of d numbers. storage: None = as the kind has it.

    Raises LmrError for options that cannot be, with what would do.
    """
    memory = None if options.memory_gb is None else round(options.memory_gb * 1e9)
    return make_plan(
        options.kind,
        n,
        d,
        storage=storage,
        memory_bytes=memory,
        n_lists=options.n_lists,
        n_shards=options.n_shards,
        recall=options.recall,
    )


@dataclass(frozen=True, slots=True)
class Tuned:
    """An inverted file of a plan, with the settings that it is best searched with."""

    plan: IndexPlan
    settings: SearchSettings
    measured: Measured


def build_search(
    rows: FlatIndex, plan: IndexPlan, options: SearchOptions, progress: Progress
) -> tuple[IvfShards, SearchInfo, Sample] | None:
    """The inverted file of a plan, tuned on that sample; None where exact search is planned, or is quicker."""
    if plan.kind == "flat":
        return None
    sample, built = take_sample(rows), dict[IndexPlan, IvfShards]()

    def make(candidate: IndexPlan) -> Tuned:
        progress.begin(f"building {candidate.name}", len(rows), "rows")
        made = build_ivf(rows, candidate, progress=progress)
        progress.end()
        index, measured = tune(made, options.recall, sample)
        built[candidate] = index
        return Tuned(candidate, index.settings, measured)

    chosen = choose_kind(plan, options, make, progress)
    return None if chosen is None else (built[chosen.plan], info_of(chosen, options), sample)


def choose_kind(
    plan: IndexPlan, options: SearchOptions, make: Callable[[IndexPlan], Tuned], progress: Progress
) -> Tuned | None:
    """What `make` makes of a plan of an inverted file; None where exact search is quicker.

    With `auto` a kind that does not reach the recall is followed by the next larger one that fits into the memory.
    """
    best: Tuned | None = None
    for candidate in _candidates(plan, options):
        tuned = make(candidate)
        if best is None or tuned.measured.recall > best.measured.recall:
            best = tuned
        if tuned.measured.recall >= options.recall:
            break
    if best is None:
        raise AssertionError("there is a plan")
    if options.kind == "auto" and best.measured.speedup < 1 and _is_exact_allowed(plan, options):
        return None
    if best.measured.recall < options.recall:
        progress.warn(f"warning: {_not_reached(best.plan, best.measured, options)}")
    return best


def _candidates(plan: IndexPlan, options: SearchOptions) -> list[IndexPlan]:
    """The plan, and with `auto` the larger kinds that fit."""
    if options.kind != "auto":
        return [plan]
    larger = [replace(plan, kind=kind) for kind in BY_SIZE[BY_SIZE.index(plan.kind) + 1 :]]
    return [plan, *(one for one in larger if _fits(one, options))]


def _fits(plan: IndexPlan, options: SearchOptions) -> bool:
    return options.memory_gb is None or plan.memory_bytes <= options.memory_gb * 1e9


def _is_exact_allowed(plan: IndexPlan, options: SearchOptions) -> bool:
    return _fits(replace(plan, kind="flat", n_lists=0), options)


def _not_reached(plan: IndexPlan, measured: Measured, options: SearchOptions) -> str:
    """That the recall was not reached, and what would reach it."""
    larger = _LARGER[plan.kind]
    n_lists = plan.n_lists if larger != "flat" else 0
    needs = gigabytes(replace(plan, kind=larger, n_lists=n_lists).memory_bytes)
    return (
        f"{plan.name} finds {measured.recall:.3f} of the 10 nearest, `recall` asks for {options.recall:g}; "
        f"`kind` {larger} finds more and needs {needs}"
    )


def info_of(tuned: Tuned, options: SearchOptions) -> SearchInfo:
    """What is kept of an inverted file."""
    plan, measured = tuned.plan, tuned.measured
    return SearchInfo(
        kind=plan.kind,
        name=plan.name,
        n_probe=tuned.settings.n_probe,
        n_candidates=tuned.settings.n_candidates,
        target=options.recall,
        recall=measured.recall,
        top1=measured.top1,
        queries_per_s=round(measured.queries_per_s, 1),
        speedup=round(measured.speedup, 2),
        n_queries=measured.n_queries,
        memory_bytes=plan.memory_bytes,
    )


def take_sample(rows: FlatIndex, most: int = N_QUERIES) -> Sample:
    """A sample of at most so many of the rows, and the exact answers to them, found on the CPU as for all kinds."""
    n = max(1, min(most, len(rows), MOST_PRODUCTS // max(1, len(rows) * rows.d)))
    own = np.sort(np.random.default_rng(SEED).permutation(len(rows))[:n])
    queries = rows.vectors(own)
    found, taken = _searched(rows.on_cpu(), queries)
    return Sample(queries, own, without_own(found, own), taken)


def tune(index: IvfShards, target: float, sample: Sample) -> tuple[IvfShards, Measured]:
    """The index with the settings that reach the recall in the least processor time, else with those of the largest.

    What a number of lists and of candidates finds is counted; what it takes is measured, of those settings alone that
    nothing else makes superfluous: the fewest candidates for each number of lists.
    """
    settings = _reaching(index, target, sample)
    by_time = [settings[i] for i in np.argsort(_cpu_times(index, settings, sample), kind="stable")]
    measured = []
    for tuned in (index.with_settings(one) for one in by_time):
        measured.append((tuned, measure(tuned, sample)))
        if measured[-1][1].recall >= target:
            return measured[-1]
    return max(measured, key=lambda pair: pair[1].recall)


def _reaching(index: IvfShards, target: float, sample: Sample) -> list[SearchSettings]:
    """Settings that reach the recall, one for each number of lists; the most thorough ones where none does.

    Ends where the fewest candidates are enough, or reading the lists alone takes longer than all of a search before.
    """
    found: list[SearchSettings] = []
    quickest = np.inf
    for n_probe in _steps(index.n_lists):
        recalls, reading_s = _recalls(index.with_settings(SearchSettings(n_probe)), sample)
        if reading_s > quickest:
            break
        reached = [n for n, recall in zip(CANDIDATES, recalls, strict=True) if recall >= target]
        if not reached:
            continue
        found.append(SearchSettings(n_probe, reached[0]))
        quickest = min(quickest, *_cpu_times(index, found[-1:], sample))
        if reached[0] == CANDIDATES[0]:
            break
    return found or [SearchSettings(index.n_lists, CANDIDATES[-1])]


def _recalls(index: IvfShards, sample: Sample) -> tuple[list[float], float]:
    """Recall with each of the CANDIDATES, and the processor time of a query that reads the lists for the most of them.

    Scoring by the rows puts the exact neighbours first among those that are proposed. Each shard has its candidates.
    """
    width = RECALL_K + 1
    n_asked = min(CANDIDATES[-1] * width, len(index))
    proposed, taken = _timed(lambda: index.propose(sample.queries, n_asked))
    n_found = np.full(len(CANDIDATES), np.count_nonzero(sample.exact < 0))
    for exact, rows in zip(sample.exact, proposed, strict=True):
        place = np.sort(np.flatnonzero(np.isin(rows, exact) & (rows >= 0)) % n_asked)
        n_found += np.searchsorted(place, [n * width for n in CANDIDATES])
    return (n_found / sample.exact.size).tolist(), taken.cpu_s / len(proposed)


def _cpu_times(index: IvfShards, settings: list[SearchSettings], sample: Sample) -> FloatArray:
    """Processor seconds of a query with each of these settings: medians of TIMINGS, taken in turn."""
    queries = sample.queries[:TIMED_QUERIES]
    seconds = np.empty((TIMINGS, len(settings)))
    for turn in seconds:
        for i, tuned in enumerate(map(index.with_settings, settings)):
            turn[i] = _searched(tuned, queries)[1].cpu_s
    return np.median(seconds, axis=0) / len(queries)


def measure(index: IvfShards, sample: Sample) -> Measured:
    """Recall and speed of an index on a sample of its rows."""
    index.search(sample.queries[:10], RECALL_K + 1)  # what is read once is read now
    runs = [_searched(index, sample.queries) for _ in range(TIMINGS)]
    recall, top1 = _found_of(runs[0][0], sample)
    return Measured(
        recall=recall,
        top1=top1,
        queries_per_s=len(sample.own) / float(np.median([taken.wall_s for _, taken in runs])),
        speedup=sample.taken.cpu_s / float(np.median([taken.cpu_s for _, taken in runs])),
        n_queries=len(sample.own),
    )


def find_sample(index: SearchIndex, sample: Sample) -> tuple[float, float]:
    """Recall and top-1 of an index on a sample of its rows, as `measure` has them."""
    return _found_of(_searched(index, sample.queries)[0], sample)


def _found_of(found: LongArray, sample: Sample) -> tuple[float, float]:
    """Recall and top-1 of what a search found, each query's own row among it."""
    rows = without_own(found, sample.own)
    recall = float(np.mean([_found(e[e >= 0], f) for e, f in zip(sample.exact, rows, strict=True)]))
    return recall, float(np.mean(rows[:, 0] == sample.exact[:, 0]))


def without_own(rows: LongArray, own: LongArray) -> LongArray:
    """(q, k - 1): neighbours without the query's own row, or without the last where that is not among them."""
    is_own = rows == own[:, None]
    is_own[~is_own.any(axis=1), -1] = True
    others: LongArray = rows[~is_own].reshape(len(rows), -1)
    return others


def _found(exact: LongArray, rows: LongArray) -> float:
    """Share of the exact neighbours that are among as many found."""
    return float(np.isin(exact, rows[: len(exact)]).mean()) if len(exact) else 1.0


def _steps(n_lists: int) -> list[int]:
    """Numbers of lists to try: powers of the root of 2, and all."""
    return [*sorted({round(2 ** (i / 2)) for i in range(2 * n_lists.bit_length()) if 2 ** (i / 2) < n_lists}), n_lists]


def _searched(index: SearchIndex, queries: FloatArray) -> tuple[LongArray, Taken]:
    """The rows nearest to queries that are rows themselves, one more than RECALL_K."""
    return _timed(lambda: index.search(queries, RECALL_K + 1).rows)


def _timed(work: Callable[[], LongArray]) -> tuple[LongArray, Taken]:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    found = work()
    return found, Taken(max(time.perf_counter() - wall_s, 1e-9), max(time.process_time() - cpu_s, 1e-9))
