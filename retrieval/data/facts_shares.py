"""Facts of the images of a share, what comparing their descriptors found, and that of all shares in one file."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from retrieval.data.quality_cache import cache_errors, open_cache, require_sound
from retrieval.errors import LmrError
from retrieval.files.atomic import replacing
from retrieval.files.digest import sha256_json
from retrieval.shard import Shard, parse_shard, require_all

_TABLE = "CREATE TABLE IF NOT EXISTS share (shard TEXT, manifest TEXT)"
_PIECES = (
    "CREATE TABLE IF NOT EXISTS piece (work TEXT, number INTEGER, data BLOB, sha256 TEXT, PRIMARY KEY (work, number))"
)


class Pieces:
    """Results of one long computation over a store, by the numbers of its blocks, in a file of facts.

    facts: None = nothing is kept. work: all that the results depend on.
    """

    def __init__(self, facts: Path | None, work: Mapping[str, Any]) -> None:
        self.facts, self._work = facts, sha256_json(dict(work))

    def read(self, number: int) -> bytes | None:
        """What is known of a block, None where that is nothing, or damaged. LmrError for a file that is none."""
        if self.facts is None:
            return None
        with closing(open_cache(self.facts)) as connection, cache_errors(self.facts):
            connection.execute(_PIECES)
            asked = "SELECT data, sha256 FROM piece WHERE work = ? AND number = ?"
            found = connection.execute(asked, (self._work, number)).fetchone()
        return found[0] if found and hashlib.sha256(found[0]).hexdigest() == found[1] else None

    def write(self, number: int, data: bytes) -> None:
        """Keeps the result of a block. LmrError where that is not possible."""
        if self.facts is None:
            return
        with closing(open_cache(self.facts)) as connection, cache_errors(self.facts), connection:
            connection.execute(_PIECES)
            row = (self._work, number, data, hashlib.sha256(data).hexdigest())
            connection.execute("INSERT OR REPLACE INTO piece VALUES (?, ?, ?, ?)", row)


def mark_share(facts: Path, shard: Shard, manifest_digest: str) -> None:
    """Writes down that all images of a share were measured into this file."""
    with closing(open_cache(facts)) as connection, cache_errors(facts), connection:
        connection.execute(_TABLE)
        connection.execute("DELETE FROM share")
        connection.execute("INSERT INTO share VALUES (?, ?)", (str(shard), manifest_digest))


def join_facts(paths: Sequence[Path], output: Path, *, overwrite: bool) -> tuple[Literal["joined", "unchanged"], int]:
    """Writes the facts of all shares; what was done, and of how many images they are.

    Raises LmrError for files that are not all shares of one manifest, each once, and for other facts in the place of
    the output.
    """
    ordered = _in_order(paths)
    rows = {row[0]: row for path in ordered for row in _read_rows(path)}
    pieces = {row[:2]: row for path in ordered for row in _read_pieces(path)}
    if output.exists() and not overwrite:
        before = {row[:2]: row for row in _read_pieces(output)}
        if {row[0]: row for row in _read_rows(output)} == rows and before == pieces:
            return "unchanged", len(rows)
        raise LmrError(f"{output} holds other facts; give `overwrite` or another `output`")
    with (
        replacing(output) as file,
        cache_errors(output),
        closing(open_cache(Path(file.name), "MEMORY")) as connection,
        connection,
    ):
        connection.executemany("INSERT INTO facts VALUES (?, ?, ?)", rows.values())
        if pieces:
            connection.execute(_PIECES)
            connection.executemany("INSERT INTO piece VALUES (?, ?, ?, ?)", pieces.values())
    return "joined", len(rows)


def add_shares(paths: Sequence[Path], facts: Path) -> None:
    """Adds the facts of all shares to a file, at once, in the place of what it knew of the same images.

    Raises LmrError for files that are not all shares of one manifest, each once.
    """
    ordered = _in_order(paths)
    with closing(open_cache(facts)) as connection, cache_errors(facts), connection:
        connection.execute(_PIECES)
        for path in ordered:
            connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", _read_rows(path))
            connection.executemany("INSERT OR REPLACE INTO piece VALUES (?, ?, ?, ?)", _read_pieces(path))


def is_marked(facts: Path, shard: Shard, manifest_digest: str) -> bool:
    """Tells whether a file is there and is that of this share, finished and sound."""
    if not facts.exists():
        return False
    try:
        require_sound(facts)
        return _read_mark(facts) == (shard, manifest_digest)
    except LmrError:
        return False


def _in_order(paths: Sequence[Path]) -> list[Path]:
    """The files of all shares in the order of these. LmrError where they are not all of one manifest, each once."""
    marks = [_read_mark(path) for path in paths]
    for path, (_, digest) in zip(paths, marks, strict=True):
        if digest != marks[0][1]:
            raise LmrError(f"{path} is of another manifest than {paths[0]}; give shares of one manifest")
    order = require_all([(path, shard) for path, (shard, _) in zip(paths, marks, strict=True)])
    return [paths[at] for at in order]


def _read_mark(path: Path) -> tuple[Shard, str]:
    with closing(open_cache(path)) as connection, cache_errors(path):
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'share'").fetchone():
            raise LmrError(f"{path} is no finished share; run the lmr stats with `shard` that makes it again")
        shard, digest = connection.execute("SELECT shard, manifest FROM share").fetchone()
    return parse_shard(shard), digest


def _read_pieces(path: Path) -> list[tuple[str, int, bytes, str]]:
    with closing(open_cache(path)) as connection, cache_errors(path):
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'piece'").fetchone():
            return []
        return connection.execute("SELECT work, number, data, sha256 FROM piece ORDER BY work, number").fetchall()


def _read_rows(path: Path) -> list[tuple[str | bytes, str, str]]:
    with closing(open_cache(path)) as connection, cache_errors(path):
        return connection.execute("SELECT path, state, facts FROM facts").fetchall()
