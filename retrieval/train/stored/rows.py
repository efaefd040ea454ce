"""Training rows that are descriptors already: those of stores, read where a batch asks for them; without torch."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval.arrays import FloatArray, IntArray, LongArray, read_only, row_numbers
from retrieval.errors import LmrError, UnreadableError
from retrieval.files.digest import update_json
from retrieval.models.seen import record_seen
from retrieval.progress import Progress
from retrieval.store.store import Descriptors, open_descriptors
from retrieval.store.stored import StoredVectors, to_unit
from retrieval.texts import Texts
from retrieval.words import counted

if TYPE_CHECKING:
    from retrieval.train.config import BalanceConfig
    from retrieval.train.data import TrainingData


@dataclass(frozen=True, slots=True, eq=False)
class StoredRows:
    """The descriptors of training rows, in float32 and of unit length; indexed as a matrix (n, d) is.

    stores: of one model. store: (n,) which of them holds a row; row: (n,) int64, its row there.
    """

    stores: tuple[Descriptors, ...]
    store: LongArray
    row: LongArray

    def __post_init__(self) -> None:
        if self.store.shape != self.row.shape:
            raise ValueError(f"store {self.store.shape} and row {self.row.shape} must be equal")
        object.__setattr__(self, "store", read_only(self.store))
        object.__setattr__(self, "row", read_only(self.row))

    def __len__(self) -> int:
        return len(self.row)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return len(self), self.stores[0].info.d

    def __getitem__(self, at: Any) -> FloatArray:
        """The descriptors of these rows. Raises LmrError for what is not as it was written, and not finite."""
        rows = row_numbers(at, len(self))
        found = np.empty((len(rows), self.shape[1]), dtype=np.float32)
        for i, store in enumerate(self.stores):
            here = np.flatnonzero(self.store[rows] == i)
            if len(here):
                places = self.row[rows[here]]
                found[here] = to_unit(store.vectors[places], store.image_id.select(places), store.source)
        return found

    def select(self, rows: LongArray) -> "StoredRows":
        """Some of the rows."""
        return StoredRows(self.stores, self.store[rows], self.row[rows])


class NoImages:
    """The source of rows that have no image."""

    def read(self, row: int) -> bytes:
        """Raises UnreadableError."""
        raise UnreadableError(f"row {row} is a stored descriptor")


def read_stored(manifest: Path, negatives: Path | None, rule: "BalanceConfig", progress: Progress) -> "TrainingData":
    """Labelled descriptors of one store, without landmarks that are too rare, and the non-landmarks of both.

    Raises LmrError for stores that cannot be read, and for negatives with a landmark.
    """
    from retrieval.train.data import TrainingData

    stores = [open_labelled(manifest, progress)]
    landmark = _without_rare(stores[0], rule)
    rows, codes = [np.flatnonzero(stores[0].done & (landmark >= -1))], [landmark]
    if negatives is not None:
        stores.append(open_labelled(negatives, progress))
        if (stores[1].landmark >= 0).any():
            raise LmrError(f"{negatives} has rows with a landmark_id; negatives are pictures of no known landmark")
        rows.append(np.flatnonzero(stores[1].done))
        codes.append(stores[1].landmark)
    of_rows = np.concatenate([code[part] for code, part in zip(codes, rows, strict=True)])
    used = np.unique(of_rows[of_rows >= 0])
    labels = tuple(stores[0].landmarks[code] for code in used)
    numbers = np.where(of_rows >= 0, np.searchsorted(used, of_rows), -1).astype(np.int32)
    image_id = Texts.joined([store.image_id.select(part) for store, part in zip(stores, rows, strict=True)])
    stored = StoredRows(tuple(stores), np.repeat(np.arange(len(rows)), [len(part) for part in rows]), _joined(rows))
    record = record_seen(image_id, (labels[code] if code >= 0 else "" for code in numbers))
    digest = hashlib.sha256(" ".join(map(content_of, stores)).encode()).hexdigest()
    return TrainingData(NoImages(), numbers, labels, digest, image_id, record=record, stored=stored)


def open_labelled(path: Path, progress: Progress) -> Descriptors:
    """A finished store, of which is told what it holds. Raises LmrError as `open_descriptors`."""
    store = open_descriptors(path)
    known = store.landmark[store.landmark >= 0]
    n_landmarks = counted(len(np.unique(known)), "landmark")
    progress.tell(f"{path}: {counted(len(store), 'descriptor')} of {n_landmarks}, {len(store) - len(known):,} without")
    return store


def content_of(store: Descriptors) -> str:
    """Tells what a store holds from anything else; without reading it where it carries digests."""
    vectors = store.vectors
    if isinstance(vectors, StoredVectors) and vectors.digests is not None:
        return f"{store.info.fingerprint} {vectors.digests.identity}"
    total = hashlib.sha256(store.digest.encode())
    total.update(store.landmark.tobytes())
    update_json(total, [Texts.of(store.landmarks)])
    return total.hexdigest()


def _without_rare(store: Descriptors, rule: "BalanceConfig") -> IntArray:
    """(n,) int32 labels: of landmarks with fewer images than the rule asks for -1, or -2 where they are dropped."""
    known = store.landmark[store.done & (store.landmark >= 0)]
    is_rare = np.bincount(known, minlength=len(store.landmarks)) < rule.min_per_landmark
    if rule.min_per_landmark and is_rare.all():
        raise LmrError(
            f"{store.source}: no landmark has {counted(rule.min_per_landmark, 'picture')} or more; lower "
            "`min_per_landmark`"
        )
    instead = -1 if rule.rare == "non-landmark" else -2
    of_row = np.append(is_rare, False)[store.landmark]
    return np.where(of_row, instead, store.landmark).astype(np.int32)


def _joined(rows: Sequence[LongArray]) -> LongArray:
    return np.concatenate([np.zeros(0, np.int64), *rows])
