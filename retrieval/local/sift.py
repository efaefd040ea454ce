"""RootSIFT features of images.

Needs OpenCV: the extra `local`.
"""

from typing import Any

import numpy as np

from retrieval.errors import LmrError
from retrieval.extras import install_hint
from retrieval.images.decode import decode
from retrieval.images.limits import DEFAULT_LIMITS, Limits, scaled_size
from retrieval.local.features import LocalFeatures

LONG_SIDE_PX = 640  # at which features are found
MAX_FEATURES = 1000


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
        return LocalFeatures(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32), image.size)
    points = np.array([point.pt for point in found], dtype=np.float32).reshape(-1, 2)
    sums = np.maximum(descriptors.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return LocalFeatures(points, np.sqrt(descriptors / sums).astype(np.float32), image.size)
