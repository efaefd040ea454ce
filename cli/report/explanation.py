"""The explanation of an answer for people: a page, its images, and a JSON file with the numbers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.report.bars import Bar, draw_bars, scale_of, shares_of, term_bars, vote_sections
from cli.report.explanation_words import (
    SHOWN_LANDMARKS,
    TERM_NAMES,
    confidence_words,
    formula,
    formulas,
    landmark_name,
    named_from,
    nearest,
    neighbour_file,
    neighbour_name,
    number,
    signed,
    threshold_words,
    verification_words,
    vote_words,
)
from cli.report.html import ReportImage, file_name, fill_template
from cli.report.pair import MATCH, DrawnImage, drawn_images, png
from index.answer import headline
from retrieval.data.names import shown_name
from retrieval.files.atomic import write_bytes, write_text

if TYPE_CHECKING:
    from index.explain.explanation import Explanation
    from index.explain.votes import Contribution, LandmarkVotes, VoteExplanation

TEMPLATE = "explanation.html"
PAGE, NUMBERS, VOTES = "explanation.html", "explanation.json", "votes.png"
SHOWN_NEIGHBOURS = 20


@dataclass(frozen=True, slots=True)
class LandmarkLine:
    """A line of the table of landmarks. bar: its begin and length in per cent."""

    name: str
    votes: "LandmarkVotes"
    is_best: bool
    is_named: bool
    bar: tuple[float, float]


@dataclass(frozen=True, slots=True)
class NeighbourLine:
    """A line of the table of neighbours."""

    name: str
    file: str
    image: ReportImage
    contribution: "Contribution"
    is_best: bool
    is_named: bool
    is_decisive: bool
    bar: tuple[float, float]


@dataclass(frozen=True, slots=True)
class TermLine:
    """A line of the table of terms."""

    name: str
    formula: str
    amount: float
    bar: tuple[float, float]


def write_explanation(folder: Path, explained: "Explanation", index: Path, home: Path) -> None:
    """Writes the page, the images and the numbers into a folder. home: where the folder will be, for links.

    Raises LmrError as `write_text`, and without jinja2.
    """
    text = json.dumps(explained.to_json(), indent=1, allow_nan=False)
    write_text(folder / NUMBERS, [text, "\n"])
    if explained.votes is not None:
        write_bytes(folder / VOTES, png(draw_bars(headline(explained.answer), vote_sections(explained))))
    drawn = [*drawn_images(explained)]
    for one in drawn:
        write_bytes(folder / f"{one.name}.png", one.png)
    write_text(folder / PAGE, [render_explanation(explained, drawn, index, home)])


def render_explanation(explained: "Explanation", drawn: Sequence[DrawnImage], index: Path, home: Path | None) -> str:
    """The page as HTML text; everything that is data is escaped.

    home: folder that it will be in, for links; None = a page that is sent, and tells no place on disk.
    """
    answer, votes, of_class = explained.answer, explained.votes, explained.of_class
    return fill_template(
        TEMPLATE,
        {"signed": signed, "number": number},
        folder=home,
        answer=answer,
        asked=file_name(answer.image),
        headline=headline(answer),
        verification=verification_words(answer),
        index=str(index),
        notes=explained.notes,
        figures=_figures(explained),
        **({} if votes is None else _about_votes(explained, votes) | _about_confidence(explained, votes)),
        has_votes=votes is not None,
        pair=next((one for one in drawn if one.name == MATCH), None),
        about_pair=_pair_words(explained),
        maps=[one for one in drawn if one.name != MATCH and not one.is_of_class],
        class_maps=[one for one in drawn if one.is_of_class],
        class_name="" if of_class is None else shown_name(of_class.label, explained.class_name),
        probability=None if of_class is None else of_class.probability,
    )


def _pair_words(explained: "Explanation") -> str:
    """A sentence on the image that decided."""
    if explained.votes is None:
        return ""
    decisive = explained.votes.decisive
    words = (
        f"{neighbour_file(decisive)} of {neighbour_name(decisive)} gave most to the votes, at a cosine of "
        f"{decisive.neighbour.score:.3f}."
    )
    return words if explained.match is None else f"{words} Lines join what local features find in both."


def _about_votes(explained: "Explanation", votes: "VoteExplanation") -> dict[str, Any]:
    """What the part on the votes shows."""
    near = nearest(votes)
    landmarks = [votes.best, *votes.landmarks[1:SHOWN_LANDMARKS]]
    return {
        "about_votes": vote_words(votes),
        "landmarks": _landmark_lines(explained, landmarks),
        "n_landmarks": len(votes.landmarks),
        "neighbours": _neighbour_lines(explained, near[:SHOWN_NEIGHBOURS]),
        "n_neighbours": len(near),
        "has_background": any(one.background for one in near),
        "has_evidence": any(one.evidence for one in near),
        "is_verified": any(one.neighbour.inliers is not None for one in near),
    }


def _about_confidence(explained: "Explanation", votes: "VoteExplanation") -> dict[str, Any]:
    """What the part on the confidence shows."""
    mark = named_from(explained)
    bars = term_bars(votes)
    scale = scale_of(bars, mark)
    lines = [
        TermLine(TERM_NAMES[term.name], formula(term), term.amount, _per_cent(bar, scale))
        for term, bar in zip(votes.terms, bars, strict=False)
    ]
    name = "logit of the confidence" if votes.is_calibrated else "what answers are ranked by"
    sure = f"confidence {explained.answer.confidence:.4f}" if explained.answer.confidence is not None else ""
    threshold = None
    if mark is not None:
        place = _per_cent(Bar(mark, mark), scale)[0]
        threshold = {"place": place, "about": threshold_words(explained, mark)}
    return {
        "about_confidence": confidence_words(votes),
        "is_calibrated": votes.is_calibrated,
        "terms": lines,
        "total": TermLine(name, sure, votes.logit, _per_cent(bars[-1], scale)),
        "threshold": threshold,
        "formulas": formulas(votes),
    }


def _figures(explained: "Explanation") -> list[tuple[str, str]]:
    """The numbers at the head of the page, each with what it is."""
    answer, votes = explained.answer, explained.votes
    if votes is None:
        return []
    best, figures = votes.best, []
    if answer.confidence is not None:
        figures += [(f"{answer.confidence:.3f}", "confidence"), (f"{answer.threshold or 0:.3f}", "named from there on")]
    figures.append((f"{best.score:.3f}", "score S of the votes"))
    n_near = sum(len(one.contributions) for one in votes.landmarks)
    figures.append((f"{len(best.contributions)} of {n_near}", f"neighbours show {landmark_name(best)}"))
    return figures


def _landmark_lines(explained: "Explanation", landmarks: "Sequence[LandmarkVotes]") -> list[LandmarkLine]:
    bars = [Bar(0, one.score) for one in landmarks]
    scale = scale_of(bars)
    return [
        LandmarkLine(
            landmark_name(one), one, i == 0, one.landmark_id == explained.answer.landmark_id, _per_cent(bars[i], scale)
        )
        for i, one in enumerate(landmarks)
    ]


def _neighbour_lines(explained: "Explanation", near: "Sequence[Contribution]") -> list[NeighbourLine]:
    votes = explained.votes
    assert votes is not None
    bars = [Bar(0, one.part) for one in near]
    scale = scale_of(bars)
    return [
        NeighbourLine(
            name=neighbour_name(one),
            file=neighbour_file(one),
            image=ReportImage(one.neighbour.path, neighbour_name(one), kept=one.neighbour.kept),
            contribution=one,
            is_best=one.neighbour.landmark_id == votes.best.landmark_id,
            is_named=one.neighbour.landmark_id == explained.answer.landmark_id,
            is_decisive=one is votes.decisive,
            bar=_per_cent(bar, scale),
        )
        for one, bar in zip(near, bars, strict=True)
    ]


def _per_cent(bar: Bar, scale: tuple[float, float]) -> tuple[float, float]:
    begin, length = shares_of(bar, scale)
    return round(100 * begin, 3), round(100 * length, 3)
