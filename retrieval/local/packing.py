"""Local descriptors in few bytes, and back.

RootSIFT is kept as the whole numbers of SIFT that it is made of, which loses nothing: a byte for each. Descriptors of
networks are kept in float16.
"""

import numpy as np
from numpy.typing import NDArray

from retrieval.arrays import FloatArray
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


def pack(card: LocalCard, points: FloatArray, descriptors: FloatArray, size: tuple[int, int]) -> PackedFeatures:
    """Features as their card stores them; those without a direction are left out.

    points: (f, 2) pixels, or (f, 4) with frames, as the card has them. descriptors: (f, d) as the extractor finds them.
    size: of the scaled image.
    """
    kept = np.flatnonzero(np.isfinite(descriptors).all(axis=1) & (descriptors != 0).any(axis=1))
    packed = _pack_descriptors(card, descriptors[kept])
    frames = pack_frames(points[kept, 2:]) if card.has_frames else None
    return PackedFeatures(pack_points(points[kept, :2]), packed, size, frames)


def unpack(card: LocalCard, packed: PackedFeatures) -> LocalFeatures:
    """The features that were packed, with descriptors of unit length."""
    values = packed.descriptors.astype(np.float32)
    if card.kind == "rootsift":
        values = np.sqrt(values / np.maximum(values.sum(axis=1, keepdims=True), _TINY))
    else:
        values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), _TINY)
    frames = None if packed.frames is None else unpack_frames(packed.frames)
    return LocalFeatures(unpack_points(packed.points), values, packed.size, frames)


def _pack_descriptors(card: LocalCard, descriptors: FloatArray) -> NDArray[np.uint8] | NDArray[np.float16]:
    if card.kind == "rootsift":
        return np.rint(np.clip(descriptors, 0, 255)).astype(np.uint8)
    return descriptors.astype(np.float16)
