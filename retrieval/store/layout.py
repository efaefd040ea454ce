"""The layout of a descriptor store: the datasets of its HDF5 file, made at once and checked when it is opened."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np

from retrieval.arrays import BoolArray, IntArray, LongArray, UInt8Array, read_only
from retrieval.files.hdf5 import numbers, texts
from retrieval.own_columns import OwnColumns, read_columns, write_columns
from retrieval.store.info import StoreInfo

FORMAT_VERSION = 1
TODO, DONE, UNREADABLE = 0, 1, 2
REASON_BYTES = 120  # of UTF-8 kept of the reason why an image is unreadable
SHA256_BYTES = 32
DIGESTS = "digests"  # attribute of stores that carry digests once they are finished
SHARD = "shard"  # attribute of stores of a share of the rows
MAPPED = "columns"  # attribute of stores of manifests of which it was said which column holds what, as JSON
FACTS = ("size", "mtime_ns", "sha256")
ROW_DIGEST, ROW_DIGEST_BYTES = "row_digest", 8  # of sha256, by which a row that changed is found
FILLED = ("vectors", "state", "reason", ROW_DIGEST, *FACTS)  # after the file was begun

_TEXT = h5py.string_dtype("utf-8")
_ATTRIBUTES = ("fingerprint", "model", "image_spec", "program_version", "manifest_digest")


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns that are known before rows have descriptors.

    with_facts: there is room for ImageFacts. own: the user's own columns.
    """

    image_id: Iterable[str]
    landmark: IntArray
    landmarks: tuple[str, ...]
    path: Iterable[str]
    kind: Iterable[str] | None
    names: Mapping[str, str]
    with_facts: bool = True
    own: OwnColumns = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """State of each image's file when it was read, by which an image that was replaced is noticed.

    size: (n,) int64 bytes. mtime_ns: (n,) int64, time of change. Both 0 where there was no image, or where that is
    not known. sha256: (n, 32) uint8 of the content, zeros where it could not be read.
    """

    size: LongArray
    mtime_ns: LongArray
    sha256: UInt8Array

    def __post_init__(self) -> None:
        n = len(self.size)
        if self.mtime_ns.shape != (n,) or self.sha256.shape != (n, SHA256_BYTES):
            raise ValueError(f"mtime_ns {self.mtime_ns.shape} and sha256 {self.sha256.shape} do not fit {n} sizes")
        for name in FACTS:
            object.__setattr__(self, name, read_only(getattr(self, name)))

    def __len__(self) -> int:
        return len(self.size)

    def select(self, rows: LongArray | BoolArray) -> "ImageFacts":
        """Those of the given rows."""
        return ImageFacts(self.size[rows], self.mtime_ns[rows], self.sha256[rows])


def make_layout(file: Any, columns: Columns, info: StoreInfo) -> None:
    """Fills an empty file with everything but the descriptors, and room for them."""
    n = len(columns.landmark)
    file.attrs["format_version"] = FORMAT_VERSION
    for name in ("fingerprint", "program_version", "manifest_digest"):
        file.attrs[name] = getattr(info, name)
    file.attrs["model"] = json.dumps(dict(info.model))
    file.attrs["image_spec"] = json.dumps(dict(info.image_spec))
    if info.shard is not None:
        file.attrs[SHARD] = str(info.shard)
    if info.mapped:
        file.attrs[MAPPED] = json.dumps(dict(text.split("=", 1) for text in info.mapped))
    file.attrs[DIGESTS] = "sha256"
    reserve(file, "vectors", (n, info.d), np.dtype(info.dtype).newbyteorder("<"))
    reserve(file, "state", (n,), np.dtype("u1"))
    file["state"][:] = TODO
    reserve(file, "reason", (n,), np.dtype(f"S{REASON_BYTES}"))
    for name in FACTS[:2] if columns.with_facts else ():
        reserve(file, name, (n,), np.dtype("<i8"))
    if columns.with_facts:
        reserve(file, "sha256", (n, SHA256_BYTES), np.dtype("u1"))
    reserve(file, ROW_DIGEST, (n, ROW_DIGEST_BYTES), np.dtype("u1"))
    file.create_dataset("landmark", data=np.asarray(columns.landmark, dtype="<i4"))
    for name in ("image_id", "path", "kind"):
        texts = getattr(columns, name)
        if texts is not None:
            _put_texts(file, name, texts)
    write_columns(file, columns.own)
    _put_texts(file, "landmarks", columns.landmarks)
    _put_texts(file, "landmark_name", [columns.names.get(label, "") for label in columns.landmarks])


def require_layout(file: Any, *, unfinished: bool) -> None:
    """Raises ValueError where a dataset or attribute is missing, of another shape or type, or out of its range.

    unfinished: rows may be to do.
    """
    for name in _ATTRIBUTES:
        if not isinstance(file.attrs.get(name), str):
            raise ValueError(f"it has no attribute {name} of text")
    if not isinstance(file.attrs.get(SHARD, ""), str):
        raise ValueError(f"its attribute {SHARD} is no text")
    n, d = numbers(file, "vectors", ("float16", "float32"), (None, None)).shape
    if d < 1:
        raise ValueError("vectors must have columns, got none")
    numbers(file, "reason", (f"S{REASON_BYTES}",), (n,))
    for name in ("image_id", "path", *(("kind",) if "kind" in file else ())):
        texts(file, name, n)
    read_columns(file, n)
    n_landmarks = len(texts(file, "landmarks"))
    texts(file, "landmark_name", n_landmarks)
    if has_facts(file):
        numbers(file, "size", ("int64",), (n,))
        numbers(file, "mtime_ns", ("int64",), (n,))
        numbers(file, "sha256", ("uint8",), (n, SHA256_BYTES))
    _require_range("landmark", numbers(file, "landmark", ("int32",), (n,))[:], -1, n_landmarks - 1)
    state = numbers(file, "state", ("uint8",), (n,))[:]
    if ROW_DIGEST in file:
        numbers(file, ROW_DIGEST, ("uint8",), (n, ROW_DIGEST_BYTES))
    if not (unfinished and ROW_DIGEST in file):  # which tells the rows that have to be done again
        _require_range("state", state, TODO, UNREADABLE)
    if not unfinished and (state == TODO).any():
        raise ValueError(f"{(state == TODO).sum():,} of {n:,} rows are still to do, the first is {state.argmin()}")


def places_filled(file: Any) -> list[tuple[int, int]]:
    """Begin and end in the file, bytes, of the datasets that are filled later."""
    found = [file[name] for name in FILLED if name in file and file[name].size]
    begins = [data.id.get_offset() or 0 for data in found]
    return [(begin, begin + data.size * data.dtype.itemsize) for begin, data in zip(begins, found, strict=True)]


def has_facts(file: Any) -> bool:
    """Tells whether the store knows the sizes and times of its images' files."""
    return any(name in file for name in FACTS)


def _require_range(name: str, values: IntArray | UInt8Array, lowest: int, highest: int) -> None:
    wrong = np.flatnonzero((values < lowest) | (values > highest))
    if len(wrong):
        raise ValueError(f"{name} of row {wrong[0]:,} is {values[wrong[0]]}, it must lie in [{lowest}, {highest}]")


def _put_texts(file: Any, name: str, texts: Iterable[str]) -> None:
    packed = [text.encode(errors="surrogateescape") for text in texts]
    file.create_dataset(name, data=packed, dtype=_TEXT, shape=(len(packed),))


def reserve(file: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """A contiguous dataset of zeros at an offset that is fixed from now on."""
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_layout(h5py.h5d.CONTIGUOUS)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    settings.set_obj_track_times(False)  # the same descriptors are the same bytes, whenever they are written
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(dtype, logical=True), space, settings)
