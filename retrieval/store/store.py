"""The descriptor store: one HDF5 file of descriptors, written so that a kill at any moment can be resumed.

The file is laid out whole before the first descriptor: contiguous datasets at fixed offsets under a temporary
name. Batches are then written straight to those offsets, descriptors before their state, so that the HDF5
structure is never touched again and a dead process leaves a file that opens. The file carries a digest of all that is
known at the beginning, and of each row that is written. The finished one is read back, and renamed.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from retrieval.arrays import BoolArray, FloatArray, IntArray, LongArray, ObjArray, UInt8Array, read_only
from retrieval.data.manifest import Manifest
from retrieval.errors import LmrError
from retrieval.files.atomic import write_error
from retrieval.files.hdf5 import pack_texts, read_texts
from retrieval.own_columns import OwnColumns, read_columns, require_rows, select_columns
from retrieval.shard import Shard
from retrieval.store.file import (
    PARTIAL,
    lay_out,
    open_store,
    read_facts,
    read_info,
    read_reasons,
    require_whole,
)
from retrieval.store.info import StoreInfo as StoreInfo
from retrieval.store.layout import DONE as DONE
from retrieval.store.layout import TODO as TODO
from retrieval.store.layout import UNREADABLE as UNREADABLE
from retrieval.store.layout import Columns, ImageFacts
from retrieval.store.stored import BLOCK_ROWS, StoredVectors, open_vectors
from retrieval.store.writer import StoreWriter as StoreWriter
from retrieval.texts import Texts, shared, to_texts


@dataclass(frozen=True, slots=True)
class Descriptors:
    """The content of a store, read-only.

    vectors: (n, d) float16 or float32, in memory or in the file; rows not DONE are zero. image_id, path: (n,) columns,
    or arrays of strings to pack.
    reason: (n,) str. landmark: (n,) int32 into landmarks, -1 = none. state: (n,) uint8. kind: (n,) str or None.
    facts: None where the store has none. columns: the user's own by name, (n,) texts each.
    """

    vectors: FloatArray | StoredVectors
    image_id: Texts
    landmark: IntArray
    landmarks: tuple[str, ...]
    state: UInt8Array
    path: Texts
    kind: ObjArray | None
    info: StoreInfo
    source: str
    names: Mapping[str, str] = field(default_factory=dict)
    reason: ObjArray | None = None
    facts: ImageFacts | None = None
    columns: OwnColumns = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.image_id)
        if self.vectors.shape != (n, self.info.d):
            raise ValueError(f"vectors must be ({n}, {self.info.d}), got {self.vectors.shape}")
        require_rows(self.columns, n)
        for name in ("image_id", "path"):
            object.__setattr__(self, name, to_texts(getattr(self, name)))
        for name in ("image_id", "landmark", "state", "path", "kind", "reason", "vectors", "facts"):
            array = getattr(self, name)
            if array is None:
                continue
            if len(array) != n:
                raise ValueError(f"{name} must have {n} rows, got {len(array)}")
            if isinstance(array, np.ndarray):
                object.__setattr__(self, name, read_only(array))

    def __len__(self) -> int:
        return len(self.image_id)

    @property
    def done(self) -> BoolArray:
        """(n,) True where there is a descriptor."""
        return np.asarray(self.state == DONE)

    @property
    def digest(self) -> str:
        """sha256 (hex) over what is said of which image: the model, ids, states and descriptors."""
        total = hashlib.sha256(self.info.fingerprint.encode())
        total.update(self.state.tobytes())
        for i, name in enumerate(self.image_id):
            total.update((b"\0" if i else b"") + name.encode(errors="surrogateescape"))
        for block in self.blocks():
            total.update(np.ascontiguousarray(block).reshape(-1).data)
        return total.hexdigest()

    def blocks(self) -> Iterator[FloatArray]:
        """Descriptors of successive rows, at most BLOCK_ROWS at a time. Raises LmrError as `read_store`."""
        return (self.vectors[start : start + BLOCK_ROWS] for start in range(0, len(self), BLOCK_ROWS))

    def select(self, rows: LongArray | BoolArray) -> "Descriptors":
        """The given rows, with the same landmarks."""
        vectors = self.vectors
        return Descriptors(
            vectors=vectors.select(rows) if isinstance(vectors, StoredVectors) else vectors[rows],
            image_id=self.image_id.select(rows),
            landmark=self.landmark[rows],
            landmarks=self.landmarks,
            state=self.state[rows],
            path=self.path.select(rows),
            kind=None if self.kind is None else self.kind[rows],
            info=self.info,
            source=self.source,
            names=self.names,
            reason=None if self.reason is None else self.reason[rows],
            facts=None if self.facts is None else self.facts.select(rows),
            columns=select_columns(self.columns, rows),
        )


def partial_path(path: Path) -> Path:
    """Path of an unfinished store of that name."""
    return path.with_name(path.name + PARTIAL)


def read_store(path: str | Path, shard: Shard | None = None) -> Descriptors:
    """Reads a finished store whole. shard: the share of the rows that it must be of, None = all of them.

    Raises LmrError when the file is missing, unfinished, not a store, of another format version, or damaged: cut
    short, changed since it was written, with values that cannot be, with a descriptor that is zero or not finite.
    """
    opened = open_descriptors(path, shard)
    vectors = np.empty(opened.vectors.shape, opened.vectors.dtype)
    for i, block in enumerate(opened.blocks()):
        vectors[i * BLOCK_ROWS : i * BLOCK_ROWS + len(block)] = block
    return replace(opened, vectors=vectors)


def open_descriptors(path: str | Path, shard: Shard | None = None) -> Descriptors:
    """A finished store whose descriptors stay in its file, and are checked where they are read.

    shard: as of `read_store`. Raises LmrError as `read_store`.
    """
    path = Path(path)
    require_finished(path)
    with open_store(path) as (file, digests):
        landmarks = tuple(read_texts(file["landmarks"]))
        shown = read_texts(file["landmark_name"])
        require_share(path, info := read_info(file), shard)
        vectors = open_vectors(path, file, digests)
        return Descriptors(
            vectors=vectors,
            image_id=vectors.image_id,
            landmark=file["landmark"][:],
            landmarks=landmarks,
            state=vectors.state,
            path=pack_texts(file["path"]),
            kind=shared(pack_texts(file["kind"], is_utf8=True)) if "kind" in file else None,
            info=info,
            source=str(path),
            names={label: name for label, name in zip(landmarks, shown, strict=True) if name},
            reason=read_reasons(file),
            facts=read_facts(file),
            columns=read_columns(file, len(vectors.state)),
        )


def require_finished(path: Path) -> None:
    """Raises LmrError where only the unfinished store of that name is there."""
    if not path.exists() and partial_path(path).exists():
        raise LmrError(f"{path} is unfinished ({partial_path(path).name} is there); run the same lmr embed again")


def require_share(path: Path, info: StoreInfo, shard: Shard | None = None) -> None:
    """Raises LmrError for a store that is not of this share of the rows, None = of all of them."""
    if info.shard == shard:
        return
    if info.shard is not None:
        raise LmrError(
            f"{path} holds share {info.shard} of the rows alone; join all {info.shard.n} shares with lmr join, and "
            "give what that makes"
        )
    raise LmrError(f"{path} holds all rows, not share {shard}; give another name")


def read_labels(path: str | Path) -> dict[str, str]:
    """The landmark of each image_id of a store, finished or not; '' = none."""
    with open_store(Path(path)) as (file, _):
        labels = [*read_texts(file["landmarks"]), ""]
        image_id = pack_texts(file["image_id"], is_utf8=True)
        return {name: labels[code] for name, code in zip(image_id, file["landmark"][:], strict=True)}


def read_store_info(path: str | Path) -> tuple[StoreInfo, UInt8Array]:
    """Reads what made a store, and its (n,) state, without the descriptors."""
    with open_store(Path(path)) as (file, _):
        return read_info(file), file["state"][:]


def read_own_names(path: Path) -> list[str]:
    """Names of the user's own columns of a store."""
    with open_store(path) as (file, _):
        return list(read_columns(file, len(file["state"])))


def read_store_facts(path: Path) -> tuple[UInt8Array, ImageFacts | None]:
    """The (n,) state, and what the images' files were; None in a store from before that was written down."""
    with open_store(path) as (file, _):
        return file["state"][:], read_facts(file)


def read_store_reasons(path: Path) -> ObjArray:
    """(n,) str, why the image of each row is unreadable; '' where it is not."""
    with open_store(path) as (file, _):
        return read_reasons(file)


def create_store(path: Path, manifest: Manifest, paths: Sequence[str], info: StoreInfo) -> StoreWriter:
    """A new unfinished store with one TODO row for each row of the manifest, in its order.

    Raises LmrError when the folder cannot be written or the disk is full.
    """
    partial = partial_path(path)
    lay_out(partial, _known_of(manifest, paths), info)
    return StoreWriter(path, partial)


def resume_store(path: Path) -> StoreWriter:
    """The unfinished store of that name."""
    return StoreWriter(path, partial_path(path))


def reopen_store(path: Path) -> StoreWriter:
    """A finished store made unfinished again, to do some of its rows anew. LmrError when it cannot be written."""
    partial = partial_path(path)
    require_whole(path)  # what is damaged must not get new digests
    try:
        os.replace(path, partial)
    except OSError as error:
        raise write_error(path, error) from error
    return StoreWriter(path, partial)


def _known_of(given: Manifest | Descriptors, paths: Iterable[str]) -> Columns:
    return Columns(given.image_id, given.landmark, given.landmarks, paths, given.kind, given.names, own=given.columns)
