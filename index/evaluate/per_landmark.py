"""Figures of each landmark: precision, recall, what it is confused with; and the confusion matrix."""

from dataclasses import dataclass

import numpy as np

from index.evaluate.errors import Judged
from index.metrics import wilson_interval
from retrieval.arrays import BoolArray, IntArray, LongArray

N_SHOWN = 20  # landmarks that a matrix has room for
OTHERS = "others"
NO_LANDMARK = ""


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


def confusion_matrix(judged: Judged, answered: BoolArray, most: int = N_SHOWN) -> ConfusionMatrix:
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
