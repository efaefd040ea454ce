"""Fills a descriptor store row by row, with a digest of each, and finishes it when all reads back as written."""

import contextlib
import hashlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from retrieval.arrays import FloatArray, LongArray, UInt8Array
from retrieval.errors import LmrError
from retrieval.files.atomic import flush_folder, write_error
from retrieval.files.hdf5_digests import write_digests
from retrieval.files.hdf5_outline import require_outline, write_outline
from retrieval.store.file import damage_named, open_store, require_whole
from retrieval.store.layout import (
    DONE,
    FACTS,
    FILLED,
    REASON_BYTES,
    ROW_DIGEST,
    ROW_DIGEST_BYTES,
    SHA256_BYTES,
    TODO,
    UNREADABLE,
    ImageFacts,
    has_facts,
    places_filled,
)

_ROWS = 4096  # read at a time


class StoreWriter:
    """Fills an unfinished store. A context manager; `finish` makes it the finished one.

    state: (n,) of the rows. damaged: rows that were written before and are not as they were written; they are TODO.
    """

    def __init__(self, path: Path, partial: Path) -> None:
        self.path = path
        self._partial = partial
        require_whole(partial)
        with open_store(partial) as (file, _):
            self._dtype = file["vectors"].dtype
            self._d = file["vectors"].shape[1]
            self.state: UInt8Array = file["state"][:]
            self._room = int(file.userblock_size)
            self._facts = FACTS if has_facts(file) else ()
            self._offsets = {name: file[name].id.get_offset() for name in FILLED if name in file}
            places, changed = places_filled(file), changed_rows(partial, file)
        self.damaged: LongArray = np.zeros(0, np.int64) if changed is None else changed
        self._file: BinaryIO = _writable(partial)
        with self._disk_errors():
            if not self._is_outlined():  # a store that was finished: its digests are not those of what is written here
                write_outline(self._file, self._room, places)
        self.write_todo(self.damaged)

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._file.close()

    def write(self, rows: LongArray, vectors: FloatArray, facts: ImageFacts | None = None) -> None:
        """Stores descriptors (len(rows), d) of these rows and marks them DONE.

        facts: what the files of these images were, None = not known.
        Raises LmrError when the disk is full; what was written before stays.
        """
        packed = np.ascontiguousarray(vectors, dtype=self._dtype)
        if packed.shape != (len(rows), self._d):
            raise ValueError(f"vectors must be ({len(rows)}, {self._d}), got {packed.shape}")
        self._write(rows, DONE, "vectors", [row.tobytes() for row in packed], facts)

    def write_unreadable(self, row: int, reason: str, fact: ImageFacts | None = None) -> None:
        """Marks one row UNREADABLE, with the reason. fact: of its file, one row."""
        text = reason.encode(errors="replace")[:REASON_BYTES].decode(errors="ignore").encode()
        self._write(np.array([row]), UNREADABLE, "reason", [text.ljust(REASON_BYTES, b"\0")], fact)

    def write_todo(self, rows: LongArray) -> None:
        """Marks rows TODO; on disk before anything of theirs is written anew."""
        with self._disk_errors():
            for row in rows.tolist():
                self._put("state", row, bytes([TODO]))
            self._file.flush()
            os.fsync(self._file.fileno())
        self.state[rows] = TODO

    def finish(self) -> None:
        """Reads all back, adds the digests of what is in the file and renames the store to its final name.

        ValueError while rows are still TODO. Raises LmrError when the disk is full, or what is read back is not what
        was written; the store is then unfinished, and whoever goes on with it does those rows again.
        """
        if (self.state == TODO).any():
            raise ValueError(f"{(self.state == TODO).sum()} rows of {self.path} are still to do")
        begin = self._offsets["vectors"] or 0
        with self._disk_errors():
            self._file.flush()
            self._require_as_written()
            write_digests(self._file, self._room, begin, begin + len(self.state) * self._d * self._dtype.itemsize)
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._partial, self.path)
            flush_folder(self.path.parent)

    def _require_as_written(self) -> None:
        """Raises LmrError where the file does not read back as what was written into it."""
        self._is_outlined()
        with open_store(self._partial) as (file, _):
            changed = changed_rows(self._partial, file)
            if changed is None:
                return
            other = np.union1d(changed, np.flatnonzero(file["state"][:] != self.state))
        if len(other):
            raise LmrError(
                f"{self._partial}: {len(other):,} of {len(self.state):,} rows read back otherwise than they were "
                f"written, the first is row {other[0]:,}; check the disk, then run the same command again, which does "
                "them again"
            )

    def _is_outlined(self) -> bool:
        with damage_named(self._partial):
            return require_outline(self._partial)

    def _write(self, rows: LongArray, state: int, name: str, contents: list[bytes], facts: ImageFacts | None) -> None:
        """Content and facts of these rows, then their digests, then their state."""
        told = _packed(facts, len(rows)) if self._facts else [{} for _ in rows]
        states = np.full(len(rows), state, np.uint8)
        given = {name: contents}
        given |= {fact: [one[fact] for one in told] for fact in self._facts}
        if ROW_DIGEST in self._offsets:
            digests = row_digests(rows, states, contents, [b"".join(one.values()) for one in told])
            size = len(digests) // max(1, len(rows))
            given[ROW_DIGEST] = [digests[i : i + size] for i in range(0, len(digests), size or 1)]
        with self._disk_errors():
            for what, pieces in given.items():
                for run in _runs(rows):
                    self._put(what, int(rows[run.start]) * len(pieces[run.start]), b"".join(pieces[run]))
            self._file.flush()
            for run in _runs(rows):
                self._put("state", int(rows[run.start]), states[run].tobytes())
            self._file.flush()
        self.state[rows] = state

    def _put(self, name: str, position: int, data: bytes) -> None:
        self._file.seek(self._offsets[name] + position)
        self._file.write(data)

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise LmrError(
                f"{self._partial}: writing failed: {error.strerror}; make room and run the same command again"
            ) from error


def _packed(facts: ImageFacts | None, n: int) -> list[dict[str, bytes]]:
    """State of the files of n images, by the names of FACTS; zeros where nothing is known."""
    if facts is None:
        return [{"size": bytes(8), "mtime_ns": bytes(8), "sha256": bytes(SHA256_BYTES)} for _ in range(n)]
    size, mtime_ns = (values.astype("<i8") for values in (facts.size, facts.mtime_ns))
    return [
        {"size": size[i].tobytes(), "mtime_ns": mtime_ns[i].tobytes(), "sha256": facts.sha256[i].tobytes()}
        for i in range(n)
    ]


def _runs(rows: LongArray) -> list[slice]:
    """Slices of `rows` in which each row follows the one before."""
    if not len(rows):
        return []
    cuts = np.flatnonzero(np.diff(rows) != 1) + 1
    edges = [0, *cuts.tolist(), len(rows)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def _writable(path: Path) -> BinaryIO:
    try:
        return path.open("r+b")
    except OSError as error:
        raise write_error(path, error) from error


def row_digests(rows: LongArray, state: UInt8Array, contents: list[bytes], facts: list[bytes]) -> bytes:
    """The digests of these rows, one after the other.

    contents: the descriptor of each, or why it is unreadable, as the file has them; facts: what its image was.
    """
    parts = zip(rows.tolist(), state.tolist(), contents, facts, strict=True)
    return b"".join(
        hashlib.sha256(b"%d %d " % (row, code) + content + fact).digest()[:ROW_DIGEST_BYTES]
        for row, code, content, fact in parts
    )


def changed_rows(path: Path, file: Any) -> LongArray | None:
    """The rows that are done or unreadable and not as they were written; None where a store does not keep digests.

    file: the store's HDF5 file. They are read around it, from what the system has.
    """
    if ROW_DIGEST not in file:
        return None
    names = ("vectors", "state", "reason", ROW_DIGEST, *(FACTS if has_facts(file) else ()))
    given = {
        name: np.memmap(path, file[name].dtype, "r", file[name].id.get_offset() or 0, file[name].shape)
        for name in names
        if file[name].size
    }
    n = len(file["state"])
    changed = [_changed(given, start, min(n, start + _ROWS)) for start in range(0, n, _ROWS)]
    return np.concatenate([np.zeros(0, np.int64), *changed])


def require_rows(path: Path) -> bool:
    """Reads what was written into an unfinished store. False where it keeps no digests.

    Raises LmrError as `open_store`, and where rows are not as they were written.
    """
    with open_store(path) as (file, _):
        changed, n = changed_rows(path, file), len(file["state"])
    if changed is not None and len(changed):
        raise LmrError(
            f"{path}: {len(changed):,} of {n:,} rows are not as they were written, the first is row {changed[0]:,}; "
            "the lmr embed that goes on with it does them again"
        )
    return changed is not None


def _changed(given: dict[str, Any], start: int, stop: int) -> LongArray:
    state = np.array(given["state"][start:stop])
    at = np.flatnonzero(state != TODO)
    if not len(at):
        return at
    rows = at + start
    whole = {name: memoryview(np.ascontiguousarray(values[start:stop]).tobytes()) for name, values in given.items()}
    sizes = {name: len(data) // (stop - start) for name, data in whole.items()}

    def of(name: str, i: int) -> bytes:
        return bytes(whole[name][i * sizes[name] : (i + 1) * sizes[name]])

    facts = [name for name in FACTS if name in given]
    contents = [of("reason" if state[i] == UNREADABLE else "vectors", i) for i in at.tolist()]
    told = [b"".join(of(name, i) for name in facts) for i in at.tolist()]
    written = np.array(given[ROW_DIGEST][start:stop])[at]
    found = np.frombuffer(row_digests(rows, state[at], contents, told), np.uint8).reshape(-1, ROW_DIGEST_BYTES)
    return np.asarray(rows[(found != written).any(axis=1)])
