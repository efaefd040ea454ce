"""The descriptor store: one HDF5 file of descriptors, written so that a kill at any moment can be resumed.

The file is laid out whole before the first descriptor: contiguous datasets at fixed offsets under a temporary
name. Batches are then written straight to those offsets, descriptors before their state, so that the HDF5
structure is never touched again and a dead process leaves a file that opens. The finished file is renamed.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import h5py
import numpy as np

from retrieval.arrays import BoolArray, FloatArray, IntArray, LongArray, ObjArray, UInt8Array, read_only
from retrieval.errors import LmrError
from retrieval.manifest import Manifest

FORMAT_VERSION = 1
TODO, DONE, UNREADABLE = 0, 1, 2
REASON_BYTES = 120  # of UTF-8 kept of the reason why a picture is unreadable

_TEXT = h5py.string_dtype("utf-8")


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """What made the descriptors of a store: everything that must agree before two stores are used together."""

    fingerprint: str
    model: Mapping[str, Any]
    image_spec: Mapping[str, Any]
    program_version: str
    manifest_digest: str
    dtype: Literal["float16", "float32"]
    d: int

    def __post_init__(self) -> None:
        if self.dtype not in ("float16", "float32"):
            raise ValueError(f"dtype must be float16 or float32, got {self.dtype}")
        if self.d < 1:
            raise ValueError(f"d must be positive, got {self.d}")

    def difference(self, other: "StoreInfo") -> str:
        """The first thing in which two stores differ, for a person; '' when they agree."""
        for name, what in (("fingerprint", "model"), ("manifest_digest", "manifest"), ("dtype", "dtype")):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                return f"another {what} ({mine[:8]}, now {theirs[:8]})"
        return ""


@dataclass(frozen=True, slots=True)
class Descriptors:
    """The content of a store in memory, read-only.

    vectors: (n, d) float16 or float32, rows not DONE are zero. image_id, path, reason: (n,) str. landmark: (n,) int32
    into landmarks, -1 = none. state: (n,) uint8. kind: (n,) str or None.
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

    def __post_init__(self) -> None:
        n = len(self.image_id)
        if self.vectors.shape != (n, self.info.d):
            raise ValueError(f"vectors must be ({n}, {self.info.d}), got {self.vectors.shape}")
        for name in ("image_id", "landmark", "state", "path", "kind", "reason", "vectors"):
            array = getattr(self, name)
            if array is None:
                continue
            if len(array) != n:
                raise ValueError(f"{name} must have {n} rows, got {len(array)}")
            object.__setattr__(self, name, read_only(array))

    def __len__(self) -> int:
        return len(self.image_id)

    @property
    def done(self) -> BoolArray:
        """(n,) True where there is a descriptor."""
        return np.asarray(self.state == DONE)

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
        )


def partial_path(path: Path) -> Path:
    """Where an unfinished store of that name lives."""
    return path.with_name(path.name + ".partial")


def read_store(path: str | Path) -> Descriptors:
    """Reads a finished store whole.

    Raises LmrError when the file is missing, unfinished, not a store, cut short or of another format version.
    """
    path = Path(path)
    if not path.exists() and partial_path(path).exists():
        raise LmrError(f"{path} is unfinished ({partial_path(path).name} is there); run the same lmr embed again")
    with _open_store(path) as file:
        vectors = file["vectors"][:]
        kind = _texts(file["kind"]) if "kind" in file else None
        landmarks = tuple(_texts(file["landmarks"]))
        shown = _texts(file["landmark_name"])
        return Descriptors(
            vectors=vectors,
            image_id=_texts(file["image_id"]),
            landmark=file["landmark"][:],
            landmarks=landmarks,
            state=file["state"][:],
            path=_texts(file["path"]),
            kind=kind,
            info=_read_info(file),
            source=str(path),
            names={label: name for label, name in zip(landmarks, shown, strict=True) if name},
            reason=_reasons(file),
        )


def read_store_info(path: str | Path) -> tuple[StoreInfo, UInt8Array]:
    """What made a store, and its (n,) state, without reading the descriptors."""
    with _open_store(Path(path)) as file:
        return _read_info(file), file["state"][:]


def write_store(path: Path, descriptors: Descriptors) -> None:
    """Writes a finished store in one go, under a temporary name that is then renamed."""
    partial = partial_path(path)
    _lay_out(partial, _Columns.of_descriptors(descriptors), descriptors.info)
    with StoreWriter(path, partial) as writer:
        rows = np.flatnonzero(descriptors.done)
        writer.write(rows, descriptors.vectors[rows])
        reasons = descriptors.reason
        for row in np.flatnonzero(descriptors.state == UNREADABLE):
            writer.write_unreadable(int(row), "" if reasons is None else reasons[row])
        writer.finish()


def create_store(path: Path, manifest: Manifest, paths: Sequence[str], info: StoreInfo) -> "StoreWriter":
    """A new unfinished store with one TODO row for each row of the manifest, in its order.

    Raises LmrError when the folder cannot be written or the disk is full.
    """
    partial = partial_path(path)
    _lay_out(partial, _Columns.of_manifest(manifest, paths), info)
    return StoreWriter(path, partial)


def resume_store(path: Path) -> tuple[StoreInfo, "StoreWriter"]:
    """The unfinished store of that name, with what it was begun for."""
    partial = partial_path(path)
    with _open_store(partial) as file:
        info = _read_info(file)
    return info, StoreWriter(path, partial)


def reopen_unreadable(path: Path) -> None:
    """Makes a finished store unfinished again, its unreadable rows TODO."""
    partial = partial_path(path)
    os.replace(path, partial)
    with StoreWriter(path, partial) as writer:
        for row in np.flatnonzero(writer.state == UNREADABLE):
            writer.write_todo(int(row))


class StoreWriter:
    """Fills an unfinished store. A context manager; `finish` makes it the finished one."""

    def __init__(self, path: Path, partial: Path) -> None:
        self.path = path
        self._partial = partial
        with _open_store(partial) as file:
            self._dtype = file["vectors"].dtype
            self._d = file["vectors"].shape[1]
            self.state: UInt8Array = file["state"][:]
            self._offsets = {name: file[name].id.get_offset() for name in ("vectors", "state", "reason")}
        self._file: BinaryIO = _writable(partial)

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._file.close()

    def write(self, rows: LongArray, vectors: FloatArray) -> None:
        """Stores descriptors (len(rows), d) of these rows and marks them DONE.

        Raises LmrError when the disk is full; what was written before stays.
        """
        packed = np.ascontiguousarray(vectors, dtype=self._dtype)
        if packed.shape != (len(rows), self._d):
            raise ValueError(f"vectors must be ({len(rows)}, {self._d}), got {packed.shape}")
        size = self._d * self._dtype.itemsize
        with self._disk_errors():
            for run in _runs(rows):
                self._put("vectors", int(rows[run.start]) * size, packed[run].tobytes())
            self._file.flush()
            for run in _runs(rows):
                self._put("state", int(rows[run.start]), bytes([DONE]) * (run.stop - run.start))
            self._file.flush()
        self.state[rows] = DONE

    def write_unreadable(self, row: int, reason: str) -> None:
        """Marks one row UNREADABLE, with the reason."""
        text = reason.encode()[:REASON_BYTES].decode(errors="ignore").encode()
        with self._disk_errors():
            self._put("reason", row * REASON_BYTES, text.ljust(REASON_BYTES, b"\0"))
            self._put("state", row, bytes([UNREADABLE]))
            self._file.flush()
        self.state[row] = UNREADABLE

    def write_todo(self, row: int) -> None:
        """Marks one row TODO."""
        with self._disk_errors():
            self._put("state", row, bytes([TODO]))
        self.state[row] = TODO

    def finish(self) -> None:
        """Renames the store to its final name. ValueError while rows are still TODO."""
        if (self.state == TODO).any():
            raise ValueError(f"{(self.state == TODO).sum()} rows of {self.path} are still to do")
        with self._disk_errors():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._partial, self.path)

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


@dataclass(frozen=True, slots=True)
class _Columns:
    """What is known of every row before it has a descriptor."""

    image_id: Sequence[str]
    landmark: IntArray
    landmarks: tuple[str, ...]
    path: Sequence[str]
    kind: Sequence[str] | None
    names: Mapping[str, str]

    @classmethod
    def of_manifest(cls, manifest: Manifest, paths: Sequence[str]) -> "_Columns":
        kind = None if manifest.kind is None else list(manifest.kind)
        ids = list(manifest.image_id)
        return cls(ids, manifest.landmark, manifest.landmarks, paths, kind, manifest.names)

    @classmethod
    def of_descriptors(cls, given: Descriptors) -> "_Columns":
        kind = None if given.kind is None else list(given.kind)
        return cls(list(given.image_id), given.landmark, given.landmarks, list(given.path), kind, given.names)


def _lay_out(partial: Path, columns: _Columns, info: StoreInfo) -> None:
    """Writes the whole structure under a second temporary name, so that `partial` is never half a structure."""
    begun = partial.with_name(partial.name + ".new")
    try:
        with h5py.File(begun, "w") as file:
            _fill_structure(file, columns, info)
        os.replace(begun, partial)
    except (OSError, RuntimeError) as error:
        begun.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
        raise LmrError(f"{partial}: cannot be written: {reason}; choose another --output or make room") from error


def _fill_structure(file: Any, columns: _Columns, info: StoreInfo) -> None:
    n = len(columns.image_id)
    file.attrs["format_version"] = FORMAT_VERSION
    for name in ("fingerprint", "program_version", "manifest_digest"):
        file.attrs[name] = getattr(info, name)
    file.attrs["model"] = json.dumps(dict(info.model))
    file.attrs["image_spec"] = json.dumps(dict(info.image_spec))
    _reserve(file, "vectors", (n, info.d), np.dtype(info.dtype).newbyteorder("<"))
    _reserve(file, "state", (n,), np.dtype("u1"))
    file["state"][:] = TODO
    _reserve(file, "reason", (n,), np.dtype(f"S{REASON_BYTES}"))
    file.create_dataset("landmark", data=np.asarray(columns.landmark, dtype="<i4"))
    for name in ("image_id", "path", "kind"):
        texts = getattr(columns, name)
        if texts is not None:
            file.create_dataset(name, data=list(texts), dtype=_TEXT, shape=(n,))
    labels = columns.landmarks
    file.create_dataset("landmarks", data=list(labels), dtype=_TEXT, shape=(len(labels),))
    shown = [columns.names.get(label, "") for label in labels]
    file.create_dataset("landmark_name", data=shown, dtype=_TEXT, shape=(len(labels),))


def _reserve(file: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """A contiguous dataset of zeros at an offset that is fixed from now on."""
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_layout(h5py.h5d.CONTIGUOUS)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(dtype, logical=True), space, settings)


@contextlib.contextmanager
def _open_store(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise LmrError(f"{path}: there is no such descriptor store; lmr embed makes one")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        what = "cut short" if "truncated" in str(error) else "not a descriptor store (HDF5)"
        raise LmrError(f"{path} is {what}; make it again with lmr embed --overwrite") from error
    with file:
        version = file.attrs.get("format_version")
        if version is None or "vectors" not in file:
            raise LmrError(f"{path} is an HDF5 file but not a descriptor store; lmr embed makes one")
        if version != FORMAT_VERSION:
            raise LmrError(
                f"{path} has format_version {version}, this program reads {FORMAT_VERSION}; embed again with --overwrite"
            )
        try:
            yield file
        except (OSError, KeyError) as error:
            raise LmrError(f"{path} is damaged ({error}); make it again with lmr embed --overwrite") from error


def _read_info(file: Any) -> StoreInfo:
    vectors = file["vectors"]
    return StoreInfo(
        fingerprint=str(file.attrs["fingerprint"]),
        model=json.loads(file.attrs["model"]),
        image_spec=json.loads(file.attrs["image_spec"]),
        program_version=str(file.attrs["program_version"]),
        manifest_digest=str(file.attrs["manifest_digest"]),
        dtype=vectors.dtype.name,
        d=vectors.shape[1],
    )


def _texts(dataset: Any) -> ObjArray:
    return np.asarray(dataset.asstr()[:], dtype=object)


def _reasons(file: Any) -> ObjArray:
    texts = np.full(file["state"].shape, "", dtype=object)
    for row in np.flatnonzero(file["state"][:] == UNREADABLE):
        texts[row] = file["reason"][row].decode()
    return texts


def _runs(rows: LongArray) -> list[slice]:
    """Slices of `rows` in which each row follows the one before."""
    if not len(rows):
        return []
    cuts = np.flatnonzero(np.diff(rows) != 1) + 1
    edges = [0, *cuts.tolist(), len(rows)]
    return [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]


def _writable(path: Path) -> BinaryIO:
    try:
        return path.open("r+b")
    except OSError as error:
        raise LmrError(f"{path}: cannot be written: {error.strerror}; choose another --output") from error
