"""lmr embed: the images of a manifest to a descriptor store."""

from typing import Any

import click

from cli.options import job_options
from cli.progress import TerminalProgress
from cli.report.text import embedding_text
from cli.terminal import say
from retrieval.embed.job import EmbedJob


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
      lmr embed train.csv --shard 1/4
    """
    import lmr

    with TerminalProgress() as progress:
        output, report = lmr.embed(**words, progress=progress)
    say(embedding_text(output, report))
