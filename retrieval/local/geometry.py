"""Geometry of matched keypoints: those of two images that agree on one homography or one fundamental matrix.

Needs OpenCV: the extra `local`.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from retrieval.arrays import FloatArray, LongArray, read_only
from retrieval.local.features import LocalFeatures
from retrieval.local.rootsift import require_opencv

GeometryKind = Literal["homography", "fundamental", "none"]
REPROJECTION_PX = 3.0
CONFIDENCE = 0.999
MAX_ITERATIONS = 2000
MIN_MATCHES = 8  # from which a fundamental matrix is determined


@dataclass(frozen=True, slots=True)
class Match:
    """What two images have in common.

    points_query, points_row: (n, 2) float32, inliers, pixels of the two scaled images. model: (3, 3) float64, from the
    query to the row, None of kind "none". n_matches: pairs before geometry. spread, spread_row: shares of the images'
    areas that the convex hull of the inliers covers.
    """

    points_query: FloatArray
    points_row: FloatArray
    kind: GeometryKind
    model: FloatArray | None
    n_matches: int
    spread: float
    spread_row: float

    def __post_init__(self) -> None:
        if self.points_query.shape != self.points_row.shape or self.points_query.shape[1:] != (2,):
            raise ValueError(f"points {self.points_query.shape} and {self.points_row.shape} must both be (n, 2)")
        for name in ("points_query", "points_row"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

    @property
    def n_inliers(self) -> int:
        """Number of matches that agree on the model."""
        return len(self.points_query)


def no_match(n_matches: int = 0) -> Match:
    """The outcome where no geometry is found."""
    none = np.zeros((0, 2), dtype=np.float32)
    return Match(none, none, "none", None, n_matches, 0.0, 0.0)


def verify(one: LocalFeatures, other: LocalFeatures, pairs: LongArray) -> Match:
    """The matches that agree on one geometry. pairs: (m, 2) positions in both.

    The model is found by MAGSAC++ (Barath et al., CVPR 2020), whose random numbers always start alike.
    """
    cv2 = require_opencv()
    if len(pairs) < MIN_MATCHES:
        return no_match(len(pairs))
    here, there = one.points[pairs[:, 0]], other.points[pairs[:, 1]]
    cv2.setRNGSeed(0)
    try:
        model, mask = cv2.findFundamentalMat(
            here, there, cv2.USAC_MAGSAC, REPROJECTION_PX, CONFIDENCE, maxIters=MAX_ITERATIONS
        )
    except cv2.error:  # of points that lie on one another
        return no_match(len(pairs))
    if mask is None or model is None:
        return no_match(len(pairs))
    kept = mask.ravel().astype(bool)
    spread, spread_row = (_share(cv2, points[kept], side.size) for points, side in ((here, one), (there, other)))
    return Match(here[kept], there[kept], "fundamental", model, len(pairs), spread, spread_row)


def _share(cv2: Any, points: FloatArray, size: tuple[int, int]) -> float:
    """Share of an image's area that the convex hull of points covers."""
    return float(cv2.contourArea(cv2.convexHull(points)) / (size[0] * size[1])) if len(points) > 2 else 0.0
