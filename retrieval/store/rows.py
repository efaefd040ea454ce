"""The digest of each row of a store: by it a descriptor is found that is not as it was written, finished or not.

A store that is being filled has no digests of its blocks, and a power cut may leave a state on the disk without the
descriptor that it speaks of.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.arrays import LongArray, UInt8Array
from retrieval.errors import LmrError
from retrieval.store.file import open_store
from retrieval.store.layout import FACTS, ROW_DIGEST, ROW_DIGEST_BYTES, TODO, UNREADABLE, has_facts

_ROWS = 4096  # read at a time


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
