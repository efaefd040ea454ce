"""Kaggle files: submissions (recognition and retrieval) written and read, and solutions read.

A score in a submission is the confidence, moved by as few units in the last place as keep it strictly
increasing with the logit: the sigmoids of 40 and of 50 are both 1.0 in float64, and Kaggle ranks by what it
reads.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retrieval.arrays import BoolArray, FloatArray, LongArray, ObjArray, object_array, read_only
from retrieval.data.columns import IdTable
from retrieval.data.labels import BLANK_WORDS, spelling_of
from retrieval.errors import LmrError
from retrieval.progress import SILENT, Progress
from retrieval.texts import BLOCK, repeated

if TYPE_CHECKING:
    from index.recognition import Predictions

SHARE_HEAD = b'{"format_version": 1, "shard": '  # first bytes of the answers of a share
USAGES = ("Public", "Private", "Ignored")


@dataclass(frozen=True, slots=True)
class RecognitionSubmission:
    """One answer per image: image_id, landmark ('' = none), score (-inf where none), line in the file."""

    source: str
    image_id: ObjArray
    landmark: ObjArray
    score: FloatArray
    line: LongArray

    def __post_init__(self) -> None:
        _freeze(self, "image_id", "landmark", "score", "line")

    def select(self, rows: BoolArray) -> "RecognitionSubmission":
        """The given rows."""
        return RecognitionSubmission(
            self.source, self.image_id[rows], self.landmark[rows], self.score[rows], self.line[rows]
        )


@dataclass(frozen=True, slots=True)
class RetrievalSubmission:
    """A list of images per query, best first: image_id (n,), images (n,) of tuples; line in the file."""

    source: str
    image_id: ObjArray
    images: ObjArray
    line: LongArray

    def __post_init__(self) -> None:
        _freeze(self, "image_id", "images", "line")

    def select(self, rows: BoolArray) -> "RetrievalSubmission":
        """The given rows."""
        return RetrievalSubmission(self.source, self.image_id[rows], self.images[rows], self.line[rows])


@dataclass(frozen=True, slots=True)
class RecognitionSolution:
    """The true landmarks of each image: image_id (n,), landmarks (n,) of tuples, usage (n,)."""

    source: str
    image_id: ObjArray
    landmarks: ObjArray
    usage: ObjArray

    def __post_init__(self) -> None:
        _freeze(self, "image_id", "landmarks", "usage")


@dataclass(frozen=True, slots=True)
class RetrievalSolution:
    """The true images of each query: image_id (n,), images (n,) of tuples, usage (n,)."""

    source: str
    image_id: ObjArray
    images: ObjArray
    usage: ObjArray

    def __post_init__(self) -> None:
        _freeze(self, "image_id", "images", "usage")


Submission = RecognitionSubmission | RetrievalSubmission
Solution = RecognitionSolution | RetrievalSolution


def submission_lines(predictions: "Predictions") -> Iterator[str]:
    """`id,landmarks` and a line for each prediction in their order, blank where there is no answer; many at a time.

    An index without calibration has no confidence; the score is then what its answers are ranked by.
    """
    for label in predictions.landmark:
        if label and label.split() != [label]:
            raise ValueError(f"a landmark_id holds no white space: {label!r}")
    if twice := repeated(predictions.image_id):
        raise ValueError(f"an image_id has two predictions: {twice[0]!r}")
    return _csv_lines(predictions, _scores(predictions))


def distinct_scores(logit: FloatArray, confidence: FloatArray) -> FloatArray:
    """The confidences, moved down by units in the last place until different logits have different ones.

    logit, confidence: (n,), finite, confidence growing with logit. Equal logits keep equal scores, so that
    the order of the scores is exactly that of the logits.
    """
    if not (np.isfinite(logit).all() and np.isfinite(confidence).all()):
        raise ValueError("logit and confidence must be finite")
    _, first, group = np.unique(-np.asarray(logit, np.float64), return_index=True, return_inverse=True)
    # In these integers a step of one is a step to the next float64, so the bound by the score before is
    # a running minimum once each integer is raised by its rank.
    ordered = _ordered_integers(np.asarray(confidence, dtype=np.float64)[first])
    rank = np.arange(len(ordered), dtype=np.int64)
    return _from_ordered_integers(np.minimum.accumulate(ordered + rank) - rank)[group]


def read_submission(path: str | Path, progress: Progress = SILENT) -> Submission:
    """Reads a submission; the header tells whether it is one for recognition or for retrieval.

    Raises LmrError with line numbers: an id twice, a cell that is not `label score`, a score that is NaN or
    infinite, a line with missing or surplus cells; and for a missing file, one without rows or of another header.
    progress: is warned of each spelling of labels that is read as another.
    """
    _refuse_share(Path(path))
    table = IdTable(path)
    _tell(table.notes, progress)
    if table.columns == {"id", "landmarks"}:
        ids, answers, lines = table.read(["landmarks"], _parse_answer)
        spelling = spelling_of(label for label, _ in answers)
        _tell(spelling.notes(str(path)), progress)
        landmark = object_array([spelling.of(label) for label, _ in answers])
        score = np.array([score if label else -math.inf for label, (_, score) in zip(landmark, answers, strict=True)])
        return RecognitionSubmission(str(path), ids, landmark, score, lines)
    if table.columns == {"id", "images"}:
        ids, images, lines = table.read(["images"], lambda cells: tuple(cells[0].split()))
        return RetrievalSubmission(str(path), ids, object_array(images), lines)
    raise LmrError(
        f"{path}:1: header is {table.header}; a submission has id,landmarks (recognition) or id,images (retrieval)"
    )


def read_solution(path: str | Path, progress: Progress = SILENT) -> Solution:
    """Reads a solution file (id, landmarks or images, Usage; further columns such as kind are left alone).

    Raises LmrError with line numbers: an id twice, a Usage that is not Public, Private or Ignored, a line
    with missing or surplus cells; and for a missing file, one without rows or of another header. progress: as of
    `read_submission`.
    """
    table = IdTable(path)
    _tell(table.notes, progress)
    for column, make in (("landmarks", RecognitionSolution), ("images", RetrievalSolution)):
        if {"id", column, "usage"} <= table.columns:
            ids, rows, _ = table.read([column, "Usage"], _parse_truth)
            truths, usage = [truth for truth, _ in rows], [usage for _, usage in rows]
            if make is RecognitionSolution:
                truths = _plain_truths(truths, str(path), progress)
            return make(str(path), ids, object_array(truths), object_array(usage))
    raise LmrError(
        f"{path}:1: header is {table.header}; "
        "a solution has id,landmarks,Usage (recognition) or id,images,Usage (retrieval)"
    )


def _scores(predictions: "Predictions") -> FloatArray:
    """(n,) float64, of those that name a landmark."""
    answered, score = predictions.answered, predictions.logit.copy()
    if not np.isnan(predictions.confidence[answered]).all():
        score[answered] = distinct_scores(score[answered], predictions.confidence[answered])
    return score


def _csv_lines(predictions: "Predictions", score: FloatArray) -> Iterator[str]:
    yield "id,landmarks\n"
    for start in range(0, len(predictions), BLOCK):
        part = slice(start, start + BLOCK)
        ids, labels = predictions.image_id.select(part), predictions.landmark.select(part)
        # repr of a float64 is the shortest text that reads back as the same number.
        cells = zip(ids, labels, score[part].tolist(), strict=True)
        yield "".join(f"{_quoted(i)},{_quoted(f'{label} {value!r}' if label else '')}\n" for i, label, value in cells)


def _quoted(cell: str) -> str:
    """The cell as CSV wants it (RFC 4180): in quotes where it holds a comma, a quote or a line end."""
    return '"' + cell.replace('"', '""') + '"' if set(cell) & set(',"\r\n') else cell


def _ordered_integers(values: FloatArray) -> LongArray:
    """int64 that are ordered as these float64 are, neighbours next to each other; both zeros become 0."""
    bits = np.asarray(values + 0.0).view(np.int64)
    return np.where(bits >= 0, bits, np.iinfo(np.int64).min - bits)


def _from_ordered_integers(ordered: LongArray) -> FloatArray:
    bits = np.where(ordered >= 0, ordered, np.iinfo(np.int64).min - ordered)
    return bits.view(np.float64)


def _plain_truths(truths: list[tuple[str, ...]], source: str, progress: Progress) -> list[tuple[str, ...]]:
    """The labels as they are meant, without words for a blank cell."""
    spelling = spelling_of(label for truth in truths for label in truth)
    _tell(spelling.notes(source), progress)
    if not spelling.read_as:
        return truths
    return [tuple(meant for label in truth if (meant := spelling.of(label))) for truth in truths]


def _refuse_share(path: Path) -> None:
    """Raises LmrError for the answers of a share, which are no submission yet."""
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(SHARE_HEAD)) == SHARE_HEAD:
                raise LmrError(f"{path} holds a share of a submission; join all shares with lmr join, and give that")


def _tell(lines: list[str], progress: Progress) -> None:
    for line in lines:
        progress.warn(line)


def _parse_answer(cells: Sequence[str]) -> tuple[str, float]:
    """(label, score) of a cell; ('', -inf) for a blank one. Raises ValueError with the problem."""
    (cell,) = cells
    tokens = cell.split()
    if not tokens or (len(tokens) == 1 and tokens[0] in BLANK_WORDS):
        return "", -math.inf
    score = _number(tokens[-1])
    # `a 0.9 b 0.8` would read as one long label that is never right.
    if len(tokens) < 2 or score is None or (len(tokens) > 2 and _number(tokens[1]) is not None):
        raise ValueError(f"`{cell}` is not `label score`")
    if not math.isfinite(score):
        raise ValueError(f"the score of `{cell}` is not a finite number")
    return "_".join(tokens[:-1]), score


def _number(token: str) -> float | None:
    try:
        return float(token)
    except ValueError:
        return None


def _parse_truth(cells: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """(landmarks or images, Usage) of a row of a solution. Raises ValueError with the problem."""
    named, usage = cells[0], cells[1].strip()
    if usage not in USAGES:
        raise ValueError(f"Usage is `{usage}`; it must be Public, Private or Ignored")
    return tuple(named.split()), usage


def _freeze(owner: object, *names: str) -> None:
    """Makes the arrays of a new dataclass read-only, after checking that they have one length."""
    arrays = [getattr(owner, name) for name in names]
    if len({len(array) for array in arrays}) > 1:
        raise ValueError(f"{', '.join(names)} must have one length, got {[len(array) for array in arrays]}")
    for name, array in zip(names, arrays, strict=True):
        object.__setattr__(owner, name, read_only(array))
