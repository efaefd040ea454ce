"""lmr query: names the landmark in images."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import lmr
from cli import options
from cli.config_file import PATH, config_option
from cli.progress import TerminalProgress
from cli.report.answer_text import to_csv, to_text
from cli.terminal import say, say_csv, say_json, say_lines, shown
from index.folder.config import INDEX_FOLDER
from retrieval.errors import LmrError
from retrieval.words import agreeing, counted, none_can

if TYPE_CHECKING:
    from cli.report.answers import Saving
    from lmr import Answer, Landmarks
    from retrieval.progress import Progress

_HELP = {
    "threshold": "Confidence below which there is no known landmark. [default: the calibrated one]",
    "csv": "Print a CSV line for each image, with the best guess and why it was not enough.",
    "save": "Write a sheet (.jpg, .png) or a page (.html): images beside the neighbours that voted.",
    "mode": "How --sort-into does that; images in tars are copied.",
    "undo": "Put back what --sort-into --mode move put into this folder, and end.",
    "private": "Also fetch URLs from loopback, private and link-local addresses.",
}


@click.command(name="query")
@click.argument("pictures", nargs=-1)
@click.option("--index", "index_path", type=PATH, default=INDEX_FOLDER, show_default=True, help="Index folder.")
@click.option("--threshold", type=options.Share(0, 1), default=None, help=_HELP["threshold"])
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Landmarks listed for an image.")
@options.json_option
@click.option("--csv", "as_csv", is_flag=True, help=_HELP["csv"])
@click.option("--save", type=PATH, default=None, help=_HELP["save"])
@click.option("--sort-into", type=PATH, default=None, help="Put the images into a folder, by landmark.")
@click.option(
    "--mode", type=click.Choice(["link", "copy", "move"]), default="link", show_default=True, help=_HELP["mode"]
)
@click.option("--undo-moves", type=PATH, default=None, help=_HELP["undo"])
@click.option("--allow-private", is_flag=True, help=_HELP["private"])
@options.workers_option
@options.device_option
@config_option()
@options.overwrite_option
@options.writes(lambda given: [given["save"], given["sort_into"], given["undo_moves"]])
def command(pictures: tuple[str, ...], as_json: bool, as_csv: bool, **values: Any) -> None:
    """Name the landmark in PICTURES: files, folders, tars and URLs.

    Prints the landmark, the confidence and the labelled images that say so; below the threshold,
    "no known landmark".

    \b
    Example:
      lmr query holiday.jpg --save sheet.jpg
      lmr query photos/ --csv
      lmr query photos/ --save answers.html --sort-into sorted --mode move
    """
    _check_words(pictures, as_json and as_csv, values)
    with TerminalProgress() as progress:
        if values["undo_moves"] is not None:
            n_back = lmr.undo_moves(values["undo_moves"], progress=progress)
            say(f"{values['undo_moves']}: {counted(n_back, 'picture')} moved back")
        elif values["mode"] == "move" and (told := _moved_already(pictures, values["sort_into"], values["save"])):
            say(told)
        else:
            landmarks, answers, saving = _ask(pictures, values, progress)
            if as_json:
                say_json([answer.to_json() for answer in answers])
            elif as_csv:
                say_csv(to_csv(answers))
            else:
                say_lines("\n\n".join(to_text(answer) for answer in answers))
            if not landmarks.is_calibrated:
                progress.warn(
                    f"{values['index_path']} is not calibrated: scores instead of confidences, no threshold; "
                    "lmr calibrate makes one"
                )
            if values["sort_into"] is not None:
                done = landmarks.sort_into(values["sort_into"], answers, mode=values["mode"])
                progress.warn(f"{values['sort_into']}: {done.told()}")
                answers = done.follow(answers)  # a page links to where its images are then
            if saving is not None:
                progress.warn(saving.save(answers, values["index_path"]))
            _report_unreadable(answers, progress)


def _check_words(pictures: tuple[str, ...], is_json_and_csv: bool, values: dict[str, Any]) -> None:
    """Raises UsageError for what contradicts each other."""
    problem = ""
    if values["undo_moves"] is not None:
        problem = "--undo-moves takes no PICTURES; it puts back what was moved" if pictures else ""
    elif not pictures:
        problem = "Missing argument 'PICTURES...'."
    elif is_json_and_csv:
        problem = "--json and --csv exclude each other"
    elif values["mode"] != "link" and values["sort_into"] is None:
        problem = f"--mode {values['mode']} needs --sort-into"
    if problem:
        raise click.UsageError(problem)


def _moved_already(pictures: tuple[str, ...], folder: Path, save: Path | None) -> str:
    """A line where earlier runs moved all these images into the folder; '' where one is left or is unknown.

    Raises LmrError where they ended before a sheet or page was saved.
    """
    from index.sort_into import count_moved

    n_moved = count_moved(pictures, folder)
    told = f"{shown(folder)}: {counted(n_moved, 'picture')} moved already"
    if n_moved and save is not None and not save.exists():
        raise LmrError(
            f"{told}, {shown(save)} is not there; give {shown(folder)} as the pictures, or --undo-moves first"
        )
    return f"{told}, nothing to do" if n_moved else ""


def _ask(
    pictures: tuple[str, ...], values: dict[str, Any], progress: "Progress"
) -> "tuple[Landmarks, list[Answer], Saving | None]":
    """The opened index, its answers and how they are saved; what cannot be saved is refused before."""
    from cli.report.answers import Saving
    from retrieval.data.image_source import query_images
    from retrieval.parallel import count_workers

    saving = None if values["save"] is None else Saving(values["save"], overwrite=values["overwrite"])
    images = query_images(pictures, progress)
    n_workers = max(1, count_workers(values["workers"], progress))
    computing = {"device": values["device"], "threads": values["threads"], "workers": n_workers}
    landmarks = lmr.open_index(values["index_path"], **computing)
    threshold, top = values["threshold"], values["top"]
    answers = landmarks.query(images, threshold=threshold, n_landmarks=top, allow_private=values["allow_private"])
    if saving is not None:
        saving.find(landmarks.folder, answers, {"--threshold": threshold, "--top": top})
    return landmarks, answers, saving


def _report_unreadable(answers: "list[Answer]", progress: "Progress") -> None:
    unreadable = [answer for answer in answers if answer.unreadable is not None]
    n = len(unreadable)
    if n and n == len(answers):
        first = unreadable[0]
        raise LmrError(f"{none_can(n, 'picture')} be read: {shown(first.image)}: {shown(first.unreadable)}")
    if n:
        progress.warn(f"{counted(n, 'picture', of=len(answers))} {agreeing(n, 'is', 'are')} unreadable")
