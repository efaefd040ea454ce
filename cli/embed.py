"""lmr embed: the images of a manifest to a descriptor store."""

from typing import Any

import click

from cli.options import job_options, json_option
from cli.progress import TerminalProgress
from cli.report.text import embedding_text, local_text, profile_text
from cli.terminal import say_result
from retrieval.embed.job import EmbedJob


@click.command(name="embed")
@job_options(EmbedJob)
@json_option
def command(as_json: bool, **words: Any) -> None:
    """Turn the images of MANIFEST into a store of descriptors (HDF5), in the manifest's order.

    MANIFEST is a CSV or Parquet file, a folder or a tar; train.csv when it is not given. The network is that of
    --model; with --backbone it is made here and saved to --model. With --local a store of local features is made
    beside it (MANIFEST.local.h5). With --engine spark a cluster makes the same store by shares, and pictures that
    cannot be read are listed in MANIFEST.unreadable.csv. A stopped run goes on where it was. Of a store (.h5) in the
    place of MANIFEST the adapter that --model has makes another (STORE-MODEL.h5), without pictures.

    \b
    Example:
      lmr embed train.csv --backbone resnet50 --pretrained
      lmr embed train.csv --local rootsift
      lmr embed train.csv --flip --size 288
      lmr embed train.csv --shard 1/4
      lmr embed train.csv --profile
      lmr embed train.h5 --model adapted
      lmr embed train.csv --engine spark --master spark://HOST:7077
    """
    import lmr
    from retrieval.embed.spark import unreadable_path

    with TerminalProgress() as progress:
        output, report = lmr.embed(**words, progress=progress)
    table = unreadable_path(output) if words.get("engine") == "spark" and report.n_unreadable else None
    document = {
        "store": str(output),
        "state": report.state,
        "pictures": report.n_pictures,
        "unreadable": report.n_unreadable,
        "unreadable_table": None if table is None else str(table),
        "profile": None if report.profile is None else report.profile.to_json(),
        "local": None if report.local is None else report.local.to_json(),
    }
    text = embedding_text(output, report) + ("" if table is None else f", listed in {table}")
    if report.local is not None:
        text += "\n" + local_text(report.local)
    if report.profile is not None:
        text += "\n" + profile_text(report.profile)
    say_result(document, text, as_json=as_json)
