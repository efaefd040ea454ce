"""Tables that come through a pipe: kept in a temporary file, as they are read more than once."""

import contextlib
import os
import stat
import sys
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from retrieval.errors import LmrError

STDIN = "-"
MAX_BYTES = 1 << 33  # that a pipe may hold; the train.csv of four million images is 0.6 GB
_CHUNK_BYTES = 1 << 20

_kept: dict[str, "Place"] | None = None


class Place:
    """A file to read. It is removed with this object where it holds what came through a pipe."""

    def __init__(self, path: str, is_ours: bool = False) -> None:
        self.path = path
        if is_ours:
            weakref.finalize(self, _remove, path)


@contextlib.contextmanager
def pipes_read_once() -> Iterator[None]:
    """Within this, a pipe that was read is what it was however often it is opened, as by a command."""
    global _kept
    before, _kept = _kept, {}
    try:
        yield
    finally:
        _kept = before


def is_pipe(path: str | Path) -> bool:
    """Tells whether a path is standard input (`-`), a pipe or a terminal. OSError when it is not there."""
    if str(path) == STDIN:
        return True
    mode = os.stat(path).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)


def folder_beside(path: str | Path) -> Path:
    """The folder that a file lies in; for what comes through a pipe, the one where the program runs."""
    folder = Path(path).parent
    return Path() if str(folder).startswith(("/dev", "/proc")) else folder


def place_of(path: str | Path) -> Place:
    """Place to read a path from: itself, or a temporary file of what a pipe held.

    OSError when it cannot be read, LmrError for a device and for more than 8 GiB.
    """
    name = str(path)
    if _kept is not None and name in _kept:
        return _kept[name]
    if not is_pipe(name):
        return Place(name)
    place = _spool(name)
    if _kept is not None:
        _kept[name] = place
    return place


def _spool(name: str) -> Place:
    with _open(name) as pipe:
        handle, path = tempfile.mkstemp(prefix="lmr-pipe-")
        place, n_bytes = Place(path, is_ours=True), 0
        with open(handle, "wb") as file:
            while chunk := pipe.read(_CHUNK_BYTES):
                n_bytes += len(chunk)
                if n_bytes > MAX_BYTES:
                    raise LmrError(f"{name} holds more than {MAX_BYTES >> 30} GiB; give a file instead of a pipe")
                file.write(chunk)
    return place


@contextlib.contextmanager
def _open(name: str) -> Iterator[IO[bytes]]:
    if name == STDIN:
        if sys.stdin is None:
            raise LmrError("-: standard input is closed here; give a file")
        yield sys.stdin.buffer
        return
    with open(name, "rb") as pipe:
        is_device = stat.S_ISCHR(os.fstat(pipe.fileno()).st_mode)
        if is_device and not pipe.isatty() and os.path.realpath(name) != os.devnull:
            raise LmrError(f"{name} is a device; give a file, a pipe or -")
        yield pipe


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
