"""What is trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval.arrays import IntArray, LongArray
from retrieval.errors import LmrError
from retrieval.images.bytes_source import Source
from retrieval.train.teacher import Teacher


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Pictures to train on.

    landmark: (n,) int32 into labels, -1 = non-landmark. image_id: (n,), for messages. teacher: descriptors to imitate.
    record: of `retrieval.data.seen`, by which an evaluation on these pictures is told later; None = none is kept.
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
        """(n_labels,) pictures of each landmark."""
        return np.bincount(self.landmark[self.landmark >= 0], minlength=len(self.labels))
