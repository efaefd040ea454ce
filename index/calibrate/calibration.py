"""Calibration of an index on held-out queries: vote, confidence and thresholds, with what they are worth."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin

import numpy as np

from index.calibrate.held_out import HeldOut, non_landmark_weight, weighted_gap
from index.calibrate.precision import TradeOff, precision_threshold, trade_offs
from index.calibrate.queries import CalibrationQueries
from index.calibrate.selection import Answered
from index.calibrate.thresholds import (
    Curves,
    KindCurves,
    KindFigures,
    ReliabilityBin,
    Threshold,
    curves,
    gap_threshold,
    reliability,
)
from index.calibrate.tune import Grid, Tuned, tune
from index.confidence import ConfidenceModel
from index.metrics import gap
from index.vote import VoteRule
from retrieval.errors import LmrError
from retrieval.words import agreeing, counted

FORMAT_VERSION = 1
FEW_QUERIES = 100

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CalibrationSettings:
    """precision: what the precision threshold must reach. non_landmark_share: the share of non-landmarks to
    calibrate for, None = as among the queries. seed: of the folds.
    """

    precision: float = 0.95
    non_landmark_share: float | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Origin:
    """What was calibrated, on what. source: the file or store of the queries. fingerprint: of the model.
    index_digest: of the index's rows.
    """

    source: str
    fingerprint: str
    index_digest: str


@dataclass(frozen=True, slots=True)
class CrossValidated:
    """What the calibration is worth on queries that it has not seen.

    gap, top1: over these queries as they are; gap_at_share: for the share of non-landmarks asked for, None = as is.
    n_not_in_index: landmark queries whose landmark no index row shows; they cannot be answered rightly.
    """

    n_queries: int
    n_landmark_queries: int
    n_non_landmarks: int
    n_not_in_index: int
    gap: float
    top1: float
    gap_at_share: float | None


@dataclass(frozen=True, slots=True)
class BeforeAfter:
    """GAP and top-1 of the default constants and of those chosen, by answers that had no part in the choice."""

    n_queries: int
    n_landmark_queries: int
    gap_default: float
    gap: float
    top1_default: float
    top1: float


@dataclass(frozen=True, slots=True)
class Choice:
    """Why the constants of the vote are what they are.

    tried: those that did best. gain: by how much rules chosen on other folds exceed the default's GAP, gain_error:
    its standard error, over held-out queries and leave-one-out together; the default is kept where the gain is not
    larger. leave_one_out: of the index rows and the background, None where these are no evidence; why_not: the reason.
    """

    tried: VoteRule
    gain: float
    gain_error: float
    held_out: BeforeAfter
    leave_one_out: BeforeAfter | None
    why_not: str | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Leave-one-out over an index as evidence: its queries, or the reason why they are none."""

    queries: CalibrationQueries | None
    why_not: str | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """Everything that turns neighbours into answers with a confidence, and how it was found.

    trade: what each precision costs. choice: why the constants are what they are. query_names, query_sketches: digests
    of the names of the queries (`retrieval.data.seen`) and sketches of their descriptors (`index.sketches`), by both of
    which an evaluation on the same ones is told. A calibration from before these were kept has none.
    """

    rule: VoteRule
    confidence: ConfidenceModel
    threshold_gap: Threshold
    threshold_precision: Threshold
    curves: Curves
    reliability: tuple[ReliabilityBin, ...]
    cross_validated: CrossValidated
    settings: CalibrationSettings
    origin: Origin
    warnings: tuple[str, ...]
    trade: tuple[TradeOff, ...] = ()
    choice: Choice | None = None
    query_names: str | None = None
    query_sketches: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A document of plain numbers, texts and lists, for `from_json`."""
        return {"format_version": FORMAT_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, document: Any, source: str = "calibration.json") -> "Calibration":
        """The calibration of a document. source: the file it is from, for messages.

        Raises LmrError for another format_version, an unknown or missing key, or a value that cannot be.
        """
        if not isinstance(document, Mapping):
            raise LmrError(f"{source}: not a calibration; run lmr calibrate again")
        if document.get("format_version") != FORMAT_VERSION:
            raise LmrError(
                f"{source}: format_version {document.get('format_version')}, this program reads {FORMAT_VERSION}; "
                "use the lmr that made it"
            )
        values = {key: value for key, value in document.items() if key != "format_version"}
        read = _Reader(source)
        parts: dict[str, Callable[[Any, str], Any]] = {
            "rule": read.one(VoteRule),
            "confidence": read.one(ConfidenceModel),
            "threshold_gap": read.one(Threshold, kinds=read.many(KindFigures)),
            "threshold_precision": read.one(Threshold, kinds=read.many(KindFigures)),
            "curves": read.one(Curves, kinds=read.many(KindCurves)),
            "reliability": read.many(ReliabilityBin),
            "cross_validated": read.one(CrossValidated),
            "settings": read.one(CalibrationSettings),
            "origin": read.one(Origin),
            "trade": read.many(TradeOff),
            "choice": read.optional(
                read.one(
                    Choice,
                    tried=read.one(VoteRule),
                    held_out=read.one(BeforeAfter),
                    leave_one_out=read.optional(read.one(BeforeAfter)),
                )
            ),
        }
        return read.one(cls, **parts)(values, "")


def calibrate(
    queries: CalibrationQueries,
    origin: Origin,
    settings: CalibrationSettings | None = None,
    grid: Grid | None = None,
    evidence: Evidence | None = None,
) -> Calibration:
    """Vote, confidence model and thresholds for an index, from held-out queries.

    The thresholds, curves and figures are of cross-validated answers; the rule and the confidence model are then
    fitted on everything. evidence: what the rule is judged by besides. Raises LmrError where no query shows a landmark
    or none finds a neighbour.
    """
    settings, grid = settings or CalibrationSettings(), grid or Grid()
    evidence = evidence or Evidence(None)
    known = queries.truths.known
    n_known, n_other = int(known.sum()), int((~known).sum())
    share = settings.non_landmark_share
    weight = None if share is None else non_landmark_weight(n_known, n_other, share)
    tuned = tune(queries, grid, weight, settings.seed, evidence.queries)
    held = HeldOut(tuned.answered.logit, tuned.answered.correct, known, queries.image_id, queries.kind, weight)
    reachable = queries.truths.query[np.isin(queries.truths.landmark, queries.landmark)]
    choice = _choice(tuned, queries, evidence)
    figures = CrossValidated(
        n_queries=len(known),
        n_landmark_queries=n_known,
        n_non_landmarks=n_other,
        n_not_in_index=n_known - len(np.unique(reachable)),
        gap=choice.held_out.gap,
        top1=choice.held_out.top1,
        gap_at_share=None if weight is None else weighted_gap(held),
    )
    at_precision = precision_threshold(held, settings.precision)
    return Calibration(
        rule=tuned.rule,
        confidence=tuned.confidence,
        threshold_gap=gap_threshold(held),
        threshold_precision=at_precision,
        curves=curves(held),
        reliability=reliability(held),
        cross_validated=figures,
        settings=settings,
        origin=origin,
        warnings=_warnings(figures, at_precision, settings.precision),
        trade=trade_offs(held, settings.precision),
        choice=choice,
    )


def _choice(tuned: Tuned, queries: CalibrationQueries, evidence: Evidence) -> Choice:
    left_out = None
    if evidence.queries is not None and tuned.evidence is not None and tuned.evidence_default is not None:
        left_out = _before_after(evidence.queries, tuned.evidence_default, tuned.evidence)
    held_out = _before_after(queries, tuned.default, tuned.answered)
    return Choice(tuned.tried, tuned.gain, tuned.gain_error, held_out, left_out, evidence.why_not)


def _before_after(queries: CalibrationQueries, default: Answered, chosen: Answered) -> BeforeAfter:
    known = queries.truths.known
    n_known = int(known.sum())
    gaps, shares = [], []
    for found in (default, chosen):
        answered = found.logit > -np.inf
        gaps.append(gap(found.logit[answered], found.correct[answered], n_known, queries.image_id[answered]))
        shares.append(float(found.correct[known].mean()))
    return BeforeAfter(len(known), n_known, gaps[0], gaps[1], shares[0], shares[1])


def _warnings(figures: CrossValidated, at_precision: Threshold, precision: float) -> tuple[str, ...]:
    """What a reader of the calibration must know, a line each."""
    warnings = []
    if figures.n_queries < FEW_QUERIES:
        warnings.append(
            f"only {counted(figures.n_queries, 'query')}, fewer than {FEW_QUERIES}: the thresholds are rough"
        )
    if figures.n_non_landmarks == 0:
        warnings.append("no non-landmarks among the queries: pictures of no known landmark will be answered too often")
    if figures.n_not_in_index:
        warnings.append(
            f"{counted(figures.n_not_in_index, 'landmark query', of=figures.n_landmark_queries)} "
            f"{agreeing(figures.n_not_in_index, 'shows', 'show')} a landmark "
            "that the index does not hold"
        )
    if not at_precision.reached:
        warnings.append(_not_sure(at_precision, precision))
    return tuple(warnings)


def _not_sure(at: Threshold, precision: float) -> str:
    """What a threshold rests on that is not sure to reach its precision, and what would make it sure."""
    what = f"a precision of {precision:g}, as asked, is not sure from a confidence of {at.confidence:.3f} on"
    if at.expected_precision is None:
        return f"{what}: no held-out query is answered with such confidence; ask for less or add queries"
    more = (
        "more queries like these would not make it sure"
        if at.n_more_queries is None
        else f"about {counted(at.n_more_queries, 'more held-out query')} would make it sure"
    )
    measured = "" if at.precision is None else f"{at.precision:.3f} was measured, "
    return f"{what}: {measured}{at.expected_precision:.3f} is expected, {at.precision_bound:.3f} is sure; {more}"


class _Reader:
    """Reads frozen dataclasses from JSON strictly; every error names the file and the place in it."""

    def __init__(self, source: str) -> None:
        self._source = source

    def one(self, kind: type[T], **parts: Callable[[Any, str], Any]) -> Callable[[Any, str], T]:
        """A function that reads one `kind`; parts: how to read those of its fields that are no plain values."""

        def read(document: Any, where: str) -> T:
            names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
            needed = [field.name for field in fields(kind) if field.default is MISSING]  # type: ignore[arg-type]
            if not isinstance(document, Mapping):
                raise self._damaged(f"{where} is not an object")
            for key in (*(name for name in needed if name not in document), *(k for k in document if k not in names)):
                raise self._damaged(f"{where}{'.' if where else ''}{key} is {'missing' if key in names else 'unknown'}")
            values = {}
            for field in fields(kind):  # type: ignore[arg-type]
                if field.name not in document:
                    continue
                value, place = document[field.name], f"{where}{'.' if where else ''}{field.name}"
                if field.name in parts:
                    values[field.name] = parts[field.name](value, place)
                elif _fits(value, field.type):
                    values[field.name] = tuple(value) if isinstance(value, list) else value
                else:
                    raise self._damaged(f"{place} cannot be {value!r:.40}")
            try:
                return kind(**values)
            except ValueError as error:
                raise self._damaged(f"{where}: {error}") from None

        return read

    def many(self, kind: type[T]) -> Callable[[Any, str], tuple[T, ...]]:
        """A function that reads a list of one `kind`."""

        def read(document: Any, where: str) -> tuple[T, ...]:
            if not isinstance(document, list | tuple):
                raise self._damaged(f"{where} is not a list")
            one = self.one(kind)
            return tuple(one(item, f"{where}[{i}]") for i, item in enumerate(document))

        return read

    def optional(self, read: Callable[[Any, str], T]) -> Callable[[Any, str], T | None]:
        """The same function, which lets null be None."""
        return lambda document, where: None if document is None else read(document, where)

    def _damaged(self, what: str) -> LmrError:
        return LmrError(f"{self._source}: {what}; run lmr calibrate again")


def _fits(value: Any, expected: Any) -> bool:
    """Whether a JSON value is of this plain type: bool, int, float (finite), str, tuple[...] of one, or one or None."""
    if get_origin(expected) is tuple:
        return isinstance(value, list | tuple) and all(_fits(item, get_args(expected)[0]) for item in value)
    if isinstance(expected, UnionType):
        return any(_fits(value, one) for one in get_args(expected))
    if expected is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return isinstance(value, expected) and isinstance(value, bool) == (expected is bool)
