"""Folders that are replaced whole: a reader finds the old one or the new one, and a kill leaves one of them."""

import contextlib
import ctypes
import errno
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from retrieval.errors import LmrError
from retrieval.files.atomic import flush_file, flush_folder, private_path, write_error, write_text, written_for

CURRENT = "current"  # the file that names the version, in a folder that holds its content in one
_VERSION = "version-"
_VERSION_NAME = re.compile(_VERSION + r"[0-9a-f]{8}")

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux
_RENAME_SWAP = 2  # of macOS
# A kernel, file system or container that cannot; a layer of a container's image; a place where something is mounted.
_CANNOT_EXCHANGE = frozenset(
    (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EXDEV, errno.EBUSY)
)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill that takes the place of `path` when the block ends without an error.

    For one writer at a time, who holds the lock of `path`; what killed ones left is removed. Two names are exchanged in
    one step where the system can do that. Where it cannot, the new folder becomes a sub-folder of the one there, which
    a pointer file then names: readers go through `current_folder`.
    Raises LmrError for an OSError; the old folder then stays.
    """
    real = Path(os.path.realpath(path))
    within = real.is_dir() and (os.path.ismount(real) or not os.access(real.parent, os.W_OK))
    private = _new_version(real) if within else private_path(real)
    try:
        remove_leftovers(real)
        private.mkdir(parents=True)
        yield private
        flush_tree(private)
        if within:
            _point_to(private)
        else:
            _put_in_place(private, real)
    except OSError as error:
        raise write_error(path, error) from error
    except LmrError as error:  # of a file in it; people know the folder by its name
        raise LmrError(*(line.replace(str(private), str(path)) for line in error.lines)) from error
    finally:
        if private != current_folder(real):
            shutil.rmtree(private, ignore_errors=True)


def current_folder(path: Path) -> Path:
    """The folder that holds the content: the path itself, or the version in it that its pointer names."""
    try:
        name = (path / CURRENT).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return path
    return path / name if name.startswith(_VERSION) and Path(name).name == name else path


def remove_leftovers(path: Path) -> None:
    """Removes what killed writers of this folder, and of no other, left beside it and in it."""
    beside = [place for place in path.parent.glob(".*.partial") if written_for(place.name) == path.name]
    within = [place for place in path.glob(f"{_VERSION}*") if _VERSION_NAME.fullmatch(place.name)]
    current = current_folder(path)
    for place in (*beside, *within):
        if place != current and place.is_dir():
            shutil.rmtree(place, ignore_errors=True)


def flush_tree(folder: Path) -> None:
    """Makes all that is in a folder last through a power cut; what links in it lead to is left to who wrote that."""
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names):
            if not path.is_symlink():
                flush_file(path)
        flush_folder(Path(place))


def link_or_copy(source: Path, place: Path) -> None:
    """The same file under another name, or a copy of it where the file system has no links. Raises OSError."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, place)
    except OSError:
        shutil.copyfile(source, place)


def exchange(one: Path, other: Path) -> bool:
    """Exchanges what two names stand for, in one step; False where the system cannot. Raises OSError."""
    if os.name != "posix":
        return False
    library = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if sys.platform.startswith("linux") and hasattr(library, "renameat2"):
        failed = library.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)
    elif sys.platform == "darwin" and hasattr(library, "renamex_np"):
        failed = library.renamex_np(*names, _RENAME_SWAP)
    else:
        return False
    code = ctypes.get_errno()
    if failed and code not in _CANNOT_EXCHANGE:
        raise OSError(code, os.strerror(code), str(other))
    return not failed


def _put_in_place(private: Path, path: Path) -> None:
    """The finished folder takes the name; the one that had it, if any, then has the private name or is emptied."""
    if not path.exists() or not any(path.iterdir()):
        os.rename(private, path)
    elif not exchange(private, path):
        version = _new_version(path)
        os.rename(private, version)
        _point_to(version)
    flush_folder(path.parent)


def _new_version(folder: Path) -> Path:
    """A name that no version in the folder has."""
    return folder / f"{_VERSION}{secrets.token_hex(4)}"


def _point_to(version: Path) -> None:
    """Makes a version the content of the folder that it is in, and removes what was there."""
    folder = version.parent
    flush_folder(folder)
    write_text(folder / CURRENT, [version.name])
    for place in [*folder.iterdir()]:
        if place.name in (CURRENT, version.name) or place.name.startswith("."):
            continue
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink(missing_ok=True)
