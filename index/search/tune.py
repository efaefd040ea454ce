"""The fewest lists and candidates that reach a recall, measured against exact search."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from index.search.flat import FlatIndex
from index.search.ivf import IvfIndex, SearchSettings
from index.search.plan import RECALL_K
from retrieval.arrays import FloatArray, LongArray

N_QUERIES = 1_000  # rows asked for their neighbours; the standard error of a recall of 0.99 is then about 0.001
MOST_PRODUCTS = 2 * 10**12  # numbers multiplied for the exact answers: fewer queries are asked of more rows
CANDIDATES = (2, 5, 10, 20, 50)  # for each neighbour
SEED = 1


@dataclass(frozen=True, slots=True)
class Measured:
    """A search on a sample of the rows, each asked for the RECALL_K rows nearest to it besides itself.

    recall: share of the exact ones that it finds. top1: share of queries whose nearest row it finds.
    queries_per_s: in batches, on the processors that it may use; speedup: that, over the same of exact search.
    """

    recall: float
    top1: float
    queries_per_s: float
    speedup: float
    n_queries: int


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows that are asked. queries: (q, d); own: (q,) their rows; exact: (q, RECALL_K) the exact answers.

    seconds: that exact search took for all of them.
    """

    queries: FloatArray
    own: LongArray
    exact: LongArray
    seconds: float


def take_sample(rows: FlatIndex) -> Sample:
    """A sample of the rows, and the exact answers to them."""
    n = max(1, min(N_QUERIES, len(rows), MOST_PRODUCTS // max(1, len(rows) * rows.d)))
    own = np.sort(np.random.default_rng(SEED).permutation(len(rows))[:n])
    queries = rows.vectors(own)
    found, seconds = _timed(lambda: rows.search(queries, RECALL_K + 1).rows)
    return Sample(queries, own, without_own(found, own), seconds)


def tune(index: IvfIndex, target: float) -> tuple[IvfIndex, Measured, Sample]:
    """The index with the quickest settings whose recall reaches the target, else with those of the largest recall."""
    sample = take_sample(index.rows)
    tried = []
    for n_probe in _steps(index.n_lists):
        proposed = index.with_settings(SearchSettings(n_probe)).propose(
            sample.queries, min(CANDIDATES[-1] * (RECALL_K + 1), len(index))
        )
        recalls = [_recall(proposed[:, : n * (RECALL_K + 1)], sample) for n in CANDIDATES]
        reached = [n for n, recall in zip(CANDIDATES, recalls, strict=True) if recall >= target]
        if reached:
            tried.append(SearchSettings(n_probe, reached[0]))
        if recalls[0] >= target or len(tried) == 3:  # more lists cost more than they save in candidates
            break
    settings = tried or [SearchSettings(index.n_lists, CANDIDATES[-1])]
    measured = [(index.with_settings(one), measure(index.with_settings(one), sample)) for one in settings]
    sound = [pair for pair in measured if pair[1].recall >= target] or measured
    chosen, figures = max(sound, key=lambda pair: pair[1].queries_per_s)
    return chosen, figures, sample


def measure(index: IvfIndex, sample: Sample) -> Measured:
    """Recall and speed of an index on a sample of its rows."""
    index.search(sample.queries[:10], RECALL_K + 1)  # what is read once is read now
    found, seconds = _timed(lambda: index.search(sample.queries, RECALL_K + 1).rows)
    rows = without_own(found, sample.own)
    return Measured(
        recall=float(np.mean([np.isin(e, f).mean() for e, f in zip(sample.exact, rows, strict=True)])),
        top1=float(np.mean(rows[:, 0] == sample.exact[:, 0])),
        queries_per_s=len(rows) / seconds,
        speedup=sample.seconds / seconds,
        n_queries=len(rows),
    )


def without_own(rows: LongArray, own: LongArray) -> LongArray:
    """(q, k - 1): neighbours without the query's own row, or without the last where that is not among them."""
    is_own = rows == own[:, None]
    is_own[~is_own.any(axis=1), -1] = True
    others: LongArray = rows[~is_own].reshape(len(rows), -1)
    return others


def _recall(proposed: LongArray, sample: Sample) -> float:
    """Share of the exact neighbours among proposed rows, which scoring by the rows then puts first."""
    return float(np.mean([np.isin(e, p).mean() for e, p in zip(sample.exact, proposed, strict=True)]))


def _steps(n_lists: int) -> list[int]:
    """Numbers of lists to try: powers of 2 and all."""
    return [*(2**i for i in range((n_lists - 1).bit_length())), n_lists]


def _timed(work: Callable[[], LongArray]) -> tuple[LongArray, float]:
    begun = time.perf_counter()
    return work(), max(time.perf_counter() - begun, 1e-9)
