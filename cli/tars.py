"""Indexing the tars that a command is to read pictures from, with a bar, before anything else asks for them."""

from pathlib import Path
from typing import TYPE_CHECKING

from cli.progress import PictureBar
from cli.terminal import warn

if TYPE_CHECKING:
    from retrieval.images.tars.archive import TarSet


_LARGE_BYTES = 1_000_000_000  # from which on it takes long enough to say so where no bar is shown


def index_tars(place: Path) -> "TarSet | None":
    """Indexes a tar, or the tars directly in a folder, where that is not done yet; None for anything else.

    Raises LmrError for a tar given by name that cannot be used.
    """
    from retrieval.images.tars.archive import TarSet, is_tar, list_tars, open_tar
    from retrieval.images.tars.build_index import Listener

    notes: list[str] = []
    with PictureBar("indexing tars", unit="B") as bar:

        def on_begin(n_bytes: int) -> None:
            if n_bytes >= _LARGE_BYTES:
                warn(f"{place}: indexing {n_bytes / 1e9:.1f} GB of tars, once")
            bar.begin(n_bytes)

        listener = Listener(on_begin, bar.add, notes.append)
        if place.is_dir():
            paths = list_tars(place)
            tars = TarSet(paths, listener) if paths else None
        else:
            tars = open_tar(place, listener) if is_tar(place) else None
    for text in notes:
        warn(text)
    return tars
