"""Resolution of images on a screen."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrieval.arrays import FloatArray, LongArray

SCREEN_DIAGONAL_IN = 17.6  # inches: a laptop of 2019, on which 224 x 224 pixels are 18 pixels per inch


def pixels_per_inch(
    width: "int | LongArray", height: "int | LongArray", diagonal_in: float = SCREEN_DIAGONAL_IN
) -> "FloatArray":
    """sqrt(w^2 + h^2) / diagonal. width, height: of one image, or (n,)."""
    import numpy as np

    return np.asarray(np.hypot(width, height) / diagonal_in)
