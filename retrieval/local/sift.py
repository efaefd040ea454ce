"""Geometric verification of two images: SIFT features, matched and counted when they agree on one geometry.

Needs OpenCV: the extra `local`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval.arrays import FloatArray, read_only
from retrieval.errors import LmrError
from retrieval.extras import install_hint
from retrieval.images.decode import decode
from retrieval.images.limits import DEFAULT_LIMITS, Limits, scaled_size

LONG_SIDE_PX = 640  # at which features are found
MAX_FEATURES = 1000
RATIO = 0.8  # of the distances to the best and the second match (Lowe, IJCV 2004, section 7.1)
REPROJECTION_PX = 3.0
CONFIDENCE = 0.999
MAX_ITERATIONS = 2000
MIN_MATCHES = 8  # from which a fundamental matrix is determined


@dataclass(frozen=True, slots=True)
class LocalFeatures:
    """points: (f, 2) float32, pixels of the scaled image. descriptors: (f, 128) float32, RootSIFT."""

    points: FloatArray
    descriptors: FloatArray

    def __post_init__(self) -> None:
        if self.points.shape != (len(self.descriptors), 2) or self.descriptors.ndim != 2:
            raise ValueError(
                f"points {self.points.shape} and descriptors {self.descriptors.shape} must be (f, 2), (f, d)"
            )
        object.__setattr__(self, "points", read_only(self.points))
        object.__setattr__(self, "descriptors", read_only(self.descriptors))

    def __len__(self) -> int:
        return len(self.points)


def require_opencv() -> Any:
    """The module cv2. Raises LmrError that names the extra."""
    try:
        import cv2
    except ImportError as error:
        raise LmrError(f"geometric verification needs OpenCV ({error}); {install_hint('local')}") from error
    return cv2


def local_features(data: bytes, limits: Limits = DEFAULT_LIMITS) -> LocalFeatures:
    """The strongest SIFT features of an encoded image.

    Square roots of descriptors of sum 1 (Arandjelovic and Zisserman, Three things everyone should know, CVPR 2012).
    Raises UnreadableError with the reason.
    """
    cv2 = require_opencv()
    image = decode(data, LONG_SIDE_PX, limits).convert("L")
    scale = LONG_SIDE_PX / max(image.size)
    if scale < 1:
        image = image.resize(scaled_size(image.size, scale))
    found, descriptors = cv2.SIFT_create(nfeatures=MAX_FEATURES).detectAndCompute(np.asarray(image), None)
    if descriptors is None:
        return LocalFeatures(np.zeros((0, 2), dtype=np.float32), np.zeros((0, 128), dtype=np.float32))
    points = np.array([point.pt for point in found], dtype=np.float32).reshape(-1, 2)
    sums = np.maximum(descriptors.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return LocalFeatures(points, np.sqrt(descriptors / sums).astype(np.float32))


def n_inliers(one: LocalFeatures, other: LocalFeatures) -> int:
    """Number of matches that agree on one fundamental matrix, 0 where there are too few.

    A match is the best of both sides, and clearly better than the second. The matrix is found by MAGSAC++ (Barath et
    al., CVPR 2020), whose random numbers always start alike.
    """
    cv2 = require_opencv()
    pairs = _matches(one.descriptors, other.descriptors)
    if len(pairs) < MIN_MATCHES:
        return 0
    here, there = one.points[pairs[:, 0]], other.points[pairs[:, 1]]
    cv2.setRNGSeed(0)
    try:
        _, mask = cv2.findFundamentalMat(
            here, there, cv2.USAC_MAGSAC, REPROJECTION_PX, CONFIDENCE, maxIters=MAX_ITERATIONS
        )
    except cv2.error:  # of points that lie on one another
        return 0
    return 0 if mask is None else int(mask.sum())


def _matches(one: FloatArray, other: FloatArray) -> Any:
    """(m, 2) positions of mutual nearest descriptors that pass the ratio test."""
    if len(one) < 2 or len(other) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    similarity = one @ other.T  # of unit vectors: RootSIFT has length 1
    best = similarity.argmax(axis=1)
    first_two = -np.partition(-similarity, 1, axis=1)[:, :2]
    distance = np.sqrt(np.maximum(2 - 2 * first_two, 0))
    mutual = similarity.argmax(axis=0)[best] == np.arange(len(one))
    kept = np.flatnonzero(mutual & (distance[:, 0] < RATIO * distance[:, 1]))
    return np.stack([kept, best[kept]], axis=1)
