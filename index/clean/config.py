"""What is looked for when a training set is cleaned, and from where on a picture is left out."""

import math
from dataclasses import dataclass, fields

from retrieval.data.near_duplicates import NEAR_BITS
from retrieval.images.quality import SCREEN_DIAGONAL_IN

CHECKS = ("quality", "duplicates", "background", "labels", "components")

_AT_LEAST = {
    "n_neighbours": 1,
    "odds": 1,
    "min_per_landmark": 1,
    "min_inliers": 1,
    "min_verified": 1,
    "n_verified_neighbours": 1,
    "min_side_px": 0,
}


@dataclass(frozen=True, slots=True)
class CleaningRule:
    """checks: those that are done. neighbours: nearest pictures that are asked about each one.

    odds: of another landmark against the label from which a label counts as wrong. background_margin: how much more
    similar a picture is to the background than to its landmark when it counts as a non-landmark.
    near_similarity: of descriptors, and near_bits: of 64 that differ, of two copies of a picture.
    component_similarity: from which two pictures of a landmark are joined; component_share: of the largest component,
    below which another one is left out: a landmark may have two sides.
    These similarities are of centred descriptors.
    min_per_landmark: of a landmark, else all of it is left out. min_sharpness, min_contrast, min_brightness,
    max_brightness: as in `retrieval.images.quality`. min_side_px: of the shorter side.
    ppi_low, ppi_high: pixels per inch of a picture shown on diagonal_in inches; None = any.
    min_inliers: of two pictures that show one place. min_verified: such neighbours of the same landmark that a picture
    needs among the first n_verified_neighbours (Weyand et al., Google Landmarks Dataset v2, CVPR 2020: 3 with 30).
    """

    checks: tuple[str, ...] = CHECKS
    n_neighbours: int = 100
    odds: float = 200.0
    background_margin: float = 0.15
    near_similarity: float = 0.999
    near_bits: int = NEAR_BITS
    component_similarity: float = 0.1
    component_share: float = 0.5
    min_per_landmark: int = 1
    min_sharpness: float = 2.0
    min_contrast: float = 5.0
    min_brightness: float = 8.0
    max_brightness: float = 248.0
    min_side_px: int = 0
    ppi_low: float | None = None
    ppi_high: float | None = None
    diagonal_in: float = SCREEN_DIAGONAL_IN
    verify: bool = False
    min_inliers: int = 30
    min_verified: int = 3
    n_verified_neighbours: int = 20
    relabel: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.checks if name not in CHECKS]
        if unknown:
            raise ValueError(f"{unknown[0]} is not a check")
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{item.name} must be a number, not {value}")
            if item.name in _AT_LEAST and value < _AT_LEAST[item.name]:
                raise ValueError(f"{item.name} must be at least {_AT_LEAST[item.name]}, not {value}")
        if self.diagonal_in <= 0:
            raise ValueError(f"diagonal_in must be positive, not {self.diagonal_in}")
        if not 0 <= self.near_bits < 64:
            raise ValueError(f"near_bits must lie in [0, 64), not {self.near_bits}")
