"""Inputs of a cleaning: a manifest and its stores brought together, and its images measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval.arrays import FloatArray, IntArray, LongArray
from retrieval.data.image_source import ImageSource
from retrieval.data.locate import LocatedImages
from retrieval.data.manifest import Manifest
from retrieval.data.quality_cache import FactsTable, measure_manifest
from retrieval.errors import LmrError
from retrieval.progress import Progress
from retrieval.store.store import Descriptors
from retrieval.store.stored import to_unit
from retrieval.words import agreeing, counted


@dataclass(frozen=True, slots=True)
class ImageVectors:
    """Descriptors of images, (n, d) float32 unit, zeros where an image has none; read where they are asked for.

    rows: (n,) of the store.
    """

    store: Descriptors
    rows: LongArray

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return len(self.rows), self.store.info.d

    def __getitem__(self, at: slice | LongArray) -> FloatArray:
        """Those of these images, in memory of their own. Raises LmrError as `to_unit` and StoredVectors."""
        rows = self.rows[at]
        found = np.zeros((len(rows), self.store.info.d), dtype=np.float32)
        has_one = self.store.done[rows]
        found[has_one] = _unit(self.store, rows[has_one])
        return found

    def select(self, at: LongArray) -> "ImageVectors":
        """Those of some of the images."""
        return ImageVectors(self.store, self.rows[at])


@dataclass(frozen=True, slots=True, eq=False)
class CleaningInputs:
    """manifest: what is cleaned. vectors: (n, d) of its images. unreadable: row -> why there is no descriptor.

    background: (b, d) unit, of non-landmarks. facts: of the manifest's images, None = not measured.
    """

    manifest: Manifest
    vectors: ImageVectors
    unreadable: dict[int, str]
    background: FloatArray
    facts: FactsTable | None = None

    def __post_init__(self) -> None:
        if self.vectors.shape[0] != len(self.manifest):
            raise ValueError(f"vectors must be ({len(self.manifest)}, d), got {self.vectors.shape}")

    @property
    def judged(self) -> LongArray:
        """The rows whose label can be judged: a descriptor and one landmark."""
        one = self.manifest.landmark >= 0
        one[[*self.unreadable, *self.manifest.more_landmarks]] = False
        return np.flatnonzero(one)

    @property
    def codes(self) -> IntArray:
        """(j,) int32, landmarks of the judged rows, numbered without gaps."""
        return np.unique(self.manifest.landmark[self.judged], return_inverse=True)[1].astype(np.int32)


def join_inputs(manifest: Manifest, stores: Sequence[Descriptors], facts: FactsTable | None) -> CleaningInputs:
    """The descriptors of a manifest's images, and those of the background.

    stores: the manifest's own, then those of backgrounds. Raises LmrError where the own one lacks an image, or two are
    of different models.
    """
    store, rows = stores[0], _rows_in_store(manifest, stores[0])
    for other in stores[1:]:
        _require_same_model(store, other)
    has_one = store.done[rows]
    reasons = store.reason
    unreadable = {
        int(i): "no descriptor" if reasons is None or not reasons[rows[i]] else str(reasons[rows[i]])
        for i in np.flatnonzero(~has_one)
    }
    others = [_unit(store, rows[(manifest.landmark < 0) & has_one])]
    others += [
        _unit(other, np.flatnonzero(other.done & ~np.isin(other.image_id, manifest.image_id))) for other in stores[1:]
    ]
    return CleaningInputs(manifest, ImageVectors(store, rows), unreadable, np.concatenate(others), facts)


def measure_images(
    located: LocatedImages, cache: Path | None, *, n_workers: int, progress: Progress
) -> FactsTable | None:
    """Facts of all images; None where there are no images, which is then said."""
    if located.folder is None:
        progress.warn("quality and copies were not looked at in the pictures, which were not found; give `images`")
        return None
    source = ImageSource(located.manifest, located.folder)
    return measure_manifest(source, cache, n_workers=n_workers, progress=progress)


def _rows_in_store(manifest: Manifest, store: Descriptors) -> LongArray:
    """(n,) the store's row of each image. LmrError where one is not in it."""
    row_of = {image_id: row for row, image_id in enumerate(store.image_id.tolist())}
    missing = [image_id for image_id in manifest.image_id.tolist() if image_id not in row_of]
    if missing:
        raise LmrError(
            f"{store.source}: {counted(len(missing), 'picture', of=len(manifest))} of {manifest.source} "
            f"{agreeing(len(missing), 'is', 'are')} not in it, the first one {missing[0]}; give the store that "
            f"lmr embed made of this manifest"
        )
    return np.array([row_of[image_id] for image_id in manifest.image_id.tolist()], dtype=np.int64)


def _require_same_model(store: Descriptors, other: Descriptors) -> None:
    if store.info.fingerprint != other.info.fingerprint:
        raise LmrError(
            f"{other.source} was made by model {other.info.fingerprint[:8]}, {store.source} by "
            f"{store.info.fingerprint[:8]}; embed with the same model"
        )


def _unit(store: Descriptors, rows: LongArray) -> FloatArray:
    return to_unit(store.vectors[rows], store.image_id.select(rows), store.source)
