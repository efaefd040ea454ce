"""Measures the answers of an index on labelled queries, beside baselines on the same queries."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from index.calibration import Curves, ReliabilityBin, Threshold, TradeOff
from index.evaluate.baselines import Accuracy, measure_baselines, measure_ranks
from index.evaluate.errors import (
    ConfusionMatrix,
    ErrorAnalysis,
    Judged,
    LandmarkFigures,
    analyse_errors,
    confusion_matrix,
    landmark_figures,
)
from index.evaluate.outcome import Outcomes, Questions, n_true_rows
from index.evaluate.places import PlaceFigures, measure_places
from index.kaggle.scoring import PRECISION_AT
from index.metrics import (
    bootstrap_interval,
    gap,
    gap_interval,
    mean_landmark_accuracy,
)
from index.thresholds import HeldOut, curves, reliability
from retrieval.arrays import BoolArray, FloatArray, LongArray, ObjArray


@dataclass(frozen=True, slots=True)
class AtThreshold:
    """Figures of answering at or above one threshold.

    threshold: confidence. precision: right answers of all answers, NaN without answers. recall: right answers of
    all landmark queries. false_answer_rate: share of non-landmarks that were answered, per kind and `all`.
    """

    threshold: float
    precision: float
    recall: float
    false_answer_rate: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class AskedHere:
    """Figures of the calibrated threshold of one precision on these queries.

    asked: the precision. threshold: confidence. named: share of landmark queries answered, rightly or not.
    n_answers, n_wrong: of all queries. precision: right answers of all answers, NaN without answers.
    """

    asked: float
    threshold: float
    named: float
    n_answers: int
    n_wrong: int
    precision: float


@dataclass(frozen=True, slots=True)
class RetrievalFigures:
    """The index's rows as a list of images, for landmark queries whose landmark the index holds; NaN without any.

    precision_at: by number of rows as text. mean_position, median_position: of the first right row, 1 to 101.
    """

    map_at_100: float
    precision_at: Mapping[str, float]
    mean_position: float
    median_position: float
    n_retrieval_queries: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The measures of an index on labelled queries. Intervals are 95 % bootstrap intervals over queries.

    accuracy: of the answers without a threshold. at_gap, at_precision: at the calibrated thresholds, None without
    calibration. n_unreadable: queries without a descriptor, counted as blank. curves: None where nothing was answered;
    without calibration their logit is the ranking key and their confidence says nothing. reliability: None without
    calibration. trade: at the thresholds of the precisions that the calibration lists, none where it lists none.
    landmarks, confusion: of the answers at the calibrated threshold for precision, of all without calibration. places:
    the answers as places, None where labels say what is right.
    """

    n_queries: int
    n_landmark_queries: int
    n_unreadable: int
    n_same_picture: int
    accuracy: Accuracy
    gap_ignoring_non_landmarks: float
    gap_interval: tuple[float, float]
    top1_interval: tuple[float, float]
    mean_landmark_accuracy: float
    retrieval: RetrievalFigures
    at_gap: AtThreshold | None
    at_precision: AtThreshold | None
    baselines: Mapping[str, Accuracy]
    curves: Curves | None
    reliability: tuple[ReliabilityBin, ...] | None
    error_analysis: ErrorAnalysis
    landmarks: tuple[LandmarkFigures, ...]
    confusion: ConfusionMatrix
    trade: tuple[AskedHere, ...] = ()
    places: PlaceFigures | None = None

    def to_json(self) -> dict[str, Any]:
        """The metrics as one JSON object, None where a value does not exist; curves and error analysis are separate."""
        at_gap, at_precision = self.at_gap, self.at_precision
        content = {
            **asdict(self.accuracy),
            "gap_ignoring_non_landmarks": self.gap_ignoring_non_landmarks,
            "gap_interval": list(self.gap_interval),
            "top1_interval": list(self.top1_interval),
            "mean_landmark_accuracy": self.mean_landmark_accuracy,
            **asdict(self.retrieval),
            "n_queries": self.n_queries,
            "n_landmark_queries": self.n_landmark_queries,
            "n_unreadable": self.n_unreadable,
            "n_same_picture": self.n_same_picture,
            "threshold_gap": at_gap.threshold if at_gap else None,
            "threshold_precision": at_precision.threshold if at_precision else None,
            "precision_at_threshold": at_precision.precision if at_precision else None,
            "recall_at_precision": at_precision.recall if at_precision else None,
            "false_answer_rate": dict(at_precision.false_answer_rate) if at_precision else None,
            "at_threshold_gap": asdict(at_gap) if at_gap else None,
            "baselines": {name: asdict(accuracy) for name, accuracy in self.baselines.items()},
            "landmarks": [asdict(figures) for figures in self.landmarks],
            "confusion": asdict(self.confusion),
            "trade": [asdict(row) for row in self.trade],
            **({} if self.places is None else {"places": asdict(self.places)}),
        }
        return {name: _without_nan(value) for name, value in content.items()}


def evaluate(questions: Questions, outcomes: Outcomes, *, seed: int = 0) -> Evaluation:
    """Measures what the answers to queries come to.

    seed: of the bootstrap. Raises LmrError without a landmark query.
    """
    folder, queries = questions.folder, questions.queries
    if len(outcomes) != len(queries):
        raise ValueError(f"{len(outcomes)} outcomes for {len(queries)} queries")
    judged = _judge(questions, outcomes)
    truths, correct = judged.truths, judged.correct
    known, answered = truths.known, outcomes.landmark >= 0
    n_landmark_queries = int(known.sum())
    accuracy = measure_ranks(outcomes.rank, answered, outcomes.logit, truths, queries.image_id)
    both = answered & known
    ignoring = gap(outcomes.logit[both], correct[both], n_landmark_queries, queries.image_id.select(both))
    intervals = _intervals(judged, seed)
    calibration = folder.calibration
    held = None
    if answered.any():
        held = HeldOut(outcomes.logit, correct, known, queries.image_id, queries.kind)
    at_gap, at_precision = (
        _at_threshold(judged, queries.kind, threshold)
        for threshold in ((calibration.threshold_gap, calibration.threshold_precision) if calibration else (None, None))
    )
    threshold = calibration.threshold_precision if calibration else None
    shown = answered & (outcomes.logit >= threshold.logit) if threshold else answered
    return Evaluation(
        n_queries=len(queries),
        n_landmark_queries=n_landmark_queries,
        n_unreadable=int((~outcomes.is_found).sum()),
        n_same_picture=int(outcomes.is_row.sum()),
        accuracy=accuracy,
        gap_ignoring_non_landmarks=ignoring,
        gap_interval=intervals[0],
        top1_interval=intervals[1],
        mean_landmark_accuracy=mean_landmark_accuracy(truths.first, correct),
        retrieval=_measure_retrieval(outcomes, judged.n_true > 0),
        at_gap=at_gap,
        at_precision=at_precision,
        baselines=measure_baselines(outcomes.plain, folder.rows, truths, queries.image_id),
        curves=curves(held) if held else None,
        reliability=reliability(held) if held and calibration else None,
        error_analysis=analyse_errors(judged),
        landmarks=landmark_figures(judged, shown),
        confusion=confusion_matrix(judged, shown),
        trade=tuple(_asked_here(judged, row) for row in (calibration.trade if calibration else ())),
        places=_measure_places(questions, outcomes),
    )


def _judge(questions: Questions, outcomes: Outcomes) -> Judged:
    """Truths in the codes of the index, with further codes for landmarks that the index lacks."""
    folder, queries = questions.folder, questions.queries
    truths, names = questions.truths
    return Judged(
        landmark=outcomes.landmark,
        logit=outcomes.logit,
        ask=questions.ask,
        truths=truths,
        correct=truths.holds(np.arange(len(queries)), outcomes.landmark),
        is_calibrated=folder.calibration is not None,
        landmarks=names,
        counts=folder.rows.counts,
        row_landmark=folder.rows.landmark,
        n_true=n_true_rows(folder, truths, questions.n_left_out, queries.near),
        image_id=queries.image_id,
        true=queries.landmarks,
    )


def _intervals(judged: Judged, seed: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Bootstrap intervals of GAP and top-1."""
    correct, known = judged.correct, judged.truths.known

    def top1_of(drawn: LongArray) -> float:
        drawn = drawn[known[drawn]]
        return float(correct[drawn].mean()) if len(drawn) else float("nan")

    return gap_interval(judged.logit, correct, known, judged.image_id, seed), bootstrap_interval(
        top1_of, len(known), seed
    )


def _measure_retrieval(outcomes: Outcomes, asked: BoolArray) -> RetrievalFigures:
    """Figures of the index's rows. asked: (q,) the retrieval queries, those whose landmark has a row."""

    def mean(values: FloatArray | LongArray) -> float:
        return float(np.mean(values)) if len(values) else float("nan")

    position = outcomes.position[asked].astype(np.int64)
    return RetrievalFigures(
        map_at_100=mean(outcomes.precision[asked]),
        precision_at={str(k): mean(outcomes.hits[asked, i] / k) for i, k in enumerate(PRECISION_AT)},
        mean_position=mean(position),
        median_position=float(np.median(position)) if len(position) else float("nan"),
        n_retrieval_queries=len(position),
    )


def _measure_places(questions: Questions, outcomes: Outcomes) -> PlaceFigures | None:
    near, rank, error_m = questions.queries.near, outcomes.near_rank, outcomes.error_m
    if near is None or rank is None or error_m is None:
        return None
    return measure_places(near, rank.astype(np.int64), error_m, outcomes.logit, questions.queries.image_id)


def _at_threshold(judged: Judged, kind: ObjArray | None, threshold: Threshold | None) -> AtThreshold | None:
    if threshold is None:
        return None
    known = judged.truths.known
    answered = (judged.landmark >= 0) & (judged.logit >= threshold.logit)
    n_answers, n_right = int(answered.sum()), int((answered & judged.correct).sum())
    return AtThreshold(
        threshold=threshold.confidence,
        precision=n_right / n_answers if n_answers else float("nan"),
        recall=n_right / int(known.sum()),
        false_answer_rate=_false_answer_rate(answered[~known], None if kind is None else kind[~known]),
    )


def _asked_here(judged: Judged, row: TradeOff) -> AskedHere:
    known = judged.truths.known
    answered = (judged.landmark >= 0) & (judged.logit >= row.logit)
    n_answers, n_right = int(answered.sum()), int((answered & judged.correct).sum())
    return AskedHere(
        asked=row.asked,
        threshold=row.confidence,
        named=float((answered & known).sum() / known.sum()),
        n_answers=n_answers,
        n_wrong=n_answers - n_right,
        precision=n_right / n_answers if n_answers else float("nan"),
    )


def _false_answer_rate(answered: BoolArray, kind: ObjArray | None) -> dict[str, float]:
    """Share of non-landmarks that were answered, of all and per kind; empty without non-landmarks."""
    if len(answered) == 0:
        return {}
    rates = {"all": float(answered.mean())}
    for name in sorted(set(kind)) if kind is not None else ():
        if name:
            rates[name] = float(answered[kind == name].mean())
    return rates


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: null in its place, also inside objects and lists."""
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
