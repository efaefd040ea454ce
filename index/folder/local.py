"""Places of the local features of the rows of an index: which local store has those of which row."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from index.folder.info import (
    LOCAL_STORE,
    Listed,
    list_file,
)
from retrieval.arrays import BoolArray, IntArray, LongArray, read_only
from retrieval.errors import LmrError
from retrieval.files.digest import sha256_json
from retrieval.local.config import refuse_weights
from retrieval.store.store import DONE, Descriptors
from retrieval.texts import equal_pairs
from retrieval.words import named

if TYPE_CHECKING:
    from retrieval.local.config import LocalCard
    from retrieval.local.store import LocalStore

NOWHERE = -1
_DIGITS = 12  # of a local store's sha256, in its name


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A local store as it was opened. listed: as index.json lists it. identity: tells another one in its place."""

    path: Path
    listed: Listed
    identity: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LocalPlaces:
    """Places of the local features of n rows.

    card: of all of the files. place: (n, 2) int32, number of a file and row in it, NOWHERE where a row has no local
    features. weights: of a learned network, None = those of its package.
    """

    card: "LocalCard"
    files: tuple[LocalFile, ...]
    place: IntArray
    weights: Path | None = None

    def __post_init__(self) -> None:
        if self.place.ndim != 2 or self.place.shape[1] != 2:
            raise ValueError(f"place must be (n, 2), got {self.place.shape}")
        if len(self.place) and not -1 <= int(self.place[:, 0].min()) <= int(self.place[:, 0].max()) < len(self.files):
            raise ValueError(f"place must name one of {len(self.files)} files")
        object.__setattr__(self, "place", read_only(self.place))

    def __len__(self) -> int:
        return len(self.place)

    @property
    def there(self) -> BoolArray:
        """(n,) True for the rows that have local features."""
        return np.asarray(self.place[:, 0] != NOWHERE)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the files in an index folder."""
        return tuple(f"{LOCAL_STORE}{file.listed['sha256'][:_DIGITS]}.h5" for file in self.files)

    def select(self, rows: LongArray | BoolArray) -> "LocalPlaces":
        """Those of the given rows."""
        return replace(self, place=self.place[rows])

    def or_else(self, other: "LocalPlaces") -> "LocalPlaces":
        """Those of the same rows, of another one where this has none."""
        both = joined([self, other])
        mine, others = both.place[: len(self)], both.place[len(self) :]
        return replace(both, place=np.where(self.there[:, None], mine, others))

    def used(self) -> "LocalPlaces":
        """The same without the files that no row has its features in."""
        kept = np.unique(self.place[self.there, 0])
        number = np.full(len(self.files) + 1, NOWHERE, dtype=np.int32)  # the last one stands for NOWHERE
        number[kept] = np.arange(len(kept))
        place = np.stack([number[self.place[:, 0]], self.place[:, 1]], axis=1)
        return replace(self, files=tuple(self.files[i] for i in kept.tolist()), place=place)


def nowhere(card: "LocalCard", n: int) -> LocalPlaces:
    """The places of n rows without local features."""
    return LocalPlaces(card, (), np.full((n, 2), NOWHERE, dtype=np.int32))


def joined(parts: Sequence[LocalPlaces]) -> LocalPlaces:
    """The places of the rows of all parts, of one card, one part after the other; files of one content are one."""
    files = {file.listed["sha256"]: file for part in parts for file in part.files}
    number = {digest: i for i, digest in enumerate(files)}
    places = []
    for part in parts:
        renumbered = np.array([*(number[file.listed["sha256"]] for file in part.files), NOWHERE], dtype=np.int32)
        places.append(np.stack([renumbered[part.place[:, 0]], part.place[:, 1]], axis=1))
    weights = next((part.weights for part in parts if part.weights is not None), None)
    return LocalPlaces(parts[0].card, tuple(files.values()), np.concatenate(places), weights)


def digest_of_local(places: LocalPlaces) -> str:
    """sha256 (hex) over the features of these rows."""
    used = places.used()
    of_place = hashlib.sha256(used.place.astype("<i4").tobytes()).hexdigest()
    return sha256_json([used.card.fingerprint, [file.listed["sha256"] for file in used.files], of_place])


def beside(store: Path) -> Path:
    """The local store that lies beside a store: `data/train.local.h5` of `data/train.h5`."""
    from retrieval.local.store import local_path

    return local_path(store)


def places_of_stores(
    stores: Sequence[Descriptors], named_stores: Sequence[Path], weights: Path | None, *, lie_beside: bool
) -> list[LocalPlaces]:
    """The places of the local features of the images of each store; none where neither is asked for.

    named_stores: local stores to look into for each of them. weights: of their network, None = those of its package.
    lie_beside: the one beside a store is looked into too, and must be there. Raises LmrError as `find_places`, and for
    other weights.
    """
    if not lie_beside and not named_stores:
        return []
    found = []
    for store in stores:
        own = [beside(Path(store.source))] if lie_beside else []
        found.append(find_places(store, [*own, *named_stores]))
        require_alike(found[-1].card, store.source, found[0].card, stores[0].source)
    if not any(places.there.any() for places in found):
        sources = ", ".join(str(file.path) for file in joined(found).files)
        raise LmrError(f"{sources}: none of the images of {stores[0].source} is there; give the local store of it")
    require_network(found[0].card, weights)
    return [replace(places, weights=weights) for places in found]


def require_network(card: "LocalCard", weights: Path | None) -> Path | None:
    """The weights of a card, None where it has no network. weights: given ones. Raises LmrError for other ones."""
    from retrieval.local.extractor import require_weights

    if card.weights_sha256:
        return require_weights(card, weights)
    refuse_weights(weights)
    return None


def find_places(images: Descriptors, paths: Sequence[Path]) -> LocalPlaces:
    """The places of the local features of the images of a store, in these local stores.

    Raises LmrError for a local store that is missing or damaged, has other settings than the first, or was made of
    other images of these names.
    """
    from retrieval.local.store import open_local

    files, stores = [], []
    place = np.full((len(images), 2), NOWHERE, dtype=np.int32)
    for number, path in enumerate(paths):
        stores.append(store := open_local(path))
        if (share := store.info.shard) is not None:
            raise LmrError(
                f"{path} holds share {share} of the rows alone; join all {share.n} shares with lmr join, and give what "
                "that makes"
            )
        files.append(local_file(path))
        require_alike(store.card, str(path), stores[0].card, str(paths[0]))
        for block in equal_pairs(images.image_id, store.image_id):
            pairs = block[store.columns.state[block[:, 1]] == DONE]
            _refuse_replaced(images, store, pairs)
            new = pairs[place[pairs[:, 0], 0] == NOWHERE]
            place[new[:, 0], 0], place[new[:, 0], 1] = number, new[:, 1]
    return LocalPlaces(stores[0].card, tuple(files), place)


def require_alike(card: "LocalCard", source: str, other: "LocalCard", other_source: str) -> None:
    """Raises LmrError for local features of other settings, which cannot be matched with each other."""
    if card.fingerprint == other.fingerprint:
        return
    remedy = "make both with the same settings of lmr embed `local`"
    if card.projection and other.projection:
        remedy = "each manifest learns its own, so make them of one manifest, or without `local_dimensions`"
    raise LmrError(
        f"the local features of {source} do not fit those of {other_source}: {other.difference(card)}; {remedy}"
    )


def _refuse_replaced(images: Descriptors, store: "LocalStore", pairs: LongArray) -> None:
    """Raises LmrError where a local store was made of other files than the descriptors. pairs: (p, 2) rows of both."""
    mine, theirs = images.facts, store.columns.facts
    if mine is None or theirs is None:
        return
    differ = (mine.sha256[pairs[:, 0]] != theirs.sha256[pairs[:, 1]]).any(axis=1)
    if differ.any():
        names = images.image_id.select(pairs[differ, 0]).tolist()
        raise LmrError(
            f"{store.path} was made of other images than {images.source}: {named(names)}; lmr embed makes what is "
            "behind anew"
        )


def local_file(path: Path) -> LocalFile:
    """A local store as it is now."""
    return LocalFile(path, list_file(path), identity_of(path))


def identity_of(path: Path) -> tuple[int, ...]:
    """Tells a file from another one that takes its name, and as it is from when it is changed."""
    known = path.stat()
    return known.st_dev, known.st_ino, known.st_size, known.st_mtime_ns
