"""Facts of all images of a manifest, measured once and kept in a file beside it."""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from retrieval.arrays import LongArray, ObjArray
from retrieval.data.image_source import ImageSource
from retrieval.data.near_duplicates import HashArray
from retrieval.errors import LmrError, UnreadableError
from retrieval.files.json_file import convert
from retrieval.images.quality import ImageFacts, measure_image
from retrieval.images.signatures import is_text_name
from retrieval.parallel import run_tasks
from retrieval.progress import SILENT, Progress

FORMAT_VERSION = 1
_REMEDY = "move it away or name another"
_REASON_CHARACTERS = 160  # of what SQLite says
_IMAGES_A_TASK = 64
_WAIT_S = 60.0  # for another command that saves what it measured into the same file
_TABLE = "CREATE TABLE IF NOT EXISTS facts (path TEXT PRIMARY KEY, state TEXT, facts TEXT)"

Measured = ImageFacts | str  # or why it is unreadable


@dataclass(frozen=True, slots=True, eq=False)
class FactsTable:
    """Facts of each row of a manifest, or the reason why its image is unreadable."""

    rows: tuple[Measured, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def readable(self) -> LongArray:
        """The rows that have facts."""
        return np.array([i for i, row in enumerate(self.rows) if isinstance(row, ImageFacts)], dtype=np.int64)

    @property
    def unreadable(self) -> dict[int, str]:
        """From row to reason."""
        return {i: row for i, row in enumerate(self.rows) if isinstance(row, str)}

    def column(self, name: str) -> ObjArray:
        """One of the facts, of the readable rows."""
        return np.array([getattr(row, name) for row in self.rows if isinstance(row, ImageFacts)], dtype=object)

    @property
    def hashes(self) -> HashArray:
        """Perceptual hashes of the readable rows, uint64."""
        return self.column("perceptual_hash").astype(np.uint64)


def measure_manifest(
    source: ImageSource, cache: Path | None, *, n_workers: int = 1, progress: Progress = SILENT
) -> FactsTable:
    """Facts of every image of a source, those in the cache (a file of SQLite) taken from there.

    An image counts as known when its path, size and time of change (of one in a tar or table those of that) are those
    of the cache. One that could not be read is never known: a permission, a decoder that was installed since or a
    machine at rest may let it be read. progress: is told of images once they are saved.
    Raises LmrError for a cache that is none or cannot be written.
    """
    known_as = [source.known_as(row) for row in range(len(source))]
    places, states = [_place(name) for name, _ in known_as], [state for _, state in known_as]
    found: list[Measured | None] = [None] * len(places)
    with closing(open_cache(cache)) as connection:
        known = _known(connection, cache)
        for row, (place, state) in enumerate(zip(places, states, strict=True)):
            if state and place in known and known[place][0] == state:
                found[row] = known[place][1]
        todo = [row for row, facts in enumerate(found) if facts is None]
        progress.begin("measuring", len(todo))
        tasks = [todo[i : i + _IMAGES_A_TASK] for i in range(0, len(todo), _IMAGES_A_TASK)]
        for task, measured in zip(tasks, run_tasks(_measure, tasks, source, n_workers), strict=True):
            for row, facts in zip(task, measured, strict=True):
                found[row] = facts
            done = [(row, facts) for row, facts in zip(task, measured, strict=True) if isinstance(facts, ImageFacts)]
            _save(connection, cache, [(places[row], states[row], facts) for row, facts in done if states[row]])
            progress.add(len(task))
        progress.end()
    return FactsTable(tuple(facts for facts in found if facts is not None))


def require_sound(cache: Path) -> None:
    """Raises LmrError where SQLite finds damage in a file, or facts in it that cannot be."""
    try:
        with closing(sqlite3.connect(f"{cache.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            ((said,),) = connection.execute("PRAGMA integrity_check(1)").fetchall()
            if said != "ok":
                raise _cache_error(cache, ValueError(said.splitlines()[0]))
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'facts'").fetchone():
                _known(connection, cache)
    except sqlite3.Error as error:
        raise _cache_error(cache, error) from error


def _measure(rows: list[int], source: ImageSource) -> list[Measured]:
    return list(_measured(rows, source))


def _measured(rows: list[int], source: ImageSource) -> Iterator[Measured]:
    for row in rows:
        try:
            yield measure_image(source.read(row))
        except UnreadableError as error:
            yield str(error)


@contextmanager
def cache_errors(cache: Path | None) -> Iterator[None]:
    """A block in which what SQLite says of the file is an LmrError."""
    try:
        yield
    except sqlite3.Error as error:
        raise _cache_error(cache, error) from error


def open_cache(cache: Path | None, journal: Literal["DELETE", "MEMORY"] = "DELETE") -> sqlite3.Connection:
    """A file of facts, made where it is not there; None = one in memory. LmrError for what is none.

    journal: what would undo a change, in a file beside it, or in memory where a file is thrown away after a kill.
    """
    with cache_errors(cache):
        connection = sqlite3.connect(":memory:" if cache is None else cache, timeout=_WAIT_S)
        connection.execute(f"PRAGMA journal_mode = {journal}")
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        if tables and "facts" not in tables:
            raise LmrError(f"{cache} is a database of something else (table {tables[0]}); name another")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version not in (0, FORMAT_VERSION):
            raise LmrError(
                f"{cache} has format_version {version}, this lmr reads {FORMAT_VERSION}; use "
                "the lmr that made it, or name another"
            )
        connection.execute(_TABLE)
        connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
        connection.commit()
    return connection


def _place(path: str) -> str | bytes:
    """A path as SQLite takes it: as bytes where it is not UTF-8."""
    return path if is_text_name(path) else os.fsencode(path)


def _known(connection: sqlite3.Connection, cache: Path | None) -> dict[str | bytes, tuple[str, ImageFacts]]:
    try:
        rows = [(path, state, json.loads(text)) for path, state, text in connection.execute("SELECT * FROM facts")]
        return {
            path: (state, convert(content, ImageFacts, str(cache), _REMEDY))
            for path, state, content in rows
            if not isinstance(content, str)  # a reason, which an earlier lmr kept
        }
    except (sqlite3.Error, TypeError, ValueError) as error:
        raise _cache_error(cache, error) from error


def _save(connection: sqlite3.Connection, cache: Path | None, rows: list[tuple[str | bytes, str, ImageFacts]]) -> None:
    with cache_errors(cache), connection:
        texts = [(path, state, json.dumps(asdict(facts))) for path, state, facts in rows]
        connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", texts)


def _cache_error(cache: Path | None, error: Exception) -> LmrError:
    text = str(error).split("\n")[0][:_REASON_CHARACTERS]
    if isinstance(error, sqlite3.OperationalError) and "decode" not in text:
        # Of the disk, its rights, another process: the facts are sound.
        return LmrError(f"{cache} cannot be used: {text}; make room, wait for another command, or name another")
    if "not a database" in text:
        return LmrError(f"{cache} is not a file of picture facts; {_REMEDY}")
    return LmrError(f"{cache} is damaged ({text}); {_REMEDY}")
