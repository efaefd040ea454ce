"""lmr sync: a folder of images that has changed, brought into an index."""

from typing import Any

import click

from cli.index_changes import tell_change
from cli.options import job_options, json_option
from cli.progress import TerminalProgress
from index.update.sync import SyncJob
from retrieval.words import counted


@click.command(name="sync")
@job_options(SyncJob)
@json_option
def command(as_json: bool, **words: Any) -> None:
    """Bring an index to what FOLDER, of folders of landmarks, holds now.

    Images that are new or were replaced are embedded by the model of the index and added; images that are gone are
    removed, and images that lie in another landmark's folder get its label. Those of the folder are the rows of the
    index whose path lies in it or that its store has. Descriptors of images that are the same are taken from that
    store, also where images were renamed. Where the index has local features, those of new images are extracted too.

    \b
    Example:
      lmr sync photos
    """
    import lmr

    with TerminalProgress() as progress:
        done = lmr.sync(**words, progress=progress)
        progress.warn(f"{counted(done.n_embedded, 'image')} embedded, {done.n_reused:,} the same as before")
        tell_change(words, done.change, progress, as_json=as_json)
