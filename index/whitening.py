"""Whitening of descriptors: by their own spread, or learnt from how images of one landmark differ.

A power below 1 ("half" whitening at 0.5) goes part of the way; 1 is the textbook's.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from index.folder.sums import MatrixSums, PairSums, Sums
from index.search.faiss_io import limited_blas
from retrieval.arrays import FloatArray, Matrix, read_only
from retrieval.errors import LmrError
from retrieval.words import agreeing, counted

FORMAT_VERSION = 1
MAX_DIMENSIONS = 512
# Variance below this share of the largest is rounding: that of a float16 descriptor is about 2e-8 of it.
RELATIVE_FLOOR = 1e-7
BLOCK_ROWS = 8192


@dataclass(frozen=True, slots=True)
class Whitening:
    """x -> (x - mean) @ matrix, then unit length. mean: (d,), matrix: (d, d_out), float64.

    n_fitted: vectors that it was fitted on, None = not known.
    """

    mean: FloatArray
    matrix: FloatArray
    n_fitted: int | None = None

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
        from retrieval.files.hdf5 import new_hdf5

        try:
            with new_hdf5(Path(path)) as file:
                file.attrs["format_version"] = FORMAT_VERSION
                file["mean"], file["matrix"] = self.mean, self.matrix
                if self.n_fitted is not None:
                    file.attrs["n_fitted"] = self.n_fitted
        except OSError as error:
            raise LmrError(
                f"{path}: cannot be written ({error.strerror}); free space or choose another folder"
            ) from error


def load_whitening(path: str | Path) -> Whitening:
    """Reads what `Whitening.save` wrote. Raises LmrError for a file that is missing, damaged or of another version."""
    from retrieval.files.hdf5 import numbers, open_hdf5

    with open_hdf5(Path(path), "a whitening", "run lmr build-index again") as file:
        version = file.attrs.get("format_version")
        if version != FORMAT_VERSION:
            raise LmrError(
                f"{path}: format_version {version}, this program reads {FORMAT_VERSION}; use the lmr that made it"
            )
        mean = numbers(file, "mean", ("float64",), (None,))
        matrix = numbers(file, "matrix", ("float64",), (len(mean), None))
        n_fitted = file.attrs.get("n_fitted")
        return Whitening(mean[:], matrix[:], None if n_fitted is None else int(n_fitted))


def fit_whitening(vectors: Matrix, power: float = 0.5, n_dimensions: int | None = None) -> Whitening:
    """Principal components of these vectors, each divided by its standard deviation to the power `power`.

    vectors: (n, d). n_dimensions: how many of the largest components to keep, min(512, d) where None; never more
    than n - 1, and none whose variance is rounding. The largest entry of each component is made positive, so that
    the same vectors always give the same signs. Raises LmrError where no component is left.
    """
    if len(vectors.shape) != 2:
        raise ValueError(f"vectors must be (n, d), not {vectors.shape}")
    return whitening_of(MatrixSums(vectors), "pca", power, n_dimensions)


def whitening_of(
    sums: Sums, kind: Literal["pca", "supervised"], power: float, n_dimensions: int | None = None
) -> Whitening:
    """The whitening of vectors by sums over them; the same sums give the same bits on any number of threads.

    pca: as `fit_whitening`. supervised: x -> S^(-power / 2) (x - mean), then its principal components; S = covariance
    of matching pairs' differences. With power 1 that is the learnt whitening Lw of Radenovic, Tolias, Chum 2018, after
    Mikolajczyk and Matas. Two images of one landmark are a matching pair; every image that has a partner counts as much
    as any other. S is shrunk towards a multiple of the identity as Ledoit and Wolf (2004) estimate, at least by
    1 / (1 + degrees of freedom), so that few pairs do not blow up what they never saw.
    n_dimensions: as for `fit_whitening`. Raises LmrError as that, and without matching pairs that differ.
    """
    return moments_of(sums, kind).whitening(kind, power, n_dimensions)


@dataclass(frozen=True, slots=True)
class Moments:
    """What a whitening of n vectors is made of: their mean (d,) and covariance (d, d), float64.

    within: (d, d) shrunk covariance of matching pairs' differences, None where no pairs were asked for.
    """

    n: int
    mean: FloatArray
    covariance: FloatArray
    within: FloatArray | None

    def whitening(self, kind: Literal["pca", "supervised"], power: float, n_dimensions: int | None = None) -> Whitening:
        """As `whitening_of`. Raises ValueError for `supervised` without pairs."""
        if not 0 <= power <= 1:
            raise ValueError(f"power {power} must be a share")
        with limited_blas(1):
            if kind == "pca":
                variance, components = _principal(self.covariance, self.n, n_dimensions)
                return Whitening(self.mean, components * variance ** (-power / 2), self.n)
            if self.within is None:
                raise ValueError("a supervised whitening needs the moments of pairs")
            variance, directions = np.linalg.eigh(self.within / (np.trace(self.within) / len(self.within)))
            projection = (directions * variance ** (-power / 2)) @ directions.T
            _, components = _principal(projection @ self.covariance @ projection, self.n, n_dimensions)
            return Whitening(self.mean, projection @ components, self.n)


def moments_of(sums: Sums, kind: Literal["pca", "supervised"]) -> Moments:
    """The moments that whitenings of this kind are made of, of every power and length. Raises LmrError as these."""
    n, d = sums.shape
    with limited_blas(1):
        within = _shrunk_within(sums.pairs(), d) if kind == "supervised" else None
        mean = mean_of(sums)
        covariance = np.zeros((d, d))
        for products in sums.products(mean):
            covariance += products
        return Moments(n, mean, covariance / max(1, n), within)


def mean_of(sums: Sums) -> FloatArray:
    """(d,) float64 mean of the vectors."""
    total = np.zeros(sums.shape[1])
    for part in sums.vectors():
        total += part
    return total / max(1, sums.shape[0])


def _principal(covariance: FloatArray, n: int, n_dimensions: int | None) -> tuple[FloatArray, FloatArray]:
    """Variance (m,) and components (d, m), largest first, of n vectors; none whose variance is rounding."""
    d = len(covariance)
    if n_dimensions is not None and not 1 <= n_dimensions <= d:
        raise LmrError(
            f"{counted(n_dimensions, 'dimension')} asked of whitening, the descriptors have {d}; give 1 to {d}"
        )
    n_dimensions = min(n_dimensions or MAX_DIMENSIONS, d, max(n - 1, 0))
    variance, components = np.linalg.eigh(covariance)
    variance, components = variance[::-1][:n_dimensions], components[:, ::-1][:, :n_dimensions]
    kept = variance > RELATIVE_FLOOR * max(variance.max(initial=0.0), np.finfo(np.float64).eps)
    if not kept.any():
        raise LmrError(
            f"whitening needs descriptors that differ, the {n:,} given {agreeing(n, 'does', 'do')} not; give "
            "`whitening_power` 0"
        )
    variance, components = variance[kept], components[:, kept]
    largest = np.take_along_axis(components, np.abs(components).argmax(axis=0)[None], axis=0)
    return variance, components * np.sign(largest)


def _shrunk_within(sums: Iterable[PairSums], d: int) -> FloatArray:
    """(d, d) covariance of the differences of matching pairs, shrunk so that it can be inverted."""
    n, n_free, fourth, covariance = 0, 0, 0.0, np.zeros((d, d))
    for part in sums:
        n, n_free, fourth = n + part.n, n_free + part.n_free, fourth + part.fourth
        covariance += part.products
    if n == 0:
        raise LmrError(
            "supervised whitening needs landmarks with two pictures or more, there are none; give `whitening` pca"
        )
    covariance /= n
    scale = np.trace(covariance) / d
    if scale <= np.finfo(np.float64).eps ** 2:
        raise LmrError(
            "supervised whitening needs pictures of one landmark that differ, there are none; give `whitening` pca"
        )
    squares = float((covariance**2).sum())
    off = squares - d * scale**2  # squared distance from the multiple of the identity
    noise = max(0.0, (fourth / n - squares) / n)
    shrinkage = max(1.0 if off <= noise else noise / off, 1 / (1 + n_free))
    covariance *= 1 - shrinkage
    covariance[np.diag_indices(d)] += shrinkage * scale
    return covariance
