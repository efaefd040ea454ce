"""lmr submit: a Kaggle submission for test.csv."""

from typing import TYPE_CHECKING, Any

import click

import lmr
from cli.options import job_options
from cli.progress import TerminalProgress
from cli.terminal import say
from index.kaggle.submit import SubmitJob
from retrieval.words import counted

if TYPE_CHECKING:
    from index.kaggle.submit import SubmitReport


@click.command(name="submit")
@job_options(SubmitJob)
def command(**words: Any) -> None:
    """Write a submission (id,landmarks) for the images of TEST: one line an id, in its order.

    Images that have no descriptor yet are embedded first, with the index's model; a stopped run goes on where it
    was. Unreadable and missing images get a blank line.

    \b
    Example:
      lmr submit test.csv --images images --output submission.csv
    """
    with TerminalProgress() as progress:
        report = lmr.submit(**words, progress=progress)
    say(to_text(report))


def to_text(report: "SubmitReport") -> str:
    """A line that says what was written."""
    lines = counted(report.n_lines, "line")
    if report.n_answered is None:
        return f"{report.output}: finished already, nothing to do ({lines})"
    n_blank = report.n_lines - report.n_answered
    return f"{report.output}: {lines}, {report.n_answered} with a landmark, {n_blank} blank"
