"""What there is to browse in an opened index: its landmarks, and what its confidences are worth."""

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from index.asking.answers import name_of
from index.explain.landmark import QUICK, explain_landmark
from index.serving.gallery import code_of, kept_of
from retrieval.errors import LmrError
from retrieval.words import agreeing, counted

if TYPE_CHECKING:
    from index.calibration import Calibration
    from index.explain.job import LandmarkExplained
    from index.landmarks import Landmarks

MOST_LISTED = 1_000  # landmarks of a page
FEWEST_MEASURED = 10  # held-out answers as sure; of fewer it is said that they are few
WEIGHT = 10  # of the confidence, in held-out answers that are as sure
MOST_COMPARED = 100  # images of a landmark, by which the typical one is found


@dataclass(frozen=True, slots=True)
class Listed:
    """A landmark of a list. address: of a page about it, '' = none. image_id: of its most typical image."""

    landmark_id: str
    name: str
    address: str
    n_images: int
    image_id: str

    def to_json(self) -> dict[str, Any]:
        """JSON object of `GET /v1/landmarks`."""
        return {
            "landmark_id": self.landmark_id,
            "name": self.name,
            "address": self.address,
            "n_images": self.n_images,
            "image_id": self.image_id,
        }


@dataclass(frozen=True, slots=True)
class LandmarkList:
    """Some landmarks of those that were found. n_found: all of them."""

    items: tuple[Listed, ...]
    n_found: int


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a confidence is worth. n_of_100: answers as sure that are right.

    low, high: the confidences of held-out answers as sure; n_answers: of those how many there were.
    """

    n_of_100: int
    low: float
    high: float
    n_answers: int

    @property
    def text(self) -> str:
        """A sentence for people."""
        between = f"{self.low:.0%} to {self.high:.0%} sure"
        n = counted(self.n_answers, "held-out answer") if self.n_answers else "no held-out answer"
        few = "only " if 0 < self.n_answers < FEWEST_MEASURED else ""
        held_out = f"{few}{n} {agreeing(self.n_answers or 1, 'was', 'were')} {between}"
        return f"of answers this sure, about {self.n_of_100} of 100 are right ({held_out})"


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What answering from this confidence on comes to.

    precision: share of the answers that are right. recall: share of landmark queries answered rightly.
    false_answer_rate: share of non-landmarks that are answered, None where none were held out.
    """

    confidence: float
    precision: float
    recall: float
    false_answer_rate: float | None


def landmarks_of(landmarks: "Landmarks", search: str = "", *, first: int = 0, n: int = 50) -> LandmarkList:
    """The landmarks whose name or landmark_id has this text in it, whatever the case and the accents, by name.

    Those that begin with it come first. Raises LmrError for a page that cannot be.
    """
    if first < 0 or not 1 <= n <= MOST_LISTED:
        raise LmrError(f"`first` must be at least 0 and `n` lie in [1, {MOST_LISTED:,}], got {first} and {n}")
    spellings: tuple[str, ...] = kept_of(landmarks).spellings.get("", lambda: _spellings(landmarks))
    asked = plain(search)
    found = [code for code, spelling in enumerate(spellings) if asked in spelling]
    found.sort(key=lambda code: (not spellings[code].startswith(asked), spellings[code], code))
    return LandmarkList(tuple(_listed(landmarks, code) for code in found[first : first + n]), len(found))


def landmark(landmarks: "Landmarks", landmark_id: str) -> "LandmarkExplained":
    """The account of a landmark, as `lmr explain` gives it but of fewer images; made once. Raises UnknownError."""
    code_of(landmarks, landmark_id)
    found: LandmarkExplained = kept_of(landmarks).accounts.get(
        landmark_id, lambda: explain_landmark(landmarks.folder, landmark_id, effort=QUICK)
    )
    return found


def plain(text: str) -> str:
    """A text without accents and case, as names are compared."""
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))


def meaning(landmarks: "Landmarks", confidence: float | None, *, verified: bool = False) -> Meaning | None:
    """How many of 100 answers about this sure are right, by the held-out queries; None without a calibration.

    verified: of answers whose neighbours were verified. Held-out answers whose confidence is in the same tenth are
    counted, and as many as WEIGHT more, of which the share is right that the confidence says: where few were measured
    the sentence does not contradict the confidence by chance. That all are right is never said.
    """
    calibration = _calibration(landmarks, verified)
    if calibration is None or confidence is None:
        return None
    bins = calibration.reliability
    own = next((one for one in bins if confidence < one.high), bins[-1])
    n_right = 0.0 if own.share_right is None else own.share_right * own.n_queries
    share = (n_right + WEIGHT * confidence) / (own.n_queries + WEIGHT)
    return Meaning(min(99, round(100 * share)), own.low, own.high, own.n_queries)


def curve(landmarks: "Landmarks", *, verified: bool = False) -> tuple[CurvePoint, ...]:
    """The stored precision curve, from the highest threshold to the lowest; empty without a calibration.

    The threshold from which a landmark is named is a point of it, though it lies between two confidences of queries.
    """
    calibration = _calibration(landmarks, verified)
    if calibration is None:
        return ()
    curves, own = calibration.curves, calibration.threshold_precision
    false = curves.false_answer_rate or [None] * len(curves.confidence)
    points = list(map(CurvePoint, curves.confidence, curves.precision, curves.recall, false))
    if own.precision is not None and own.confidence not in curves.confidence:
        points.append(CurvePoint(own.confidence, own.precision, own.recall, own.false_answer_rate))
    return tuple(sorted(points, key=lambda point: -point.confidence))


def _calibration(landmarks: "Landmarks", verified: bool) -> "Calibration | None":
    calibration = landmarks.folder.calibration
    if calibration is None or not verified:
        return calibration
    return None if calibration.verified is None else calibration.of_verified


def _spellings(landmarks: "Landmarks") -> tuple[str, ...]:
    """Of each landmark the name and the landmark_id as they are compared."""
    names = landmarks.folder.names
    known = landmarks.folder.rows.landmarks
    return tuple(plain(f"{names[label].name}\n{label}" if label in names else label) for label in known)


def _listed(landmarks: "Landmarks", code: int) -> Listed:
    folder = landmarks.folder
    label = folder.rows.landmarks[code]
    image_id: str = kept_of(landmarks).typical.get(code, lambda: _typical(landmarks, code))
    name, address = name_of(folder, label)
    return Listed(label, name, address, int(folder.rows.counts[code]), image_id)


def _typical(landmarks: "Landmarks", code: int) -> str:
    """The image that is most like the others of its landmark, of which a few are compared."""
    folder = landmarks.folder
    own = np.flatnonzero(folder.rows.landmark == code)
    own = own[np.linspace(0, len(own) - 1, min(len(own), MOST_COMPARED)).astype(np.int64)]
    vectors = folder.index.vectors(own)
    return str(folder.rows.image_id[own[int(np.argmax(vectors @ vectors.sum(axis=0)))]])
