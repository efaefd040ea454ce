"""Error analysis: confused landmarks, accuracy by number of images, the most confident errors."""

from dataclasses import dataclass

import numpy as np

from index.metrics import Truths, ranking
from index.recognition import Answers
from retrieval.arrays import BoolArray, IntArray, LongArray, ObjArray

N_CONFUSIONS = 20
N_ERRORS = 24  # a gallery of two screens
N_SHOWN = 8  # neighbours beside each error
N_EXAMPLES = 3  # queries shown of each confused pair
COUNT_EDGES = (0, 1, 2, 3, 5, 10, 20, 50, 100)  # images of a landmark in the index, first number of each bin


@dataclass(frozen=True, slots=True)
class Confusion:
    """Queries that show `true` and were answered with `predicted`, counted.

    examples: numbers of the most confident of these queries, each with the nearest row of the landmark that won.
    """

    true: str
    predicted: str
    n_queries: int
    examples: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class CountBin:
    """Share of right answers to queries whose landmark has `first` to `last` images in the index; None = more."""

    first: int
    last: int | None
    n_queries: int
    top1: float


@dataclass(frozen=True, slots=True)
class ConfidentError:
    """A wrong answer. query: its number; true: its landmarks, () for a non-landmark; logit: its ranking key.

    confidence: None where the index is not calibrated. rows, scores: index rows, first the nearest one of the
    landmark that won, then those that were nearest.
    """

    query: int
    image_id: str
    true: tuple[str, ...]
    predicted: str
    logit: float
    confidence: float | None
    rows: tuple[int, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ErrorAnalysis:
    """The errors of an evaluation, for people; each list is ordered, the most telling first."""

    confusions: tuple[Confusion, ...]
    by_count: tuple[CountBin, ...]
    errors: tuple[ConfidentError, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """Answers with what they should have been.

    landmarks: names of the codes in truths, those of the index first. counts: (n_landmarks of the index,) rows of
    each; row_landmark: (n_rows,) the landmark of each. n_true: (n_queries,) rows of the index that show a landmark of
    the query. true: (n_queries,) of tuples of landmark_ids.
    """

    answers: Answers
    truths: Truths
    correct: BoolArray
    landmarks: tuple[str, ...]
    counts: LongArray
    row_landmark: IntArray
    n_true: LongArray
    image_id: ObjArray
    true: ObjArray


def analyse_errors(judged: Judged) -> ErrorAnalysis:
    """The most confused pairs, accuracy by number of images, and the most confident errors."""
    return ErrorAnalysis(_confusions(judged), _by_count(judged), _confident_errors(judged))


def _confusions(judged: Judged) -> tuple[Confusion, ...]:
    answers, first = judged.answers, judged.truths.first
    wrong = (answers.landmark >= 0) & (first >= 0) & ~judged.correct
    pairs = np.stack([first[wrong], answers.landmark[wrong]], axis=1)
    kinds, n_queries = np.unique(pairs, axis=0, return_counts=True)
    order = np.argsort(-n_queries, kind="stable")[:N_CONFUSIONS]
    names, queries = judged.landmarks, np.flatnonzero(wrong)
    return tuple(
        Confusion(
            names[kinds[i, 0]],
            names[kinds[i, 1]],
            int(n_queries[i]),
            _examples(judged, queries[(pairs == kinds[i]).all(axis=1)]),
        )
        for i in order
    )


def _examples(judged: Judged, queries: LongArray) -> tuple[tuple[int, int], ...]:
    """The most confident of these queries, each with the row that won it."""
    ranked = queries[ranking(judged.answers.logit[queries], judged.image_id[queries])]
    return tuple((int(query), _won(judged, query)) for query in ranked[:N_EXAMPLES])


def _won(judged: Judged, query: int) -> int:
    """The nearest row of the landmark that a query is answered with."""
    rows = judged.answers.neighbours.rows[query]
    rows = rows[rows >= 0]
    return int(rows[judged.row_landmark[rows] == judged.answers.landmark[query]][0])


def _by_count(judged: Judged) -> tuple[CountBin, ...]:
    known = judged.truths.known
    bin_of = np.searchsorted(COUNT_EDGES, judged.n_true[known], side="right") - 1
    correct = judged.correct[known]
    last = (*(edge - 1 for edge in COUNT_EDGES[1:]), None)
    return tuple(
        CountBin(COUNT_EDGES[i], last[i], int((bin_of == i).sum()), float(correct[bin_of == i].mean()))
        for i in np.unique(bin_of)
    )


def _confident_errors(judged: Judged) -> tuple[ConfidentError, ...]:
    answers = judged.answers
    wrong = np.flatnonzero((answers.landmark >= 0) & ~judged.correct)
    worst = wrong[ranking(answers.logit[wrong], judged.image_id[wrong])][:N_ERRORS]
    confidence = answers.confidence
    return tuple(_error(judged, query, None if confidence is None else confidence[query]) for query in worst)


def _error(judged: Judged, query: int, confidence: float | None) -> ConfidentError:
    answers = judged.answers
    rows, scores = answers.neighbours.rows[query], answers.neighbours.scores[query]
    # A stable sort: the row that won first, the others as they are.
    order = np.argsort(rows != _won(judged, query), kind="stable")[:N_SHOWN]
    order = order[rows[order] >= 0]
    return ConfidentError(
        query=int(query),
        image_id=judged.image_id[query],
        true=judged.true[query],
        predicted=judged.landmarks[answers.landmark[query]],
        logit=float(answers.logit[query]),
        confidence=None if confidence is None else float(confidence),
        rows=tuple(rows[order].tolist()),
        scores=tuple(scores[order].tolist()),
    )
