"""Local features that were extracted so far, kept block by block beside the store that they will be, so that a killed
run goes on. A block holds the images of one batch:

    n | n entries | their features, one after the other
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.arrays import LongArray, UInt8Array
from retrieval.errors import LmrError
from retrieval.files.hdf5 import read_error
from retrieval.files.json_file import parse_json
from retrieval.files.kept import Kept
from retrieval.local.config import LocalCard
from retrieval.local.features import PackedFeatures
from retrieval.local.packing import features_dtype, from_rows, to_rows
from retrieval.local.store import LocalColumns, LocalInfo
from retrieval.shard import parse_shard
from retrieval.store.file import PARTIAL
from retrieval.store.layout import DONE, REASON_BYTES, SHA256_BYTES, UNREADABLE, ImageFacts
from retrieval.texts import Texts

_MAGIC = b"lmr local features 1\n"
_MOST_HEAD_BYTES = 1 << 20
_LENGTH = struct.Struct("<I")
_REMEDY = "remove it and run lmr embed `local` again"
ENTRY = np.dtype(
    [
        ("row", "<i8"),
        ("state", "u1"),
        ("n_features", "<i4"),
        ("image_size", "<i4", (2,)),
        ("size", "<i8"),
        ("mtime_ns", "<i8"),
        ("sha256", "u1", (SHA256_BYTES,)),
        ("reason", f"S{REASON_BYTES}"),
    ]
)
_HELD = np.dtype([(name, ENTRY[name]) for name in ENTRY.names or () if name not in ("row", "reason")])


@dataclass(frozen=True, slots=True)
class JournalHead:
    """Origin of what is extracted. n: images of the store. base: identity of the finished store that it will change."""

    info: LocalInfo
    n: int
    base: str = ""

    def to_bytes(self) -> bytes:
        """As the journal begins."""
        content = {
            "card": self.info.card.to_json(),
            "manifest_digest": self.info.manifest_digest,
            "shard": None if self.info.shard is None else str(self.info.shard),
            "n": self.n,
            "base": self.base,
        }
        return _MAGIC + json.dumps(content).encode() + b"\n"


def journal_path(store: Path) -> Path:
    """The journal of a store."""
    return store.with_name(store.name + PARTIAL)


def read_head(path: Path) -> JournalHead | None:
    """The head of a journal; None where there is none. Raises LmrError where something else is in its place."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_HEAD_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise read_error(path, error) from error
    line, newline, _ = data.removeprefix(_MAGIC).partition(b"\n")
    if not data or (_MAGIC + line).startswith(data):  # a kill came before its head was written
        return None
    if not data.startswith(_MAGIC) or not newline:
        raise LmrError(f"{path} is no unfinished store of local features; {_REMEDY}")
    content: Mapping[str, Any] = parse_json(line, str(path), _REMEDY)
    try:
        shard = content["shard"]
        info = LocalInfo(
            LocalCard.from_json(content["card"]),
            str(content["manifest_digest"]),
            None if shard is None else parse_shard(shard),
        )
        return JournalHead(info, int(content["n"]), str(content["base"]))
    except (KeyError, TypeError, ValueError) as error:
        raise LmrError(f"{path} is damaged ({error}); {_REMEDY}") from error


def open_journal(path: Path) -> "Journal":
    """An unfinished store, to look at. Raises LmrError as `read_head`, and where nothing was written of it yet."""
    head = read_head(path)
    if head is None:
        raise LmrError(f"{path} is empty; {_REMEDY}")
    return Journal(path, head)


class Journal:
    """The features that were extracted so far, by row of the store; what is written of a row last counts.

    is_new: what lies at the path is removed.
    """

    def __init__(self, path: Path, head: JournalHead, *, is_new: bool = False) -> None:
        self.path, self.head = path, head
        self._kept = Kept(path, head.to_bytes(), np.dtype(np.uint8))
        self._dtype = features_dtype(head.info.card)
        self.entries: NDArray[np.void] = np.zeros(head.n, _HELD)  # of each row, TODO where there is none
        self._reasons: dict[int, bytes] = {}  # of rows that are UNREADABLE
        self._blocks: list[NDArray[Any]] = []  # in the file
        self._place: LongArray = np.zeros((head.n, 2), np.int64)  # of the features of each row: block, byte in it
        if is_new:
            self._kept.remove()
        for block in self._kept.read():
            self._take(block)

    @property
    def state(self) -> UInt8Array:
        """(n,) of each row; TODO where it is not done."""
        return np.asarray(self.entries["state"])

    @property
    def n_torn(self) -> int:
        """Bytes at the end that a kill left, and that count for nothing."""
        return self._kept.n_torn

    def columns(self, image_id: Texts) -> LocalColumns:
        """Everything but the features, of these images, which are TODO where there is nothing of them."""
        entries = self.entries
        return LocalColumns(
            image_id=image_id,
            state=entries["state"],
            n_features=entries["n_features"].astype(np.int64),
            size=entries["image_size"],
            reason=Texts.of_bytes(self._reasons.get(row, b"") for row in range(len(entries))),
            facts=ImageFacts(entries["size"], entries["mtime_ns"], entries["sha256"]),
        )

    def packed(self, row: int) -> PackedFeatures | None:
        """The features of a row; None where it is not DONE."""
        if self.entries["state"][row] != DONE:
            return None
        block, begin = self._place[row].tolist()
        end = begin + int(self.entries["n_features"][row]) * self._dtype.itemsize
        return from_rows(self._blocks[block][begin:end].view(self._dtype), self.entries["image_size"][row])

    def append(self, rows: LongArray, found: Sequence[PackedFeatures | str], facts: ImageFacts) -> None:
        """Keeps features of these rows, or why they cannot be read. Raises LmrError when the disk is full."""
        entries = np.zeros(len(rows), ENTRY)
        entries["row"], entries["size"], entries["mtime_ns"] = rows, facts.size, facts.mtime_ns
        entries["sha256"] = facts.sha256
        parts = []
        for entry, one in zip(entries, found, strict=True):
            if isinstance(one, str):
                entry["state"] = UNREADABLE
                entry["reason"] = one.encode(errors="replace")[:REASON_BYTES].decode(errors="ignore").encode()
            else:
                entry["state"], entry["n_features"], entry["image_size"] = DONE, len(one), one.size
                parts.append(to_rows(one, self._dtype).tobytes())
        content = b"".join([_LENGTH.pack(len(rows)), entries.tobytes(), *parts])
        self._kept.append(np.frombuffer(content, np.uint8))

    def remove(self) -> None:
        """Removes the file."""
        self._kept.remove()

    def _take(self, block: NDArray[Any]) -> None:
        (n,) = _LENGTH.unpack(block[: _LENGTH.size].tobytes())
        begin = _LENGTH.size + n * ENTRY.itemsize
        entries = block[_LENGTH.size : begin].view(ENTRY)
        ends = begin + np.cumsum(entries["n_features"].astype(np.int64)) * self._dtype.itemsize
        self.entries[entries["row"]] = entries[list(_HELD.names or ())]
        for row, state, reason in zip(*(entries[name].tolist() for name in ("row", "state", "reason")), strict=True):
            self._reasons.pop(row, None)
            if state == UNREADABLE:
                self._reasons[row] = reason
        self._place[entries["row"], 0] = len(self._blocks)
        self._place[entries["row"], 1] = np.concatenate([[begin], ends[:-1]])
        self._blocks.append(block)
