"""lmr query: names the landmark in pictures."""

import os
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
from cli.progress import TerminalProgress
from cli.tars import index_tars
from cli.terminal import say, say_csv, say_json, say_lines, shown
from index.answer import certainty, headline
from retrieval.data.csv_cells import csv_line
from retrieval.data.names import shown_name
from retrieval.errors import LmrError
from retrieval.words import agreeing, counted, none_can

if TYPE_CHECKING:
    from lmr import Answer, Landmarks, LandmarkScore, Neighbour

SHOWN_NEIGHBOURS = 5  # in the text for people; --json lists all that voted
CSV_COLUMNS = (
    *("image", "landmark_id", "name", "confidence"),
    *("best_landmark_id", "best_name", "best_confidence", "best_score", "reason"),
)


@click.command(name="query")
@click.argument("pictures", nargs=-1)
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
@click.option(
    "--csv",
    "as_csv",
    is_flag=True,
    help="Print a CSV line for each picture, with the best guess and why it was not enough.",
)
@click.option(
    "--save",
    type=PATH,
    default=None,
    help="Write a sheet (.jpg, .png) or a page (.html): pictures beside the neighbours that voted.",
)
@click.option(
    "--sort-into",
    type=PATH,
    default=None,
    help="Put the pictures into a folder, by landmark.",
)
@click.option(
    "--mode",
    type=click.Choice(["link", "copy", "move"]),
    default="link",
    show_default=True,
    help="How --sort-into does that; pictures in tars are copied.",
)
@click.option(
    "--undo-moves", type=PATH, default=None, help="Put back what --sort-into --mode move put into this folder, and end."
)
@click.option("--allow-private", is_flag=True, help="Also fetch URLs from loopback, private and link-local addresses.")
@workers_option
@device_option
@config_option
@overwrite_option
@writes(lambda given: [given["save"], given["sort_into"], given["undo_moves"]])
def command(pictures: tuple[str, ...], index_path: Path, as_json: bool, as_csv: bool, **values: Any) -> None:
    """Name the landmark in PICTURES: files, folders, tars and URLs.

    Prints the landmark, the confidence and the labelled pictures that say so; below the threshold,
    "no known landmark".

    \b
    Example:
      lmr query holiday.jpg --save sheet.jpg
      lmr query photos/ --csv
      lmr query photos/ --save answers.html --sort-into sorted --mode move
    """
    if values["undo_moves"] is not None:
        if pictures:
            raise click.UsageError("--undo-moves takes no PICTURES; it puts back what was moved")
        say(undo_moves(values["undo_moves"]))
        return
    if not pictures:
        raise click.UsageError("Missing argument 'PICTURES...'.")
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    if values["mode"] != "link" and values["sort_into"] is None:
        raise click.UsageError(f"--mode {values['mode']} needs --sort-into")
    if values["mode"] == "move" and (told := _moved_already(pictures, values["sort_into"], values["save"])):
        say(told)
        return
    landmarks, answers = _ask(pictures, index_path, values)
    save: Path | None = values["save"]
    made_of = {} if save is None else _made_of(landmarks, answers, values)
    is_there = save is not None and _is_saved(save, made_of, values)
    if as_json:
        say_json([answer.to_json() for answer in answers])
    elif as_csv:
        say_csv(to_csv(answers))
    else:
        say_lines("\n\n".join(to_text(answer) for answer in answers))
    if not landmarks.is_calibrated:
        warn(f"{index_path} is not calibrated: scores instead of confidences, no threshold; lmr calibrate makes one")
    if values["sort_into"] is not None:
        from cli.sorting import group_names, sort_into

        done = sort_into(values["sort_into"], answers, group_names(landmarks), values["mode"])
        warn(f"{values['sort_into']}: {done.told()}")
        answers = done.follow(answers)  # a page links to where its pictures are then
    if save is not None:
        from cli.report.answers import save_answers

        warn(
            f"{save}: finished already, nothing to do" if is_there else save_answers(save, answers, index_path, made_of)
        )
    _report_unreadable(answers)


def _ask(pictures: tuple[str, ...], index_path: Path, values: dict[str, Any]) -> "tuple[Landmarks, list[Answer]]":
    """The opened index and its answers; what cannot be saved is refused before."""
    import lmr
    from cli.report.answers import require_writable
    from cli.workers import default_workers

    save: Path | None = values["save"]
    if save is not None:
        _is_saved(save, {}, values)  # refused now, not after the pictures were described
        require_writable(save)
    names = _names_of(pictures)
    workers = max(1, default_workers(values["workers"]))
    landmarks = lmr.open_index(index_path, device=values["device"], threads=values["threads"], workers=workers)
    answers = landmarks.query(
        names,
        threshold=values["threshold"],
        n_landmarks=values["n_landmarks"],
        allow_private=values["allow_private"],
    )
    return landmarks, answers


def _moved_already(pictures: tuple[str, ...], folder: Path, save: Path | None) -> str:
    """What is said where earlier runs moved all these pictures into the folder; '' where one is left or is unknown.

    Raises LmrError where they ended before a sheet or page was saved.
    """
    from retrieval.files.moves import MoveJournal

    moves = [move for move in MoveJournal(folder).moves if (folder / move.target).is_file()]
    sources = [Path(move.source) for move in moves]
    for place in map(os.path.abspath, pictures):
        if not any(source.is_relative_to(place) for source in sources) or _holds_pictures(place):
            return ""
    told = f"{shown(folder)}: {counted(len(moves), 'picture')} moved already"
    if save is not None and not save.exists():
        raise LmrError(
            f"{told}, {shown(save)} is not there; give {shown(folder)} as the pictures, or --undo-moves first"
        )
    return f"{told}, nothing to do"


def _holds_pictures(place: str) -> bool:
    """Whether this is a picture or a folder with some."""
    from retrieval.images.source import list_pictures

    try:
        return bool(list_pictures([place]))
    except LmrError:
        return False


def _made_of(landmarks: "Landmarks", answers: "list[Answer]", values: dict[str, Any]) -> dict[str, Any]:
    """What a sheet or page of these answers depends on."""
    from cli.evaluate import inputs_of
    from retrieval.files.digest import sha256_json

    return {
        **inputs_of(landmarks.folder),
        "set of pictures": sha256_json([[answer.image, _digest_of(answer.image)] for answer in answers]),
        "--threshold": values["threshold"],
        "--top": values["n_landmarks"],
        "set of answers": sha256_json([answer.to_json() for answer in answers]),
    }


def _is_saved(save: Path, made_of: dict[str, Any], values: dict[str, Any]) -> bool:
    """Whether the file is there, whole and made of this. LmrError for another one."""
    from retrieval.files.made_of import is_made_of

    return not values["overwrite"] and is_made_of(save, made_of, "give --overwrite or another name")


def _digest_of(picture: str) -> str:
    """sha256 (hex) of a picture's file; blank where it has none of its own, or cannot be read."""
    from retrieval.files.digest import sha256_file

    try:
        return sha256_file(Path(picture))
    except (OSError, ValueError):
        return ""


def undo_moves(folder: Path) -> str:
    """Moves pictures back to where they were; returns what was done. LmrError where nothing was moved, or some stay."""
    from retrieval.files.moves import JOURNAL, MoveJournal

    journal = MoveJournal(folder)
    if not journal.moves:
        raise LmrError(f"{folder}: nothing was moved there (no {JOURNAL})")
    undone = journal.undo()
    for move, reason in undone.left[:SHOWN_NEIGHBOURS]:
        warn(f"{folder / move.target} stays: {reason} ({move.source})")
    if undone.left:
        raise LmrError(
            f"{folder}: {undone.n_back} moved back, {len(undone.left)} "
            f"{agreeing(len(undone.left), 'stays', 'stay')}; make room and run this again"
        )
    return f"{folder}: {counted(undone.n_back, 'picture')} moved back"


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


def to_csv(answers: "list[Answer]") -> str:
    """A line for each picture under CSV_COLUMNS: landmark_id and name blank where no landmark is named, the best guess
    and why it was not enough beside them."""
    lines = [csv_line(CSV_COLUMNS)]
    for answer in answers:
        best = answer.best
        guess = ["", "", "", ""]
        if best is not None:
            guess = [best.landmark_id, best.name, _exact(best.confidence), _exact(best.score)]
        named = [answer.image, answer.landmark_id or "", answer.name, _exact(answer.confidence)]
        lines.append(csv_line([*named, *guess, answer.reason]))
    return "".join(lines)


def _names_of(pictures: tuple[str, ...]) -> list[str]:
    """Every picture that the arguments name; says what is wrong with tars among them."""
    from retrieval.images.source import list_pictures

    for place in map(Path, pictures):
        tars = index_tars(place)
        for line in tars.warnings() if tars and not place.is_dir() else ():
            warn(line)
    return [picture.where for picture in list_pictures(pictures, TerminalProgress())]


def _label(named: "LandmarkScore | Neighbour") -> str:
    return shown(shown_name(named.landmark_id, named.name))


def _exact(value: float | None) -> str:
    return "" if value is None else repr(value)


def _report_unreadable(answers: "list[Answer]") -> None:
    unreadable = [answer for answer in answers if answer.unreadable is not None]
    if unreadable and len(unreadable) == len(answers):
        first = unreadable[0]
        raise LmrError(f"{none_can(len(answers), 'picture')} be read: {shown(first.image)}: {shown(first.unreadable)}")
    if unreadable:
        warn(
            f"{counted(len(unreadable), 'picture', of=len(answers))} {agreeing(len(unreadable), 'is', 'are')} "
            f"unreadable"
        )
