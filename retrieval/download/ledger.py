"""The ledger of a download: an SQLite file in the images folder with a row for each image that was tried."""

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from retrieval.download.config import Form
from retrieval.download.resize import Stored
from retrieval.errors import LmrError
from retrieval.files.atomic import flush_folder
from retrieval.files.json_file import convert, parse_json

LEDGER_NAME = "download.sqlite"
FORMAT_VERSION = 1

_REASON_CHARACTERS = 160  # of what SQLite says
_LOOKED_UP = 512  # ids in one question to SQLite, whose limit is 999 in old builds
_TYPES = {"bytes": "INTEGER", "width": "INTEGER", "height": "INTEGER", "http_code": "INTEGER", "n_tries": "INTEGER"}
_ENTRIES_AT_ONCE = 256
_COMMIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Entry:
    """An image in the ledger; the columns of its table `pictures`, in order.

    status: excluded = not fetched, since the server asks not to. http_code: of the last answer. cause, detail: of a
    failure. bytes, sha256, width, height, perceptual_hash (hex): of the stored file; original_*: of what came. time:
    UTC, ISO 8601. None = not known.
    """

    image_id: str
    url: str
    status: Literal["done", "failed", "excluded"]
    time: str
    http_code: int | None = None
    cause: str | None = None
    detail: str | None = None
    n_tries: int = 0
    bytes: int | None = None
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    perceptual_hash: str | None = None
    original_bytes: int | None = None
    original_width: int | None = None
    original_height: int | None = None

    def __post_init__(self) -> None:
        is_done = self.status == "done"
        if is_done != (self.bytes is not None) or is_done == bool(self.cause):
            raise ValueError(f"an entry is done with its bytes or failed with a cause, got {self}")


@dataclass(frozen=True, slots=True)
class Archive:
    """A tar file in the ledger; the columns of its table `archives`, in order."""

    name: str
    url: str
    status: Literal["done", "failed"]
    time: str
    cause: str | None = None
    bytes: int | None = None
    md5: str | None = None


_TABLES = {"pictures": Entry, "archives": Archive}


class Ledger:
    """Opened by one run at a time. path: the file, or None for one that is empty and lives in memory."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._connection = self._open()

    def close(self) -> None:
        """Releases the file."""
        self._connection.close()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def find(self, image_ids: Sequence[str]) -> dict[str, Entry]:
        """The entries of these images, as far as there are any."""
        found: dict[str, Entry] = {}
        with self._errors():
            for start in range(0, len(image_ids), _LOOKED_UP):
                part = list(image_ids[start : start + _LOOKED_UP])
                marks = ",".join("?" * len(part))
                rows = self._connection.execute(f"SELECT * FROM pictures WHERE image_id IN ({marks})", part)
                found.update((row[0], Entry(*row)) for row in rows)
        return found

    def put(self, entries: Sequence[Entry]) -> None:
        """Saves these entries together."""
        self._put("pictures", entries)

    def archives(self) -> dict[str, Archive]:
        """Tar files, by name."""
        with self._errors():
            return {row[0]: Archive(*row) for row in self._connection.execute("SELECT * FROM archives")}

    def put_archive(self, archive: Archive) -> None:
        """Saves this one."""
        self._put("archives", [archive])

    def forget_archives(self, names: Sequence[str]) -> None:
        """Forgets that they were ever fetched."""
        with self._errors(), self._connection:
            self._connection.executemany("DELETE FROM archives WHERE name = ?", [[name] for name in names])

    def note(self, name: str) -> str | None:
        """A remark about the whole folder."""
        with self._errors():
            row = self._connection.execute("SELECT value FROM notes WHERE name = ?", [name]).fetchone()
        return None if row is None else str(row[0])

    def set_note(self, name: str, value: str) -> None:
        """Makes the remark."""
        with self._errors(), self._connection:
            self._connection.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", [name, value])

    def require_form(self, form: Form) -> None:
        """Writes the form down, or raises LmrError when the images are kept in another."""
        text, kept = json.dumps(form.to_json()), self.note("form")
        if kept is None:
            self.set_note("form", text)
        elif kept != text:
            remedy = "move it away, or choose another folder"
            old = convert(parse_json(kept, f"{self._path}: form", remedy), Form, str(self._path), remedy).words()
            raise LmrError(
                f"{self._path} keeps pictures with {old}, asked for was {form.words()}; give the same options, "
                "another folder, or `overwrite`"
            )

    def begin_anew(self, form: Form) -> None:
        """Forgets all images; files that are there count no more, also in later runs."""
        with self._errors(), self._connection:
            self._connection.execute("DELETE FROM pictures")
            notes = [("form", json.dumps(form.to_json())), ("only_listed", "yes")]
            self._connection.executemany("INSERT OR REPLACE INTO notes VALUES (?, ?)", notes)

    @property
    def only_listed(self) -> bool:
        """True where files count only when the ledger knows them."""
        return self.note("only_listed") is not None

    def _put(self, table: str, rows: Sequence[Entry] | Sequence[Archive]) -> None:
        marks = ",".join("?" * len(fields(_TABLES[table])))
        with self._errors(), self._connection:
            values = [astuple(row) for row in rows]
            self._connection.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", values)

    def _open(self) -> sqlite3.Connection:
        with self._errors():
            connection = sqlite3.connect(":memory:" if self._path is None else self._path, timeout=1)
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version not in (0, FORMAT_VERSION):
                raise LmrError(
                    f"{self._path} has format_version {version}, this lmr reads {FORMAT_VERSION}; "
                    "use the lmr that made it, or choose another folder"
                )
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # so that two runs never share a folder
            connection.execute("PRAGMA synchronous = FULL")  # a file gets its name when its row lasts
            if version:
                connection.execute("SELECT count(*) FROM notes").fetchone()
                return connection
            connection.execute("PRAGMA journal_mode = WAL")
            with connection:
                for name, kind in _TABLES.items():
                    columns = ", ".join(_column(field.name) for field in fields(kind))
                    connection.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns}) WITHOUT ROWID")
                connection.execute("CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT)")
                connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
        return connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, TypeError, ValueError) as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> LmrError:
        text = str(error).split("\n")[0][:_REASON_CHARACTERS]
        if "locked" in text:
            return LmrError(f"{self._path} is in use by another program; close that and run the same command again")
        if "full" in text or "disk I/O" in text:
            return LmrError(f"{self._path} cannot be written: {text}; make room and run the same command again")
        if "readonly" in text or ("unable to open" in text and not (self._path and self._path.exists())):
            return LmrError(f"{self._path} cannot be written; choose another folder")
        if isinstance(error, sqlite3.OperationalError) and "no such" not in text and "decode" not in text:
            return LmrError(f"{self._path} cannot be used: {text}; try again, or choose another folder")
        if "not a database" in text or "no such" in text:
            return LmrError(f"{self._path} is not a ledger of a download; move it away, or choose another folder")
        return LmrError(f"{self._path} is damaged ({text}); move it away, or choose another folder")


def _column(name: str) -> str:
    if name in ("image_id", "name"):
        return f"{name} TEXT PRIMARY KEY"
    is_number = name in _TYPES or name.startswith("original_")
    return f"{name} {'INTEGER' if is_number else 'TEXT'}"


def as_columns(stored: Stored) -> dict[str, Any]:
    """The columns that a stored file fills."""
    return {
        "bytes": stored.n_bytes,
        "sha256": stored.sha256,
        "width": stored.width,
        "height": stored.height,
        "perceptual_hash": f"{stored.perceptual_hash:016x}",
        "original_bytes": stored.n_original_bytes or None,
        "original_width": stored.original_width or None,
        "original_height": stored.original_height or None,
    }


class Saver:
    """Collects entries and saves them together.

    on_done: is called with a number of images that are saved and whether they are stored. What a kill leaves between
    the ledger and the names are rows whose files are not there, which the next run fetches again.
    """

    def __init__(self, ledger: Ledger, on_done: Callable[[int, bool], None]) -> None:
        self._ledger, self._on_done = ledger, on_done
        self._entries: list[Entry] = []
        self._places: list[tuple[str, str]] = []
        self._saved_s = time.monotonic()

    def keep(self, entry: Entry, partial: str | None = None, path: str = "") -> None:
        """An image that is stored.

        partial: the whole image under its private name, which is to become `path`; None = it is there already. What
        lies at `path` is removed, so that it cannot be taken for this image. Raises OSError when no file can have
        this name.
        """
        if partial is not None:
            with suppress(FileNotFoundError):
                os.unlink(path)
            self._places.append((partial, path))
        self._entries.append(entry)

    def fail(self, entry: Entry) -> None:
        """An image that could not be had."""
        self._entries.append(entry)

    def wait_s(self) -> float | None:
        """Seconds until something is to be saved; None when there is nothing."""
        return max(0.0, self._saved_s + _COMMIT_S - time.monotonic()) if self._entries else None

    def save_when_due(self) -> None:
        """Saves when there is much to save, or it is time."""
        if len(self._entries) >= _ENTRIES_AT_ONCE or time.monotonic() >= self._saved_s + _COMMIT_S:
            self.save()

    def save(self) -> None:
        """Saves everything. Raises LmrError from the ledger, OSError from the disk."""
        self._saved_s = time.monotonic()
        entries, places = self._entries, self._places
        self._entries, self._places = [], []
        if not entries:
            return
        self._ledger.put(entries)
        for partial, path in places:
            _rename(partial, path)
        for folder in {os.path.dirname(path) for _, path in places}:
            flush_folder(Path(folder))
        n_done = sum(entry.status == "done" for entry in entries)
        for n, is_stored in ((n_done, True), (len(entries) - n_done, False)):
            if n:
                self._on_done(n, is_stored)


def _rename(partial: str, path: str) -> None:
    try:
        os.replace(partial, path)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.replace(partial, path)
