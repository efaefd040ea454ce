"""Manifests as commands read them: warnings and, where it takes seconds, a bar on stderr."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cli.options import warn
from cli.progress import PictureBar

if TYPE_CHECKING:
    from retrieval.data.csv_table import OnRead
    from retrieval.manifest import Manifest

_SHOWN_BYTES = 10_000_000  # about a second


def load_manifest(path: Path) -> "Manifest":
    """As `read_manifest`, with its warnings and a bar."""
    from retrieval.manifest import read_manifest

    with reading(path) as on_read:
        return read_manifest(path, on_warning=warn, on_read=on_read)


@contextmanager
def reading(path: Path) -> "Iterator[OnRead]":
    """A bar over the bytes of a large file; what it gives is to be called with the number of bytes just read."""
    with PictureBar(f"reading {path.name}", "B") as bar:
        if path.is_file() and path.stat().st_size >= _SHOWN_BYTES:
            bar.begin(path.stat().st_size)
        yield bar.add
