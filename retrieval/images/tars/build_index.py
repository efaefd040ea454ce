"""Makes the index of the images in the tars of a folder, once: one pass over their headers."""

import atexit
import functools
import hashlib
import os
import secrets
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from retrieval.errors import LmrError
from retrieval.files.urls import FileStatus, joined, remote_url, status_of
from retrieval.images.tars.headers import Member, RefusedTarError, TarScan
from retrieval.images.tars.index import FORMAT_VERSION, RowDigest, TarEntry, TarIndex, connect, key_of
from retrieval.progress import SILENT, Progress

Status = os.stat_result | FileStatus
INDEX_NAME = ".lmr-tars.sqlite"
_CACHE_KIB = 65536  # of SQLite, while it writes
_TABLES = (
    "CREATE TABLE tars (path TEXT PRIMARY KEY, id INTEGER, size INTEGER, mtime_ns INTEGER, first_row INTEGER, "
    "end_row INTEGER, problem TEXT, is_refused INTEGER, n_other INTEGER, n_unsafe INTEGER, digest TEXT)",
    "CREATE TABLE members (row INTEGER PRIMARY KEY, tar INTEGER, name TEXT, key INTEGER, offset INTEGER, size INTEGER)",
    f"PRAGMA user_version = {FORMAT_VERSION}",
)


_LARGE_BYTES = 1_000_000_000  # from which on going through tars takes long enough to say so


def open_index(folder: Path, names: Sequence[str], progress: Progress = SILENT) -> tuple[TarIndex, list[TarEntry]]:
    """The index that knows these tars of a folder as they are now, and what it knows of each.

    It is a file in the folder, unless that is at a URL, else in the user's cache folder, else a temporary one of this
    process. Tars that it does not know, or that have another size or time of change, are gone through. Raises LmrError
    for a tar that cannot be read, or when there is no place for the index.
    """
    places = list(_places(folder))
    statuses = {name: _status(joined(folder, name)) for name in names}
    for place in places:
        if found := _whole(place, statuses):
            return found
    failure = ""
    for place in places:
        try:
            _complete(place, folder, statuses, progress)
        except (sqlite3.Error, OSError) as error:
            failure = failure or f"{place} cannot be written: {getattr(error, 'strerror', None) or error}"
            continue
        if failure:
            progress.warn(f"{failure}; the index of the tars is kept in {place}")
        now = {name: _status(joined(folder, name)) for name in names}
        if found := _whole(place, now):
            return found
        if all(_size_and_time(now[name]) == _size_and_time(statuses[name]) for name in names):
            raise TarIndex(place).damaged("it does not know a tar that it holds")
        raise LmrError(f"{folder}: the tars in it change while they are indexed; wait until they are whole")
    raise LmrError(f"{failure}; nor can another file for the index of the tars; make room")


def _places(folder: Path) -> Iterator[Path]:
    url = remote_url(str(folder))
    if url is None:
        yield folder / INDEX_NAME
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    name = (
        hashlib.sha256((url or os.path.abspath(folder)).encode(errors="surrogateescape")).hexdigest()[:32] + ".sqlite"
    )
    yield Path(cache) / "lmr" / "tars" / name
    yield Path(tempfile.gettempdir()) / f"lmr-tars-{os.getpid()}-{_run_name()}" / name


@functools.cache
def _run_name() -> str:
    """Name of this process, whose temporary files are removed at its end."""
    name = secrets.token_hex(4)
    folder = os.path.join(tempfile.gettempdir(), f"lmr-tars-{os.getpid()}-{name}")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return name


def _whole(place: Path, statuses: Mapping[str, Status]) -> tuple[TarIndex, list[TarEntry]] | None:
    """The index in a file, when it knows all these tars."""
    if not place.exists():
        return None
    index = TarIndex(place)
    try:
        entries = [entry for name, status in statuses.items() if (entry := index.entry(name, status))]
        return (index, entries) if len(entries) == len(statuses) and index.is_whole() else None
    except LmrError:  # damaged, or of another version: it is made anew
        return None


def _complete(place: Path, folder: Path, statuses: Mapping[str, Status], progress: Progress) -> None:
    """Brings an index file up to date with these tars; a kill leaves those that were done before it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with closing(_writable(place)) as connection:
        known = {path: (size, time) for path, size, time in connection.execute("SELECT path, size, mtime_ns FROM tars")}
        todo = [name for name, now in statuses.items() if known.get(name) != _size_and_time(now)]
        n_bytes = sum(statuses[name].st_size for name in todo)
        if n_bytes >= _LARGE_BYTES:
            told = joined(folder, todo[0]) if len(todo) == 1 else remote_url(str(folder)) or folder
            progress.warn(f"{told}: indexing {n_bytes / 1e9:.1f} GB of tars, once")
        progress.begin("indexing tars", n_bytes, "B")
        if len(todo) > len(known):  # sorting all keys in the end is quicker than placing most of them one by one
            connection.execute("DROP INDEX IF EXISTS by_key")
        for name in (name for name in known if not _is_there(joined(folder, name))):
            with _transaction(connection):
                _forget(connection, name)
        for name in todo:
            with _transaction(connection):
                _add(connection, joined(folder, name), progress)
        connection.execute("CREATE INDEX IF NOT EXISTS by_key ON members (key)")
        progress.end()


def _writable(place: Path) -> sqlite3.Connection:
    """The index file with its tables; one that is damaged or of another version is begun anew."""
    connection = connect(place, "rwc")
    try:
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        with _transaction(connection):
            version = _version(connection)
            if version == 0:
                for statement in _TABLES:
                    connection.execute(statement)
    except sqlite3.DatabaseError as error:
        connection.close()
        if isinstance(error, sqlite3.OperationalError):
            raise
        version = -1
    if version in (0, FORMAT_VERSION):
        return connection
    connection.close()
    place.unlink()
    return _writable(place)


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _add(connection: sqlite3.Connection, path: str, progress: Progress) -> None:
    """Goes through one tar, unless another process did so while this one waited."""
    status, name = _status(path), os.path.basename(path)
    known = connection.execute("SELECT size, mtime_ns FROM tars WHERE path = ?", (name,))
    if known.fetchone() == _size_and_time(status):
        return
    _forget(connection, name)
    (first,) = connection.execute("SELECT coalesce(max(row), 0) + 1 FROM members").fetchone()
    tar_id, scan = secrets.randbits(47), TarScan(path, progress.add)  # random: never that of another file's tar
    is_refused, problem, digest = False, "", RowDigest(tar_id)
    try:
        connection.executemany(
            "INSERT INTO members (tar, name, key, offset, size) VALUES (?, ?, ?, ?, ?)",
            ((tar_id, *_row(member, digest)) for member in scan),
        )
        problem = scan.problem
    except RefusedTarError as error:
        connection.execute("DELETE FROM members WHERE row >= ?", (first,))
        is_refused, problem, digest = True, str(error), RowDigest(tar_id)
    except OSError as error:
        raise LmrError(f"{path} cannot be read: {error.strerror}") from error
    (end,) = connection.execute("SELECT coalesce(max(row), 0) + 1 FROM members").fetchone()
    entry = (name, tar_id, status.st_size, status.st_mtime_ns, first, end)
    connection.execute(
        "INSERT INTO tars VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*entry, problem, is_refused, scan.n_other, scan.n_unsafe, digest.hexdigest()),
    )


def _row(member: Member, digest: RowDigest) -> tuple[str, int, int, int]:
    """Name, key, offset and size of an image, added to the digest of its tar."""
    row = (member.name, key_of(member.name), member.offset, member.size)
    digest.add(row)
    return row


def _forget(connection: sqlite3.Connection, name: str) -> None:
    for first, end in connection.execute("SELECT first_row, end_row FROM tars WHERE path = ?", (name,)).fetchall():
        connection.execute("DELETE FROM members WHERE row >= ? AND row < ?", (first, end))
    connection.execute("DELETE FROM tars WHERE path = ?", (name,))


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Does all of it or nothing, also for another process; it waits for one that is writing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with suppress(sqlite3.Error):  # where the disk is full SQLite has done so itself
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _is_there(path: str) -> bool:
    try:
        status_of(path)
    except OSError:
        return False
    return True


def _size_and_time(status: Status) -> tuple[int, int]:
    """Size and time of change of a tar, by which it is known."""
    return status.st_size, status.st_mtime_ns


def _status(path: str) -> Status:
    try:
        return status_of(path)
    except OSError as error:
        raise LmrError(f"{path} cannot be read: {error.strerror or 'it is not there'}") from error
