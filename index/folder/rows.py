"""The rows of an index and its background: the HDF5 files rows.h5 and background.h5."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.arrays import FloatArray, IntArray, LongArray, read_only
from retrieval.files.atomic import write_error
from retrieval.files.hdf5 import mapped, new_hdf5, numbers, open_hdf5, read_column, write_column
from retrieval.own_columns import OwnColumns, read_columns, require_rows, write_columns
from retrieval.texts import Texts, to_texts

REMEDY = "run lmr build-index again"  # for a file that is proven to be damaged


@dataclass(frozen=True, slots=True)
class Rows:
    """The labels of the index's rows.

    image_id, path: (n,) columns, or arrays of strings to pack; path '' where unknown.
    landmark: (n,) int32 into landmarks, never -1.
    background: (n,) float32, b(i), the mean of the row's largest similarities to the background; None without one.
    columns: the user's own by name, (n,) texts each; coordinates are `lat` and `lon`.
    counts: (n_landmarks,) int64, rows of each landmark, n_c in the vote.
    """

    image_id: Texts
    landmark: IntArray
    landmarks: tuple[str, ...]
    path: Texts
    background: FloatArray | None
    columns: OwnColumns = field(default_factory=dict)
    counts: LongArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        n = len(self.image_id)
        for name in ("image_id", "path"):
            object.__setattr__(self, name, to_texts(getattr(self, name)))
        for name in ("image_id", "landmark", "path", "background"):
            array = getattr(self, name)
            if array is None:
                continue
            if array.shape != (n,):
                raise ValueError(f"{name} must be ({n},), got {array.shape}")
            if not isinstance(array, Texts):
                object.__setattr__(self, name, read_only(array))
        require_rows(self.columns, n)
        if n and not (self.landmark.min() >= 0 and self.landmark.max() < len(self.landmarks)):
            raise ValueError(f"landmark must lie in [0, {len(self.landmarks)})")
        if self.background is not None and not np.isfinite(self.background).all():
            raise ValueError("background holds NaN or infinity")
        counts = np.bincount(self.landmark, minlength=len(self.landmarks)).astype(np.int64)
        object.__setattr__(self, "counts", read_only(counts))

    def __len__(self) -> int:
        return len(self.image_id)


@dataclass(frozen=True, slots=True)
class Background:
    """Descriptors of images without a landmark, in the index's space: vectors (b, d) float32, image_id (b,)."""

    vectors: FloatArray
    image_id: Texts

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.image_id):
            raise ValueError(f"{self.vectors.shape} vectors do not fit {len(self.image_id)} image_ids")
        if not np.isfinite(self.vectors).all():
            row = int(np.flatnonzero(~np.isfinite(self.vectors).all(axis=1))[0])
            raise ValueError(f"vectors of row {row:,} hold NaN or infinity")
        object.__setattr__(self, "vectors", read_only(self.vectors))
        object.__setattr__(self, "image_id", to_texts(self.image_id))

    def __len__(self) -> int:
        return len(self.image_id)


def write_rows(path: Path, rows: Rows) -> None:
    """Writes rows.h5. Raises LmrError when that is not possible."""
    with _new_file(path) as file:
        write_column(file, "image_id", rows.image_id)
        file["landmark"] = rows.landmark
        write_column(file, "landmarks", Texts.of(rows.landmarks))
        write_column(file, "path", rows.path)
        if rows.background is not None:
            file["background"] = np.asarray(rows.background, dtype=np.float32)
        write_columns(file, rows.columns)


def read_rows(path: Path) -> Rows:
    """Opens rows.h5: what it says of the rows stays in it. Raises LmrError when it is missing or damaged."""
    with open_hdf5(path, "the rows of an index", REMEDY) as file:
        image_id = read_column(file, "image_id", is_utf8=True)
        n = len(image_id)
        return Rows(
            image_id=image_id,
            landmark=mapped(numbers(file, "landmark", ("int32", "int64"), (n,))).astype(np.int32, copy=False),
            landmarks=tuple(read_column(file, "landmarks", is_utf8=True)),
            path=read_column(file, "path", n),
            background=mapped(numbers(file, "background", ("float32",), (n,))) if "background" in file else None,
            columns=read_columns(file, n),
        )


def write_background(path: Path, background: Background) -> None:
    """Writes background.h5. Raises LmrError when that is not possible."""
    with _new_file(path) as file:
        file["vectors"] = np.asarray(background.vectors, dtype=np.float32)
        write_column(file, "image_id", background.image_id)


def read_background(path: Path) -> Background:
    """Reads background.h5. Raises LmrError when it is missing or damaged."""
    with open_hdf5(path, "the background of an index", REMEDY) as file:
        vectors = numbers(file, "vectors", ("float32",), (None, None))
        return Background(mapped(vectors), read_column(file, "image_id", len(vectors), is_utf8=True))


@contextmanager
def _new_file(path: Path) -> Iterator[Any]:
    try:
        with new_hdf5(path) as file:
            yield file
    except OSError as error:
        raise write_error(path, error) from error
