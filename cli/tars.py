"""Indexing the tars that a command is to read pictures from, with a bar, before anything else asks for them."""

from pathlib import Path
from typing import TYPE_CHECKING

from cli.progress import TerminalProgress

if TYPE_CHECKING:
    from retrieval.images.tars.archive import TarSet


def index_tars(place: Path) -> "TarSet | None":
    """As `retrieval.images.source.index_tars`, told in the terminal."""
    from retrieval.images import source

    with TerminalProgress() as progress:
        return source.index_tars(place, progress)
