"""Error analysis: confused landmarks, figures of each landmark, the confusion matrix, the most confident errors."""

from dataclasses import dataclass

import numpy as np

from index.metrics import Truths, ranking, wilson_interval
from index.recognition import Answers
from retrieval.arrays import BoolArray, IntArray, LongArray, ObjArray

N_CONFUSIONS = 20
N_ERRORS = 24  # a gallery of two screens
N_SHOWN = 8  # neighbours beside each error
N_EXAMPLES = 3  # queries shown of each confused pair
COUNT_EDGES = (0, 1, 2, 3, 5, 10, 20, 50, 100)  # images of a landmark in the index, first number of each bin
MATRIX_LANDMARKS = 20  # landmarks that a matrix has room for
OTHERS = "others"
NO_LANDMARK = ""


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


@dataclass(frozen=True, slots=True)
class LandmarkFigures:
    """One landmark among the queries or the answers.

    n_rows: its images in the index. n_queries: queries that show it, n_right: those named so. n_answers: queries
    named so, rightly or not. recall, precision: None without queries or answers; with 95 % Wilson intervals.
    confused_with: the landmark that its queries are wrongly named most, '' = none; n_confused: so often.
    """

    landmark_id: str
    n_rows: int
    n_queries: int
    n_right: int
    n_answers: int
    recall: float | None
    recall_interval: tuple[float, float] | None
    precision: float | None
    precision_interval: tuple[float, float] | None
    confused_with: str
    n_confused: int


@dataclass(frozen=True, slots=True)
class ConfusionMatrix:
    """Rows: what queries show; columns: what is answered; '' = no landmark, `others` = those without a line.

    counts: (len(labels), len(labels)) as nested tuples. n_left_out: landmarks in `others`.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    n_left_out: int


def landmark_figures(judged: Judged, answered: BoolArray) -> tuple[LandmarkFigures, ...]:
    """Figures of each landmark that queries show or answers name, ordered by name. answered: (n_queries,)."""
    true, named = _pairs(judged, answered)
    n = len(judged.landmarks)
    wrong = (true >= 0) & (named >= 0) & ~judged.correct
    n_queries, n_answers = _count(true, n), _count(named, n)
    # A query of several landmarks counts for the first of them, and there as right where any is named.
    n_right = _count(true[judged.correct & answered], n)
    n_named = _count(named[judged.correct & answered], n)
    n_rows = np.zeros(n, dtype=np.int64)
    n_rows[: len(judged.counts)] = judged.counts
    confused = _most_confused(true[wrong], named[wrong])
    found = []
    for code in sorted(np.flatnonzero((n_queries > 0) | (n_answers > 0)), key=lambda code: judged.landmarks[code]):
        other, n_confused = confused.get(int(code), (-1, 0))
        found.append(
            LandmarkFigures(
                landmark_id=judged.landmarks[code],
                n_rows=int(n_rows[code]),
                n_queries=int(n_queries[code]),
                n_right=int(n_right[code]),
                n_answers=int(n_answers[code]),
                recall=n_right[code] / n_queries[code] if n_queries[code] else None,
                recall_interval=wilson_interval(int(n_right[code]), int(n_queries[code])),
                precision=n_named[code] / n_answers[code] if n_answers[code] else None,
                precision_interval=wilson_interval(int(n_named[code]), int(n_answers[code])),
                confused_with=judged.landmarks[other] if n_confused else "",
                n_confused=n_confused,
            )
        )
    return tuple(found)


def confusion_matrix(judged: Judged, answered: BoolArray, most: int = MATRIX_LANDMARKS) -> ConfusionMatrix:
    """The counts of the landmarks with most wrong answers, at most `most`, by name; then the others, and none."""
    true, named = _pairs(judged, answered)
    true = np.where(judged.correct & (named >= 0), named, true)  # any of several landmarks is right
    n = len(judged.landmarks)
    seen = np.flatnonzero(_count(true, n) + _count(named, n))
    wrong = true != named
    mistakes = _count(true[wrong], n) + _count(named[wrong], n)
    shown = seen[np.argsort(-mistakes[seen], kind="stable")[:most]]
    shown = np.array(sorted(shown.tolist(), key=lambda code: judged.landmarks[code]), dtype=np.int64)
    n_left_out = len(seen) - len(shown)
    place = np.full(n + 1, len(shown), dtype=np.int64)  # the others; the last is of -1, no landmark
    place[shown] = np.arange(len(shown))
    place[-1] = len(shown) + (n_left_out > 0)
    labels = [judged.landmarks[code] for code in shown.tolist()] + [OTHERS] * (n_left_out > 0) + [NO_LANDMARK]
    counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(counts, (place[true], place[named]), 1)
    return ConfusionMatrix(tuple(labels), tuple(tuple(row) for row in counts.tolist()), n_left_out)


def _most_confused(true: IntArray, named: IntArray) -> dict[int, tuple[int, int]]:
    """For each landmark, the wrong one that it is named most, and how often; equal ones: lower code."""
    pairs, n = np.unique(np.stack([true, named], axis=1), axis=0, return_counts=True)
    first: dict[int, tuple[int, int]] = {}
    for i in np.argsort(-n, kind="stable").tolist():
        first.setdefault(int(pairs[i, 0]), (int(pairs[i, 1]), int(n[i])))
    return first


def _pairs(judged: Judged, answered: BoolArray) -> tuple[IntArray, IntArray]:
    """The first landmark of each query and the landmark it is named, -1 = none; (n_queries,) each."""
    return judged.truths.first, np.where(answered, judged.answers.landmark, -1).astype(np.int32)


def _count(codes: IntArray, n: int) -> LongArray:
    return np.bincount(codes[codes >= 0], minlength=n)
