"""Descriptor stores to the images of an index: checked against each other, index rows and background apart."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from index.copies import same_named
from index.folder.folder import model_fingerprint, tell_difference
from index.folder.local import LocalPlaces, joined
from retrieval.arrays import BoolArray, FloatArray, IntArray, LongArray, row_numbers
from retrieval.data.names import Name
from retrieval.errors import LmrError
from retrieval.own_columns import OwnColumns, join_columns
from retrieval.store.info import model_difference
from retrieval.store.store import Descriptors
from retrieval.store.stored import BLOCK_ROWS, to_unit
from retrieval.texts import Texts, repeated
from retrieval.words import counted


@dataclass(frozen=True, slots=True)
class BuildInputs:
    """Stores, model and names that an index folder is built from.

    stores: labelled rows become index rows, the others background. background: stores of non-landmarks.
    model_path: the model folder that made the descriptors; its model is copied. names: landmark_id -> name for people.
    local: local features of the rows of each of the stores; () = the index has none.
    """

    stores: Sequence[Descriptors]
    model_path: Path
    background: Sequence[Descriptors] = ()
    names: Mapping[str, Name] = field(default_factory=dict)
    local: Sequence[LocalPlaces] = ()

    @property
    def n_unreadable(self) -> int:
        """Rows of the stores that have no descriptor."""
        return sum(int((~store.done).sum()) for store in (*self.stores, *self.background))


class UnitRows:
    """Descriptors of several stores one behind the other, (n, d) float32 of unit length; read where they are asked for.

    stores: at least one; every row has a descriptor.
    """

    def __init__(self, stores: Sequence[Descriptors]) -> None:
        self._stores = stores
        self._ends = np.cumsum([len(store) for store in stores])
        self.shape = (int(self._ends[-1]), stores[0].info.d)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, at: slice | LongArray) -> FloatArray:
        """Those of these rows, in memory of their own. Raises LmrError as `to_unit` and StoredVectors."""
        rows = row_numbers(at, len(self))
        out = np.empty((len(rows), self.shape[1]), dtype=np.float32)
        part = np.searchsorted(self._ends, rows, side="right")
        for i in np.unique(part):
            store, here = self._stores[i], part == i
            own = rows[here] - (self._ends[i] - len(store))
            out[here] = to_unit(store.vectors[own], store.image_id.select(own), store.source)
        return out

    def blocks(self) -> Iterator[FloatArray]:
        """Successive rows, at most BLOCK_ROWS at a time."""
        return (self[start : start + BLOCK_ROWS] for start in range(0, len(self), BLOCK_ROWS))


@dataclass(frozen=True, slots=True)
class Gathered:
    """The descriptors of all stores: those of the index rows, which stay there, and those of the background.

    All are float32 of unit length. both: the rows, then the background. columns: the user's own, of the index rows.
    mapped: as of FolderInfo.
    """

    vectors: UnitRows
    both: UnitRows
    image_id: Texts
    landmark: IntArray
    landmarks: tuple[str, ...]
    path: Texts
    columns: OwnColumns
    mapped: tuple[str, ...]
    background: FloatArray
    background_id: Texts
    fingerprint: str
    names: Mapping[str, str]
    local: LocalPlaces | None


def gather(inputs: BuildInputs) -> Gathered:
    """Checks the stores against each other and takes index rows and background apart.

    Raises LmrError: stores of different models, an image twice, no labelled row, a background image of a
    landmark of the index, a descriptor that is zero or not finite.
    """
    if not inputs.stores:
        raise ValueError("stores is empty")
    fingerprint = _common_fingerprint(inputs)
    rows, others = split_rows(inputs)
    landmark, landmarks = join_codes(rows)
    if not landmarks:
        sources = ", ".join(store.source for store in inputs.stores)
        raise LmrError(f"{sources}: no row has a landmark_id and a descriptor; an index needs labelled pictures")
    _refuse_repeated(rows, others)
    _refuse_labelled_background(inputs.background, set(landmarks))
    return Gathered(
        vectors=UnitRows(rows),
        both=UnitRows([*rows, *others]),
        image_id=Texts.joined([store.image_id for store in rows]),
        landmark=landmark,
        landmarks=landmarks,
        path=Texts.joined([store.path for store in rows]),
        mapped=tuple(sorted({text for store in inputs.stores for text in store.info.mapped})),
        columns=join_columns([(store.columns, len(store)) for store in rows]),
        background=UnitRows(others)[:],
        background_id=Texts.joined([store.image_id for store in others]),
        fingerprint=fingerprint,
        names={label: name for store in inputs.stores for label, name in store.names.items()},
        local=joined([p.select(_labelled(store)) for p, store in zip(inputs.local, inputs.stores, strict=True)])
        if inputs.local
        else None,
    )


def split_rows(inputs: BuildInputs) -> tuple[list[Descriptors], list[Descriptors]]:
    """The rows of the index of each store, and those of its background."""
    rows = [_select(store, _labelled(store)) for store in inputs.stores]
    others = [_select(store, store.done & (store.landmark < 0)) for store in inputs.stores]
    return rows, others + [_select(store, store.done) for store in inputs.background]


def join_codes(rows: Sequence[Descriptors]) -> tuple[IntArray, tuple[str, ...]]:
    """(n,) int32 landmark of each row of all stores into the names of landmarks that rows have, sorted."""
    landmarks = sorted({store.landmarks[code] for store in rows for code in np.unique(store.landmark)})
    code_of = {label: code for code, label in enumerate(landmarks)}
    codes = [np.array([code_of.get(label, -1) for label in store.landmarks], np.int32) for store in rows]
    return np.concatenate([code[store.landmark] for code, store in zip(codes, rows, strict=True)]), tuple(landmarks)


def _labelled(store: Descriptors) -> BoolArray:
    return store.done & (store.landmark >= 0)


def _select(store: Descriptors, rows: BoolArray) -> Descriptors:
    """Rows of a store with what an index keeps of them."""
    return replace(store, kind=None, reason=None, facts=None).select(rows)


def _common_fingerprint(inputs: BuildInputs) -> str:
    first = inputs.stores[0]
    for store in (*inputs.stores, *inputs.background):
        if store.info.fingerprint != first.info.fingerprint:
            what = model_difference(store.info.made_by, first.info.made_by)
            raise LmrError(f"{store.source} does not fit {first.source}: {what}; embed with the same model")
        if store.info.d != first.info.d:
            raise LmrError(
                f"{store.source} has descriptors of {counted(store.info.d, 'column')}, {first.source} of "
                f"{first.info.d}; "
                "embed with the same model"
            )
    fingerprint = model_fingerprint(inputs.model_path)
    if first.info.fingerprint != fingerprint:
        what = tell_difference(first.info, inputs.model_path)
        raise LmrError(f"{first.source} does not fit {inputs.model_path}: {what}; give the model that made it")
    return fingerprint


def _refuse_repeated(rows: Sequence[Descriptors], others: Sequence[Descriptors]) -> None:
    """Refuses an image_id that two index rows have, and a background image that is there under the same name."""
    twice = repeated(Texts.joined([store.image_id for store in rows]))
    for i, store in enumerate(others if not twice else ()):
        for before in (*rows, *others[:i]):
            twice += same_named(store.image_id, store.vectors.__getitem__, before.image_id, before.vectors.__getitem__)
    if twice:
        first = min(twice)
        where = [store.source for store in (*rows, *others) if first in set(store.image_id)]
        raise LmrError(
            f"image_id {first} is there {counted(len(where), 'time')} ({', '.join(sorted(set(where)))}), "
            f"{counted(len(set(twice)), 'such id')} in all; give each picture once"
        )


def _refuse_labelled_background(stores: Sequence[Descriptors], landmarks: set[str]) -> None:
    """A background image of a landmark that the index knows would count against the right answers."""
    for store in stores:
        for row in np.flatnonzero(store.landmark >= 0):
            label = store.landmarks[store.landmark[row]]
            if label in landmarks:
                raise LmrError(
                    f"{store.source}: background picture {store.image_id[row]} shows {label}, a landmark of the index; "
                    "take it out or blank its landmark_id if that is wrong"
                )
