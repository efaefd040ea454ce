"""Paths for libraries that open files by text in UTF-8 alone."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from retrieval.errors import LmrError

_OPEN_FILES = "/proc/self/fd"


@contextlib.contextmanager
def utf8_path(path: Path, *, is_new: bool = False) -> Iterator[str]:
    """A path of the same file that is UTF-8 while the block runs: its own, or one by way of an open file.

    is_new: the file is to be written, and only its folder is there; its own name is UTF-8.
    Raises LmrError where the system has no such way, OSError where there is nothing to open.
    """
    if is_utf8(str(path)):
        yield str(path)
        return
    opened = path.parent if is_new else path
    if not os.path.isdir(_OPEN_FILES) or (is_new and not is_utf8(path.name)):
        raise LmrError(f"{path}: a name that is not UTF-8, which cannot be given to what opens it; rename it")
    descriptor = os.open(opened, os.O_RDONLY)
    try:
        way = f"{_OPEN_FILES}/{descriptor}"
        yield f"{way}/{path.name}" if is_new else way
    finally:
        os.close(descriptor)


def is_utf8(text: str) -> bool:
    """Tells whether a name of a file, as Python has it, is text in UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
