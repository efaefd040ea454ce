"""Files that appear whole or not at all: written under a private name, flushed to disk, renamed."""

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from retrieval.errors import LmrError

try:
    import fcntl
except ImportError:  # not a POSIX system: leftovers of killed writers then stay
    fcntl = None  # type: ignore[assignment]

_ENDING = ".partial"
_PRIVATE = re.compile(r"\.(.+)\.[0-9a-f]{8}\.partial", re.DOTALL)
# Of file systems that flush names by themselves, or not at all: CIFS, some of FUSE, shared folders of virtual machines.
_NO_FOLDER_FLUSH = frozenset((errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF))


def write_text(path: Path, text: Iterable[str]) -> None:
    """Writes UTF-8 text; a kill or power cut leaves the old file or the new one.

    Raises LmrError when the folder cannot be written or the disk is full; the old file then stays.
    """
    with replacing(path) as file:
        for part in text:
            file.write(part.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """As `write_text`."""
    with replacing(path) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to fill (`name` is its private path) that takes the place of `path` when the block ends without an error.

    Writers of one path do not meet: each has a name of its own, and what killed ones left is removed.
    Raises LmrError for an OSError; the old file then stays.
    """
    private = private_path(path)
    if path.exists() and not path.is_file():
        raise LmrError(f"{path} is {'a folder' if path.is_dir() else 'not a file'}; choose another name")
    try:
        remove_leftovers(path)
        with private.open("w+b") as file:
            _mark_as_written(file)
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(private, path)
        flush_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # renamed, or in a folder that cannot be written
            private.unlink()


def private_path(path: Path) -> Path:
    """A name beside a path that no other writer of it has, until what it holds is whole."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{_ENDING}")


def written_for(name: str) -> str | None:
    """The name of the file for which a file of this private name was written; None where it is none."""
    found = _PRIVATE.fullmatch(name)
    return found[1] if found else None


def remove_leftovers(path: Path) -> None:
    """Removes the private files of killed writers of this path; those that somebody writes to are locked and stay."""
    if fcntl is None or not path.parent.is_dir():
        return
    with os.scandir(path.parent) as entries:
        left = [entry.path for entry in entries if written_for(entry.name) == path.name]
    for place in left:
        with contextlib.suppress(OSError), open(place, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(place)


def write_error(path: Path, error: OSError) -> LmrError:
    """The error of a file or folder that could not be written, as one line."""
    if error.errno == errno.EEXIST:  # a folder was to be made where a file is
        return LmrError(f"{path} is a file, not a folder; give another name")
    return LmrError(f"{path} cannot be written: {error.strerror or error}; choose another place or make room")


def flush_file(path: Path) -> None:
    """Makes the content of a file last through a power cut."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Makes the names in a folder last through a power cut, where the system and the file system can do that."""
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:  # what it holds has its name already
        if error.errno not in _NO_FOLDER_FLUSH:
            raise


def _mark_as_written(file: BinaryIO) -> None:
    """Locks a private file while it is written; a file system without locks has nobody who looks."""
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
