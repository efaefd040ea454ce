"""Baselines: simpler systems on the same queries, whose figures an index has to beat."""

from dataclasses import dataclass

import numpy as np

from index.folder.rows import Rows
from index.metrics import Truths, first_right_rank, gap, top_k_accuracy
from index.search.base import Neighbours
from index.vote import Votes, best, vote, vote_majority
from index.vote_rule import VoteRule
from retrieval.arrays import FloatArray, LongArray, ObjArray

TOP = (1, 5, 10)
NEAREST_TAU = 1e-6  # a soft maximum this narrow is the maximum


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Accuracy of votes: GAP and the shares of landmark queries with a right landmark in the k best."""

    gap: float
    top1: float
    top5: float
    top10: float


def measure_votes(votes: Votes, key: FloatArray, truths: Truths, image_id: ObjArray) -> Accuracy:
    """Accuracy of the votes when each query's best is its answer.

    key: (q,) what the answers are ranked by. Raises LmrError without landmark queries.
    """
    rank = first_right_rank(votes.query, votes.landmark, truths)
    answered = np.zeros(truths.n_queries, dtype=np.bool_)
    answered[votes.query] = True
    right = rank[answered] == 1
    top = (top_k_accuracy(rank, truths, k) for k in TOP)
    return Accuracy(gap(key[answered], right, int(truths.known.sum()), image_id[answered]), *top)


def measure_baselines(
    neighbours: Neighbours, rows: Rows, truths: Truths, image_id: ObjArray, k: int
) -> dict[str, Accuracy]:
    """Accuracy of four simpler systems on the same queries.

    random: landmarks in random order, in random certainty (seed 0). most_frequent: the landmarks with most rows, all
    alike certain. nearest_neighbour: the label of the nearest row, its similarity as certainty; in the index's
    space, which is whitened where the index is. majority_vote: the plain vote of the k nearest rows.
    neighbours: (q, >= k), with queries that could not be read without any.
    """
    n_queries = truths.n_queries
    read = np.flatnonzero((neighbours.rows >= 0).any(axis=1))
    (random, sure), frequent = random_votes(read, n_queries, len(rows.landmarks)), frequent_votes(read, rows.counts)
    nearest = vote(neighbours, rows.landmark, VoteRule(k=max(1, neighbours.k), tau=NEAREST_TAU, r=0))
    majority = vote_majority(neighbours, rows.landmark, k)
    return {
        "random": measure_votes(random, sure, truths, image_id),
        "most_frequent": measure_votes(frequent, np.zeros(n_queries), truths, image_id),
        "nearest_neighbour": measure_votes(nearest, best(nearest, n_queries)[1], truths, image_id),
        "majority_vote": measure_votes(majority, best(majority, n_queries)[1], truths, image_id),
    }


def random_votes(query: LongArray, n_queries: int, n_landmarks: int) -> tuple[Votes, FloatArray]:
    """Landmarks in random order for these queries, and the random certainty (n_queries,) of each (seed 0)."""
    rng = np.random.default_rng(0)
    drawn = _draw_distinct(rng, len(query), min(max(TOP), n_landmarks), n_landmarks)
    return _as_votes(query, drawn), rng.random(n_queries)


def frequent_votes(query: LongArray, counts: LongArray) -> Votes:
    """The landmarks with the most images, the same for each of these queries. counts: (n_landmarks,)."""
    width = min(max(TOP), len(counts))
    return _as_votes(query, np.tile(np.argsort(-counts, kind="stable")[:width], (len(query), 1)))


def _draw_distinct(rng: np.random.Generator, n: int, width: int, n_values: int) -> LongArray:
    """(n, width) numbers in [0, n_values), each line distinct and uniform, never a dense (n, n_values)."""
    drawn = np.empty((n, width), dtype=np.int64)
    for j in range(width):
        value = rng.integers(0, n_values - j, n)
        # The value counts the numbers not yet drawn: step over the drawn ones from the lowest up.
        for before in np.sort(drawn[:, :j], axis=1).T:
            value += value >= before
        drawn[:, j] = value
    return drawn


def _as_votes(query: LongArray, landmark: LongArray) -> Votes:
    """Votes of these queries for the landmarks of each line, best first."""
    score = np.tile(-np.arange(landmark.shape[1], dtype=np.float64), len(query))
    return Votes(np.repeat(query, landmark.shape[1]), landmark.ravel().astype(np.int32), score)
