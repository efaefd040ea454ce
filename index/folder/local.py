"""Local features of the rows of an index, by which answers are verified; nothing is opened before it is asked for.

local.json          what made the features        local-rows.h5   which local store has those of which row
local-SHA256.h5     local stores, linked or copied into the folder under the first digits of their digest
local/              weights of a learned network
"""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from index.folder.info import (
    LOCAL,
    LOCAL_ROWS,
    LOCAL_STORE,
    LOCAL_WEIGHTS,
    FolderInfo,
    Listed,
    LocalSummary,
    list_file,
)
from retrieval.arrays import BoolArray, IntArray, LongArray, read_only
from retrieval.errors import DamageError, LmrError
from retrieval.files.atomic import write_error
from retrieval.files.digest import sha256_file, sha256_json
from retrieval.files.folders import link_or_copy
from retrieval.files.hdf5 import mapped, new_hdf5, numbers, open_hdf5
from retrieval.files.json_file import read_signed_json, write_signed_json
from retrieval.store.store import DONE, Descriptors
from retrieval.texts import Texts, equal_pairs
from retrieval.words import named

if TYPE_CHECKING:
    from retrieval.local.config import LocalCard
    from retrieval.local.extractor import Extractor
    from retrieval.local.features import LocalFeatures, PackedFeatures
    from retrieval.local.store import LocalColumns, LocalStore

FORMAT_VERSION = 1  # of local.json
NOWHERE = -1
_DIGITS = 12  # of a local store's sha256, in its name
_COPY_AGAIN = "copy the whole folder or run lmr build-index again"


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

    return require_weights(card, weights) if card.weights_sha256 else None


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
        files.append(_local_file(path))
        require_alike(store.card, str(path), stores[0].card, str(paths[0]))
        for block in equal_pairs(images.image_id, store.image_id):
            pairs = block[store.columns.state[block[:, 1]] == DONE]
            _refuse_replaced(images, store, pairs)
            new = pairs[place[pairs[:, 0], 0] == NOWHERE]
            place[new[:, 0], 0], place[new[:, 0], 1] = number, new[:, 1]
    return LocalPlaces(stores[0].card, tuple(files), place)


def require_alike(card: "LocalCard", source: str, other: "LocalCard", other_source: str) -> None:
    """Raises LmrError for local features of other settings, which cannot be matched with each other."""
    if card.fingerprint != other.fingerprint:
        raise LmrError(
            f"the local features of {source} do not fit those of {other_source}: {other.difference(card)}; make both "
            "with the same settings of lmr embed `local`"
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


class LocalRows:
    """Local features of the rows of an opened index folder, which are found and read when they are asked for."""

    def __init__(self, folder: Path, info: FolderInfo) -> None:
        assert info.local is not None
        self._folder, self._listed, self._n_rows = folder, info.files, info.n_rows
        self.summary: LocalSummary = info.local

    @cached_property
    def card(self) -> "LocalCard":
        """Origin of the features, by which those of a query are made. Raises LmrError as `places`."""
        from retrieval.local.config import LocalCard

        self._require(LOCAL)
        content = read_signed_json(self._folder / LOCAL, FORMAT_VERSION, _COPY_AGAIN)
        try:
            return LocalCard.from_json(content["card"])
        except (KeyError, ValueError) as error:
            raise DamageError(f"{self._folder / LOCAL} is damaged ({error}); {_COPY_AGAIN}") from error

    @cached_property
    def places(self) -> LocalPlaces:
        """The places of all rows. Raises LmrError for a file that is damaged, or of another index by now."""
        self._require(LOCAL_ROWS)
        path = self._folder / LOCAL_ROWS
        with open_hdf5(path, "the local features of rows", _COPY_AGAIN) as file:
            place = mapped(numbers(file, "place", ("int32",), (self._n_rows, 2)))
        paths = [self._folder / name for name in self.summary.files]
        try:
            files = tuple(LocalFile(one, self._listed[one.name], _identity(one)) for one in paths)
            return LocalPlaces(self.card, files, place, self.weights)
        except (OSError, ValueError) as error:
            raise DamageError(f"{path} is damaged ({error}); {_COPY_AGAIN}") from error

    @property
    def weights(self) -> Path | None:
        """The weights of a learned network, in the folder."""
        return next((self._folder / name for name in self._listed if name.startswith(f"{LOCAL_WEIGHTS}/")), None)

    def open_extractor(self, device: str = "auto", threads: int | None = None) -> "Extractor":
        """What makes such features of other images. Raises LmrError for what it needs and is not there."""
        from retrieval.local.extractor import open_extractor

        return open_extractor(self.card, device, threads, self.weights)

    def features(self, row: int) -> "LocalFeatures | None":
        """Those of a row; None where it has none. Raises LmrError as `places`, and for damage where it is read."""
        number, place = self.places.place[row].tolist()
        return None if number == NOWHERE else self._stores[number].features(place)

    def columns(self, rows: LongArray, image_id: Texts) -> "LocalColumns":
        """What a local store of rows that have features says of them. image_id: their names."""
        from retrieval.local.store import LocalColumns

        place = self.places.place[rows]
        n_features, size = np.zeros(len(rows), dtype=np.int64), np.zeros((len(rows), 2), dtype=np.int32)
        for number, store in enumerate(self._stores):
            here = place[:, 0] == number
            n_features[here] = store.columns.n_features[place[here, 1]]
            size[here] = store.columns.size[place[here, 1]]
        state = np.full(len(rows), DONE, dtype=np.uint8)
        return LocalColumns(image_id, state, n_features, size, Texts.of([""] * len(rows)))

    def packed(self, rows: LongArray) -> "Iterator[PackedFeatures]":
        """Those of rows that have some, in the form that is stored. Raises LmrError as `features`."""
        for number, place in self.places.place[rows].tolist():
            packed = self._stores[number].packed(place)
            assert packed is not None
            yield packed

    def open(self) -> None:
        """Opens all files, which stay those that they are, also when the folder is replaced. LmrError as `places`."""
        assert self._stores is not None

    def require_whole(self) -> None:
        """Raises LmrError where a local store lacks the features of a row; its bytes are compared by `check_files`."""
        for number, place in self.places.place[self.places.there].tolist():
            store = self._stores[number]
            if place >= len(store) or store.columns.state[place] != DONE:
                raise DamageError(f"{store.path} lacks features that {LOCAL_ROWS} says it has; {_COPY_AGAIN}")

    @cached_property
    def _stores(self) -> "list[LocalStore]":
        from retrieval.local.store import open_local

        stores = [open_local(file.path) for file in self.places.files]
        for store in stores:
            if store.card.fingerprint != self.card.fingerprint:
                raise DamageError(f"{store.path} has other features than {self._folder / LOCAL} says; {_COPY_AGAIN}")
        return stores

    def _require(self, name: str) -> None:
        """Raises LmrError unless a file is as the opened index lists it."""
        path = self._folder / name
        try:
            is_listed = sha256_file(path) == self._listed[name]["sha256"]
        except OSError:
            is_listed = False
        if not is_listed:
            raise DamageError(
                f"{path} is not that of the index which was opened: that was replaced meanwhile, or this is damaged; "
                f"run the command again, then {_COPY_AGAIN}"
            )


def write_local_rows(target: Path, places: LocalPlaces) -> tuple[LocalSummary, dict[str, Listed]]:
    """Writes the local features of all rows into a folder, the stores linked; what index.json says of them.

    Raises LmrError where a file cannot be written, or was replaced since it was opened.
    """
    used, card = places.used(), places.card
    weights = require_network(card, places.weights)
    listed = {name: file.listed for name, file in zip(used.names, used.files, strict=True)}
    write_signed_json(target / LOCAL, {"format_version": FORMAT_VERSION, "card": card.to_json()})
    try:
        for name, file in zip(listed, used.files, strict=True):
            link_or_copy(file.path, target / name)
            if file.identity not in (_identity(target / name), _identity(file.path)):
                raise LmrError(f"{file.path} was replaced while it was read; run the command again")
        with new_hdf5(target / LOCAL_ROWS) as content:
            content["place"] = used.place
        if weights is not None:
            (target / LOCAL_WEIGHTS).mkdir()
            shutil.copyfile(weights, target / LOCAL_WEIGHTS / weights.name)
    except OSError as error:
        raise write_error(target / LOCAL, error) from error
    listed |= {name: list_file(target / name) for name in (LOCAL, LOCAL_ROWS)}
    return LocalSummary(card.kind, card.fingerprint, int(used.there.sum()), used.names), listed


def write_one_store(target: Path, local: LocalRows, image_id: Texts) -> tuple[LocalSummary, dict[str, Listed]]:
    """As `write_local_rows`, with the features of the rows that there are copied into one local store.

    Raises LmrError for features that are damaged, too.
    """
    from retrieval.local.store import LocalInfo, write_local

    rows = np.flatnonzero(local.places.there)
    private = target / f"{LOCAL_STORE}new.h5"
    columns = local.columns(rows, image_id.select(rows))
    write_local(private, LocalInfo(local.card), columns, local.packed(rows))
    place = np.full((len(local.places), 2), NOWHERE, dtype=np.int32)
    place[rows, 0], place[rows, 1] = 0, np.arange(len(rows))
    found = write_local_rows(target, LocalPlaces(local.card, (_local_file(private),), place, local.weights))
    private.unlink()
    return found


def _local_file(path: Path) -> LocalFile:
    return LocalFile(path, list_file(path), _identity(path))


def _identity(path: Path) -> tuple[int, ...]:
    """Tells a file from another one that takes its name, and as it is from when it is changed."""
    known = path.stat()
    return known.st_dev, known.st_ino, known.st_size, known.st_mtime_ns
