"""Whitening of descriptors: principal components divided by a power of their standard deviation.

A power below 1 ("half" whitening at 0.5) keeps part of the order of the components; 1 is the textbook's.
"""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from retrieval.arrays import FloatArray, read_only
from retrieval.errors import LmrError
from retrieval.hdf5_file import new_hdf5

FORMAT_VERSION = 1
MAX_DIMENSIONS = 512
# Variance below this share of the largest is rounding: that of a float16 descriptor is about 2e-8 of it.
RELATIVE_FLOOR = 1e-7
BLOCK_ROWS = 8192


@dataclass(frozen=True, slots=True)
class Whitening:
    """x -> (x - mean) @ matrix, then unit length. mean: (d,), matrix: (d, d_out), float64."""

    mean: FloatArray
    matrix: FloatArray

    def __post_init__(self) -> None:
        if self.mean.ndim != 1 or self.matrix.ndim != 2 or len(self.mean) != len(self.matrix):
            raise ValueError(f"mean {self.mean.shape} and matrix {self.matrix.shape} must be (d,) and (d, d_out)")
        if self.mean.dtype != np.float64 or self.matrix.dtype != np.float64:
            raise ValueError(f"mean and matrix must be float64, not {self.mean.dtype}, {self.matrix.dtype}")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.matrix).all()):
            raise ValueError("mean or matrix holds NaN or infinity")
        object.__setattr__(self, "mean", read_only(self.mean))
        object.__setattr__(self, "matrix", read_only(self.matrix))

    def apply(self, vectors: FloatArray) -> FloatArray:
        """Whitened unit vectors, (n, d_out) float32; a vector equal to the mean becomes 0.

        vectors: (n, d). Summed in float64, so that the batch size does not show in float32.
        """
        if vectors.ndim != 2 or vectors.shape[1] != len(self.mean):
            raise ValueError(f"vectors must be (n, {len(self.mean)}), not {vectors.shape}")
        out = np.empty((len(vectors), self.matrix.shape[1]), dtype=np.float32)
        for start in range(0, len(vectors), BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            white = (vectors[part].astype(np.float64) - self.mean) @ self.matrix
            out[part] = white / np.maximum(np.linalg.norm(white, axis=1, keepdims=True), np.finfo(np.float64).tiny)
        return out

    def save(self, path: str | Path) -> None:
        """Write mean and matrix as HDF5. Raises LmrError where that is not possible."""
        try:
            with new_hdf5(Path(path)) as file:
                file.attrs["format_version"] = FORMAT_VERSION
                file["mean"], file["matrix"] = self.mean, self.matrix
        except OSError as error:
            raise LmrError(
                f"{path}: cannot be written ({error.strerror}); free space or choose another folder"
            ) from error


def load_whitening(path: str | Path) -> Whitening:
    """What `Whitening.save` wrote. Raises LmrError for a file that is missing, damaged or of another version."""
    if not Path(path).is_file():
        raise LmrError(f"{path}: there is no such file; run lmr build-index")
    try:
        with h5py.File(path, "r") as file:
            version = int(file.attrs["format_version"])
            if version != FORMAT_VERSION:
                raise LmrError(
                    f"{path}: format_version {version}, this program reads {FORMAT_VERSION}; run lmr build-index again"
                )
            return Whitening(file["mean"][:], file["matrix"][:])
    except (OSError, KeyError, ValueError, TypeError):
        raise LmrError(f"{path}: not a whitening file, or damaged; run lmr build-index again") from None


def fit_whitening(vectors: FloatArray, power: float = 0.5, n_dimensions: int | None = None) -> Whitening:
    """Principal components of these vectors, each divided by its standard deviation to the power `power`.

    vectors: (n, d). n_dimensions: how many of the largest components to keep, min(512, d) where None; never more
    than n - 1, and none whose variance is rounding. The largest entry of each component is made positive, so that
    the same vectors always give the same signs. Raises LmrError where no component is left.
    """
    if vectors.ndim != 2 or not 0 <= power <= 1:
        raise ValueError(f"vectors must be (n, d) and power in [0, 1], not {vectors.shape} and {power}")
    n, d = vectors.shape
    if n_dimensions is not None and not 1 <= n_dimensions <= d:
        raise LmrError(f"{n_dimensions} dimensions asked of whitening, the descriptors have {d}; give 1 to {d}")
    n_dimensions = min(n_dimensions or MAX_DIMENSIONS, d, max(n - 1, 0))
    mean, covariance = _moments(vectors)
    variance, components = np.linalg.eigh(covariance)
    variance, components = variance[::-1][:n_dimensions], components[:, ::-1][:, :n_dimensions]
    kept = variance > RELATIVE_FLOOR * max(variance.max(initial=0.0), np.finfo(np.float64).eps)
    if not kept.any():
        raise LmrError(f"whitening needs descriptors that differ, the {n} given do not; give --whitening-power 0")
    variance, components = variance[kept], components[:, kept]
    largest = np.take_along_axis(components, np.abs(components).argmax(axis=0)[None], axis=0)
    return Whitening(mean, components * np.sign(largest) * variance ** (-power / 2))


def _moments(vectors: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean (d,) and covariance (d, d) in float64, in blocks of rows."""
    n, d = vectors.shape
    mean = np.zeros(d)
    covariance = np.zeros((d, d))
    blocks = [slice(start, start + BLOCK_ROWS) for start in range(0, n, BLOCK_ROWS)]
    for block in blocks:
        mean += vectors[block].sum(axis=0, dtype=np.float64) / n
    for block in blocks:
        centred = vectors[block].astype(np.float64) - mean
        covariance += centred.T @ centred / n
    return mean, covariance
