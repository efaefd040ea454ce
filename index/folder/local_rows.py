"""Local features of the rows of an opened index folder, and how they are written; none are opened unasked.

local.json          what made the features        local-rows.h5   which local store has those of which row
local-SHA256.h5     local stores, linked or copied into the folder under the first digits of their digest
local/              weights of a learned network
"""

import shutil
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from index.folder.info import LOCAL, LOCAL_ROWS, LOCAL_STORE, LOCAL_WEIGHTS, FolderInfo, Listed, LocalSummary, list_file
from index.folder.local import NOWHERE, LocalFile, LocalPlaces, identity_of, local_file, require_network
from retrieval.arrays import LongArray
from retrieval.errors import DamageError, LmrError
from retrieval.files.atomic import write_error
from retrieval.files.digest import sha256_file
from retrieval.files.folders import link_or_copy
from retrieval.files.hdf5 import mapped, new_hdf5, numbers, open_hdf5
from retrieval.files.json_file import read_signed_json, write_signed_json
from retrieval.store.store import DONE
from retrieval.texts import Texts

if TYPE_CHECKING:
    from retrieval.local.config import LocalCard
    from retrieval.local.extractor import Extractor
    from retrieval.local.features import LocalFeatures, PackedFeatures
    from retrieval.local.store import LocalColumns, LocalStore

FORMAT_VERSION = 1  # of local.json
_COPY_AGAIN = "copy the whole folder or run lmr build-index again"


class LocalRows:
    """Local features of the rows of an opened index folder, which are found and read when they are asked for."""

    def __init__(self, folder: Path, info: FolderInfo, fetch: Callable[[], None] | None = None) -> None:
        """fetch: puts the files into the folder before they are first looked at; None = they are there."""
        assert info.local is not None
        self._fetch = fetch
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
            files = tuple(LocalFile(one, self._listed[one.name], identity_of(one)) for one in paths)
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
        return None if number == NOWHERE else self._store(number, place).features(place)

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
            packed = self._store(number, place).packed(place)
            assert packed is not None
            yield packed

    def _store(self, number: int, place: int) -> "LocalStore":
        """A local store that has features in this row. Raises LmrError for another one."""
        store = self._stores[number]
        if not 0 <= place < len(store) or store.columns.state[place] != DONE:
            raise DamageError(f"{store.path} lacks features that {LOCAL_ROWS} says it has; {_COPY_AGAIN}")
        return store

    def open(self) -> None:
        """Opens all files, which stay those that they are, also when the folder is replaced. LmrError as `places`."""
        assert self._stores is not None

    def require_whole(self) -> None:
        """Raises LmrError where a local store lacks the features of a row; its bytes are compared by `check_files`."""
        for number, place in self.places.place[self.places.there].tolist():
            self._store(number, place)

    @cached_property
    def _stores(self) -> "list[LocalStore]":
        from retrieval.local.store import open_local

        stores = [open_local(file.path, _COPY_AGAIN) for file in self.places.files]
        for store in stores:
            if store.card.fingerprint != self.card.fingerprint:
                raise DamageError(f"{store.path} has other features than {self._folder / LOCAL} says; {_COPY_AGAIN}")
        return stores

    def _require(self, name: str) -> None:
        """Raises LmrError unless a file is as the opened index lists it."""
        if self._fetch is not None:
            self._fetch()
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
            if file.identity not in (identity_of(target / name), identity_of(file.path)):
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
    from retrieval.local.store import LocalInfo
    from retrieval.local.writer import write_local

    rows = np.flatnonzero(local.places.there)
    private = target / f"{LOCAL_STORE}new.h5"
    columns = local.columns(rows, image_id.select(rows))
    write_local(private, LocalInfo(local.card), columns, local.packed(rows))
    place = np.full((len(local.places), 2), NOWHERE, dtype=np.int32)
    place[rows, 0], place[rows, 1] = 0, np.arange(len(rows))
    found = write_local_rows(target, LocalPlaces(local.card, (local_file(private),), place, local.weights))
    private.unlink()
    return found
