"""Rows that an inverted file is asked for after each change, kept with their exact answers, which follow the change.

Exact answers over all rows cost far more than a change. Those that are known lose the rows that go and are compared
with those that come; only for the few rows that join the sample are all others looked through.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from index.search.base import best, scores_of
from index.search.choose import SEED, Sample, Taken, take_sample, without_own
from index.search.faiss_io import limited_blas
from index.search.flat import FlatIndex
from index.search.plan import RECALL_K
from retrieval.arrays import BoolArray, LongArray
from retrieval.files.atomic import write_error
from retrieval.files.hdf5 import new_hdf5, numbers, open_hdf5

N_KEPT = 200  # rows; the standard error of a recall of 0.99 is then about 0.002
LEAST_KNOWN = 5  # of the RECALL_K nearest rows of one that is asked; with fewer it is asked no more
COMPARED_ROWS = 1 << 13  # new rows at a time


def write_sample(path: Path, sample: Sample) -> None:
    """Writes at most N_KEPT rows of a sample and their exact answers. Raises LmrError where that is not possible."""
    every = max(1, len(sample.own) // N_KEPT)
    try:
        with new_hdf5(path) as file:
            file["own"], file["exact"] = sample.own[::every][:N_KEPT], sample.exact[::every][:N_KEPT]
    except OSError as error:
        raise write_error(path, error) from error


def read_sample(path: Path, rows: FlatIndex) -> Sample:
    """The sample that `write_sample` wrote of these rows. Raises LmrError when it is missing or damaged."""
    with open_hdf5(path, "a sample of an index", "run lmr index compact") as file:
        own = numbers(file, "own", ("int64",), (None,))[:]
        exact = numbers(file, "exact", ("int64",), (len(own), RECALL_K))[:]
        for name, values, least in (("own", own, 0), ("exact", exact, -1)):
            if len(values) and not (values.min() >= least and values.max() < len(rows)):
                raise ValueError(f"{name} must lie in [{least}, {len(rows)})")
    return Sample(rows.vectors(own), own, exact, Taken(np.nan, np.nan))


def follow(sample: Sample, kept: BoolArray, rows: FlatIndex) -> Sample:
    """The sample of what a change made of its rows; taken anew where too little of it is left.

    kept: (n before,) rows that stay. rows: these in their order, then the new ones, of which as large a share is asked
    as of the others. The time that exact answers take is not known of it.
    """
    rng = np.random.default_rng([SEED, len(kept), len(rows)])
    n_stay = int(kept.sum())
    wanted = min(N_KEPT, len(rows))
    n_new = int(wanted * (len(rows) - n_stay) / len(rows) + rng.random())
    own, exact = _renumber(sample, kept)
    stays = np.sort(rng.permutation(len(own))[: wanted - n_new])
    if len(stays) + n_new < wanted / 2:
        return take_sample(rows, N_KEPT)
    own, exact = own[stays], _with_new(own[stays], exact[stays], rows, n_stay)
    new = n_stay + np.sort(rng.permutation(len(rows) - n_stay)[:n_new])
    if n_new:
        found = without_own(rows.search(rows.vectors(new), RECALL_K + 1).rows, new)
        own, exact = np.concatenate([own, new]), np.concatenate([exact, found])
    return replace(sample, queries=rows.vectors(own), own=own, exact=exact)


def _renumber(sample: Sample, kept: BoolArray) -> tuple[LongArray, LongArray]:
    """Rows of the sample that stay and of whose nearest enough do, by their new numbers; -1 at the end = none."""
    number = np.full(len(kept) + 1, -1, dtype=np.int64)  # the last is that of row -1
    number[:-1][kept] = np.arange(int(kept.sum()))
    own, exact = number[sample.own], number[sample.exact]
    exact = np.take_along_axis(exact, np.argsort(exact < 0, axis=1, kind="stable"), axis=1)
    stays = (own >= 0) & ((exact >= 0).sum(axis=1) >= LEAST_KNOWN)
    return own[stays], exact[stays]


def _with_new(own: LongArray, exact: LongArray, rows: FlatIndex, first: int) -> LongArray:
    """(q, RECALL_K) the nearest rows with those from `first` on among them, as far down as all of them are known."""
    if first == len(rows) or not len(own):
        return exact
    queries = rows.vectors(own)
    scores = np.where(exact >= 0, scores_of(queries, rows.vectors(exact)), np.float32(-np.inf))
    least = np.take_along_axis(scores, (exact >= 0).sum(axis=1, keepdims=True) - 1, axis=1)
    with limited_blas(rows.threads):
        for start in range(first, len(rows), COMPARED_ROWS):
            block = np.arange(start, min(start + COMPARED_ROWS, len(rows)))
            products = queries @ rows.vectors(block).T
            nearest = np.argsort(-products, axis=1)[:, :RECALL_K]
            found = np.take_along_axis(products, nearest, axis=1)
            is_known = found >= least
            exact, scores = best(
                np.concatenate([exact, np.where(is_known, block[nearest], -1)], axis=1),
                np.concatenate([scores, np.where(is_known, found, np.float32(-np.inf))], axis=1),
                RECALL_K,
            )
    return exact
