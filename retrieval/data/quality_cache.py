"""Facts of all images of a manifest, measured once and kept in a file beside it."""

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from retrieval.arrays import LongArray, ObjArray
from retrieval.data.image_source import ImageSource
from retrieval.data.near_duplicates import HashArray
from retrieval.errors import LmrError, UnreadableError
from retrieval.files.json_file import convert
from retrieval.images.crashes import CRASHED, Careful, Flight
from retrieval.images.quality import ImageFacts, measure_image
from retrieval.images.signatures import is_text_name
from retrieval.parallel import KilledError, run_tasks
from retrieval.progress import SILENT, Progress
from retrieval.words import shortened

FORMAT_VERSION = 1
_REMEDY = "move it away or name another"
_REASON_CHARACTERS = 160  # of what SQLite says
_IMAGES_A_TASK = 64
_KEY_CHARACTERS = 8  # in the name of the file of what is under way
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
    machine at rest may let it be read; only one that crashes its decoder is remembered, for other processes to try.
    progress: is told of images once they are saved.
    Raises LmrError for a cache that is none or cannot be written.
    """
    known_as = [source.known_as(row) for row in range(len(source))]
    places, states = [_place(name) for name, _ in known_as], [state for _, state in known_as]
    found: list[Measured | None] = [None] * len(places)
    crashed = []
    with (
        closing(open_cache(cache)) as connection,
        _careful([name for name, _ in known_as], cache, n_workers, progress) as careful,
    ):

        def keep(rows: list[int], measured: list[Measured]) -> None:
            for row, facts in zip(rows, measured, strict=True):
                found[row] = facts
            pairs = [(row, facts) for row, facts in zip(rows, measured, strict=True) if _is_kept(facts) and states[row]]
            _save(connection, cache, [(places[row], states[row], facts) for row, facts in pairs])

        known = _known(connection, cache)
        for row, (place, state) in enumerate(zip(places, states, strict=True)):
            if state and place in known and known[place][0] == state:
                facts = known[place][1]
                if isinstance(facts, ImageFacts):
                    found[row] = facts
                else:
                    crashed.append(row)
        _measure_all(source, [row for row, facts in enumerate(found) if facts is None], crashed, careful, keep)
    return FactsTable(tuple(facts for facts in found if facts is not None))


def _careful(paths: list[str], cache: Path | None, n_workers: int, progress: Progress) -> Careful[ImageFacts]:
    """For the images at these paths; what is under way is written down beside the cache, where there is one."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.encode(errors="surrogatepass") + b"\0")
    key = total.hexdigest()
    place = None if cache is None else cache.with_name(f".{cache.name}.{key[:_KEY_CHARACTERS]}.decoding")
    name = partial(_shown, paths)
    return Careful(Flight(place, key), measure_image, name, n_workers=max(1, n_workers), progress=progress)


def _shown(paths: list[str], row: int) -> str:
    return shortened(paths[row])


def _measure_all(
    source: ImageSource,
    rows: list[int],
    crashed: list[int],
    careful: Careful[ImageFacts],
    keep: Callable[[list[int], list[Measured]], None],
) -> None:
    """Measures these rows, again without those under way where an image kills a process. keep: is given the facts."""
    careful.progress.begin("measuring", len(rows))
    todo, killed = set(rows), None
    while todo:
        tried = careful.begin(todo, source.read, crashed)
        if tried:
            keep(list(tried), list(tried.values()))
            careful.progress.add(len(tried))
        if killed is not None and not careful.is_apart:  # for want of memory, most often
            raise killed
        todo -= tried.keys()
        left = sorted(todo)
        tasks = [left[i : i + _IMAGES_A_TASK] for i in range(0, len(left), _IMAGES_A_TASK)]
        try:
            for task, measured in zip(tasks, _measure_tasks(source, tasks, careful), strict=True):
                keep(task, measured)
                todo -= set(task)
                careful.progress.add(len(task))
        except KilledError as error:
            killed = error
    careful.progress.end()


def _measure_tasks(
    source: ImageSource, tasks: list[list[int]], careful: Careful[ImageFacts]
) -> Iterator[list[Measured]]:
    if not careful.is_apart:
        yield from run_tasks(_measure, tasks, (source, careful.flight), careful.n_workers)
        return
    with ThreadPoolExecutor(careful.n_workers) as pool:
        yield from pool.map(
            lambda task: [careful.read_row(row, partial(source.read, row), measure_image) for row in task], tasks
        )


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


def _measure(rows: list[int], fixed: tuple[ImageSource, Flight]) -> list[Measured]:
    return list(_measured(rows, *fixed))


def _measured(rows: list[int], source: ImageSource, flight: Flight) -> Iterator[Measured]:
    for row in rows:
        flight.note(row)
        try:
            yield measure_image(source.read(row))
        except UnreadableError as error:
            yield str(error)


def _is_kept(facts: Measured) -> bool:
    """True for facts, and for the reason of an image that crashes, which no later run may decode as another."""
    return isinstance(facts, ImageFacts) or facts.startswith(CRASHED)


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


def _known(connection: sqlite3.Connection, cache: Path | None) -> dict[str | bytes, tuple[str, Measured]]:
    """By place, the state that an image had and its facts, or why it crashed."""
    try:
        rows = [(path, state, json.loads(text)) for path, state, text in connection.execute("SELECT * FROM facts")]
        return {
            path: (state, content if isinstance(content, str) else convert(content, ImageFacts, str(cache), _REMEDY))
            for path, state, content in rows
            if not isinstance(content, str) or _is_kept(content)  # other reasons were kept by an earlier lmr
        }
    except (sqlite3.Error, TypeError, ValueError) as error:
        raise _cache_error(cache, error) from error


def _save(connection: sqlite3.Connection, cache: Path | None, rows: list[tuple[str | bytes, str, Measured]]) -> None:
    with cache_errors(cache), connection:
        contents = [(path, state, facts if isinstance(facts, str) else asdict(facts)) for path, state, facts in rows]
        texts = [(path, state, json.dumps(content)) for path, state, content in contents]
        connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", texts)


def _cache_error(cache: Path | None, error: Exception) -> LmrError:
    text = str(error).split("\n")[0][:_REASON_CHARACTERS]
    if isinstance(error, sqlite3.OperationalError) and "decode" not in text:
        # Of the disk, its rights, another process: the facts are sound.
        return LmrError(f"{cache} cannot be used: {text}; make room, wait for another command, or name another")
    if "not a database" in text:
        return LmrError(f"{cache} is not a file of picture facts; {_REMEDY}")
    return LmrError(f"{cache} is damaged ({text}); {_REMEDY}")
