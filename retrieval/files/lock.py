"""One writer for each output: a lock on an open file, which ends with its process however that ends."""

import contextlib
import errno
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from retrieval.errors import LmrError
from retrieval.files.atomic import write_error
from retrieval.progress import SILENT, Progress

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

MOUNTS = Path("/proc/self/mounts")  # of Linux

_POLL_S = 0.25  # between two looks at a lock that somebody else holds
_HOLDER_BYTES = 1000  # read of what a holder says of itself
_NO_LOCKS = frozenset((errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL))
_NOT_WRITABLE = frozenset((errno.EACCES, errno.EPERM, errno.EROFS))
_OPEN_TO_ALL = 0o666  # another user of a shared folder may have to wait for it, or finds it after a kill
_ESCAPED = re.compile(r"\\([0-7]{3})")  # a space in a name
_LOCAL_OPTIONS = frozenset(("nolock", "local_lock=all", "local_lock=posix"))  # of NFS
_LOCAL_TYPES = frozenset(("fuse.sshfs", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse", "fuse.mount-s3", "fuse.davfs"))

# Locks of POSIX are a process's, so that workers that it forked do not keep one when it dies. Between the threads of
# one process they do not hold, and closing any handle of the file ends them: hence this table of what is held here,
# from the lock file to its process (a fork inherits the table, not the locks) and thread.
_held: dict[str, tuple[int, int]] = {}
_told: set[str] = set()  # folders whose lack of locks was told
_guard = threading.Lock()


class HeldError(LmrError):
    """Another run writes the output."""


@contextlib.contextmanager
def output_lock(output: Path, *, wait: bool = False, progress: Progress = SILENT) -> Iterator[None]:
    """Holds the lock of an output (file or folder, there or not) while the block runs.

    The lock is on `lock_path`, which says who holds it and is removed at the end. A thread that holds it may ask for
    it again. wait: wait for another holder, who is told of once, or raise LmrError that names it. A file system that
    has no locks is told of once, and the block runs without one; so it does where an output is in a place that this
    process may not write, as there may be nothing to do.
    Raises LmrError when the output is not there and its folder cannot be written.
    """
    path = lock_path(output)
    if _held.get(str(path)) == _me():
        yield
        return
    with _folders(path.parent, output):
        descriptor = _wait_for(path, output, wait=wait, progress=progress)
        try:
            yield
        finally:
            if descriptor is not None:
                _release(descriptor, path)


@contextlib.contextmanager
def output_locks(*outputs: Path | None, wait: bool, progress: Progress) -> Iterator[None]:
    """Holds the lock of each output that is asked for, from before it is looked at until it is in place.

    All of a job's are given at once, so that two jobs that wait for each other's do not wait for ever.
    Raises LmrError where another run writes one of them, unless it is to wait, and where two are one file.
    """
    by_place: dict[str, Path] = {}
    for output in filter(None, outputs):
        other = by_place.setdefault(os.path.realpath(output), output)
        if other is not output:
            raise LmrError(f"{other} and {output} are one file, and both would be written; give them two names")
    with contextlib.ExitStack() as held:
        for _, output in sorted(by_place.items()):
            held.enter_context(output_lock(output, wait=wait, progress=progress))
        yield


def lock_path(output: Path) -> Path:
    """The file that carries the lock of an output; the same for every way to write the output's path.

    `.NAME.lock` beside it, or `.lock` in a folder that may be written beside which nothing may, as a mounted one.
    """
    real = Path(os.path.realpath(output))
    if real.is_dir() and not os.access(real.parent, os.W_OK) and os.access(real, os.W_OK):
        return real / ".lock"
    return real.with_name(f".{real.name}.lock")


def _wait_for(path: Path, output: Path, *, wait: bool, progress: Progress) -> int | None:
    """The descriptor of the locked file, None where nothing can be locked; LmrError instead of waiting untold."""
    told = False
    while True:
        is_free, descriptor = _try_lock(path, output, progress)
        if is_free:
            return descriptor
        problem = f"{output} is being written by {_holder(path)}"
        if not wait:
            raise HeldError(f"{problem}; run this again when that has ended, or with `wait`")
        if not told:
            progress.warn(f"{problem}; waiting for it to end")
            told = True
        time.sleep(_POLL_S)


def _try_lock(path: Path, output: Path, progress: Progress) -> tuple[bool, int | None]:
    """Tells whether nobody else holds the lock, and the descriptor of the file that is then locked, if it can be."""
    with _guard:
        while True:
            if _held.get(str(path), (0, 0))[0] == os.getpid():
                return False, None
            descriptor = _open(path, output)
            if descriptor is None:
                return True, None
            try:
                problem = _lock(descriptor)
            except BlockingIOError:
                os.close(descriptor)
                return False, None
            except OSError as error:
                os.close(descriptor)
                raise write_error(output, error) from error
            if _names(path, descriptor):
                break
            os.close(descriptor)  # its holder removed it meanwhile
        _held[str(path)] = _me()
        problem = problem or weak_locks(path.parent)
        if problem and str(path.parent) not in _told:
            _told.add(str(path.parent))
            progress.warn(f"{path.parent}: {problem}; do not write {output} by two commands at once")
    with contextlib.suppress(OSError):  # a full disk is found by who writes the output
        os.truncate(descriptor, 0)
        os.write(descriptor, _describe_self().encode(errors="replace"))
    return True, descriptor


def _open(path: Path, output: Path) -> int | None:
    """A descriptor of the lock file, made where it is missing; None where nothing may be written."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), _OPEN_TO_ALL)
    except OSError as error:
        if error.errno in _NOT_WRITABLE and output.exists():
            return None
        raise write_error(output, error) from error
    with contextlib.suppress(OSError):  # somebody else's file
        os.fchmod(descriptor, _OPEN_TO_ALL)
    return descriptor


def _lock(descriptor: int) -> str:
    """Locks the file; why it has no lock, where there are none. BlockingIOError: somebody else holds it."""
    if fcntl is None:
        return "this system has no file locks"
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise BlockingIOError(error.errno, error.strerror) from error
        if error.errno not in _NO_LOCKS:
            raise
        return f"its file system has no locks ({error.strerror})"
    return ""


def _release(descriptor: int, path: Path) -> None:
    with _guard:
        with contextlib.suppress(OSError):
            path.unlink()  # before the lock ends: who opens it now finds that it is not the one there
        os.close(descriptor)
        _held.pop(str(path), None)


@contextlib.contextmanager
def _folders(folder: Path, output: Path) -> Iterator[None]:
    """Makes the folder that the lock file needs; what is empty at the end of those made goes again."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise write_error(output, OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))) from error
    except OSError as error:
        raise write_error(output, error) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the first that is not empty
            for place in missing:
                place.rmdir()


def _names(path: Path, descriptor: int) -> bool:
    """Tells whether the path still names this open file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:
        return False


def _me() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


def _describe_self() -> str:
    command = " ".join([os.path.basename(sys.argv[0]) or "python", *sys.argv[1:]])
    shown = "".join(character if character.isprintable() else "?" for character in command)[:200]
    return f"process {os.getpid()} on {socket.gethostname()} ({shown})"


def _holder(path: Path) -> str:
    """Holder of the lock, as the lock file says; it is not opened while this process holds it."""
    with _guard:
        if _held.get(str(path), (0, 0))[0] == os.getpid():
            return "another thread of this process"
        try:
            with path.open("rb") as file:
                text = file.read(_HOLDER_BYTES).decode(errors="replace").strip()
        except OSError:
            text = ""
    return "".join(letter if letter.isprintable() else "?" for letter in text) or "another process"


def weak_locks(folder: Path, mounts: Path = MOUNTS) -> str:
    """Why a lock in this folder would hold on this machine alone, '' where nothing says so.

    mounts: the table of what is mounted, a line each: device, place, type, options.
    """
    found = _mount_of(folder, mounts)
    if found is None:
        return ""
    kind, options = found
    local = sorted(_LOCAL_OPTIONS.intersection(options)) if kind.startswith("nfs") else []
    if kind in _LOCAL_TYPES or local:
        how = f"{kind} with {local[0]}" if local else kind
        return f"locks of its file system ({how}) hold on this machine alone"
    return ""


def _mount_of(folder: Path, mounts: Path) -> tuple[str, list[str]] | None:
    """Type and options of the mount that the folder is in, None where that is not known."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    real, best, found = os.path.realpath(folder), -1, None
    for line in lines:
        cells = line.split(" ")
        if len(cells) < 4:
            continue
        place = _ESCAPED.sub(lambda code: chr(int(code[1], 8)), cells[1])
        if (real == place or real.startswith(place.rstrip("/") + "/")) and len(place) >= best:
            best, found = len(place), (cells[2], cells[3].split(","))
    return found
