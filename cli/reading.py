"""Manifests as commands read them: what is in them, what looks wrong and, where it takes long, a bar on stderr."""

from pathlib import Path
from typing import TYPE_CHECKING

from cli.progress import TerminalProgress

if TYPE_CHECKING:
    from retrieval.data.manifest import Manifest


def load_manifest(path: Path, *, is_background: bool = False) -> "Manifest":
    """As `retrieval.data.overview.load_manifest`, told in the terminal."""
    from retrieval.data import overview

    with TerminalProgress() as progress:
        return overview.load_manifest(path, progress, is_background=is_background)
