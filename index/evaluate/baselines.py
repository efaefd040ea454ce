"""Baselines: simpler systems on the same queries, whose figures an index has to beat."""

from dataclasses import dataclass

import numpy as np

from index.folder.rows import Rows
from index.metrics import Truths, first_right_rank, gap, top_k_accuracy
from index.search.base import Neighbours
from index.vote import Votes, best, vote, vote_majority
from index.vote_rule import VoteRule
from retrieval.arrays import BoolArray, FloatArray, IntArray, LongArray
from retrieval.texts import Texts

TOP = (1, 5, 10)
_QUERIES_AT_ONCE = 1 << 16
NEAREST_TAU = 1e-6  # a soft maximum this narrow is the maximum


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Accuracy of votes: GAP and the shares of landmark queries with a right landmark in the k best."""

    gap: float
    top1: float
    top5: float
    top10: float


@dataclass(frozen=True, slots=True)
class PlainVotes:
    """What two votes of the same neighbours come to, (q,) each.

    is_found: a neighbour was found. nearest, majority: float64, what the answers are ranked by; nearest_rank,
    majority_rank: of the first right landmark, 0 = none.
    """

    is_found: BoolArray
    nearest: FloatArray
    nearest_rank: LongArray | IntArray
    majority: FloatArray
    majority_rank: LongArray | IntArray


def plain_votes(neighbours: Neighbours, rows: Rows, truths: Truths, k: int) -> PlainVotes:
    """The nearest row, and the plain vote of the k nearest. neighbours: (q, >= k)."""
    n_queries = truths.n_queries
    nearest = vote(neighbours, rows.landmark, VoteRule(k=max(1, neighbours.k), tau=NEAREST_TAU, r=0))
    majority = vote_majority(neighbours, rows.landmark, k)
    return PlainVotes(
        np.asarray((neighbours.rows >= 0).any(axis=1)),
        best(nearest, n_queries)[1],
        first_right_rank(nearest.query, nearest.landmark, truths),
        best(majority, n_queries)[1],
        first_right_rank(majority.query, majority.landmark, truths),
    )


def measure_votes(votes: Votes, key: FloatArray, truths: Truths, image_id: Texts) -> Accuracy:
    """Accuracy of the votes when each query's best is its answer.

    key: (q,) what the answers are ranked by. Raises LmrError without landmark queries.
    """
    answered = np.zeros(truths.n_queries, dtype=np.bool_)
    answered[votes.query] = True
    return measure_ranks(first_right_rank(votes.query, votes.landmark, truths), answered, key, truths, image_id)


def measure_ranks(
    rank: LongArray | IntArray, answered: BoolArray, key: FloatArray, truths: Truths, image_id: Texts
) -> Accuracy:
    """As `measure_votes`. rank: (q,) of the first right landmark, 0 = none; answered: (q,)."""
    right = rank[answered] == 1
    top = (top_k_accuracy(rank, truths, k) for k in TOP)
    return Accuracy(gap(key[answered], right, int(truths.known.sum()), image_id.select(answered)), *top)


def measure_baselines(plain: PlainVotes, rows: Rows, truths: Truths, image_id: Texts) -> dict[str, Accuracy]:
    """Accuracy of four simpler systems on the same queries.

    random: landmarks in random order, in random certainty (seed 0). most_frequent: the landmarks with most rows, all
    alike certain. nearest_neighbour: the label of the nearest row, its similarity as certainty; in the index's
    space, which is whitened where the index is. majority_vote: the plain vote of the k nearest rows.
    plain: of these queries; one that could not be read found no neighbour.
    """
    answered, n_queries = plain.is_found, truths.n_queries
    read = np.flatnonzero(answered)
    drawn, sure = _random_order(len(read), n_queries, len(rows.landmarks))
    frequent = np.broadcast_to(_most_frequent(rows.counts), (len(read), min(max(TOP), len(rows.counts))))
    of = {
        "random": (_ranks(read, drawn, truths), sure),
        "most_frequent": (_ranks(read, frequent, truths), np.zeros(n_queries)),
        "nearest_neighbour": (plain.nearest_rank, plain.nearest),
        "majority_vote": (plain.majority_rank, plain.majority),
    }
    return {name: measure_ranks(rank, answered, key, truths, image_id) for name, (rank, key) in of.items()}


def random_votes(query: LongArray, n_queries: int, n_landmarks: int) -> tuple[Votes, FloatArray]:
    """Landmarks in random order for these queries, and the random certainty (n_queries,) of each (seed 0)."""
    drawn, sure = _random_order(len(query), n_queries, n_landmarks)
    return _as_votes(query, drawn), sure


def frequent_votes(query: LongArray, counts: LongArray) -> Votes:
    """The landmarks with the most images, the same for each of these queries. counts: (n_landmarks,)."""
    return _as_votes(query, np.tile(_most_frequent(counts), (len(query), 1)))


def _most_frequent(counts: LongArray) -> LongArray:
    return np.argsort(-counts, kind="stable")[: max(TOP)]


def _ranks(query: LongArray, landmark: LongArray | IntArray, truths: Truths) -> LongArray:
    """(n_queries,) rank of the first right landmark, 0 = none. landmark: (len(query), k), best first."""
    rank = np.zeros(truths.n_queries, dtype=np.int64)
    for start in range(0, len(query), _QUERIES_AT_ONCE):
        part = query[start : start + _QUERIES_AT_ONCE]
        votes = _as_votes(part - part[0], landmark[start : start + _QUERIES_AT_ONCE])
        own = truths.between(int(part[0]), int(part[-1]) + 1)
        rank[part] = first_right_rank(votes.query, votes.landmark, own)[part - part[0]]
    return rank


def _random_order(n: int, n_queries: int, n_landmarks: int) -> tuple[IntArray, FloatArray]:
    rng = np.random.default_rng(0)
    return _draw_distinct(rng, n, min(max(TOP), n_landmarks), n_landmarks), rng.random(n_queries)


def _draw_distinct(rng: np.random.Generator, n: int, width: int, n_values: int) -> IntArray:
    """(n, width) numbers in [0, n_values), each line distinct and uniform, never a dense (n, n_values)."""
    drawn = np.empty((n, width), dtype=np.int32)
    for j in range(width):
        value = rng.integers(0, n_values - j, n)
        for start in range(0, n, _QUERIES_AT_ONCE):
            part = slice(start, start + _QUERIES_AT_ONCE)
            # The value counts the numbers not yet drawn: step over the drawn ones from the lowest up.
            for before in np.sort(drawn[part, :j], axis=1).T:
                value[part] += value[part] >= before
        drawn[:, j] = value
    return drawn


def _as_votes(query: LongArray, landmark: LongArray | IntArray) -> Votes:
    """Votes of these queries for the landmarks of each line, best first."""
    score = np.tile(-np.arange(landmark.shape[1], dtype=np.float64), len(query))
    return Votes(np.repeat(query, landmark.shape[1]), landmark.ravel().astype(np.int32), score)
