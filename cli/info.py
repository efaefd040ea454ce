"""lmr info: what a store, model, index folder, calibration or manifest is."""

from typing import Any

import click

from cli.options import job_options, json_option
from cli.progress import TerminalProgress
from cli.report.text import fact_lines
from cli.terminal import say_result
from index.info import InfoJob


@click.command(name="info")
@job_options(InfoJob)
@json_option
def command(as_json: bool, **words: Any) -> None:
    """Tell what PATH is: a store of descriptors or local features, a model folder, an index folder, its
    calibration.json, or a manifest.

    With --verify everything else that lmr writes is read too: exported models, cleanings, splits, downloads and
    comparisons, and all of them in a folder and below.

    \b
    Example:
      lmr info landmarks
      lmr info --verify train.h5
    """
    import lmr

    with TerminalProgress() as progress:
        facts = lmr.info(**words, progress=progress).to_json()
    say_result(facts, fact_lines(facts), as_json=as_json, default=str)
