"""Local descriptors in few bytes, and back.

RootSIFT is kept as the whole numbers of SIFT that it is made of, which loses nothing: a byte for each. Descriptors of
networks are kept in float16. A projection on the first principal components of a sample (Ke and Sukthankar, PCA-SIFT,
CVPR 2004) makes them shorter; components of RootSIFT are then kept in a byte each too.
"""

import base64
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.arrays import FloatArray, IntArray, read_only
from retrieval.errors import LmrError
from retrieval.local.config import LocalCard
from retrieval.local.features import (
    LocalFeatures,
    PackedFeatures,
    pack_frames,
    pack_points,
    unpack_frames,
    unpack_points,
)

_TINY = np.finfo(np.float32).tiny
_MIDDLE = 128  # the byte of a component that is 0


@dataclass(frozen=True, slots=True)
class Projection:
    """mean: (D,) float32 of descriptors. matrix: (d, D) float32, orthonormal rows. step: (d,) float32, of a byte."""

    mean: FloatArray
    matrix: FloatArray
    step: FloatArray

    def __post_init__(self) -> None:
        d, n = self.matrix.shape
        if self.mean.shape != (n,) or self.step.shape != (d,):
            raise ValueError(f"mean {self.mean.shape} and step {self.step.shape} do not fit {self.matrix.shape}")
        for name in ("mean", "matrix", "step"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

    def project(self, descriptors: FloatArray) -> FloatArray:
        """(f, D) -> (f, d)."""
        return np.asarray((descriptors - self.mean) @ self.matrix.T, dtype=np.float32)

    def to_text(self) -> str:
        """As a card has it."""
        parts = [np.ascontiguousarray(part, "<f4").tobytes() for part in (self.mean, self.matrix, self.step)]
        return base64.b64encode(b"".join(parts)).decode()


@lru_cache(maxsize=8)
def parse_projection(text: str, d: int) -> Projection:
    """The projection of a card with descriptors of this length. Raises ValueError for what is none."""
    values = np.frombuffer(base64.b64decode(text, validate=True), "<f4")
    n, rest = divmod(len(values) - d, d + 1)
    if rest or n < d:
        raise ValueError(f"a projection of {len(values):,} numbers has no {d} dimensions")
    return Projection(values[:n], values[n : n + d * n].reshape(d, n), values[n + d * n :])


def learn_projection(descriptors: FloatArray, n_dimensions: int) -> Projection:
    """The first principal components of descriptors (f, D). LmrError where these are too few."""
    f, n = descriptors.shape
    if n_dimensions > n:
        raise ValueError(f"n_dimensions must be at most {n}, got {n_dimensions}")
    if f <= n_dimensions:
        raise LmrError(
            f"`local_dimensions` {n_dimensions} cannot be learnt from {f:,} local descriptors; give more images, or 0"
        )
    mean = descriptors.mean(axis=0, dtype=np.float64)
    centred = descriptors - mean
    _, vectors = np.linalg.eigh(centred.T @ centred)  # smallest first
    first = vectors[:, ::-1][:, :n_dimensions].T
    matrix = first * np.sign(first[np.arange(n_dimensions), np.abs(first).argmax(axis=1)])[:, None]
    step = np.maximum(np.abs(centred @ matrix.T).max(axis=0) / (_MIDDLE - 1), _TINY)
    return Projection(mean.astype(np.float32), matrix.astype(np.float32), step.astype(np.float32))


def projected(card: LocalCard, projection: Projection) -> LocalCard:
    """The card of features that are projected."""
    return replace(card, d=len(projection.matrix), projection=projection.to_text())


def pack(card: LocalCard, points: FloatArray, descriptors: FloatArray, size: tuple[int, int]) -> PackedFeatures:
    """Features as their card stores them; those without a direction are left out.

    points: (f, 2) pixels, or (f, 4) with frames, as the card has them. descriptors: (f, D) as the extractor finds them.
    size: of the scaled image.
    """
    kept = np.flatnonzero(np.isfinite(descriptors).all(axis=1) & (descriptors != 0).any(axis=1))
    packed = _pack_descriptors(card, descriptors[kept])
    frames = pack_frames(points[kept, 2:]) if card.has_frames else None
    return PackedFeatures(pack_points(points[kept, :2]), packed, size, frames)


def unpack(card: LocalCard, packed: PackedFeatures) -> LocalFeatures:
    """The features that were packed, with descriptors of unit length."""
    values: FloatArray = packed.descriptors.astype(np.float32)
    if card.kind == "rootsift":
        values = (values - _MIDDLE) * _projection(card).step if card.projection else _root(values)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), _TINY)
    frames = None if packed.frames is None else unpack_frames(packed.frames)
    return LocalFeatures(unpack_points(packed.points), values, packed.size, frames)


def features_dtype(card: LocalCard) -> np.dtype[Any]:
    """The type of a feature in a file."""
    kind = np.dtype(card.dtype).newbyteorder("<")
    frame = [("frame", "<u2", (2,))] if card.has_frames else []
    return np.dtype([("point", "<u2", (2,)), *frame, ("descriptor", kind, (card.d,))])


def to_rows(packed: PackedFeatures, dtype: np.dtype[Any]) -> NDArray[np.void]:
    """Features (f,) as they lie in a file."""
    rows = np.zeros(len(packed), dtype)
    rows["point"], rows["descriptor"] = packed.points, packed.descriptors
    if packed.frames is not None:
        rows["frame"] = packed.frames
    return rows


def from_rows(rows: NDArray[np.void], size: IntArray) -> PackedFeatures:
    """The features that lie in a file so. size: (2,) of the scaled image."""
    frames = rows["frame"] if "frame" in (rows.dtype.names or ()) else None
    return PackedFeatures(rows["point"], rows["descriptor"], (int(size[0]), int(size[1])), frames)


def _pack_descriptors(card: LocalCard, descriptors: FloatArray) -> NDArray[Any]:
    if card.kind == "rootsift":
        descriptors = np.rint(np.clip(descriptors, 0, 255))
        if not card.projection:
            return np.asarray(descriptors.astype(np.uint8))
        projection = _projection(card)
        steps = projection.project(_root(descriptors)) / projection.step
        return np.asarray(np.clip(np.rint(steps) + _MIDDLE, 0, 255).astype(np.uint8))
    if card.projection:
        descriptors = _projection(card).project(descriptors)
    return descriptors.astype(np.float16)


def _root(descriptors: FloatArray) -> FloatArray:
    return np.asarray(np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), _TINY)))


def _projection(card: LocalCard) -> Projection:
    return parse_projection(card.projection, card.d)
