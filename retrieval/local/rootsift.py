"""RootSIFT, by OpenCV 4 or 5: square roots of SIFT descriptors of sum 1, which need no weights.

D. Lowe: Distinctive image features from scale-invariant keypoints, IJCV 2004. R. Arandjelovic, A. Zisserman: Three
things everyone should know to improve object retrieval, CVPR 2012.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval.arrays import FloatArray
from retrieval.errors import LmrError
from retrieval.extras import install_hint

if TYPE_CHECKING:
    from PIL import Image


def require_opencv(what: str = "geometric verification") -> Any:
    """The module cv2. Raises LmrError that names the extra. what: needs it."""
    try:
        import cv2
    except ImportError as error:
        raise LmrError(f"{what} needs OpenCV ({error}); {install_hint('local')}") from error
    return cv2


class RootSift:
    """Finds the strongest keypoints of an image, with their SIFT descriptors in whole numbers, as OpenCV makes them."""

    is_network, d = False, 128

    def __init__(self, n_keypoints: int) -> None:
        self._cv2 = require_opencv("RootSIFT")
        self._n_keypoints = n_keypoints

    def find(self, image: "Image.Image") -> tuple[FloatArray, FloatArray]:
        """Points (f, 4) with frames and descriptors (f, 128) of length 0 to 512, strongest first."""
        sift = self._cv2.SIFT_create(nfeatures=self._n_keypoints)  # not shared by threads
        found, descriptors = sift.detectAndCompute(np.asarray(image.convert("L")), None)
        if descriptors is None or not len(found):
            return np.zeros((0, 4), np.float32), np.zeros((0, self.d), np.float32)
        order = np.argsort([-point.response for point in found], kind="stable")[: self._n_keypoints]
        strongest = [found[i] for i in order]
        points = [(*point.pt, point.size, math.radians(point.angle)) for point in strongest]
        return np.array(points, dtype=np.float32), descriptors[order]


@contextmanager
def side_by_side() -> Iterator[None]:
    """A block in which OpenCV computes with one thread for each image, as several are looked at at once."""
    cv2 = require_opencv("RootSIFT")
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
