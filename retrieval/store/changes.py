"""Images of a store that are no longer what they were when they were read: replaced, gone, come back."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal, Protocol

import numpy as np

from retrieval.arrays import LongArray, UInt8Array, read_only
from retrieval.errors import UnreadableError
from retrieval.images.bytes_source import Source
from retrieval.store.layout import DONE, SHA256_BYTES, UNREADABLE, ImageFacts

Check = Literal["size", "content"]

_ROWS_AT_ONCE = 1024  # of one thread
_NONE = np.zeros(0, np.int64)


class KnownSource(Source, Protocol):
    """A source that can tell what an image's file is without reading it."""

    def status(self, row: int) -> tuple[int, int] | None:
        """Size in bytes and time of change, ns; None where there is no image."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Rows of a store whose images are not what they were.

    replaced: another image, or one that can be read again. returned: there was none when they were tried. gone:
    there is none any more, or it cannot be read; their descriptors stay. is_known: False for a store that does not
    say what its images were. damaged: rows of an unfinished store that are not as they were written.
    """

    replaced: LongArray = field(default_factory=lambda: _NONE)
    returned: LongArray = field(default_factory=lambda: _NONE)
    gone: LongArray = field(default_factory=lambda: _NONE)
    is_known: bool = True
    damaged: LongArray = field(default_factory=lambda: _NONE)

    def __post_init__(self) -> None:
        for name in ("replaced", "returned", "gone", "damaged"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

    @property
    def to_do(self) -> LongArray:
        """Rows whose images must be described anew."""
        return np.sort(np.concatenate([self.replaced, self.returned]))


class WatchedSource:
    """A source that remembers what each image's file was when it was read.

    A file that is replaced meanwhile keeps the status from before, so that the next run finds it replaced.
    """

    def __init__(self, source: KnownSource) -> None:
        self._source = source
        self._seen: dict[int, tuple[int, int, bytes]] = {}

    def read(self, row: int) -> bytes:
        """As that of the source."""
        size, mtime_ns = self._source.status(row) or (0, 0)
        self._seen[row] = size, mtime_ns, bytes(SHA256_BYTES)
        data = self._source.read(row)
        self._seen[row] = size, mtime_ns, sha256(data).digest()
        return data

    def take(self, rows: LongArray) -> ImageFacts:
        """State of these rows' files, which is then forgotten."""
        seen = [self._seen.pop(int(row)) for row in rows]
        return ImageFacts(
            np.array([size for size, _, _ in seen], dtype=np.int64),
            np.array([mtime_ns for _, mtime_ns, _ in seen], dtype=np.int64),
            np.array([list(digest) for _, _, digest in seen], dtype=np.uint8).reshape(-1, SHA256_BYTES),
        )


def find_changes(
    state: UInt8Array, facts: ImageFacts | None, source: KnownSource, check: Check, n_workers: int
) -> Changes:
    """Compares the images with what they were.

    check: `size`: an image of the same size and time of change is unchanged; one of the same size and another time
    is unchanged where its content is. `content`: the content of every image decides.
    """
    if facts is None:
        return Changes(is_known=False)
    rows = np.flatnonzero((state == DONE) | (state == UNREADABLE))
    parts = [rows[i : i + _ROWS_AT_ONCE] for i in range(0, len(rows), _ROWS_AT_ONCE)]
    compare = _Comparison(state, facts, source, check)
    with ThreadPoolExecutor(max(1, n_workers)) as pool:
        told = [one for part in pool.map(lambda part: list(compare.all(part)), parts) for one in part]
    replaced, returned, gone = (np.array([row for row, what in told if what == kind], np.int64) for kind in _KINDS)
    return Changes(replaced, returned, gone)


_Kind = Literal["replaced", "returned", "gone"]
_KINDS: tuple[_Kind, ...] = ("replaced", "returned", "gone")


@dataclass(frozen=True, slots=True)
class _Comparison:
    state: UInt8Array
    facts: ImageFacts
    source: KnownSource
    check: Check

    def all(self, rows: LongArray) -> Iterator[tuple[int, _Kind]]:
        """The rows that changed, with how."""
        for row in rows.tolist():
            what = self._one(row)
            if what:
                yield row, what

    def _one(self, row: int) -> _Kind | None:
        then = int(self.facts.size[row]), int(self.facts.mtime_ns[row])
        now = self.source.status(row)
        is_done = self.state[row] == DONE
        if now is None:
            return "gone" if is_done else None
        if then == (0, 0):
            return None if is_done else "returned"  # a descriptor of which nothing is known is taken as it is
        if now == then and self.check == "size":
            return None
        if now[0] != then[0]:
            return "replaced"
        return self._by_content(row, is_done, now == then)

    def _by_content(self, row: int, is_done: bool, looks_same: bool) -> _Kind | None:
        written = self.facts.sha256[row].tobytes()
        if not any(written):  # it could not even be read then
            return None if looks_same else "replaced"
        try:
            same = sha256(self.source.read(row)).digest() == written
        except UnreadableError:
            return "gone" if is_done else None
        return None if same else "replaced"
