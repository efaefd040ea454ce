"""Pictures that appear whole or not at all."""

import contextlib
import os
from pathlib import Path

from index.writing import write_error


def save_bytes(path: Path, content: bytes) -> None:
    """Writes beside the path and renames. Raises LmrError when the folder cannot be written or the disk is full."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # of a folder that cannot be written either
            partial.unlink()
        raise write_error(path, error) from error
