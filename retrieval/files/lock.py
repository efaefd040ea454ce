"""One writer for each output: a lock on an open file, which ends with its process however that ends."""

import contextlib
import errno
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from retrieval.errors import LmrError
from retrieval.files.atomic import write_error

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

Tell = Callable[[str], None]

_POLL_S = 0.25  # between two looks at a lock that somebody else holds
_HOLDER_BYTES = 1000  # read of what a holder says of itself
_NO_LOCKS = frozenset((errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL))

# Locks of POSIX are a process's, so that workers that it forked do not keep one when it dies. Between the threads of
# one process they do not hold, and closing any handle of the file ends them: hence this set of what is held here.
_held: set[str] = set()
_guard = threading.Lock()


@contextlib.contextmanager
def output_lock(output: Path, *, wait: bool = False, tell: Tell = lambda _: None) -> Iterator[None]:
    """Holds the lock of an output (file or folder, there or not) while the block runs.

    The lock is on `.NAME.lock` beside the output, which says who holds it and is removed at the end.
    wait: wait for another holder, who is told of once, or raise LmrError that names it. A file system that has no
    locks is told of, and the block runs without one.
    Raises LmrError when the folder of the output cannot be written.
    """
    path = lock_path(output)
    told = False
    while True:
        lock = _try_lock(path, output, tell)
        if lock is not None:
            break
        problem = f"{output} is being written by {_holder(path)}"
        if not wait:
            raise LmrError(f"{problem}; run this again when that has ended, or with --wait")
        if not told:
            tell(f"{problem}; waiting for it to end")
            told = True
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        _release(lock, path)


def lock_path(output: Path) -> Path:
    """The file that carries the lock of an output; the same for every way to write the output's path."""
    real = Path(os.path.realpath(output))
    return real.with_name(f".{real.name}.lock")


def _try_lock(path: Path, output: Path, tell: Tell) -> BinaryIO | None:
    """The locked file, None while another process or thread holds it. Must be given to `_release`."""
    with _guard:
        if str(path) in _held:
            return None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+b")
        except OSError as error:
            raise write_error(output, error) from error
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, "this system has no file locks")
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                file.close()
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    return None
                raise write_error(output, error) from error
            tell(f"{path.parent} cannot be locked ({error.strerror}): do not write {output} by two commands at once")
        if not _is_there(file, path):  # its holder removed it meanwhile; the next look makes a new one
            file.close()
            return None
        _held.add(str(path))
    with contextlib.suppress(OSError):  # a full disk is found by who writes the output
        file.truncate(0)
        file.write(_describe_self().encode(errors="replace"))
        file.flush()
    return file


def _release(file: BinaryIO, path: Path) -> None:
    with _guard:
        with contextlib.suppress(OSError):
            path.unlink()  # before the lock ends: who opens it now finds that it is not the one there
        file.close()
        _held.discard(str(path))


def _is_there(file: BinaryIO, path: Path) -> bool:
    """Whether the path still names this open file."""
    try:
        now = os.stat(path)
    except OSError:
        return False
    mine = os.fstat(file.fileno())
    return (mine.st_dev, mine.st_ino) == (now.st_dev, now.st_ino)


def _describe_self() -> str:
    command = " ".join([os.path.basename(sys.argv[0]) or "python", *sys.argv[1:]])
    shown = "".join(character if character.isprintable() else "?" for character in command)[:200]
    return f"process {os.getpid()} on {socket.gethostname()} ({shown})"


def _holder(path: Path) -> str:
    """Who holds the lock, as the lock file says; it is not opened while this process holds it."""
    with _guard:
        if str(path) in _held:
            return "another thread of this process"
        try:
            with path.open("rb") as file:
                text = file.read(_HOLDER_BYTES).decode(errors="replace").strip()
        except OSError:
            text = ""
    return text or "another process"
