"""The index of the images in the tars of a folder, for looking up: a file of SQLite."""

import hashlib
import os
import sqlite3
import threading
import weakref
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from retrieval.errors import LmrError
from retrieval.files.urls import FileStatus
from retrieval.images.signatures import IMAGE_SUFFIXES
from retrieval.images.tars.headers import Member

ENTRY_COLUMNS = "path, id, size, mtime_ns, first_row, end_row, problem, is_refused, n_other, n_unsafe, digest"
FORMAT_VERSION = 2
WAIT_S = 600.0  # for another process that writes to the index


@dataclass(frozen=True, slots=True)
class TarEntry:
    """A tar as it was indexed.

    path: its name in its folder. id: of its rows. size, mtime_ns: of the file then. first_row, end_row: of its
    images in the index. problem: what is wrong with it, '' = nothing. is_refused: it cannot be used at all (0 or 1).
    n_other: files that are not images. n_unsafe: members that are never followed. digest: of its rows (RowDigest).
    """

    path: str
    id: int
    size: int
    mtime_ns: int
    first_row: int
    end_row: int
    problem: str
    is_refused: int
    n_other: int
    n_unsafe: int
    digest: str

    def is_of(self, status: os.stat_result | FileStatus) -> bool:
        """True for a file that has the size and time of change of then."""
        return (self.size, self.mtime_ns) == (status.st_size, status.st_mtime_ns)


class RowDigest:
    """sha256 (hex) over the rows of a tar in their order, so that one that was changed is noticed.

    tar_id: that the rows have.
    """

    def __init__(self, tar_id: int) -> None:
        self._hash = hashlib.sha256(str(tar_id).encode())

    def add(self, row: tuple[str, int, int, int]) -> None:
        """row: name, key, offset, size."""
        self._hash.update("\0".join(map(str, row)).encode(errors="surrogatepass") + b"\n")

    def hexdigest(self) -> str:
        """Digest of the rows that were added so far."""
        return self._hash.hexdigest()


class TarIndex:
    """An index file, open for looking up. Can be pickled, used in threads and in forked processes.

    LmrError, of any look-up: the file is damaged or gone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._carried: list[sqlite3.Connection | None] = []
        self._is_verified = False

    def __reduce__(self) -> tuple[type["TarIndex"], tuple[Path]]:
        return TarIndex, (self.path,)

    def entry(self, tar: str, status: os.stat_result | FileStatus) -> TarEntry | None:
        """Entry of a tar by its name in its folder; None when it is not indexed as it is now."""
        for row in self._select(f"SELECT {ENTRY_COLUMNS} FROM tars WHERE path = ?", tar):
            entry = TarEntry(*row)
            if entry.is_of(status):
                return entry
        return None

    def is_whole(self) -> bool:
        """True where it is of this version and its last making came to its end."""
        ((version,),) = self._select("PRAGMA user_version")
        return version == FORMAT_VERSION and bool(self._select("SELECT 1 FROM sqlite_master WHERE name = 'by_key'"))

    def find(self, name: str) -> list[tuple[int, Member]]:
        """Images whose file names, with or without suffix, may be that of `name`, each with the id of its tar.

        There may be others among them: the caller compares. Of those with one name in one tar it is the last one.
        """
        found: dict[tuple[int, str], Member] = {}
        for key in {key_of(name), _checksum(name)}:
            sql = "SELECT tar, name, offset, size FROM members WHERE key = ? ORDER BY row"
            for tar, path, offset, size in self._select(sql, key):
                if type(path) is not str or type(offset) is not int or type(size) is not int or min(offset, size) < 0:
                    raise self.damaged("a picture has no place in its tar")
                found[tar, path] = Member(path, offset, size)
        return [(tar, member) for (tar, _), member in found.items()]

    def names(self, entry: TarEntry) -> list[str]:
        """The images in a tar, in the order in which a walk through its folders meets them."""
        return sorted({name for name, *_ in self._rows(entry)}, key=lambda name: name.split("/"))

    def damaged(self, reason: str) -> LmrError:
        """Error for an index file that is not as it was made."""
        return LmrError(
            f"{self.path} is damaged ({reason}); remove it and run the same command again, which makes it anew"
        )

    def verify(self) -> None:
        """Verifies the file whole, once: before it is said that an image is in no tar."""
        if self._is_verified:
            return
        ((answer,),) = self._select("PRAGMA integrity_check(1)")
        if answer != "ok":
            raise self.damaged(str(answer).splitlines()[-1])
        for row in self._select(f"SELECT {ENTRY_COLUMNS} FROM tars"):
            self._rows(TarEntry(*row))
        self._is_verified = True

    def _rows(self, entry: TarEntry) -> list[Any]:
        """Name, key, offset and size of the images in a tar, as they were indexed."""
        sql = "SELECT name, key, offset, size FROM members WHERE row >= ? AND row < ? AND tar = ? ORDER BY row"
        digest, rows = RowDigest(entry.id), self._select(sql, entry.first_row, entry.end_row, entry.id)
        for row in rows:
            digest.add(row)
        if digest.hexdigest() != entry.digest:
            raise self.damaged(f"the rows of {entry.path} were changed")
        return rows

    def _select(self, sql: str, *values: str | int) -> list[Any]:
        if self._pid != os.getpid():  # a fork's copies of the connection and the lock are not to be used, nor closed
            self._carried.append(self._connection)
            self._connection, self._lock, self._pid = None, threading.Lock(), os.getpid()
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = connect(self.path, "ro")
                    weakref.finalize(self, self._connection.close)
                return self._connection.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                if isinstance(error, sqlite3.OperationalError):  # of the disk, its rights, another process
                    raise LmrError(f"{self.path} cannot be read: {error}; run the same command again") from error
                raise self.damaged(str(error)) from error


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """mode: `ro`, or `rwc` to write. Every statement is a transaction of its own until one is begun."""
    uri = f"file:{quote(os.path.abspath(path))}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=WAIT_S, isolation_level=None, check_same_thread=False)


def key_of(name: str) -> int:
    """Key by which an image is looked up: a checksum of its file name without suffix."""
    stem, suffix = os.path.splitext(os.path.basename(name))
    return _checksum(stem if suffix.lower() in IMAGE_SUFFIXES else name)


def _checksum(name: str) -> int:
    return zlib.crc32(os.path.basename(name).encode(errors="surrogateescape"))
