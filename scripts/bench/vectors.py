"""Made descriptors of any number, for measurements of search: as hard as those of trained networks.

    python scripts/bench/vectors.py --rows 1000000 --output vectors.npy [--like train.h5]

A landmark is a mean drawn from the covariance between landmarks; an image of it adds a draw from the covariance within
them; the sum has unit length. Both covariances are diagonal in a random basis, with eigenvalues that fall as i^-a.
The exponents and the share of the variance within landmarks are those of half-whitened descriptors of photographs, or
are fitted to a store that is given with --like. Landmark sizes follow Zipf's law with exponent 0.8. The same seed
gives the same vectors, whatever the number of blocks. Prints JSON.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

BLOCK = 1 << 14  # rows drawn at once, each block by a generator of its own
ZIPF = 0.8


@dataclass(frozen=True)
class Spectrum:
    """Exponents of the eigenvalues between and within landmarks, and the share of the variance within."""

    between: float = 0.96
    within: float = 1.56
    share_within: float = 0.82


@dataclass(frozen=True)
class World:
    """Means of landmarks, the basis of the differences within them, and how many rows each landmark has."""

    means: np.ndarray
    within: np.ndarray
    cumulative: np.ndarray
    seed: int

    @property
    def d(self) -> int:
        return self.means.shape[1]

    def block(self, number: int, n: int, *, of_queries: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Unit vectors (n, d) float32 and landmarks (n,) of one block of rows, or of queries of the same landmarks."""
        rng, landmark = self._drawn(number, n, of_queries)
        return _unit(self.means[landmark] + rng.standard_normal((n, self.d), np.float32) @ self.within), landmark

    def background(self, n: int) -> np.ndarray:
        """Unit vectors (n, d) float32 of images of landmarks that no row shows."""
        rng = np.random.default_rng([self.seed, 2])
        strangers = rng.permutation(len(self.means))  # directions of known landmarks, in another order of dimensions
        mixed = self.means[strangers[rng.integers(len(strangers), size=n)]][:, ::-1]
        return _unit(mixed + rng.standard_normal((n, self.d), np.float32) @ self.within)

    def landmarks(self, n: int, *, of_queries: bool = False) -> np.ndarray:
        """(n,) int32 landmarks of n rows in all, without their vectors."""
        found = [self._drawn(i, min(BLOCK, n - at), of_queries)[1] for i, at in enumerate(range(0, n, BLOCK))]
        return np.concatenate(found).astype(np.int32)

    def rows(self, n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Successive blocks of n rows in all."""
        for number, start in enumerate(range(0, n, BLOCK)):
            yield self.block(number, min(BLOCK, n - start))

    def _drawn(self, number: int, n: int, of_queries: bool) -> tuple[np.random.Generator, np.ndarray]:
        """The generator of a block, and the landmarks that were drawn from it."""
        rng = np.random.default_rng([self.seed, int(of_queries), number])
        return rng, np.searchsorted(self.cumulative, rng.random(n), side="right")


def make_world(n_landmarks: int, d: int, seed: int = 0, spectrum: Spectrum = Spectrum()) -> World:
    """A world of landmarks; sizes by Zipf's law."""
    rng = np.random.default_rng([seed, 3])
    at = np.arange(1, d + 1, dtype=np.float64)
    between, within = at**-spectrum.between, at**-spectrum.within
    between *= (1 - spectrum.share_within) / between.sum()
    within *= spectrum.share_within / within.sum()
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0].astype(np.float32)
    means = (rng.standard_normal((n_landmarks, d), np.float32) * np.sqrt(between).astype(np.float32)) @ basis
    sizes = np.arange(1, n_landmarks + 1, dtype=np.float64) ** -ZIPF
    return World(means, np.sqrt(within).astype(np.float32)[:, None] * basis, np.cumsum(sizes / sizes.sum()), seed)


def fit_spectrum(path: Path, power: float = 0.5) -> Spectrum:
    """The spectrum of the descriptors of a store, each principal component divided by its deviation ^ power."""
    from retrieval.store.store import read_store

    store = read_store(path)
    rows = np.flatnonzero(store.done & (store.landmark >= 0))
    vectors, landmark = _unit(store.vectors[rows].astype(np.float32)), store.landmark[rows]
    values, axes = np.linalg.eigh(np.cov(vectors.T))
    kept = np.argsort(values)[::-1][: min(512, len(vectors) // 2)]
    white = _unit((vectors - vectors.mean(axis=0)) @ axes[:, kept] / values[kept] ** (power / 2))
    labels, codes, counts = np.unique(landmark, return_inverse=True, return_counts=True)
    means = np.zeros((len(labels), white.shape[1]))
    np.add.at(means, codes, white)
    means /= counts[:, None]
    within = np.linalg.eigvalsh(np.cov((white - means[codes]).T))[::-1]
    between = np.linalg.eigvalsh(np.cov(means.T))[::-1]
    return Spectrum(
        between=round(_exponent(between, min(len(labels) - 10, 200)), 3),
        within=round(_exponent(within, min(len(within), 300)), 3),
        share_within=round(float(within.sum() / (within.sum() + between.sum())), 3),
    )


def recall_at(found: np.ndarray, exact: np.ndarray) -> float:
    """Mean share of the exact neighbours (q, k) that are among those found."""
    return float(np.mean([np.isin(e, f).mean() for e, f in zip(exact, found, strict=True)]))


def _exponent(values: np.ndarray, n: int) -> float:
    at = np.arange(3, n)
    return -float(np.polyfit(np.log(at), np.log(values[at - 1]), 1)[0])


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main() -> None:
    """Writes the rows as float16 .npy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--landmarks", type=int, default=30_000)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--like", type=Path, help="store whose spectrum is fitted")
    parser.add_argument("--output", type=Path, default=Path("vectors.npy"))
    args = parser.parse_args()
    spectrum = fit_spectrum(args.like) if args.like else Spectrum()
    world = make_world(args.landmarks, args.dimensions, args.seed, spectrum)
    out = np.lib.format.open_memmap(args.output, "w+", np.float16, (args.rows, args.dimensions))
    start = 0
    for vectors, _ in world.rows(args.rows):
        out[start : start + len(vectors)] = vectors
        start += len(vectors)
    out.flush()
    print(json.dumps({"output": str(args.output), "rows": args.rows, "spectrum": asdict(spectrum)}))


if __name__ == "__main__":
    main()
