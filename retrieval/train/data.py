"""Training data: labelled images and non-landmarks of manifests, and the descriptors of a teacher; without torch.

Of the run's identity `teacher.identity` is a part, since another teacher gives other weights. The teacher embeds
whole images; the network learns to give the same for images that were cropped and changed.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval.arrays import BoolArray, FloatArray, IntArray, LongArray, ObjArray, read_only
from retrieval.data.header.mapping import BY_HEADER, ColumnMap
from retrieval.data.image_source import ImageSource, images_folder, index_tars
from retrieval.data.manifest import Manifest
from retrieval.data.overview import load_manifest
from retrieval.errors import LmrError
from retrieval.images.bytes_source import JoinedSource, Source
from retrieval.models.seen import record_seen
from retrieval.progress import SILENT, Progress
from retrieval.split.roles import without_rare
from retrieval.store.blocks import StoreBlocks, open_blocks
from retrieval.store.info import model_difference
from retrieval.train.config import BalanceConfig

if TYPE_CHECKING:
    from retrieval.texts import Texts
    from retrieval.train.stored.rows import StoredRows

N_NAMED = 3  # images that an error names


@dataclass(frozen=True, slots=True, eq=False)
class Teacher:
    """The stores and rows of the descriptor of each training image.

    stores: of one model. store: (n,) which of them holds training row i, -1 = none has a descriptor of it; row: (n,)
    int64, its row there. identity: sha256 (hex) over the model and which descriptors are whose.
    """

    stores: tuple[StoreBlocks, ...]
    store: LongArray
    row: LongArray
    identity: str

    def __post_init__(self) -> None:
        if self.store.shape != self.row.shape:
            raise ValueError(f"store {self.store.shape} and row {self.row.shape} must be equal")
        object.__setattr__(self, "store", read_only(self.store))
        object.__setattr__(self, "row", read_only(self.row))

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the model that made the descriptors."""
        return self.stores[0].info.fingerprint

    @property
    def d(self) -> int:
        """Length of a descriptor."""
        return self.stores[0].info.d

    def targets(self, rows: LongArray) -> tuple[FloatArray, BoolArray]:
        """Unit descriptors (b, d) float32 of these training rows, and (b,) whether there is one; else it is zero.

        Raises LmrError for a descriptor that is zero or not finite.
        """
        found = np.zeros((len(rows), self.d), dtype=np.float32)
        store = self.store[rows]
        for i, blocks in enumerate(self.stores):
            here = np.flatnonzero(store == i)
            if len(here):
                found[here] = blocks.vectors(self.row[rows[here]])
        return found, store >= 0


def open_teacher(paths: Sequence[Path], image_id: ObjArray) -> Teacher:
    """The teacher of these training images, found in the stores by their names.

    image_id: (n,) of the training rows; those that the teacher could not read have no target. Raises LmrError: stores
    of different models, an image twice, training images that no store lists, or none that has a descriptor.
    """
    stores = tuple(open_blocks(path) for path in paths)
    if not stores:
        raise ValueError("paths is empty")
    first = stores[0]
    places: dict[str, tuple[int, int]] = {}
    for i, store in enumerate(stores):
        if store.info.fingerprint != first.info.fingerprint:
            what = model_difference(store.info.made_by, first.info.made_by)
            raise LmrError(
                f"{store.source} does not fit {first.source}: {what}; a teacher is one model, which may be an ensemble"
            )
        for row, name in enumerate(store.image_id.tolist()):
            if name in places:
                raise LmrError(f"{store.source}: {name} is there twice (also in {stores[places[name][0]].source})")
            places[name] = (i, row)
    missing = [name for name in image_id.tolist() if name not in places]
    if missing:
        more = f" and {len(missing) - N_NAMED} more" if len(missing) > N_NAMED else ""
        raise LmrError(
            f"`teacher` {', '.join(map(str, paths))}: {len(missing)} of {len(image_id)} training pictures are not "
            f"there: {', '.join(missing[:N_NAMED])}{more}; "
            "run lmr embed on the training manifest with the teacher's model"
        )
    place = np.array([places[name] for name in image_id.tolist()], dtype=np.int64).reshape(-1, 2)
    done = [np.isin(np.arange(len(store)), store.done) for store in stores]
    known = np.array([done[i][row] for i, row in place.tolist()], dtype=np.bool_)
    if not known.any():
        raise LmrError(
            f"`teacher` {', '.join(map(str, paths))}: has no descriptor of any training picture; embed again"
        )
    told = "\n".join([first.info.fingerprint, *(f"{name} {k}" for name, k in zip(image_id, known, strict=True))])
    identity = hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest()
    return Teacher(stores, np.where(known, place[:, 0], -1), place[:, 1], identity)


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Images to train on.

    landmark: (n,) int32 into labels, -1 = non-landmark. image_id: (n,), for messages. teacher: descriptors to imitate.
    record: of `retrieval.models.seen`, by which an evaluation on these images is told later; None = none is kept.
    stored: the descriptors that are trained on in the place of images, None = it is images.
    """

    source: Source
    landmark: IntArray
    labels: tuple[str, ...]
    digest: str
    image_id: "Sequence[str] | Texts" = ()
    teacher: Teacher | None = None
    record: Mapping[str, Any] | None = None
    stored: "StoredRows | None" = None

    def __post_init__(self) -> None:
        n_landmarks = len(np.unique(self.landmark[self.landmark >= 0]))
        if n_landmarks < 2:
            raise LmrError(f"training needs pictures of at least 2 landmarks, got {n_landmarks}; add labelled rows")
        if self.landmark.max() >= len(self.labels):
            raise ValueError(f"landmark must lie in [-1, {len(self.labels)}), got {self.landmark.max()}")

    @property
    def counts(self) -> LongArray:
        """(n_labels,) images of each landmark."""
        return np.bincount(self.landmark[self.landmark >= 0], minlength=len(self.labels))


def read_training_data(
    manifest: Path,
    negatives: Path | None,
    images: Path | None,
    rule: BalanceConfig | None = None,
    *,
    load: Callable[[Path, Progress, ColumnMap], Manifest] = load_manifest,
    teachers: Sequence[Path] = (),
    names: ColumnMap = BY_HEADER,
    progress: Progress = SILENT,
) -> TrainingData:
    """Labelled images of one manifest, without landmarks that are too rare, and the non-landmarks of both.

    load: reads the labelled manifest. teachers: stores whose descriptors of these images are to be imitated.
    names: which column holds what.
    """
    for place in (manifest, negatives):
        if place is not None:
            index_tars(place, progress)
    parts = [load(manifest, progress, names)]
    if not parts[0].has_labels:
        raise LmrError(f"{manifest} has no landmark_id column; training needs labels")
    if rule is not None and rule.min_per_landmark:
        parts = [without_rare(parts[0], rule.min_per_landmark, rule.rare)]
    folders = [images_folder(images, manifest, progress)]
    if negatives is not None:
        parts.append(load_manifest(negatives, progress, names.of_others(), labels_expected=False))
        folders.append(images_folder(images, negatives, progress))
        if (parts[1].landmark >= 0).any():
            raise LmrError(f"{negatives} has rows with a landmark_id; negatives are pictures of no known landmark")
        both = np.intersect1d(parts[0].image_id, parts[1].image_id)
        if teachers and len(both):
            raise LmrError(
                f"{negatives}: {both[0]} is in {manifest} too; `teacher` finds pictures by their ids, so give one of "
                "them another"
            )
    landmark = np.concatenate([part.landmark for part in parts])
    used = np.unique(landmark[landmark >= 0])
    codes = np.where(landmark >= 0, np.searchsorted(used, landmark), -1).astype(np.int32)
    labels = tuple(np.array(parts[0].landmarks, dtype=object)[used])
    image_id = tuple(name for part in parts for name in part.image_id)
    sources = [ImageSource(part, folder) for part, folder in zip(parts, folders, strict=True)]
    return TrainingData(
        JoinedSource(sources, [len(part) for part in parts]),
        codes,
        labels,
        digest=hashlib.sha256(" ".join(part.digest for part in parts).encode()).hexdigest(),
        image_id=image_id,
        teacher=open_teacher(teachers, np.array(image_id, dtype=object)) if teachers else None,
        record=record_seen(image_id, [labels[code] if code >= 0 else "" for code in codes]),
    )
