"""Files that appear whole or not at all: written under a temporary name, flushed to disk, renamed."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from retrieval.errors import LmrError


def write_whole(path: Path, text: Iterable[str]) -> None:
    """Writes UTF-8 text under `path` + `.partial` and renames it; a kill leaves the old file or the new one.

    Raises LmrError when the folder cannot be written or the disk is full; the old file then stays.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            file.writelines(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        flush_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):  # of a folder that cannot be written either
            partial.unlink()
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError) -> LmrError:
    """The error of a file or folder that could not be written, as one line."""
    return LmrError(f"{path} cannot be written: {error.strerror or error}; choose another place or make room")


def flush_folder(folder: Path) -> None:
    """Makes the names in a folder last through a power cut, where the system can do that."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
