"""Training data: labelled images and non-landmarks, read from manifests."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.arrays import IntArray, LongArray
from retrieval.data.image_source import PictureSource, images_folder, index_tars
from retrieval.data.overview import load_manifest
from retrieval.errors import LmrError
from retrieval.images.bytes_source import JoinedSource, Source
from retrieval.models.seen import record_seen
from retrieval.progress import SILENT, Progress
from retrieval.split.roles import without_rare
from retrieval.train.config import BalanceConfig
from retrieval.train.teacher import Teacher, open_teacher


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Images to train on.

    landmark: (n,) int32 into labels, -1 = non-landmark. image_id: (n,), for messages. teacher: descriptors to imitate.
    record: of `retrieval.models.seen`, by which an evaluation on these images is told later; None = none is kept.
    """

    source: Source
    landmark: IntArray
    labels: tuple[str, ...]
    digest: str
    image_id: Sequence[str] = ()
    teacher: Teacher | None = None
    record: Mapping[str, Any] | None = None

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
    teachers: Sequence[Path] = (),
    progress: Progress = SILENT,
) -> TrainingData:
    """Labelled images of one manifest, without landmarks that are too rare, and the non-landmarks of both.

    teachers: stores whose descriptors of these images are to be imitated.
    """
    for place in (manifest, negatives):
        if place is not None:
            index_tars(place, progress)
    parts = [load_manifest(manifest, progress)]
    if not parts[0].has_labels:
        raise LmrError(f"{manifest} has no landmark_id column; training needs labels")
    if rule is not None and rule.min_per_landmark:
        parts = [without_rare(parts[0], rule.min_per_landmark, rule.rare)]
    folders = [images_folder(images, manifest, progress)]
    if negatives is not None:
        parts.append(load_manifest(negatives, progress, is_background=True))
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
    sources = [PictureSource(part, folder) for part, folder in zip(parts, folders, strict=True)]
    return TrainingData(
        JoinedSource(sources, [len(part) for part in parts]),
        codes,
        labels,
        digest=hashlib.sha256(" ".join(part.digest for part in parts).encode()).hexdigest(),
        image_id=image_id,
        teacher=open_teacher(teachers, np.array(image_id, dtype=object)) if teachers else None,
        record=record_seen(image_id, [labels[code] if code >= 0 else "" for code in codes]),
    )
