"""The answer to one image: what it says, in JSON, in a line of text, and as a small page for notebooks."""

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any

from retrieval.data.names import shown_name
from retrieval.errors import UnreadableError
from retrieval.words import counted, visible

if TYPE_CHECKING:
    from index.folder.thumbnails import Kept

NO_LANDMARK = "no known landmark"
N_NEIGHBOURS = 5  # shown in a notebook
THUMBNAIL_PX, THUMBNAIL_QUALITY = 140, 75

_PLAIN = ("image", "landmark_id", "name", "address", "confidence", "threshold", "in_index", "unreadable")
_OF_LANDMARK = ("landmark_id", "name", "confidence", "score")
_OF_NEIGHBOUR = ("image_id", "landmark_id", "score", "path", "name", "inliers")
_CELL = '<td style="text-align:left;vertical-align:top;padding:4px 8px">{}<br><small>{}</small></td>'


@dataclass(frozen=True, slots=True)
class LandmarkScore:
    """One landmark that got votes. confidence: in [0, 1], None where the index is not calibrated."""

    landmark_id: str
    name: str
    confidence: float | None
    score: float


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A labelled image that voted. score: cosine in the index's space. path: where it was when it was indexed.

    kept: reads its thumbnail in the index folder. inliers: local features that agree on one geometry with the image's,
    None where it was not compared. columns: what the user's own columns say of it, '' = blank.
    """

    image_id: str
    landmark_id: str
    score: float
    path: str
    name: str = ""
    kept: "Kept | None" = field(default=None, repr=False, compare=False)
    inliers: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def thumbnail(self) -> bytes | None:
        """The thumbnail that the index folder keeps (a JPEG); None where it keeps none."""
        return None if self.kept is None else self.kept()


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """The index's answer to one image. A notebook shows it as a small page.

    landmark_id: None = no known landmark, or an unreadable image. confidence: of the best landmark, also where it
    is below the threshold. in_index: the image_id of the index row that is this very image. unreadable: the reason.
    n_enough: inliers from which on a neighbour is verified, None where none were to be.
    """

    image: str
    landmark_id: str | None
    name: str
    address: str
    confidence: float | None
    threshold: float | None
    landmarks: tuple[LandmarkScore, ...]
    neighbours: tuple[Neighbour, ...]
    in_index: str | None = None
    unreadable: str | None = None
    n_enough: int | None = None

    def __repr__(self) -> str:
        return f"<Answer '{visible(self.image)}': {visible(headline(self))}>"

    def _repr_html_(self) -> str:
        return to_html(self)

    @property
    def best(self) -> LandmarkScore | None:
        """The landmark with the best vote, also where it is below the threshold; None without neighbours."""
        return self.landmarks[0] if self.landmarks else None

    @property
    def nearest(self) -> Neighbour | None:
        """The nearest image of the best landmark; None without neighbours."""
        best = self.best
        return next((n for n in self.neighbours if best is not None and n.landmark_id == best.landmark_id), None)

    @property
    def inliers(self) -> int | None:
        """The most inliers of a neighbour of the best landmark; None where none was compared."""
        best = self.best
        found = [
            n.inliers for n in self.neighbours if n.inliers is not None and best and n.landmark_id == best.landmark_id
        ]
        return max(found, default=None)

    @property
    def verified(self) -> bool | None:
        """True where a neighbour of the best landmark is verified; None where none was to be, or none was compared."""
        if self.n_enough is None or all(n.inliers is None for n in self.neighbours):
            return None
        return (self.inliers or 0) >= self.n_enough

    @property
    def reason(self) -> str:
        """Why no landmark is named, or how far the one that is may be trusted; '' for a calibrated answer."""
        if self.unreadable is not None:
            return f"unreadable: {self.unreadable}"
        if self.best is None:
            return "nothing to compare with"
        if self.confidence is None:
            return "not calibrated"
        return "" if self.landmark_id is not None else f"below the threshold {self.threshold:.3f}"

    def to_json(self) -> dict[str, Any]:
        """JSON object with the keys that `lmr query` prints."""
        return {
            "image": self.image,
            "landmark_id": self.landmark_id,
            "name": self.name,
            "address": self.address,
            "confidence": self.confidence,
            "threshold": self.threshold,
            "landmarks": [{key: getattr(s, key) for key in _OF_LANDMARK} for s in self.landmarks],
            "neighbours": [
                {**{key: getattr(n, key) for key in _OF_NEIGHBOUR}, "columns": dict(n.columns)} for n in self.neighbours
            ],
            "verified": self.verified,
            "in_index": self.in_index,
            "unreadable": self.unreadable,
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any], kept: "Callable[[str], Kept | None]" = lambda _: None) -> "Answer":
        """The answer that `to_json` told. kept: reads the thumbnail of an image_id.

        Raises KeyError, TypeError or ValueError for what is none.
        """
        landmarks = (LandmarkScore(**{key: one[key] for key in _OF_LANDMARK}) for one in told["landmarks"])
        neighbours = (
            Neighbour(
                **{key: one[key] for key in _OF_NEIGHBOUR},
                kept=kept(one["image_id"]),
                columns=one.get("columns", {}),
            )
            for one in told["neighbours"]
        )
        plain = {key: told[key] for key in _PLAIN}
        answer = cls(**plain, landmarks=tuple(landmarks), neighbours=tuple(neighbours))
        if told["verified"] is None:
            return answer
        n = answer.inliers or 0
        return replace(answer, n_enough=n if told["verified"] else n + 1)  # which says the same of each neighbour told


def headline(answer: Answer) -> str:
    """The answer in a line: the landmark and how sure it is, or what was nearest and how far it was from enough."""
    best = answer.best
    if answer.unreadable is not None or best is None:
        return answer.reason if answer.unreadable is not None else f"{NO_LANDMARK} ({answer.reason})"
    name = shown_name(best.landmark_id, best.name)
    sure = certainty(best.confidence, best.score)
    if answer.landmark_id is not None:
        return f"{name}, {sure}"
    return f"{NO_LANDMARK}; nearest was {name}, {sure}, below {answer.threshold:.3f}"


def likeness(near: Neighbour) -> str:
    """How alike a neighbour is: its score, and its inliers where it was compared."""
    inliers = "" if near.inliers is None else f", {counted(near.inliers, 'inlier')}"
    return f"{near.score:.3f}{inliers}"


def certainty(confidence: float | None, score: float) -> str:
    """A confidence, or the score where the index is not calibrated."""
    return f"score {score:.3f}" if confidence is None else f"confidence {confidence:.3f}"


def verification(answer: Answer) -> str:
    """The verification of the best landmark in words; '' where nothing was to be verified, or there is none."""
    if answer.n_enough is None or answer.best is None:
        return ""
    if answer.verified is None:
        return "not verified: no local features to compare"
    if answer.inliers is None:
        return "not verified: not compared"
    return f"{'verified' if answer.verified else 'not verified'}: {counted(answer.inliers, 'inlier')}"


def to_html(answer: Answer) -> str:
    """The image, the answer and the neighbours that voted, everything escaped, images inside."""
    cells = [_CELL.format(_image(answer.image), f"<b>{_shown(headline(answer))}</b><br>{_shown(answer.image)}")]
    for near in answer.neighbours[:N_NEIGHBOURS]:
        name = shown_name(near.landmark_id, near.name)
        told = f"{_shown(name)} {_shown(likeness(near))}<br>{_shown(near.image_id)}"
        cells.append(_CELL.format(_image(near.path, near.kept), told))
    return f"<table><tr>{''.join(cells)}</tr></table>"


def _shown(text: str) -> str:
    """A text from data within HTML."""
    return escape(visible(text))


def _image(path: str, kept: "Kept | None" = None) -> str:
    """An <img> of the image at a path, or of what the index keeps of it; '' where there is neither."""
    from index.folder.thumbnails import read_shown
    from retrieval.images.decode import decode
    from retrieval.images.limits import contain

    buffer = io.BytesIO()
    try:
        contain(decode(read_shown(path, kept), THUMBNAIL_PX), THUMBNAIL_PX).save(
            buffer, "JPEG", quality=THUMBNAIL_QUALITY
        )
    except UnreadableError:
        return ""
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode("ascii")}">'
