"""What an index finds for descriptors as answers: landmarks and neighbours with their names, and none below a cut."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from index.answer import Answer, LandmarkScore, Neighbour
from index.asking.job import N_LANDMARKS
from index.confidence import logit_of, sigmoid
from index.folder.folder import IndexFolder
from index.recognition import Answers
from index.rerank.evidence import UNVERIFIED
from retrieval.errors import LmrError
from retrieval.own_columns import row_columns


@dataclass(frozen=True, slots=True)
class Threshold:
    """From where on an image is answered.

    logit: of the ranking key, -inf where everything is. confidence: the same for people, None where there is none.
    """

    logit: float
    confidence: float | None


def threshold_of(folder: IndexFolder, asked: float | None) -> Threshold:
    """The threshold of an index. asked: a confidence, None = the calibrated one for precision.

    Raises LmrError for one that an index without a calibration is asked for, and outside [0, 1].
    """
    calibration = folder.calibration
    if asked is not None:
        if calibration is None:
            raise LmrError(f"{folder} is not calibrated, so a threshold has no meaning; run lmr calibrate")
        if not 0 <= asked <= 1:
            raise LmrError(f"threshold must lie in [0, 1], got {asked}")
        return Threshold(logit_of(asked), asked)
    if calibration is None:
        return Threshold(float("-inf"), None)
    return Threshold(calibration.threshold_precision.logit, calibration.threshold_precision.confidence)


def answers_of(
    folder: IndexFolder,
    found: Answers,
    names: Sequence[str],
    threshold: Threshold,
    *,
    n_landmarks: int = N_LANDMARKS,
    n_enough: int | None = None,
) -> list[Answer]:
    """The answers to all queries. names: of their images. n_enough: as of Answer."""
    return [_answer(folder, found, row, name, threshold, n_landmarks, n_enough) for row, name in enumerate(names)]


def unreadable_answer(image: str, reason: str) -> Answer:
    """The answer to an image that cannot be read."""
    return Answer(image, None, "", "", None, None, (), (), None, reason)


def neighbour_of(folder: IndexFolder, row: int, score: float, inliers: int | None = None) -> Neighbour:
    """A row of the index as a neighbour. score, inliers: as of Neighbour."""
    rows = folder.rows
    label = rows.landmarks[rows.landmark[row]]
    name, _ = name_of(folder, label)
    own = row_columns(rows.columns, int(row))
    return Neighbour(
        str(rows.image_id[row]), label, float(score), str(rows.path[row]), name, folder.kept(int(row)), inliers, own
    )


def name_of(folder: IndexFolder, label: str) -> tuple[str, str]:
    """The name and the address of a landmark_id for people; itself and '' where the index has none."""
    known = folder.names.get(label)
    return (known.name, known.address) if known else (label, "")


def _answer(
    folder: IndexFolder,
    found: Answers,
    row: int,
    image: str,
    threshold: Threshold,
    n_landmarks: int,
    n_enough: int | None,
) -> Answer:
    is_answered = found.landmark[row] >= 0 and found.logit[row] >= threshold.logit
    label = found.landmarks[found.landmark[row]] if is_answered else None
    name, address = name_of(folder, label) if label else ("", "")
    same = int(found.same_picture[row])
    return Answer(
        image=image,
        landmark_id=label,
        name=name,
        address=address,
        confidence=_confidence(folder, found.logit[row]),
        threshold=threshold.confidence,
        landmarks=_landmarks(folder, found, row)[:n_landmarks],
        neighbours=_neighbours(folder, found, row),
        in_index=str(folder.rows.image_id[same]) if same >= 0 else None,
        n_enough=n_enough,
    )


def _landmarks(folder: IndexFolder, found: Answers, row: int) -> tuple[LandmarkScore, ...]:
    votes = found.votes
    return tuple(
        LandmarkScore(
            label := found.landmarks[votes.landmark[i]],
            name_of(folder, label)[0],
            _confidence(folder, found.vote_logit[i]),
            float(votes.score[i]),
        )
        for i in range(*votes.query.searchsorted([row, row + 1]))
    )


def _neighbours(folder: IndexFolder, found: Answers, row: int) -> tuple[Neighbour, ...]:
    near = found.neighbours
    inliers = np.full(near.k, UNVERIFIED) if found.evidence is None else found.evidence.inliers[row]
    return tuple(
        neighbour_of(folder, i, score, None if n == UNVERIFIED else n)
        for i, score, n in zip(near.rows[row], near.scores[row], inliers.tolist(), strict=True)
        if i >= 0
    )


def _confidence(folder: IndexFolder, logit: float) -> float | None:
    return None if folder.calibration is None else float(sigmoid(np.asarray(logit)))
