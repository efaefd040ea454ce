"""lmr join: what the shares of a job made, to what the whole job would have made."""

from typing import Any

import click

from cli.options import job_options
from cli.progress import TerminalProgress
from cli.terminal import say
from index.join import JoinJob
from retrieval.words import counted


@click.command(name="join")
@job_options(JoinJob)
def command(**words: Any) -> None:
    """Join PARTS, what --shard I/N made: stores, shares of a submission, outcomes of queries, picture facts.

    The parts are all shares of one manifest by one model, each once, in any order. The store and the submission are
    equal, byte for byte, to those of the same command without --shard. Of outcomes lmr evaluate without --shard makes
    its figures, of picture facts lmr stats.

    \b
    Example:
      lmr join train-*-of-4.h5 --output train.h5
      lmr join submission-*-of-4.json --output submission.csv
      lmr join val-*-of-4.outcomes --output val.outcomes
      lmr join picture-facts-*-of-4.sqlite --output picture-facts.sqlite
    """
    import lmr

    with TerminalProgress() as progress:
        report = lmr.join(**words, progress=progress)
    what = {"store": "image", "local": "image", "submission": "line", "evaluation": "query", "facts": "measured image"}[
        report.kind
    ]
    if report.state == "unchanged":
        say(f"{report.output}: finished already, nothing to do ({counted(report.n_rows, what)})")
    else:
        say(f"{report.output}: {counted(report.n_rows, what)} of {counted(report.n_parts, 'share')}")
