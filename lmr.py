"""The Python API: open an index folder, ask it about pictures, describe pictures.

>>> import lmr
>>> landmarks = lmr.open_index("landmarks")           # doctest: +SKIP
>>> landmarks.query(["holiday.jpg"])[0].landmark_id   # doctest: +SKIP
'Hawa_Mahal'
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

    from index.folder import IndexFolder
    from retrieval.arrays import FloatArray
    from retrieval.embedding import Embedder

    Picture = str | Path | bytes | Image

__all__ = ["Answer", "LandmarkScore", "Landmarks", "Neighbour", "open_index"]

N_LANDMARKS = 5  # landmarks listed with an answer


@dataclass(frozen=True, slots=True)
class LandmarkScore:
    """One landmark that got votes. confidence: in [0, 1], None where the index is not calibrated."""

    landmark_id: str
    name: str
    confidence: float | None
    score: float


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A labelled picture that voted. score: cosine in the index's space. path: where it was when it was indexed."""

    image_id: str
    landmark_id: str
    score: float
    path: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the index says of one picture.

    landmark_id: None = no known landmark, or an unreadable picture. confidence: of the best landmark, also where it
    is below the threshold. in_index: the image_id of the index row that is this very picture. unreadable: the reason.
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

    def to_json(self) -> dict[str, Any]:
        """As a JSON object with the keys that `lmr query --json` prints."""
        return {
            "image": self.image,
            "landmark_id": self.landmark_id,
            "name": self.name,
            "address": self.address,
            "confidence": self.confidence,
            "threshold": self.threshold,
            "landmarks": [
                {"landmark_id": s.landmark_id, "name": s.name, "confidence": s.confidence, "score": s.score}
                for s in self.landmarks
            ],
            "neighbours": [
                {"image_id": n.image_id, "landmark_id": n.landmark_id, "score": n.score, "path": n.path}
                for n in self.neighbours
            ],
            "in_index": self.in_index,
            "unreadable": self.unreadable,
        }


class Landmarks:
    """An opened index folder with its network: ask it what pictures show."""

    def __init__(self, folder: "IndexFolder", embedder: "Embedder") -> None:
        self.folder = folder
        self.embedder = embedder

    @property
    def is_calibrated(self) -> bool:
        """Whether answers carry a confidence; `lmr calibrate` makes it so."""
        return self.folder.calibration is not None

    def embed(self, pictures: Sequence["Picture"]) -> "tuple[FloatArray, dict[int, str]]":
        """Unit descriptors (b, d) of the readable pictures in their order, and position -> reason of the others."""
        unreadable: dict[int, str] = {}
        vectors = []
        import numpy as np

        for batch in self.embedder.embed(_Given(pictures), range(len(pictures))):
            vectors.append(batch.vectors)
            unreadable |= batch.unreadable
        return np.concatenate(vectors) if vectors else np.zeros((0, self.embedder.d), np.float32), unreadable

    def query(
        self, pictures: Sequence["Picture"], *, threshold: float | None = None, n_landmarks: int = N_LANDMARKS
    ) -> list[Answer]:
        """One answer for each picture (paths, URLs, encoded bytes or PIL pictures), in their order.

        threshold: confidence below which a picture shows no known landmark; None = the calibrated one for precision.
        Raises LmrError for a threshold on an index that is not calibrated.
        """
        from index.answers import answer

        descriptors, unreadable = self.embed(pictures)
        answers = iter(self._answers(answer(self.folder, descriptors), threshold, n_landmarks))
        names = [_name_of(picture) for picture in pictures]
        return [
            _unreadable(name, unreadable[i]) if i in unreadable else next(answers)(name) for i, name in enumerate(names)
        ]

    def _answers(self, found: Any, threshold: float | None, n_landmarks: int) -> list[Any]:
        import numpy as np

        cut, shown_threshold = self._threshold(threshold)
        starts = np.searchsorted(found.votes.query, np.arange(len(found) + 1))
        return [
            _AnswerOf(self, found, row, slice(starts[row], starts[row + 1]), (cut, shown_threshold, n_landmarks))
            for row in range(len(found))
        ]

    def _threshold(self, asked: float | None) -> tuple[float, float | None]:
        """The ranking key from which on a picture is answered, and the confidence to show for it."""
        from index.confidence import logit_of
        from retrieval.errors import LmrError

        calibration = self.folder.calibration
        if asked is not None:
            if calibration is None:
                raise LmrError(
                    f"{self.folder.path} is not calibrated, so a threshold has no meaning; run lmr calibrate"
                )
            if not 0 <= asked <= 1:
                raise LmrError(f"threshold must lie in [0, 1], got {asked}")
            return logit_of(asked), asked
        if calibration is None:
            return float("-inf"), None
        return calibration.threshold_precision.logit, calibration.threshold_precision.confidence


def open_index(path: str | Path, *, device: str = "auto", threads: int | None = None, workers: int = 2) -> Landmarks:
    """Opens an index folder and its network.

    Raises LmrError when the folder is missing, damaged or of another version, or the device is not there.
    """
    from index.folder import open_folder
    from retrieval.checkpoint import load_model
    from retrieval.device import limit_threads, resolve_device
    from retrieval.embedding import Embedder

    limit_threads(threads)
    where = resolve_device(device)
    folder = open_folder(path, device="cpu" if where.type == "mps" else device, threads=threads)
    model, card = load_model(folder.model_path)
    return Landmarks(folder, Embedder(model, card.image_spec, where, flip=card.flip, n_workers=workers))


@dataclass(frozen=True, slots=True)
class _AnswerOf:
    """One query's part of all answers, made into an Answer once the picture's name is known."""

    owner: Landmarks
    found: Any
    row: int
    votes: slice
    how: tuple[float, float | None, int]

    def __call__(self, image: str) -> Answer:
        cut, threshold, n_landmarks = self.how
        folder, found, row = self.owner.folder, self.found, self.row
        confidence = found.vote_confidence
        codes, scores = found.votes.landmark[self.votes], found.votes.score[self.votes]
        shown = None if confidence is None else confidence[self.votes]
        landmarks = tuple(
            LandmarkScore(
                label := folder.rows.landmarks[codes[i]],
                self._name(label)[0],
                None if shown is None else float(shown[i]),
                float(scores[i]),
            )
            for i in range(min(n_landmarks, len(codes)))
        )
        answered = found.landmark[row] >= 0 and found.logit[row] >= cut
        label = folder.rows.landmarks[found.landmark[row]] if answered else None
        name, address = self._name(label) if label else ("", "")
        same = int(found.same_picture[row])
        best = None if found.confidence is None else float(found.confidence[row])
        in_index = str(folder.rows.image_id[same]) if same >= 0 else None
        return Answer(image, label, name, address, best, threshold, landmarks, self._neighbours(), in_index)

    def _neighbours(self) -> tuple[Neighbour, ...]:
        rows = self.owner.folder.rows
        found = zip(self.found.neighbours.rows[self.row], self.found.neighbours.scores[self.row], strict=True)
        return tuple(
            Neighbour(str(rows.image_id[i]), rows.landmarks[rows.landmark[i]], float(score), str(rows.path[i]))
            for i, score in found
            if i >= 0
        )

    def _name(self, label: str) -> tuple[str, str]:
        known = self.owner.folder.names.get(label)
        return (known.name, known.address) if known else (label, "")


class _Given:
    """The pictures of one question as a source of bytes."""

    def __init__(self, pictures: Sequence["Picture"]) -> None:
        self.pictures = pictures

    def read(self, i: int) -> bytes:
        """Encoded picture i. Raises UnreadableError."""
        from retrieval.pictures import QueryPicture

        picture = self.pictures[i]
        if isinstance(picture, bytes):
            return picture
        if isinstance(picture, str | Path):
            return QueryPicture(str(picture)).read()
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return buffer.getvalue()


def _name_of(picture: "Picture") -> str:
    return str(picture) if isinstance(picture, str | Path) else type(picture).__name__


def _unreadable(image: str, reason: str) -> Answer:
    return Answer(image, None, "", "", None, None, (), (), None, reason)
