"""lmr embed: the images of a manifest to a descriptor store."""

from typing import Any

import click

from cli.options import job_options
from cli.progress import TerminalProgress
from cli.terminal import say
from retrieval.embed.job import EmbedJob
from retrieval.words import counted


@click.command(name="embed")
@job_options(EmbedJob)
def command(**words: Any) -> None:
    """Turn the images of MANIFEST into a store of descriptors (HDF5), in the manifest's order.

    MANIFEST is a CSV or Parquet file, a folder or a tar; train.csv when it is not given. The network is that of
    --model; with --backbone it is made here and saved to --model. A stopped run goes on where it was.

    \b
    Example:
      lmr embed train.csv --backbone resnet50 --pretrained
      lmr embed train.csv --flip --size 288
    """
    import lmr

    with TerminalProgress() as progress:
        output, report = lmr.embed(**words, progress=progress)
    if report.state == "unchanged":
        say(f"{output}: finished already, nothing to do ({counted(report.n_pictures, 'picture')})")
    else:
        say(
            f"{output}: {counted(report.n_pictures - report.n_unreadable, 'descriptor')}, "
            f"{report.n_unreadable:,} unreadable"
        )
