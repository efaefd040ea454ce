"""Pictures that appear whole or not at all."""

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
        partial.unlink(missing_ok=True)
        raise write_error(path, error) from error
