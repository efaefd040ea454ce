"""lmr submit: a Kaggle submission for test.csv."""

from typing import Any

import click

from cli.options import job_options
from cli.progress import TerminalProgress
from cli.report.text import submission_text
from cli.terminal import say
from index.kaggle.submit import SubmitJob


@click.command(name="submit")
@job_options(SubmitJob)
def command(**words: Any) -> None:
    """Write a submission (id,landmarks) for the images of TEST: one line an id, in its order.

    Images that have no descriptor yet are embedded first, with the index's model; a stopped run goes on where it
    was. Unreadable and missing images get a blank line. With --shard the answers of a share are written, of which
    lmr join makes the submission. With --engine spark a cluster writes it, and each block of images is searched in each
    shard of the index.

    \b
    Example:
      lmr submit test.csv --images images --output submission.csv
      lmr submit test.csv --images images --verify
      lmr submit test.csv --images images --shard 1/4
      lmr submit test.csv --engine spark --master spark://HOST:7077
      lmr submit test.csv --images images --index milvus://127.0.0.1:19530/landmarks
    """
    import lmr

    with TerminalProgress() as progress:
        report = lmr.submit(**words, progress=progress)
    say(submission_text(report))
