"""lmr query: names the landmark in pictures."""

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import (
    PATH,
    Share,
    config_option,
    device_option,
    index_option,
    json_option,
    overwrite_option,
    warn,
    workers_option,
    writes,
)
from cli.tars import index_tars
from cli.terminal import say, say_csv, say_json, shown
from retrieval.errors import LmrError

if TYPE_CHECKING:
    from lmr import Answer

SHOWN_NEIGHBOURS = 5  # in the text for people; --json lists all that voted
NO_LANDMARK = "no known landmark"


@click.command(name="query")
@click.argument("pictures", nargs=-1, required=True)
@index_option
@click.option(
    "--threshold",
    type=Share(0, 1),
    default=None,
    help="Confidence below which there is no known landmark. [default: the calibrated one]",
)
@click.option(
    "--top", "n_landmarks", type=click.IntRange(1), default=5, show_default=True, help="Landmarks listed for a picture."
)
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print image,landmark_id,name,confidence lines.")
@click.option("--save", type=PATH, default=None, help="Write a sheet: each picture beside the neighbours that voted.")
@click.option(
    "--sort-into",
    type=PATH,
    default=None,
    help="Make a folder of links to the pictures, by landmark; of pictures in tars copies.",
)
@click.option("--allow-private", is_flag=True, help="Also fetch URLs from loopback, private and link-local addresses.")
@workers_option
@device_option
@config_option
@overwrite_option
@writes(lambda given: [given["save"], given["sort_into"]])
def command(pictures: tuple[str, ...], index_path: Path, as_json: bool, as_csv: bool, **values: Any) -> None:
    """Name the landmark in PICTURES: files, folders, tars and URLs.

    Prints the landmark, the confidence and the labelled pictures that say so; below the threshold,
    "no known landmark".

    \b
    Example:
      lmr query holiday.jpg --save sheet.jpg
      lmr query photos/ --csv
    """
    import lmr
    from cli.report.sheet import sheet_format
    from cli.workers import default_workers

    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    save: Path | None = values["save"]
    if save is not None and save.exists() and not values["overwrite"]:
        raise LmrError(f"--save {save}: exists; give --overwrite or another name")
    if save is not None:
        sheet_format(save)
    names = _names_of(pictures)
    workers = max(1, default_workers(values["workers"]))
    landmarks = lmr.open_index(index_path, device=values["device"], threads=values["threads"], workers=workers)
    answers = landmarks.query(
        names,
        threshold=values["threshold"],
        n_landmarks=values["n_landmarks"],
        allow_private=values["allow_private"],
    )
    if as_json:
        say_json([answer.to_json() for answer in answers])
    elif as_csv:
        say_csv(to_csv(answers))
    else:
        say("\n\n".join(to_text(answer) for answer in answers))
    if not landmarks.is_calibrated:
        warn(f"{index_path} is not calibrated: scores instead of confidences, no threshold; lmr calibrate makes one")
    if save is not None:
        save_answers(save, answers)
    if values["sort_into"] is not None:
        from cli.sorting import sort_into

        n_links, n_copies = sort_into(values["sort_into"], answers)
        copies = f", {n_copies} copies of pictures in tars" if n_copies else ""
        warn(f"{values['sort_into']}: {n_links} links{copies}")
    _report_unreadable(answers)


def to_text(answer: "Answer") -> str:
    """An answer for people."""
    if answer.unreadable is not None:
        return f"{shown(answer.image)}\n  unreadable: {shown(answer.unreadable)}"
    lines = [shown(answer.image), f"  {_headline(answer)}"]
    if answer.in_index is not None:
        lines.append(f"  this very picture is in the index: {shown(answer.in_index)}")
    others = answer.landmarks[1:] if answer.landmark_id else answer.landmarks
    if others:
        said = ", ".join(f"{_shown_label(s.landmark_id, s.name)} {_number(s.confidence, s.score)}" for s in others)
        lines.append(f"  {'other landmarks' if answer.landmark_id else 'nearest landmarks'}: {said}")
    for n in answer.neighbours[:SHOWN_NEIGHBOURS]:
        lines.append(f"  {n.score:6.3f}  {shown(n.landmark_id)}  {shown(n.path or n.image_id)}")
    return "\n".join(lines)


def to_csv(answers: "list[Answer]") -> str:
    """image,landmark_id,name,confidence with a header; landmark_id blank where there is none."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["image", "landmark_id", "name", "confidence"])
    for answer in answers:
        confidence = "" if answer.confidence is None else repr(answer.confidence)
        writer.writerow([answer.image, answer.landmark_id or "", answer.name, confidence])
    return buffer.getvalue()


def save_answers(path: Path, answers: "list[Answer]") -> None:
    """Writes the sheet of all readable pictures."""
    from cli.report.sheet import SheetEntry, SheetNeighbour, save_sheet

    entries = [
        SheetEntry(
            picture=answer.image,
            label=_label(answer.landmark_id, answer.name) if answer.landmark_id else None,
            confidence=answer.confidence,
            landmark_id=answer.landmark_id,
            neighbours=tuple(
                SheetNeighbour(n.path, n.landmark_id, n.landmark_id, n.score)
                for n in answer.neighbours[:SHOWN_NEIGHBOURS]
            ),
        )
        for answer in answers
        if answer.unreadable is None
    ]
    save_sheet(path, entries)
    warn(f"{path}: {len(entries)} pictures beside their neighbours")


def _names_of(pictures: tuple[str, ...]) -> list[str]:
    """Every picture that the arguments name; says what is wrong with tars among them."""
    from retrieval.images.source import list_pictures

    for place in map(Path, pictures):
        tars = index_tars(place)
        for line in tars.warnings() if tars else ():
            warn(line)
    return [picture.where for picture in list_pictures(pictures)]


def _headline(answer: "Answer") -> str:
    if not answer.landmarks:
        return f"{NO_LANDMARK} (nothing to compare with)"
    best = answer.landmarks[0]
    said = _number(best.confidence, best.score)
    if answer.landmark_id is None:
        return f"{NO_LANDMARK} (best {said}, threshold {answer.threshold:.3f})"
    address = f"  {shown(answer.address)}" if answer.address else ""
    return f"{_shown_label(answer.landmark_id, answer.name)}  {said}{address}"


def _number(confidence: float | None, score: float) -> str:
    return f"score {score:.3f}" if confidence is None else f"{confidence:.3f}"


def _shown_label(landmark_id: str, name: str) -> str:
    return _label(shown(landmark_id), shown(name))


def _label(landmark_id: str, name: str) -> str:
    return landmark_id if name in ("", landmark_id) else f"{name} ({landmark_id})"


def _report_unreadable(answers: "list[Answer]") -> None:
    unreadable = [answer for answer in answers if answer.unreadable is not None]
    if unreadable and len(unreadable) == len(answers):
        first = unreadable[0]
        raise LmrError(
            f"none of the {len(answers)} pictures can be read: {shown(first.image)}: {shown(first.unreadable)}"
        )
    if unreadable:
        warn(f"{len(unreadable)} of {len(answers)} pictures are unreadable")
