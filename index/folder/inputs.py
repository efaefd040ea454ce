"""Descriptor stores to the images of an index: checked against each other, index rows and background apart."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from index.copies import same_named
from index.folder.folder import model_fingerprint, tell_difference
from retrieval.arrays import FloatArray, IntArray, ObjArray
from retrieval.data.names import Name
from retrieval.errors import LmrError
from retrieval.store.info import model_difference
from retrieval.store.store import Descriptors, to_unit
from retrieval.words import counted


@dataclass(frozen=True, slots=True)
class BuildInputs:
    """Stores, model and names that an index folder is built from.

    stores: labelled rows become index rows, the others background. background: stores of non-landmarks.
    model_path: the model folder that made the descriptors; its model is copied. names: landmark_id -> name for people.
    """

    stores: Sequence[Descriptors]
    model_path: Path
    background: Sequence[Descriptors] = ()
    names: Mapping[str, Name] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Gathered:
    """The descriptors of all stores: those of the index rows and those of the background, unit float32."""

    vectors: FloatArray
    image_id: ObjArray
    landmark: IntArray
    landmarks: tuple[str, ...]
    path: ObjArray
    background: FloatArray
    background_id: ObjArray
    fingerprint: str
    names: Mapping[str, str]


def gather(inputs: BuildInputs) -> Gathered:
    """Checks the stores against each other and takes index rows and background apart.

    Raises LmrError: stores of different models, an image twice, no labelled row, a background image of a
    landmark of the index, a descriptor that is zero or not finite.
    """
    if not inputs.stores:
        raise ValueError("stores is empty")
    fingerprint = _common_fingerprint(inputs)
    rows = [store.select(store.done & (store.landmark >= 0)) for store in inputs.stores]
    others = [store.select(store.done & (store.landmark < 0)) for store in inputs.stores]
    others += [store.select(store.done) for store in inputs.background]
    labels = [np.array((*store.landmarks, ""), dtype=object)[store.landmark] for store in rows]
    label = np.concatenate(labels)
    if len(label) == 0:
        sources = ", ".join(store.source for store in inputs.stores)
        raise LmrError(f"{sources}: no row has a landmark_id and a descriptor; an index needs labelled pictures")
    landmarks, codes = np.unique(label.astype(str), return_inverse=True)
    _refuse_repeated(rows, others)
    _refuse_labelled_background(inputs.background, set(landmarks.tolist()))
    return Gathered(
        vectors=np.concatenate([to_unit(store.vectors, store.image_id, store.source) for store in rows]),
        image_id=np.concatenate([store.image_id for store in rows]),
        landmark=codes.astype(np.int32),
        landmarks=tuple(landmarks.tolist()),
        path=np.concatenate([store.path for store in rows]),
        background=np.concatenate([to_unit(store.vectors, store.image_id, store.source) for store in others]),
        background_id=np.concatenate([store.image_id for store in others]),
        fingerprint=fingerprint,
        names={label: name for store in inputs.stores for label, name in store.names.items()},
    )


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
    counts = Counter(image_id for store in rows for image_id in store.image_id)
    repeated = sorted(image_id for image_id, n in counts.items() if n > 1)
    for i, store in enumerate(others if not repeated else ()):
        for before in (*rows, *others[:i]):
            repeated += same_named(store.image_id, store.vectors, before.image_id, before.vectors.__getitem__)
    if repeated:
        first = min(repeated)
        where = [store.source for store in (*rows, *others) if first in set(store.image_id)]
        raise LmrError(
            f"image_id {first} is there {counted(len(where), 'time')} ({', '.join(sorted(set(where)))}), "
            f"{counted(len(set(repeated)), 'such id')} in all; give each picture once"
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
