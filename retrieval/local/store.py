"""Stores of local features: an HDF5 file of one matrix with offsets, written at once and looked up by image.

    user block with digests | card, image_id, state, offsets, ... | features

A row of `features` is a keypoint and its descriptor, a row of `offsets` where those of an image begin. Every byte has a
digest: of the features those of each block, which are compared where they are read.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.arrays import BoolArray, IntArray, LongArray, UInt8Array, read_only
from retrieval.errors import LmrError
from retrieval.files.hdf5 import mapped, numbers, open_hdf5, read_column, read_error
from retrieval.files.hdf5_digests import Digests, read_digests
from retrieval.files.json_file import parse_json
from retrieval.local.config import LOCAL_STORE, LocalCard
from retrieval.local.features import LocalFeatures, PackedFeatures
from retrieval.local.packing import features_dtype, from_rows, unpack
from retrieval.shard import Shard, parse_shard
from retrieval.store.layout import DONE, FACTS, SHA256_BYTES, TODO, UNREADABLE, ImageFacts
from retrieval.store.stored import file_identity
from retrieval.texts import Texts

FORMAT_VERSION = 1
REMEDY = "make it again with lmr embed `local` `overwrite`"
_MEND = f"copy it again if it is a copy, else {REMEDY}"
VERSION = "local_format_version"


@dataclass(frozen=True, slots=True)
class LocalColumns:
    """Everything of the images but their features.

    state: (n,) uint8, DONE, UNREADABLE or TODO. n_features: (n,) int64. size: (n, 2) int32 of the scaled image, 0 where
    it was not read. reason: (n,) why an image is unreadable. facts: None = not known.
    """

    image_id: Texts
    state: UInt8Array
    n_features: LongArray
    size: IntArray
    reason: Texts
    facts: ImageFacts | None = None

    def __post_init__(self) -> None:
        n = len(self.image_id)
        shapes = {"state": (n,), "n_features": (n,), "size": (n, 2), "reason": (n,)}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} must be {shape}, got {getattr(self, name).shape}")
        if self.facts is not None and len(self.facts) != n:
            raise ValueError(f"facts must have {n} rows, got {len(self.facts)}")
        if (self.n_features[self.state != DONE] != 0).any():
            raise ValueError("images that are not done have no features")

    def __len__(self) -> int:
        return len(self.image_id)

    def equals(self, other: "LocalColumns") -> bool:
        """Tells whether all of it is the same; facts that are not known count as blank ones."""
        mine, theirs = (one.facts or unknown_facts(len(one)) for one in (self, other))
        texts = all(list(getattr(self, name)) == list(getattr(other, name)) for name in ("image_id", "reason"))
        numbers = ("state", "n_features", "size")
        pairs = [(getattr(self, name), getattr(other, name)) for name in numbers]
        pairs += [(getattr(mine, name), getattr(theirs, name)) for name in FACTS]
        return texts and all(np.array_equal(one, another) for one, another in pairs)

    def told_apart(self, rows: LongArray) -> UInt8Array:
        """(r, b) bytes that differ where the features of these rows do; -1 = of no row, which has none."""
        facts = self.facts or unknown_facts(len(self))
        counts = self.n_features.astype("<i8").view(np.uint8).reshape(len(self), 8)
        of_rows = np.concatenate([self.state[:, None], counts, facts.sha256], axis=1)
        of_none = np.zeros((1, of_rows.shape[1]), np.uint8)
        return np.concatenate([of_rows, of_none])[rows]

    def overlaid(self, newer: "LocalColumns", is_new: BoolArray) -> "LocalColumns":
        """Those of the same images where (n,) is_new, and these elsewhere."""
        reason = np.where(is_new, newer.reason[:], self.reason[:])
        facts = [columns.facts or unknown_facts(len(self)) for columns in (newer, self)]
        wide = is_new[:, None]
        return LocalColumns(
            image_id=self.image_id,
            state=np.where(is_new, newer.state, self.state),
            n_features=np.where(is_new, newer.n_features, self.n_features),
            size=np.where(wide, newer.size, self.size),
            reason=Texts.of(reason),
            facts=ImageFacts(
                np.where(is_new, facts[0].size, facts[1].size),
                np.where(is_new, facts[0].mtime_ns, facts[1].mtime_ns),
                np.where(wide, facts[0].sha256, facts[1].sha256),
            ),
        )


@dataclass(frozen=True, slots=True)
class LocalInfo:
    """Origin of a local store. manifest_digest: of the whole manifest, '' = of none. shard: None = all of its rows."""

    card: LocalCard
    manifest_digest: str = ""
    shard: Shard | None = None

    def difference(self, other: "LocalInfo") -> str:
        """The first thing in which two stores differ, for a person; '' when they agree."""
        if told := self.card.difference(other.card):
            return told
        if self.manifest_digest != other.manifest_digest:
            return f"another manifest ({self.manifest_digest[:8]}, now {other.manifest_digest[:8]})"
        if self.shard != other.shard:
            return f"another shard ({self.shard or 'all rows'}, now {other.shard or 'all rows'})"
        return ""


def unknown_facts(n: int) -> ImageFacts:
    """Facts of n images of whose files nothing is known."""
    return ImageFacts(np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros((n, SHA256_BYTES), np.uint8))


class LocalStore:
    """A local store, open; its features stay in the file and are compared with their digests where they are read."""

    def __init__(
        self,
        path: Path,
        info: LocalInfo,
        columns: LocalColumns,
        features: NDArray[np.void],
        digests: Digests,
        *,
        mend: str,
    ) -> None:
        self.path, self.info, self.columns, self._mend = path, info, columns, mend
        self.offsets = read_only(np.concatenate([np.zeros(1, np.int64), np.cumsum(columns.n_features)]))
        self._features, self._digests, self._file = features, digests, file_identity(path)

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def card(self) -> LocalCard:
        """Origin of the features."""
        return self.info.card

    @property
    def identity(self) -> str:
        """sha256 (hex) that tells its content from any other."""
        return self._digests.identity

    @property
    def image_id(self) -> Texts:
        """(n,) the images."""
        return self.columns.image_id

    def find(self, image_ids: Iterable[str]) -> LongArray:
        """The row of each image, -1 = it has none."""
        return np.fromiter((self._row_of.get(name, -1) for name in image_ids), dtype=np.int64)

    def features(self, row: int) -> LocalFeatures | None:
        """The features of an image; None where it was not read. Raises LmrError where they are damaged."""
        packed = self.packed(row)
        return None if packed is None else unpack(self.card, packed)

    def packed(self, row: int) -> PackedFeatures | None:
        """As `features`, in the form that is stored."""
        if self.columns.state[row] != DONE:
            return None
        begin, end = int(self.offsets[row]), int(self.offsets[row + 1])
        try:
            is_same = file_identity(self.path) == self._file
        except OSError as error:
            raise read_error(self.path, error) from error
        if not is_same:
            raise LmrError(f"{self.path} was changed while it was read; run the command again")
        with damage_named(self.path, self._mend):
            self._digests.require_rows(np.arange(begin, end), self._features.dtype.itemsize)
        return from_rows(np.array(self._features[begin:end]), self.columns.size[row])

    def require_whole(self) -> None:
        """Reads all of it. Raises LmrError where it is not as it was written."""
        with damage_named(self.path, self._mend):
            self._digests.require_bulk()

    @cached_property
    def _row_of(self) -> Mapping[str, int]:
        return {name: row for row, name in enumerate(self.image_id)}


def local_path(store: Path) -> Path:
    """The local store that lies beside a store of descriptors: `train.h5` -> `train.local.h5`."""
    return store.with_name(store.stem + LOCAL_STORE)


def open_local(path: Path, mend: str = _MEND) -> LocalStore:
    """A finished local store. mend: what to do where it is damaged.

    Raises LmrError: missing, unfinished, not a local store, of another format version, or damaged, with what is wrong.
    """
    if not path.is_file():
        raise LmrError(f"{path}: there is no such store of local features; lmr embed `local` makes one")
    with damage_named(path, mend):
        digests = read_digests(path)
        if digests is not None:
            digests.require_rest()  # before HDF5 meets a damaged structure, on which it may hang
    with open_hdf5(path, "a store of local features", REMEDY, "give the right file") as file:
        _require_version(path, file)
        if digests is None:
            raise ValueError("its digests are missing")
        info, columns = _read_info(file), _read_columns(file)
        offsets = numbers(file, "offsets", ("int64",), (len(columns) + 1,))[:]
        features = mapped(numbers(file, "features", (features_dtype(info.card),), (int(offsets[-1]),)))
        return LocalStore(path, info, columns, features, digests, mend=mend)


@contextlib.contextmanager
def damage_named(path: Path, mend: str) -> Iterator[None]:
    """A block in which what differs from the digests (ValueError) is an LmrError of this store."""
    try:
        yield
    except ValueError as error:
        raise LmrError(f"{path} is damaged ({error}); {mend}") from error


def _require_version(path: Path, file: Any) -> None:
    version = file.attrs.get(VERSION)
    if version is None:
        other = " but a descriptor store" if "vectors" in file else ""
        raise LmrError(f"{path} is no store of local features{other}; lmr embed `local` makes one")
    if version != FORMAT_VERSION:
        raise LmrError(
            f"{path} has {VERSION} {version}, this program reads {FORMAT_VERSION}; use the lmr that made it, or make "
            "it again into another file"
        )


def _read_info(file: Any) -> LocalInfo:
    card = LocalCard.from_json(parse_json(numbers(file, "card", ("uint8",), (None,))[:].tobytes(), "its card", REMEDY))
    if file.attrs["fingerprint"] != card.fingerprint:
        raise ValueError("its fingerprint is not that of its card")
    shard = file.attrs.get("shard")
    return LocalInfo(card, str(file.attrs["manifest_digest"]), None if shard is None else parse_shard(str(shard)))


def _read_columns(file: Any) -> LocalColumns:
    image_id = read_column(file, "image_id", is_utf8=True)
    n = len(image_id)
    offsets = numbers(file, "offsets", ("int64",), (n + 1,))[:]
    state = numbers(file, "state", ("uint8",), (n,))[:]
    if offsets[0] != 0 or (np.diff(offsets) < 0).any():
        raise ValueError("its offsets do not rise from 0")
    if ((state == TODO) | (state > UNREADABLE)).any():
        raise ValueError("the state of an image is neither done nor unreadable")
    facts = None
    if "sha256" in file:
        facts = ImageFacts(
            numbers(file, "size", ("int64",), (n,))[:],
            numbers(file, "mtime_ns", ("int64",), (n,))[:],
            numbers(file, "sha256", ("uint8",), (n, SHA256_BYTES))[:],
        )
    size = numbers(file, "image_size", ("int32",), (n, 2))[:]
    return LocalColumns(image_id, state, np.diff(offsets), size, read_column(file, "reason", n), facts)
