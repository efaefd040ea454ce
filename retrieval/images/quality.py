"""Quality of one image without any network: size, digest, perceptual hash, light, sharpness, pixels per inch."""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from retrieval.arrays import FloatArray
from retrieval.images.decode import decode, image_size
from retrieval.images.limits import DEFAULT_LIMITS, Limits, scaled_size

MEASURED_PX = 256  # the shorter side at which light and sharpness are measured, so that they compare across sizes
_HASH_PX = 32
_HASH_BITS_A_SIDE = 8


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """width, height: pixels, upright. n_bytes: of the file. sha256: hex, of the file. perceptual_hash: 64 bits.

    brightness, contrast: mean and standard deviation of the luma, 0 to 255. sharpness: variance of its Laplacian.
    gradient: mean length of its gradient, per pixel. entropy: of its 256-bin histogram, bits, 0 to 8.
    """

    width: int
    height: int
    n_bytes: int
    sha256: str
    perceptual_hash: int
    brightness: float
    contrast: float
    sharpness: float
    gradient: float
    entropy: float

    def __post_init__(self) -> None:
        measured = (self.brightness, self.contrast, self.sharpness, self.gradient, self.entropy)
        if min(self.width, self.height) < 1 or self.n_bytes < 0 or not 0 <= self.perceptual_hash < 1 << 64:
            raise ValueError("width, height, n_bytes or perceptual_hash is out of its range")
        if not all(math.isfinite(value) and value >= 0 for value in measured):
            raise ValueError("what was measured of a picture must be numbers from 0 on")


def measure_image(data: bytes, limits: Limits = DEFAULT_LIMITS) -> ImageFacts:
    """The facts of an encoded image. Raises UnreadableError with the reason."""
    grey = _grey(data, limits)
    width, height = image_size(data, limits)
    luma = np.asarray(grey, dtype=np.float32)
    share = np.bincount(np.asarray(grey).ravel(), minlength=256) / grey.width / grey.height
    seen = share[share > 0]
    return ImageFacts(
        width=width,
        height=height,
        n_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        perceptual_hash=perceptual_hash(grey),
        brightness=float(luma.mean()),
        contrast=float(luma.std()),
        sharpness=_sharpness(luma),
        gradient=_gradient(luma),
        entropy=float((seen * np.log2(1 / seen)).sum()),
    )


def hash_image(data: bytes, limits: Limits = DEFAULT_LIMITS) -> int:
    """The perceptual hash that `measure_image` gives, alone. Raises UnreadableError with the reason."""
    return perceptual_hash(_grey(data, limits))


def perceptual_hash(image: Image.Image) -> int:
    """64 bits that stay nearly the same under resizing, recompression and small changes of light.

    The signs of the 8 x 8 lowest frequencies of the discrete cosine transform of the image at 32 x 32, about their
    median (Zauner, Implementation and benchmarking of perceptual image hash functions, 2010, section 3.2.1).
    """
    grey = image.convert("L").resize((_HASH_PX, _HASH_PX), Image.Resampling.BILINEAR)
    n = _HASH_BITS_A_SIDE
    from scipy import fft  # here, so that a mistake is told without it

    low = fft.dctn(np.asarray(grey, dtype=np.float64), norm="ortho")[:n, :n].ravel().round(6)  # plain grey is all 0
    bits = low > np.median(low[1:])  # the mean light, at 0, is not part of what is compared
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _grey(data: bytes, limits: Limits) -> Image.Image:
    """The image in grey, its shorter side at most MEASURED_PX."""
    grey = decode(data, MEASURED_PX, limits).convert("L")
    scale = MEASURED_PX / min(grey.size)
    if scale < 1:
        grey = grey.resize(scaled_size(grey.size, scale), Image.Resampling.BILINEAR)
    return grey


def _sharpness(luma: FloatArray) -> float:
    """Variance of the 4-neighbour Laplacian (Pech-Pacheco et al., Diatom autofocusing, ICPR 2000)."""
    inner = luma[1:-1, 1:-1]
    if inner.size == 0:
        return 0.0
    return float((luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * inner).var())


def _gradient(luma: FloatArray) -> float:
    if min(luma.shape) < 2:
        return 0.0
    return float(np.hypot(np.diff(luma, axis=1)[:-1], np.diff(luma, axis=0)[:, :-1]).mean())
