"""Answers as text: lines for people, CSV for programs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli.terminal import shown
from index.answer import certainty, headline
from retrieval.data.csv_cells import csv_line
from retrieval.data.names import shown_name

if TYPE_CHECKING:
    from index.answer import Answer, LandmarkScore, Neighbour

SHOWN_NEIGHBOURS = 5  # in the text for people; --json lists all that voted
CSV_COLUMNS = (
    *("image", "landmark_id", "name", "confidence"),
    *("best_landmark_id", "best_name", "best_confidence", "best_score", "reason"),
)


def to_text(answer: "Answer") -> str:
    """An answer for people."""
    if answer.unreadable is not None:
        return f"{shown(answer.image)}\n  unreadable: {shown(answer.unreadable)}"
    address = f"  {shown(answer.address)}" if answer.address else ""
    lines = [shown(answer.image), f"  {shown(headline(answer))}{address}"]
    if answer.in_index is not None:
        lines.append(f"  this very picture is in the index: {shown(answer.in_index)}")
    if others := answer.landmarks[1:]:
        said = ", ".join(f"{_label(other)} {certainty(other.confidence, other.score)}" for other in others)
        lines.append(f"  other landmarks: {said}")
    for n in answer.neighbours[:SHOWN_NEIGHBOURS]:
        lines.append(f"  {n.score:6.3f}  {_label(n)}  {shown(n.path or n.image_id)}")
    return "\n".join(lines)


def to_csv(answers: "Sequence[Answer]") -> str:
    """A line for each image under CSV_COLUMNS: landmark_id and name blank where no landmark is named, the best guess
    and why it was not enough beside them.
    """
    lines = [csv_line(CSV_COLUMNS)]
    for answer in answers:
        best = answer.best
        guess = ["", "", "", ""]
        if best is not None:
            guess = [best.landmark_id, best.name, _exact(best.confidence), _exact(best.score)]
        named = [answer.image, answer.landmark_id or "", answer.name, _exact(answer.confidence)]
        lines.append(csv_line([*named, *guess, answer.reason]))
    return "".join(lines)


def _label(named: "LandmarkScore | Neighbour") -> str:
    return shown(shown_name(named.landmark_id, named.name))


def _exact(value: float | None) -> str:
    return "" if value is None else repr(value)
