"""Manifests as commands read them: what is in them, what looks wrong and, where it takes long, a bar on stderr."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import warn
from cli.progress import PictureBar
from retrieval.data.pipes import STDIN
from retrieval.errors import LmrError

if TYPE_CHECKING:
    from retrieval.data.manifest import Manifest
    from retrieval.data.table_file import OnRead

_SHOWN_BYTES = 10_000_000  # about a second
_TOLD = "cli.reading.told"  # in the context's meta


def load_manifest(path: Path, *, is_background: bool = False) -> "Manifest":
    """As `read_manifest`, with a bar; says once on stderr what is in it, what is taken as what, what looks wrong.

    is_background: it is known that none of its images shows a landmark.
    """
    from retrieval.data.manifest import read_manifest
    from retrieval.data.overview import doubts, overview

    with reading(path) as on_read:
        manifest = read_manifest(path, on_warning=warn_once, on_read=on_read)
    is_folder = path.is_dir()
    warn_once(overview(manifest))
    for line in doubts(manifest, is_folder=is_folder, is_background=is_background):
        warn_once(f"warning: {line}")
    return manifest


def warn_once(text: str) -> None:
    """A line on stderr, unless the command that runs has said it before."""
    context = click.get_current_context(silent=True)
    told: set[str] = set() if context is None else context.find_root().meta.setdefault(_TOLD, set())
    if text not in told:
        told.add(text)
        warn(text)


def require_there(path: Path) -> None:
    """LmrError for a manifest that is not there, before anything that takes long; a store's reader tells of a store."""
    if str(path) != STDIN and path.suffix not in (".h5", ".hdf5") and not path.exists():
        raise LmrError(f"{path}: there is no such file or folder")


@contextmanager
def reading(path: Path) -> "Iterator[OnRead]":
    """A bar over the bytes of a large file; what it gives is to be called with the number of bytes just read."""
    with PictureBar(f"reading {path.name}", "B") as bar:
        if path.is_file() and path.stat().st_size >= _SHOWN_BYTES:
            bar.begin(path.stat().st_size)
        yield bar.add
