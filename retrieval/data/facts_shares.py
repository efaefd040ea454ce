"""Facts of the images of a share, and of all shares in one file."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

from retrieval.data.quality_cache import cache_errors, open_cache
from retrieval.errors import LmrError
from retrieval.files.atomic import replacing
from retrieval.shard import Shard, parse_shard, require_all

_TABLE = "CREATE TABLE IF NOT EXISTS share (shard TEXT, manifest TEXT)"


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
    marks = [_read_mark(path) for path in paths]
    for path, (_, digest) in zip(paths, marks, strict=True):
        if digest != marks[0][1]:
            raise LmrError(f"{path} is of another manifest than {paths[0]}; give shares of one manifest")
    order = require_all([(path, shard) for path, (shard, _) in zip(paths, marks, strict=True)])
    rows = {row[0]: row for at in order for row in _read_rows(paths[at])}
    if output.exists() and not overwrite:
        if {row[0]: row for row in _read_rows(output)} == rows:
            return "unchanged", len(rows)
        raise LmrError(f"{output} holds other facts; give `overwrite` or another `output`")
    with (
        replacing(output) as file,
        cache_errors(output),
        closing(open_cache(Path(file.name))) as connection,
        connection,
    ):
        connection.executemany("INSERT INTO facts VALUES (?, ?, ?)", rows.values())
    return "joined", len(rows)


def _read_mark(path: Path) -> tuple[Shard, str]:
    with closing(open_cache(path)) as connection, cache_errors(path):
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'share'").fetchone():
            raise LmrError(f"{path} is no finished share; run the lmr stats with `shard` that makes it again")
        shard, digest = connection.execute("SELECT shard, manifest FROM share").fetchone()
    return parse_shard(shard), digest


def _read_rows(path: Path) -> list[tuple[str | bytes, str, str]]:
    with closing(open_cache(path)) as connection, cache_errors(path):
        return connection.execute("SELECT path, state, facts FROM facts").fetchall()
