"""Error analysis: confused landmarks, figures of each landmark, the confusion matrix, the most confident errors."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from index.confidence import sigmoid
from index.metrics import Truths, ranking, wilson_interval
from index.recognition import Answers
from retrieval.arrays import BoolArray, FloatArray, IntArray, LongArray
from retrieval.shown import Labels
from retrieval.texts import Texts

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

    landmark: (n_queries,) int32 the best vote's, -1 = none; logit: (n_queries,) its ranking key. ask: the answers to
    some of the queries, for those that are shown. landmarks: names of the codes in truths, those of the index first.
    counts: (n_landmarks of the index,) rows of each; row_landmark: (n_rows,) the landmark of each. n_true:
    (n_queries,) rows of the index that show a landmark of the query. true: (n_queries,) landmark_ids.
    """

    landmark: IntArray
    logit: FloatArray
    ask: Callable[[LongArray], Answers]
    truths: Truths
    correct: BoolArray
    is_calibrated: bool
    landmarks: tuple[str, ...]
    counts: LongArray
    row_landmark: IntArray
    n_true: LongArray
    image_id: Texts
    true: Labels


def analyse_errors(judged: Judged) -> ErrorAnalysis:
    """The most confused pairs, accuracy by number of images, and the most confident errors."""
    confused, worst = _confused(judged), _most_confident_errors(judged)
    asked = np.unique(np.concatenate([worst, *(queries for _, _, queries in confused)]))
    shown = _won_first(judged, asked)
    names = judged.landmarks
    confusions = tuple(
        Confusion(names[true], names[predicted], n, tuple((q, int(shown[q][0][0])) for q in queries.tolist()))
        for (true, predicted), n, queries in confused
    )
    return ErrorAnalysis(confusions, _by_count(judged), tuple(_error(judged, q, shown[q]) for q in worst.tolist()))


def _confused(judged: Judged) -> list[tuple[tuple[int, int], int, LongArray]]:
    """The most confused pairs (true, predicted), how many queries each has, and the most confident of these."""
    first = judged.truths.first
    wrong = (judged.landmark >= 0) & (first >= 0) & ~judged.correct
    pairs = np.stack([first[wrong], judged.landmark[wrong]], axis=1)
    kinds, n_queries = np.unique(pairs, axis=0, return_counts=True)
    order = np.argsort(-n_queries, kind="stable")[:N_CONFUSIONS]
    queries = np.flatnonzero(wrong)
    examples = [_ranked(judged, queries[(pairs == kinds[i]).all(axis=1)])[:N_EXAMPLES] for i in order]
    codes, counts = kinds[order].tolist(), n_queries[order].tolist()
    return [((true, said), n, found) for (true, said), n, found in zip(codes, counts, examples, strict=True)]


def _ranked(judged: Judged, queries: LongArray) -> LongArray:
    return queries[ranking(judged.logit[queries], judged.image_id.select(queries))]


def _most_confident_errors(judged: Judged) -> LongArray:
    return _ranked(judged, np.flatnonzero((judged.landmark >= 0) & ~judged.correct))[:N_ERRORS]


def _won_first(judged: Judged, queries: LongArray) -> dict[int, tuple[LongArray, FloatArray]]:
    """Rows that were found for each of these queries and their scores, first the nearest of the landmark that won."""
    found: dict[int, tuple[LongArray, FloatArray]] = {}
    if not len(queries):
        return found
    neighbours = judged.ask(queries).neighbours
    for i, query in enumerate(queries.tolist()):
        real = neighbours.rows[i] >= 0
        rows, scores = neighbours.rows[i][real], neighbours.scores[i][real]
        # A stable sort: the row that won first, the others as they are.
        won = np.argmax(judged.row_landmark[rows] == judged.landmark[query])
        order = np.argsort(np.arange(len(rows)) != won, kind="stable")[:N_SHOWN]
        found[query] = rows[order], scores[order]
    return found


def _by_count(judged: Judged) -> tuple[CountBin, ...]:
    known = judged.truths.known
    bin_of = np.searchsorted(COUNT_EDGES, judged.n_true[known], side="right") - 1
    correct = judged.correct[known]
    last = (*(edge - 1 for edge in COUNT_EDGES[1:]), None)
    return tuple(
        CountBin(COUNT_EDGES[i], last[i], int((bin_of == i).sum()), float(correct[bin_of == i].mean()))
        for i in np.unique(bin_of)
    )


def _error(judged: Judged, query: int, shown: tuple[LongArray, FloatArray]) -> ConfidentError:
    return ConfidentError(
        query=query,
        image_id=judged.image_id[query],
        true=judged.true[query],
        predicted=judged.landmarks[judged.landmark[query]],
        logit=float(judged.logit[query]),
        confidence=float(sigmoid(judged.logit[query : query + 1])[0]) if judged.is_calibrated else None,
        rows=tuple(shown[0].tolist()),
        scores=tuple(shown[1].tolist()),
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
    return judged.truths.first, np.where(answered, judged.landmark, -1).astype(np.int32)


def _count(codes: IntArray, n: int) -> LongArray:
    return np.bincount(codes[codes >= 0], minlength=n)
