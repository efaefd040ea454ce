"""The ledger of a download: an SQLite file in the images folder with a row for each picture that was tried."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from retrieval.download.resizing import Stored
from retrieval.download.rules import Form
from retrieval.errors import LmrError
from retrieval.files.json_file import convert, parse_json

LEDGER_NAME = "download.sqlite"
FORMAT_VERSION = 1

_REASON_CHARACTERS = 160  # of what SQLite says
_LOOKED_UP = 512  # ids in one question to SQLite, whose limit is 999 in old builds


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture in the ledger; the columns of its table `pictures`, in order.

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
_TYPES = {"bytes": "INTEGER", "width": "INTEGER", "height": "INTEGER", "http_code": "INTEGER", "n_tries": "INTEGER"}


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
        """The entries of these pictures, as far as there are any."""
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
        """All tar files, by name."""
        with self._errors():
            return {row[0]: Archive(*row) for row in self._connection.execute("SELECT * FROM archives")}

    def put_archive(self, archive: Archive) -> None:
        """Saves this one."""
        self._put("archives", [archive])

    def forget_archives(self, names: Sequence[str]) -> None:
        """As if they had never been fetched."""
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
        """Writes the form down, or raises LmrError when the pictures are kept in another."""
        text, kept = json.dumps(form.to_json()), self.note("form")
        if kept is None:
            self.set_note("form", text)
        elif kept != text:
            remedy = "move it away, or choose another folder"
            old = convert(parse_json(kept, f"{self._path}: form", remedy), Form, str(self._path), remedy).options()
            raise LmrError(
                f"{self._path} keeps pictures with {old}, asked for was {form.options()}; give the same options, "
                "another folder, or --overwrite"
            )

    def begin_anew(self, form: Form) -> None:
        """Forgets all pictures; files that are there count no more, also in later runs."""
        with self._errors(), self._connection:
            self._connection.execute("DELETE FROM pictures")
            notes = [("form", json.dumps(form.to_json())), ("only_listed", "yes")]
            self._connection.executemany("INSERT OR REPLACE INTO notes VALUES (?, ?)", notes)

    @property
    def only_listed(self) -> bool:
        """Whether files count only when the ledger knows them."""
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
