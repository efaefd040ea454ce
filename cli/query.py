"""lmr query: names the landmark in images."""

import os
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from cli.options import job_options, json_option
from cli.progress import TerminalProgress
from cli.report.text import answer_text, answers_csv, warn_of_unreadable
from cli.terminal import say, say_csv, say_json, say_lines, shown, with_options
from index.folder.config import INDEX_FOLDER
from index.rerank.config import VerifyJob
from retrieval.embed.engine import EngineJob
from retrieval.errors import LmrError
from retrieval.files.digest import sha256_file
from retrieval.files.lock import output_locks
from retrieval.jobs import ComputingJob, WritingJob, build, option
from retrieval.models.folder import CLASSIFIER
from retrieval.words import counted

if TYPE_CHECKING:
    from cli.report.answers import Saving
    from index.landmarks import Landmarks
    from lmr import Answer

_OF_SERVERS = {"pictures", "server", "threshold", "top", "verify", "allow_private"}  # words that a server is asked by


@dataclass(frozen=True)
class QueryJob(ComputingJob, EngineJob, VerifyJob, WritingJob):
    """Name the landmark in images."""

    pictures: tuple[str, ...] = option((), is_argument=True)
    _: KW_ONLY
    index: Path = option(INDEX_FOLDER, help="Index folder, or milvus://HOST/COLLECTION.")
    threshold: float | None = option(
        None,
        low=0,
        high=1,
        default_text="the calibrated one",
        help="Confidence below which there is no known landmark.",
    )
    top: int = option(5, low=1, help="Landmarks listed for an image.")
    save: Path | None = option(None, help="Write a sheet (.jpg, .png) or a page (.html): images beside neighbours.")
    explain: Path | None = option(None, help="Write a folder with a page for each image that explains its answer.")
    classifier: Path | None = option(None, help="Model folder of lmr train: `explain` its most probable class too.")
    sort_into: Path | None = option(None, help="Put the images into a folder, by landmark.")
    mode: Literal["link", "copy", "move"] = option("link", help="How `sort_into` does that; images in tars are copied.")
    undo_moves: Path | None = option(None, help="Put back what `sort_into` with `mode` move put into this folder.")
    server: str | None = option(
        None, metavar="URL", help="Ask a server of lmr serve, and no index here; LMR_TOKEN is its token."
    )
    allow_private: bool = option(False, help="Also fetch URLs from loopback, private and link-local addresses.")


@click.command(name="query")
@job_options(QueryJob)
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print a CSV line for each image, and why a guess was not enough.")
def command(as_json: bool, as_csv: bool, **words: Any) -> None:
    """Name the landmark in PICTURES: files, folders, tars and URLs.

    Prints the landmark, the confidence and the labelled images that say so; below the threshold,
    "no known landmark".

    \b
    Example:
      lmr query holiday.jpg --save sheet.jpg
      lmr query holiday.jpg --explain why
      lmr query holiday.jpg --explain why --classifier model
      lmr query photos/ --csv
      lmr query holiday.jpg --verify
      lmr query photos/ --save answers.html --sort-into sorted --mode move
      lmr query holiday.jpg --server http://127.0.0.1:8080
      lmr query holiday.jpg --index milvus://127.0.0.1:19530/landmarks
    """
    with TerminalProgress() as progress:
        job = build(QueryJob, {**words, "progress": progress})
        _check_words(job, as_json and as_csv)
        if job.server is not None and (others := words.keys() - _OF_SERVERS):
            raise click.UsageError(with_options(f"`server` does not take `{min(others)}`, which is for an index here"))
        with output_locks(job.save, job.explain, job.sort_into, job.undo_moves, wait=job.wait, progress=progress):
            _query(job, as_json, as_csv)


def _query(job: QueryJob, as_json: bool, as_csv: bool) -> None:
    import lmr

    if job.undo_moves is not None:
        n_back = lmr.undo_moves(job.undo_moves, progress=job.progress)
        say(f"{job.undo_moves}: {counted(n_back, 'picture')} moved back")
    elif job.mode == "move" and (told := _moved_already(job)):
        say(told)
    elif job.server is not None:
        from index.serving.client import TOKEN_VARIABLE

        server = lmr.connect(job.server, os.environ.get(TOKEN_VARIABLE))
        asked: dict[str, Any] = {"threshold": job.threshold, "n_landmarks": job.top, "verify": job.verify or None}
        answers: Sequence[Answer] = server.query(_images(job)[0], allow_private=job.allow_private, **asked)
        _say(answers, as_json, as_csv)
        warn_of_unreadable(answers, job.progress)
    else:
        landmarks, answers, explain, saving = _ask(job)
        _say(answers, as_json, as_csv)
        if not landmarks.is_calibrated:
            job.progress.warn(
                f"{landmarks.folder} is not calibrated: scores instead of confidences, no threshold; lmr calibrate "
                "makes one"
            )
        if explain is not None:  # while the images are where they were
            job.progress.warn(explain())
        if job.sort_into is not None:
            done = landmarks.sort_into(job.sort_into, answers, mode=job.mode)
            job.progress.warn(f"{job.sort_into}: {done.told()}")
            answers = done.follow(answers)  # a page links to where its images are then
        if saving is not None:
            job.progress.warn(saving.save(answers, job.index))
        warn_of_unreadable(answers, job.progress)


def _say(answers: "Sequence[Answer]", as_json: bool, as_csv: bool) -> None:
    if as_json:
        say_json([answer.to_json() for answer in answers])
    elif as_csv:
        say_csv(answers_csv(answers))
    else:
        say_lines("\n\n".join(answer_text(answer) for answer in answers))


def _check_words(job: QueryJob, is_json_and_csv: bool) -> None:
    """Raises UsageError for what contradicts each other."""
    problem = ""
    if job.undo_moves is not None:
        problem = "--undo-moves takes no PICTURES; it puts back what was moved" if job.pictures else ""
    elif not job.pictures:
        problem = "Missing argument 'PICTURES...'."
    elif is_json_and_csv:
        problem = "--json and --csv exclude each other"
    elif job.mode != "link" and job.sort_into is None:
        problem = f"--mode {job.mode} needs --sort-into"
    elif job.classifier is not None and job.explain is None:
        problem = "--classifier needs --explain"
    if problem:
        raise click.UsageError(problem)


def _moved_already(job: QueryJob) -> str:
    """A line where earlier runs moved all these images into the folder; '' where one is left or is unknown.

    Raises LmrError where they ended before a sheet, page or explanation was saved.
    """
    from index.sort_into import count_moved

    folder = job.sort_into
    assert folder is not None
    n_moved = count_moved(job.pictures, folder)
    told = f"{shown(folder)}: {counted(n_moved, 'picture')} moved already"
    missing = [output for output in (job.save, job.explain) if output is not None and not output.exists()]
    if n_moved and missing:
        raise LmrError(
            f"{told}, {shown(missing[0])} is not there; give {shown(folder)} as the pictures, or --undo-moves first"
        )
    return f"{told}, nothing to do" if n_moved else ""


def _ask(job: QueryJob) -> "tuple[Landmarks, Sequence[Answer], Callable[[], str] | None, Saving | None]":
    """The opened index, its answers, what explains them and how they are saved.

    What cannot be saved is refused before they are asked.
    """
    import lmr

    saving = explaining = None
    if job.save is not None:
        from cli.report.answers import Saving

        saving = Saving(job.save, overwrite=job.overwrite)
    if job.explain is not None:
        from cli.report.answers import Explaining

        explaining = Explaining(job.explain, overwrite=job.overwrite)
    images, n_workers = _images(job)
    how: dict[str, Any] = {"threads": job.threads, "workers": n_workers, "progress": job.progress}
    landmarks = lmr.open_index(job.index, device=job.device, engine=job.engine, **how)
    for line in landmarks.warnings:
        job.progress.warn(f"warning: {line}")
    asked: dict[str, Any] = {"threshold": job.threshold, "n_landmarks": job.top, "allow_private": job.allow_private}
    asked |= {"verify": job.verify, "verify_top": job.n_verify_top, "matcher": job.matcher, "progress": job.progress}
    explain = None
    words: dict[str, Any] = {"--threshold": job.threshold, "--top": job.top, "--verify": job.verify or None}
    if job.verify:
        words |= {"--verify-top": job.n_verify_top, "--matcher": job.matcher}
    if explaining is None:
        answers: Sequence[Answer] = landmarks.query(images, **asked)
    else:
        explanations = landmarks.explain_all(images, classifier=job.classifier, **asked)
        answers = explanations.answers
        known = {} if job.classifier is None else {"--classifier": sha256_file(job.classifier / CLASSIFIER)}
        explain = partial(explaining.explain, landmarks.folder, explanations, {**words, **known}, job.progress)
    if saving is not None:
        saving.find(landmarks.folder, answers, words)
    return landmarks, answers, explain, saving


def _images(job: QueryJob) -> tuple[list[str], int]:
    """The images that are asked, without those of earlier explanations, and how many are decoded at once."""
    from retrieval.data.image_source import query_images
    from retrieval.parallel import count_workers

    images = query_images(job.pictures, job.progress)
    if job.explain is not None:
        own = os.path.abspath(job.explain)
        images = [where for where in images if not Path(os.path.abspath(where)).is_relative_to(own)]
        if not images:
            raise LmrError(f"{job.explain} holds all of the pictures; explain them in another folder")
    return images, max(1, count_workers(job.workers, job.progress))
