"""Rules of cleaning: what is looked for in a training set, and from where on an image is left out."""

import math
from dataclasses import dataclass, fields

from retrieval.data.request import NEAR_BITS
from retrieval.errors import WordsError
from retrieval.images.screen import SCREEN_DIAGONAL_IN
from retrieval.jobs import option

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
    """Rule of a cleaning.

    checks: those that are done. odds: of another landmark against the label. background_margin: by how much an image is
    more similar to the background than to its landmark. component_share: below it another component of a landmark is
    left out, as a landmark may have two sides. Similarities are of centred descriptors. min_sharpness, min_contrast,
    min_brightness, max_brightness: as in `retrieval.images.quality`. ppi_low, ppi_high: pixels per inch of an image
    shown on diagonal_in inches; None = any. min_inliers, min_verified: Weyand et al., Google Landmarks Dataset v2, CVPR
    2020: 3 neighbours of the same landmark with 30.
    """

    checks: tuple[str, ...] = CHECKS
    n_neighbours: int = option(100, help="Nearest images that are asked about each one.")
    odds: float = option(200.0, help="Odds of another label from which a label is wrong.")
    background_margin: float = option(
        0.15, help="Margin by which a non-landmark is more similar to the background than to its landmark."
    )
    near_similarity: float = option(0.999, help="Similarity of centred descriptors from which two images are copies.")
    near_bits: int = option(NEAR_BITS, help="Bits of 64 in which perceptual hashes of copies may differ.")
    component_similarity: float = option(
        0.1, help="Similarity from which two images of a landmark are in one component."
    )
    component_share: float = option(
        0.5, help="Share of the largest component below which another component of its landmark is left out."
    )
    min_per_landmark: int = option(1, help="Images left below which a landmark is left out.")
    min_sharpness: float = option(2.0, help="Least variance of the Laplacian, of an image at 256 pixels.")
    min_contrast: float = option(5.0, help="Least standard deviation of the luma, 0 to 255.")
    min_brightness: float = option(8.0, help="Least mean of the luma, 0 to 255.")
    max_brightness: float = option(248.0, help="Largest mean of the luma, 0 to 255.")
    min_side_px: int = option(0, help="Least shorter side, pixels.")
    ppi_low: float | None = None
    ppi_high: float | None = None
    diagonal_in: float = option(
        SCREEN_DIAGONAL_IN,
        low=0,
        low_open=True,
        help="Diagonal of the screen for `ppi_range`, inches: 224 x 224 pixels are 18 per inch.",
    )
    verify: bool = option(
        False, help="Keep only images that enough neighbours of their landmark match geometrically (extra: local)."
    )
    min_inliers: int = option(30, help="With `verify`: inliers of one geometry from which two images show one place.")
    min_verified: int = option(3, help="With `verify`: such neighbours that an image needs.")
    n_verified_neighbours: int = option(
        20, help="With `verify`: nearest images of its landmark that each one is matched with."
    )
    relabel: bool = option(
        False, help="Give a mislabelled image the suggested label where that is confident, instead of leaving it out."
    )

    def __post_init__(self) -> None:
        unknown = [name for name in self.checks if name not in CHECKS]
        if unknown:
            raise WordsError(f"{unknown[0]} is not a check")
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise WordsError(f"`{item.name}` must be a number, not {value}")
            if item.name in _AT_LEAST and value < _AT_LEAST[item.name]:
                raise WordsError(f"`{item.name}` must be at least {_AT_LEAST[item.name]}, not {value}")
        if self.diagonal_in <= 0:
            raise WordsError(f"`diagonal_in` must be positive, not {self.diagonal_in}")
        if not 0 <= self.near_bits < 64:
            raise WordsError(f"`near_bits` must lie in [0, 64), not {self.near_bits}")
