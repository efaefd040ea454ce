"""The file of a descriptor store: its layout, and opening it with every way in which it can be broken."""

import contextlib
import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from retrieval.arrays import IntArray, ObjArray
from retrieval.errors import LmrError
from retrieval.files.hdf5 import new_hdf5

FORMAT_VERSION = 1
TODO, DONE, UNREADABLE = 0, 1, 2
REASON_BYTES = 120  # of UTF-8 kept of the reason why a picture is unreadable

_REASON_ROWS = 65536  # read at a time; those of unread pictures only
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
        if self.fingerprint != other.fingerprint and (what := self._preparation_difference(other)):
            return what
        for name, what in (("fingerprint", "model"), ("manifest_digest", "manifest"), ("dtype", "dtype")):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                return f"another {what} ({mine[:8]}, now {theirs[:8]})"
        return ""

    def _preparation_difference(self, other: "StoreInfo") -> str:
        """What was changed of the preparation, where the network is the same."""
        mine = {**self.model, **self.image_spec}
        theirs = {**other.model, **other.image_spec}
        if any(mine.get(name) != theirs.get(name, "") for name in ("config", "weights_sha256")):
            return ""  # another network, or an ensemble
        changed = (name for name in theirs if mine.get(name) != theirs[name])
        return next((f"another {name} ({mine.get(name)}, now {theirs[name]})" for name in changed), "")


@dataclass(frozen=True, slots=True)
class Columns:
    """What is known of every row before it has a descriptor."""

    image_id: Iterable[str]
    landmark: IntArray
    landmarks: tuple[str, ...]
    path: Iterable[str]
    kind: Iterable[str] | None
    names: Mapping[str, str]


def lay_out(partial: Path, columns: Columns, info: StoreInfo) -> None:
    """Writes the whole structure under a second temporary name, so that `partial` is never half a structure."""
    begun = partial.with_name(partial.name + ".new")
    try:
        with new_hdf5(begun) as file:
            _fill_structure(file, columns, info)
        os.replace(begun, partial)
    except (OSError, RuntimeError, ValueError) as error:  # ValueError: a NUL in a name
        with contextlib.suppress(OSError):
            begun.unlink()
        code = getattr(error, "errno", None)
        reason = os.strerror(code) if code else str(error).split("\n")[0]
        raise LmrError(f"{partial}: cannot be written: {reason}; choose another place or make room") from error


@contextlib.contextmanager
def open_store(path: Path) -> Iterator[Any]:
    """The HDF5 file of a store, to read.

    LmrError: missing, not a store, cut short, of another format version, or what is read inside is broken.
    """
    if not path.is_file():
        raise LmrError(f"{path}: there is no such descriptor store; lmr embed makes one")
    try:
        file = h5py.File(path, "r")
    except PermissionError as error:
        raise LmrError(f"{path} cannot be read: {os.strerror(errno.EACCES)}; change its permissions") from error
    except OSError as error:
        what = "cut short" if "truncated" in str(error) else "not a descriptor store (HDF5)"
        raise LmrError(f"{path} is {what}; make it again with lmr embed --overwrite") from error
    with file:
        try:
            _require_version(path, file)
            yield file
        except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:  # what h5py finds in broken files
            reason = str(error).strip("'\"").split("\n")[0]
            raise LmrError(f"{path} is damaged ({reason}); make it again with lmr embed --overwrite") from error


def read_info(file: Any) -> StoreInfo:
    """What the file says that made it."""
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


def read_texts(dataset: Any) -> ObjArray:
    """(n,) str; bytes that are no UTF-8 (names of files) come back as they were given."""
    return np.asarray(dataset.asstr(errors="surrogateescape")[:], dtype=object)


def read_reasons(file: Any) -> ObjArray:
    """(n,) str, why a picture is unreadable; '' where it is not."""
    unreadable = file["state"][:] == UNREADABLE
    texts = np.full(unreadable.shape, "", dtype=object)
    for start in range(0, len(unreadable), _REASON_ROWS):
        rows = np.flatnonzero(unreadable[start : start + _REASON_ROWS])
        if len(rows):
            texts[start + rows] = [text.decode() for text in file["reason"][start : start + _REASON_ROWS][rows]]
    return texts


def _fill_structure(file: Any, columns: Columns, info: StoreInfo) -> None:
    n = len(columns.landmark)
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
            _put_texts(file, name, texts)
    _put_texts(file, "landmarks", columns.landmarks)
    _put_texts(file, "landmark_name", [columns.names.get(label, "") for label in columns.landmarks])


def _put_texts(file: Any, name: str, texts: Iterable[str]) -> None:
    packed = [text.encode(errors="surrogateescape") for text in texts]
    file.create_dataset(name, data=packed, dtype=_TEXT, shape=(len(packed),))


def _reserve(file: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """A contiguous dataset of zeros at an offset that is fixed from now on."""
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_layout(h5py.h5d.CONTIGUOUS)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(dtype, logical=True), space, settings)


def _require_version(path: Path, file: Any) -> None:
    version = file.attrs.get("format_version")
    if version is None or "vectors" not in file:
        raise LmrError(f"{path} is an HDF5 file but not a descriptor store; lmr embed makes one")
    if version != FORMAT_VERSION:
        raise LmrError(
            f"{path} has format_version {version}, this program reads {FORMAT_VERSION}; embed again with --overwrite"
        )
