"""The descriptor store: one HDF5 file of descriptors, written so that a kill at any moment can be resumed.

The file is laid out whole before the first descriptor: contiguous datasets at fixed offsets under a temporary
name. Batches are then written straight to those offsets, descriptors before their state, so that the HDF5
structure is never touched again and a dead process leaves a file that opens. The finished file is renamed.
"""

import contextlib
import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from retrieval.arrays import BoolArray, FloatArray, IntArray, LongArray, ObjArray, UInt8Array, read_only
from retrieval.errors import LmrError
from retrieval.files.atomic import flush_folder, private_path, write_error
from retrieval.files.hdf5 import read_paths, read_texts
from retrieval.files.hdf5_digests import clear_digests, write_digests
from retrieval.manifest import Manifest
from retrieval.store_file import (
    PARTIAL,
    damage_named,
    lay_out,
    open_store,
    read_facts,
    read_info,
    read_reasons,
    require_whole,
)
from retrieval.store_info import StoreInfo as StoreInfo
from retrieval.store_layout import DONE as DONE
from retrieval.store_layout import FACTS, REASON_BYTES, Columns, PictureFacts, has_facts
from retrieval.store_layout import TODO as TODO
from retrieval.store_layout import UNREADABLE as UNREADABLE

_CHECKED_ROWS = 8192  # at a time, in float32


@dataclass(frozen=True, slots=True)
class Descriptors:
    """The content of a store in memory, read-only.

    vectors: (n, d) float16 or float32, rows not DONE are zero. image_id, path, reason: (n,) str. landmark: (n,) int32
    into landmarks, -1 = none. state: (n,) uint8. kind: (n,) str or None. facts: None where the store has none.
    """

    vectors: FloatArray
    image_id: ObjArray
    landmark: IntArray
    landmarks: tuple[str, ...]
    state: UInt8Array
    path: ObjArray
    kind: ObjArray | None
    info: StoreInfo
    source: str
    names: Mapping[str, str] = field(default_factory=dict)
    reason: ObjArray | None = None
    facts: PictureFacts | None = None

    def __post_init__(self) -> None:
        n = len(self.image_id)
        if self.vectors.shape != (n, self.info.d):
            raise ValueError(f"vectors must be ({n}, {self.info.d}), got {self.vectors.shape}")
        for name in ("image_id", "landmark", "state", "path", "kind", "reason", "vectors", "facts"):
            array = getattr(self, name)
            if array is None:
                continue
            if len(array) != n:
                raise ValueError(f"{name} must have {n} rows, got {len(array)}")
            if name != "facts":
                object.__setattr__(self, name, read_only(array))

    def __len__(self) -> int:
        return len(self.image_id)

    @property
    def done(self) -> BoolArray:
        """(n,) True where there is a descriptor."""
        return np.asarray(self.state == DONE)

    @property
    def digest(self) -> str:
        """sha256 (hex) over what is said of which picture: the model, ids, states and descriptors."""
        total = hashlib.sha256(self.info.fingerprint.encode())
        total.update(self.state.tobytes())
        total.update("\0".join(self.image_id.tolist()).encode(errors="surrogateescape"))
        total.update(np.ascontiguousarray(self.vectors).data)
        return total.hexdigest()

    def select(self, rows: LongArray | BoolArray) -> "Descriptors":
        """The given rows, with the same landmarks."""
        return Descriptors(
            vectors=self.vectors[rows],
            image_id=self.image_id[rows],
            landmark=self.landmark[rows],
            landmarks=self.landmarks,
            state=self.state[rows],
            path=self.path[rows],
            kind=None if self.kind is None else self.kind[rows],
            info=self.info,
            source=self.source,
            names=self.names,
            reason=None if self.reason is None else self.reason[rows],
            facts=None if self.facts is None else self.facts.select(rows),
        )


def partial_path(path: Path) -> Path:
    """Where an unfinished store of that name lives."""
    return path.with_name(path.name + PARTIAL)


def read_store(path: str | Path) -> Descriptors:
    """Reads a finished store whole.

    Raises LmrError when the file is missing, unfinished, not a store, of another format version, or damaged: cut
    short, changed since it was written, with values that cannot be, with a descriptor that is zero or not finite.
    """
    path = Path(path)
    require_finished(path)
    with open_store(path) as (file, digests):
        if digests is not None:
            with damage_named(path):
                digests.require_bulk()
        landmarks = tuple(read_texts(file["landmarks"]))
        shown = read_texts(file["landmark_name"])
        store = Descriptors(
            vectors=file["vectors"][:],
            image_id=read_texts(file["image_id"]),
            landmark=file["landmark"][:],
            landmarks=landmarks,
            state=file["state"][:],
            path=read_paths(file["path"]),
            kind=read_texts(file["kind"]) if "kind" in file else None,
            info=read_info(file),
            source=str(path),
            names={label: name for label, name in zip(landmarks, shown, strict=True) if name},
            reason=read_reasons(file),
            facts=read_facts(file),
        )
    for start in range(0, len(store), _CHECKED_ROWS):
        part = slice(start, start + _CHECKED_ROWS)
        rows = np.flatnonzero(store.state[part] == DONE) + start
        to_unit(store.vectors[rows], store.image_id[rows], store.source)
    return store


def require_finished(path: Path) -> None:
    """Raises LmrError where only the unfinished store of that name is there."""
    if not path.exists() and partial_path(path).exists():
        raise LmrError(f"{path} is unfinished ({partial_path(path).name} is there); run the same lmr embed again")


def to_unit(vectors: FloatArray, image_id: ObjArray, source: str) -> FloatArray:
    """The descriptors (n, d) of these pictures (n,) in float32 and of unit length, in memory of their own.

    Raises LmrError for zero, NaN or infinity. source: the store, for the message.
    """
    unit = np.array(vectors, dtype=np.float32)
    norms = np.sqrt(np.einsum("nd,nd->n", unit, unit))
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if len(bad):
        raise LmrError(f"{source}: the descriptor of {image_id[bad[0]]} is zero or not finite; embed it again")
    unit /= norms[:, None]
    return unit


def read_labels(path: str | Path) -> dict[str, str]:
    """The landmark of each image_id of a store, finished or not; '' = none."""
    with open_store(Path(path)) as (file, _):
        labels = [*read_texts(file["landmarks"]), ""]
        return {
            name: labels[code] for name, code in zip(read_texts(file["image_id"]), file["landmark"][:], strict=True)
        }


def read_store_info(path: str | Path) -> tuple[StoreInfo, UInt8Array]:
    """What made a store, and its (n,) state, without reading the descriptors."""
    with open_store(Path(path)) as (file, _):
        return read_info(file), file["state"][:]


def read_store_facts(path: Path) -> tuple[UInt8Array, PictureFacts | None]:
    """The (n,) state, and what the pictures' files were; None in a store from before that was written down."""
    with open_store(path) as (file, _):
        return file["state"][:], read_facts(file)


def write_store(path: Path, descriptors: Descriptors) -> None:
    """Writes a finished store in one go, under a private name that is then renamed."""
    partial = private_path(path)
    facts, reasons = descriptors.facts, descriptors.reason
    columns = replace(_known_of(descriptors, descriptors.path), with_facts=facts is not None)
    lay_out(partial, columns, descriptors.info)
    with StoreWriter(path, partial) as writer:
        rows = np.flatnonzero(descriptors.done)
        writer.write(rows, descriptors.vectors[rows], None if facts is None else facts.select(rows))
        for row in np.flatnonzero(descriptors.state == UNREADABLE):
            fact = None if facts is None else facts.select(np.array([row]))
            writer.write_unreadable(int(row), "" if reasons is None else reasons[row], fact)
        writer.finish()


def create_store(path: Path, manifest: Manifest, paths: Sequence[str], info: StoreInfo) -> "StoreWriter":
    """A new unfinished store with one TODO row for each row of the manifest, in its order.

    Raises LmrError when the folder cannot be written or the disk is full.
    """
    partial = partial_path(path)
    lay_out(partial, _known_of(manifest, paths), info)
    return StoreWriter(path, partial)


def resume_store(path: Path) -> "StoreWriter":
    """The unfinished store of that name."""
    return StoreWriter(path, partial_path(path))


def reopen_store(path: Path) -> "StoreWriter":
    """A finished store made unfinished again, to do some of its rows anew. LmrError when it cannot be written."""
    partial = partial_path(path)
    require_whole(path)  # what is damaged must not get new digests
    try:
        os.replace(path, partial)
    except OSError as error:
        raise write_error(path, error) from error
    return StoreWriter(path, partial)


class StoreWriter:
    """Fills an unfinished store. A context manager; `finish` makes it the finished one."""

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
            self._offsets = {name: file[name].id.get_offset() for name in ("vectors", "state", "reason", *self._facts)}
        self._file: BinaryIO = _writable(partial)
        with self._disk_errors():
            clear_digests(
                self._file, self._room
            )  # of a store that was finished: they are not those of what is written here

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._file.close()

    def write(self, rows: LongArray, vectors: FloatArray, facts: PictureFacts | None = None) -> None:
        """Stores descriptors (len(rows), d) of these rows and marks them DONE.

        facts: what the files of these pictures were, None = not known.
        Raises LmrError when the disk is full; what was written before stays.
        """
        packed = np.ascontiguousarray(vectors, dtype=self._dtype)
        if packed.shape != (len(rows), self._d):
            raise ValueError(f"vectors must be ({len(rows)}, {self._d}), got {packed.shape}")
        size = self._d * self._dtype.itemsize
        with self._disk_errors():
            for run in _runs(rows):
                self._put("vectors", int(rows[run.start]) * size, packed[run].tobytes())
                self._put_facts(
                    int(rows[run.start]), None if facts is None else facts.select(np.arange(len(rows))[run])
                )
            self._file.flush()
            for run in _runs(rows):
                self._put("state", int(rows[run.start]), bytes([DONE]) * (run.stop - run.start))
            self._file.flush()
        self.state[rows] = DONE

    def write_unreadable(self, row: int, reason: str, fact: PictureFacts | None = None) -> None:
        """Marks one row UNREADABLE, with the reason. fact: of its file, one row."""
        text = reason.encode(errors="replace")[:REASON_BYTES].decode(errors="ignore").encode()
        with self._disk_errors():
            self._put("reason", row * REASON_BYTES, text.ljust(REASON_BYTES, b"\0"))
            self._put_facts(row, fact)
            self._put("state", row, bytes([UNREADABLE]))
            self._file.flush()
        self.state[row] = UNREADABLE

    def write_todo(self, rows: LongArray) -> None:
        """Marks rows TODO; on disk before anything of theirs is written anew."""
        with self._disk_errors():
            for row in rows.tolist():
                self._put("state", row, bytes([TODO]))
            self._file.flush()
            os.fsync(self._file.fileno())
        self.state[rows] = TODO

    def finish(self) -> None:
        """Adds the digests of what is in the file and renames the store to its final name.

        ValueError while rows are still TODO. Raises LmrError when the disk is full.
        """
        if (self.state == TODO).any():
            raise ValueError(f"{(self.state == TODO).sum()} rows of {self.path} are still to do")
        begin = self._offsets["vectors"] or 0
        with self._disk_errors():
            write_digests(self._file, self._room, begin, begin + len(self.state) * self._d * self._dtype.itemsize)
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._partial, self.path)
            flush_folder(self.path.parent)

    def _put_facts(self, row: int, facts: PictureFacts | None) -> None:
        """Of rows that follow each other, from this one on."""
        for name in self._facts if facts is not None else ():
            values = getattr(facts, name)
            data = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes()
            self._put(name, row * (len(data) // len(values)), data)

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


def _known_of(given: Manifest | Descriptors, paths: Iterable[str]) -> Columns:
    return Columns(given.image_id, given.landmark, given.landmarks, paths, given.kind, given.names)


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
