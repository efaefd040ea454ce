"""A calibration: vote, confidence and thresholds of an index, with what they are worth; and its JSON."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from types import UnionType
from typing import Any, get_args, get_origin

import msgspec

from index.calibrate.config import CalibrationSettings
from index.confidence import ConfidenceModel
from index.rerank.evidence import EvidenceRule
from index.vote_rule import VoteRule
from retrieval.errors import LmrError
from retrieval.local.config import MatcherName

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class KindFigures:
    """Figures of one kind of query at a threshold; None where the kind has no such queries."""

    kind: str
    n_queries: int
    n_landmark_queries: int
    recall: float | None
    false_answer_rate: float | None


@dataclass(frozen=True, slots=True)
class Threshold:
    """Answer where the logit is at or above this one, and what held-out queries say of it.

    reached: it is sure to do what was asked. precision: share of the answers that are right, None without answers,
    and its lower bound; recall: share of landmark queries answered rightly; false_answer_rate: share of non-landmarks
    that are answered, None where there are none. found_by: see `index.calibrate.precision`. named: share of landmark
    queries that are answered, rightly or not. expected_precision: mean confidence of the answers. n_answers, n_wrong:
    as they are, without weights. n_more_queries: about how many more held-out queries would make it sure, None where
    it is, or where no number would. What a calibration from before these were measured lacks is None.
    """

    logit: float
    confidence: float
    reached: bool
    gap: float
    precision: float | None
    precision_bound: float
    recall: float
    false_answer_rate: float | None
    kinds: tuple[KindFigures, ...]
    found_by: str | None = None
    named: float | None = None
    expected_precision: float | None = None
    n_answers: int | None = None
    n_wrong: int | None = None
    n_more_queries: int | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.logit) or not 0 <= self.confidence <= 1:
            raise ValueError(f"logit {self.logit} must be finite and confidence {self.confidence} in [0, 1]")


@dataclass(frozen=True, slots=True)
class KindCurves:
    """Recall and false answers of one kind at the thresholds of the curves; None as in `KindFigures`."""

    kind: str
    recall: tuple[float, ...] | None
    false_answer_rate: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class Curves:
    """The figures of `Threshold` at up to 200 thresholds, from the highest to the lowest."""

    logit: tuple[float, ...]
    confidence: tuple[float, ...]
    gap: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    false_answer_rate: tuple[float, ...] | None
    kinds: tuple[KindCurves, ...]


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Answers with a confidence in [low, high): how many, their mean confidence, the share that is right."""

    low: float
    high: float
    n_queries: int
    mean_confidence: float | None
    share_right: float | None


@dataclass(frozen=True, slots=True)
class TradeOff:
    """The price of a precision on the held-out queries; figures as in `Threshold`."""

    asked: float
    logit: float
    confidence: float
    found_by: str | None
    reached: bool
    named: float | None
    recall: float
    n_answers: int | None
    n_wrong: int | None
    precision: float | None
    precision_bound: float
    expected_precision: float | None


@dataclass(frozen=True, slots=True)
class Origin:
    """Queries, model and index of a calibration.

    source: the file or store of the queries. fingerprint: of the model. index_digest: of the rows. within_m: how
    near a row lies to a query of its place, None where labels say what is right.
    """

    source: str
    fingerprint: str
    index_digest: str
    within_m: float | None = None


@dataclass(frozen=True, slots=True)
class CrossValidated:
    """Cross-validated figures of a calibration, on queries that it has not seen.

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
class AtPrecision:
    """Cross-validated answers down to where just this share of them is still right, with and without verification.

    recall: share of landmark queries named rightly. turned_away: share of non-landmarks that get no landmark, None
    without non-landmarks. The figures without verification begin with `plain`. Where no answer is as sure, nothing is
    answered: 0 and 1.
    """

    precision: float
    plain_recall: float
    recall: float
    plain_turned_away: float | None
    turned_away: float | None


@dataclass(frozen=True, slots=True)
class VerifiedChoice:
    """Why the evidence counts as it does.

    tried, tried_evidence: the constants that did best. gain: by how much constants chosen on other folds exceed the GAP
    of the vote without verification with the default weight, gain_error: its standard error; these are kept where the
    gain is not larger. from_plain, from_plain_error: by how much the GAP exceeds that without verification, on the same
    queries. plain_gap, plain_top1: those without.
    """

    tried: VoteRule
    tried_evidence: EvidenceRule
    gain: float
    gain_error: float
    from_plain: float
    from_plain_error: float
    plain_gap: float
    plain_top1: float


@dataclass(frozen=True, slots=True)
class VerifiedBy:
    """How neighbours were verified.

    local: fingerprint of the local features. matcher: what paired them. top: neighbours of each query.
    """

    local: str
    matcher: MatcherName
    top: int


@dataclass(frozen=True, slots=True)
class Verified:
    """The part of a calibration for answers whose best neighbours are verified.

    evidence: what a verified neighbour is worth. n_inliers: from so many on a neighbour is called verified: so sure are
    nearly all such neighbours of held-out queries right. gain: figures with and without. n_unverified: held-out queries
    without local features. The others are as in `Calibration`.
    """

    by: VerifiedBy
    evidence: EvidenceRule
    n_inliers: int
    rule: VoteRule
    confidence: ConfidenceModel
    threshold_gap: Threshold
    threshold_precision: Threshold
    curves: Curves
    reliability: tuple[ReliabilityBin, ...]
    cross_validated: CrossValidated
    warnings: tuple[str, ...]
    trade: tuple[TradeOff, ...]
    choice: VerifiedChoice
    gain: tuple[AtPrecision, ...]
    n_unverified: int


# What an answer with verified neighbours is judged by in place of the plain part of the same name.
_IN_PLACE = (
    *("rule", "confidence", "threshold_gap", "threshold_precision", "curves", "reliability", "cross_validated"),
    *("warnings", "trade"),
)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Everything that turns neighbours into answers with a confidence, and how it was found.

    trade: what each precision costs. choice: why the constants are what they are. query_names, query_sketches: digests
    of the names of the queries (`retrieval.models.seen`) and sketches of their descriptors (`index.copies`), by both of
    which an evaluation on the same ones is told. A calibration from before these were kept has none. verified: the same
    for answers with verified neighbours, None where `lmr calibrate` was not asked for it.
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
    verified: Verified | None = None

    @property
    def plain(self) -> "Calibration":
        """The calibration without its part for verified neighbours."""
        return replace(self, verified=None)

    @property
    def of_verified(self) -> "Calibration":
        """The calibration of answers whose best neighbours are verified, in the place of that of plain ones."""
        if self.verified is None:
            raise ValueError("the calibration has no part for verified neighbours")
        return replace(self, **{name: getattr(self.verified, name) for name in _IN_PLACE})

    @property
    def told(self) -> tuple[str, ...]:
        """Warnings, also those that verified answers alone have, which say so."""
        more = () if self.verified is None else self.verified.warnings
        return (*self.warnings, *(f"of verified answers: {text}" for text in more if text not in self.warnings))

    def to_json(self) -> dict[str, Any]:
        """A document of plain numbers, texts and lists, for `from_json`."""
        content = {"format_version": FORMAT_VERSION, **asdict(self)}
        if self.verified is None:
            del content["verified"]
        return content

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
        try:
            made: Calibration = _read(cls, values, "")
        except ValueError as error:
            raise LmrError(f"{source}: {error}; run lmr calibrate again") from None
        return made


def _read(kind: Any, document: Any, place: str) -> Any:
    """A JSON value as this type: a dataclass, a tuple of one, one or None, or plain values.

    place: where in the document it stands. Raises ValueError that names the place of what does not fit.
    """
    part = next((part for part in get_args(kind) or (kind,) if is_dataclass(part)), None)
    if part is None:
        return _read_plain(kind, document, place)
    if get_origin(kind) is tuple:
        if not isinstance(document, list | tuple):
            raise ValueError(f"{place} is not a list")
        return tuple(_read(part, item, f"{place}[{i}]") for i, item in enumerate(document))
    if isinstance(kind, UnionType) and document is None:
        return None
    return _read_object(part, document, place)


def _read_object(kind: Any, document: Any, place: str) -> Any:
    if not isinstance(document, Mapping):
        raise ValueError(f"{place} is not an object")
    start = f"{place}." if place else ""
    of_name = {field.name: field for field in fields(kind)}
    for name, field in of_name.items():
        if field.default is MISSING and name not in document:
            raise ValueError(f"{start}{name} is missing")
    for name in document:
        if name not in of_name:
            raise ValueError(f"{start}{name} is unknown")
    values = {
        name: _read(field.type, document[name], f"{start}{name}") for name, field in of_name.items() if name in document
    }
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def _read_plain(kind: Any, value: Any, place: str) -> Any:
    numbers = value if isinstance(value, list | tuple) else (value,)
    try:
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            raise ValueError
        return msgspec.convert(value, kind)
    except ValueError:  # msgspec's too
        raise ValueError(f"{place} cannot be {value!r:.40}") from None
