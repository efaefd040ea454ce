"""Bars with their numbers: the votes and the confidence of an answer, as an image."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from PIL import Image, ImageDraw

from cli.report.explanation_words import (
    SHOWN_LANDMARKS,
    TERM_NAMES,
    formula,
    landmark_name,
    named_from,
    nearest,
    neighbour_file,
    neighbour_name,
    number,
    signed,
    threshold_words,
)
from cli.report.lettering import draw_text, elide, text_width
from cli.report.sheet import FAINT, INK, OTHER, PAPER, VOTED, write_line
from index.folder.thumbnails import read_shown
from retrieval.errors import UnreadableError
from retrieval.images.decode import decode
from retrieval.words import counted

if TYPE_CHECKING:
    from index.explain.explanation import Explanation
    from index.explain.votes import Contribution, VoteExplanation

DRAWN_NEIGHBOURS = 10
TAKEN = (213, 94, 0)  # orange: what is taken away
GROUND = (240, 241, 243)
MARGIN_PX, LABEL_PX, NUMBER_PX, BAR_PX, SPACE_PX = 24, 300, 84, 380, 16
THUMB_PX, LINE_PX, HEAD_PX = 40, 22, 42
TITLE_SIZE, HEAD_SIZE, TEXT_SIZE, NOTE_SIZE = 19, 15, 14, 12


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch of an axis. kind: `ours` speaks for the answer, `other` for another one, `minus` is taken away."""

    start: float
    end: float
    kind: Literal["ours", "other", "minus"] = "ours"


@dataclass(frozen=True, slots=True, eq=False)
class BarRow:
    """A line with a bar. number: what is printed beside it. image: a small one before the label."""

    label: str
    note: str
    number: str
    bar: Bar
    image: Image.Image | None = None


@dataclass(frozen=True, slots=True, eq=False)
class BarSection:
    """Lines with one axis. mark: a place on it, with what it says; about: below the lines."""

    heading: str
    rows: Sequence[BarRow]
    mark: float | None = None
    about: str = ""

    @property
    def scale(self) -> tuple[float, float]:
        """The ends of the axis."""
        return scale_of((row.bar for row in self.rows), self.mark)


def scale_of(bars: Iterable[Bar], mark: float | None = None) -> tuple[float, float]:
    """The ends of an axis that holds 0, all bars and a mark."""
    ends = [0.0, *(end for bar in bars for end in (bar.start, bar.end)), *([] if mark is None else [mark])]
    low, high = min(ends), max(ends)
    return (low, high) if high > low else (0.0, 1.0)


def shares_of(bar: Bar, scale: tuple[float, float]) -> tuple[float, float]:
    """Where a bar begins on an axis and how long it is, as shares of it."""
    low, high = scale
    first, last = sorted((bar.start, bar.end))
    return (first - low) / (high - low), (last - first) / (high - low)


def draw_bars(title: str, sections: Sequence[BarSection]) -> Image.Image:
    """The sections below each other, RGB on white."""
    width = 2 * MARGIN_PX + LABEL_PX + NUMBER_PX + BAR_PX + 2 * SPACE_PX
    height = 2 * MARGIN_PX + HEAD_PX + sum(map(_height, sections))
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    write_line(pen, (MARGIN_PX, MARGIN_PX), title, width - 2 * MARGIN_PX, INK, TITLE_SIZE)
    top = MARGIN_PX + HEAD_PX
    for section in sections:
        _draw_section(sheet, pen, section, top)
        top += _height(section)
    return sheet


def _has_images(section: BarSection) -> bool:
    return any(row.image is not None for row in section.rows)


def _row_height(section: BarSection) -> int:
    if _has_images(section):
        return THUMB_PX + 6
    return LINE_PX + (NOTE_SIZE + 6 if any(row.note for row in section.rows) else 6)


def _height(section: BarSection) -> int:
    return HEAD_PX + len(section.rows) * _row_height(section) + (LINE_PX if section.about else 0) + SPACE_PX


def _draw_section(sheet: Image.Image, pen: ImageDraw.ImageDraw, section: BarSection, top: int) -> None:
    width, step = sheet.width - 2 * MARGIN_PX, _row_height(section)
    write_line(pen, (MARGIN_PX, top + 8), section.heading, width, INK, HEAD_SIZE)
    pen.line((MARGIN_PX, top + 32, sheet.width - MARGIN_PX, top + 32), fill=(220, 223, 228))
    left = MARGIN_PX + LABEL_PX + NUMBER_PX + 2 * SPACE_PX
    first = top + HEAD_PX
    for i, row in enumerate(section.rows):
        y = first + i * step
        _draw_words(sheet, pen, row, y, step, THUMB_PX + 10 if _has_images(section) else 0)
        box = (left, y + (step - 20) // 2, left + BAR_PX, y + (step - 20) // 2 + 16)
        pen.rectangle(box, fill=GROUND)
        begin, length = shares_of(row.bar, section.scale)
        x = left + round(begin * BAR_PX)
        colour = {"ours": VOTED, "other": OTHER, "minus": TAKEN}[row.bar.kind]
        pen.rectangle((x, box[1], max(x + 1, x + round(length * BAR_PX)), box[3]), fill=colour)
    last = first + len(section.rows) * step
    if section.mark is not None:
        x = left + round(shares_of(Bar(section.mark, section.mark), section.scale)[0] * BAR_PX)
        pen.line((x, first - 2, x, last - 2), fill=INK, width=2)
    if section.about:
        write_line(pen, (MARGIN_PX, last + 2), section.about, width, FAINT, NOTE_SIZE)


def _draw_words(sheet: Image.Image, pen: ImageDraw.ImageDraw, row: BarRow, y: int, step: int, indent: int) -> None:
    """The small image, label, note and number of a line."""
    left = MARGIN_PX
    if row.image is not None:
        small = row.image.copy()
        small.thumbnail((THUMB_PX, THUMB_PX))
        sheet.paste(small, (left + (THUMB_PX - small.width) // 2, y + (THUMB_PX - small.height) // 2))
    left += indent
    width = MARGIN_PX + LABEL_PX - left
    middle = y + (step - 6) // 2
    write_line(pen, (left, middle - (17 if row.note else 9)), row.label, width, INK, TEXT_SIZE)
    if row.note:
        write_line(pen, (left, middle + 2), row.note, width, FAINT, NOTE_SIZE)
    number = elide(row.number, TEXT_SIZE, NUMBER_PX)
    right = MARGIN_PX + LABEL_PX + SPACE_PX + NUMBER_PX
    draw_text(pen, (round(right - text_width(number, TEXT_SIZE)), middle - 9), number, TEXT_SIZE, INK)


def vote_sections(explained: "Explanation") -> list[BarSection]:
    """The same numbers as an image."""
    votes = explained.votes
    assert votes is not None
    best = votes.best.landmark_id
    near = nearest(votes)[:DRAWN_NEIGHBOURS]
    neighbours = [
        BarRow(
            neighbour_name(one),
            neighbour_file(one),
            number(one.part),
            Bar(0, one.part, "ours" if one.neighbour.landmark_id == best else "other"),
            _small(one),
        )
        for one in near
    ]
    landmarks = [
        BarRow(
            landmark_name(one),
            f"{counted(len(one.contributions), 'neighbour')}, {one.held_back:.4f} held back for "
            f"{counted(one.n_rows, 'picture')}",
            number(one.score),
            Bar(0, one.score, "ours" if one.landmark_id == best else "other"),
        )
        for one in votes.landmarks[:SHOWN_LANDMARKS]
    ]
    mark = named_from(explained)
    *bars, total = term_bars(votes)
    terms = [
        BarRow(TERM_NAMES[term.name], formula(term), signed(term.amount), bar)
        for term, bar in zip(votes.terms, bars, strict=True)
    ]
    sure = f"confidence {explained.answer.confidence:.4f}" if explained.answer.confidence is not None else ""
    terms.append(BarRow("together", sure, signed(votes.logit), total))
    about = "" if mark is None else threshold_words(explained, mark)
    return [
        BarSection("What each neighbour gives to its landmark", neighbours),
        BarSection("The landmarks", landmarks),
        BarSection("What adds up to the confidence" if sure else "What adds up", terms, mark, about),
    ]


def term_bars(votes: "VoteExplanation") -> list[Bar]:
    """A bar for each term, which begins where the one before ended, and the last one for their sum."""
    bars, end = [], 0.0
    for term in votes.terms:
        bars.append(Bar(end, end + term.amount, "minus" if term.amount < 0 else "ours"))
        end += term.amount
    return [*bars, Bar(0, votes.logit, "minus" if votes.logit < 0 else "ours")]


def _small(one: "Contribution") -> Image.Image | None:
    try:
        return decode(read_shown(one.neighbour.path, one.neighbour.kept), THUMB_PX)
    except UnreadableError:
        return None
