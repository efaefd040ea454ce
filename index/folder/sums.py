"""Sums over vectors that a whitening is learnt from, the same bits wherever and on however many threads they are made.

Vectors are taken in blocks and blocks in groups. The sum of a group is made in one piece by one thread; those of all
groups are added up in their order.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from retrieval.arrays import FloatArray, IntArray, Matrix
from retrieval.parallel import count_cores, run_in_threads

BLOCK_ROWS = 8192
MOST_GROUPS = 64  # and so many sums of d * d numbers, where they are kept in files


@dataclass(frozen=True, slots=True)
class PairSums:
    """Sums over the differences of n images from their landmarks' means, of n_free degrees of freedom.

    fourth: of the fourth powers of their lengths; products: (d, d) of their outer products.
    """

    n: int
    n_free: int
    fourth: float
    products: FloatArray


class Sums(Protocol):
    """Sums over the groups of n vectors of d numbers, in their order."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, d)."""

    def vectors(self) -> Iterator[FloatArray]:
        """(d,) float64 of each group."""

    def products(self, mean: FloatArray) -> Iterator[FloatArray]:
        """(d, d) float64 of each group: outer products of the vectors less their mean."""

    def pairs(self) -> Iterator[PairSums]:
        """Of each group of landmarks."""


class Pairs:
    """Images of landmarks that have two or more, in blocks of whole landmarks. landmark: (n,) of vectors, -1 = none."""

    def __init__(self, landmark: IntArray) -> None:
        order = np.argsort(landmark, kind="stable")
        order = order[landmark[order] >= 0]
        _, of_row, counts = np.unique(landmark[order], return_inverse=True, return_counts=True)
        self._order, self._counts = order[counts[of_row] > 1], counts[counts > 1]
        self._first = np.cumsum(self._counts) - self._counts
        cuts = np.flatnonzero(np.diff(self._first // BLOCK_ROWS, prepend=-1))
        self._parts = np.split(np.arange(len(self._counts)), cuts[1:]) if len(self._counts) else []

    @property
    def n_blocks(self) -> int:
        """Blocks of landmarks."""
        return len(self._parts)

    def differences(self, vectors: Matrix, block: int) -> tuple[FloatArray, int]:
        """(rows, d) float64 of a block: each image less its landmark's mean, times sqrt(2 n_c / (n_c - 1)).

        The mean of their outer products is that of the differences of all matching pairs, each image with every
        partner, each image once. Also the number of landmarks.
        """
        part = self._parts[block]
        n_c, begin = self._counts[part], self._first[part[0]]
        x = vectors[self._order[begin : begin + n_c.sum()]].astype(np.float64)
        mean = np.add.reduceat(x, self._first[part] - begin, axis=0) / n_c[:, None]
        factor = np.sqrt(2 * n_c / (n_c - 1))
        return (x - np.repeat(mean, n_c, axis=0)) * np.repeat(factor, n_c)[:, None], len(part)


def groups_of(n_blocks: int) -> list[range]:
    """Blocks in at most MOST_GROUPS groups of equal length, the last one shorter."""
    length = max(1, -(-n_blocks // MOST_GROUPS))
    return [range(first, min(first + length, n_blocks)) for first in range(0, n_blocks, length)]


def row_groups(n: int) -> list[range]:
    """The groups of the blocks of n vectors."""
    return groups_of(-(-n // BLOCK_ROWS))


def sum_vectors(vectors: Matrix, group: range) -> FloatArray:
    """(d,) float64 sum of the vectors of a group of blocks."""
    total = np.zeros(vectors.shape[1])
    for block in group:
        total += vectors[block * BLOCK_ROWS : (block + 1) * BLOCK_ROWS].sum(axis=0, dtype=np.float64)
    return total


def sum_products(vectors: Matrix, mean: FloatArray, group: range) -> FloatArray:
    """(d, d) float64 sum of the outer products of the vectors of a group less their mean; BLAS on one thread."""
    total = np.zeros((vectors.shape[1], vectors.shape[1]))
    for block in group:
        centred = vectors[block * BLOCK_ROWS : (block + 1) * BLOCK_ROWS].astype(np.float64) - mean
        total += centred.T @ centred
    return total


def sum_pairs(vectors: Matrix, pairs: Pairs, group: range) -> PairSums:
    """The sums over a group of blocks of landmarks; BLAS on one thread."""
    n, n_free, fourth, products = 0, 0, 0.0, np.zeros((vectors.shape[1], vectors.shape[1]))
    for block in group:
        differences, n_landmarks = pairs.differences(vectors, block)
        n, n_free = n + len(differences), n_free + len(differences) - n_landmarks
        products += differences.T @ differences
        fourth += float((np.einsum("nd,nd->n", differences, differences) ** 2).sum())
    return PairSums(n, n_free, fourth, products)


@dataclass(frozen=True, slots=True)
class MatrixSums:
    """Sums over vectors (n, d) that are read here, by as many threads as there are cores.

    pairs_of: their landmarks, None where these do not matter.
    """

    matrix: Matrix
    pairs_of: Pairs | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, d)."""
        return self.matrix.shape

    def vectors(self) -> Iterator[FloatArray]:
        """As of `Sums`."""
        return run_in_threads(partial(sum_vectors, self.matrix), row_groups(self.shape[0]), count_cores())

    def products(self, mean: FloatArray) -> Iterator[FloatArray]:
        """As of `Sums`."""
        return run_in_threads(partial(sum_products, self.matrix, mean), row_groups(self.shape[0]), count_cores())

    def pairs(self) -> Iterator[PairSums]:
        """As of `Sums`."""
        assert self.pairs_of is not None
        groups = groups_of(self.pairs_of.n_blocks)
        return run_in_threads(partial(sum_pairs, self.matrix, self.pairs_of), groups, count_cores())
