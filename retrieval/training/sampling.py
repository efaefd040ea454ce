"""Which pictures a training epoch sees, in which batches: class-balanced, seeded, the same on every machine."""

from dataclasses import dataclass

import numpy as np

from retrieval.arrays import FloatArray, IntArray, LongArray


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """Batches of one epoch, all of one size; the few pictures that would fill only a part of one are left to others.

    rows: one int64 array of manifest rows a batch. seeds: the same shapes, a seed for each picture's augmentation.
    """

    rows: tuple[LongArray, ...]
    seeds: tuple[LongArray, ...]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class Sampler:
    """Draws epochs.

    landmark: (n,) int32, -1 = non-landmark. balance: a in n_c ** -a, the weight of a picture of a landmark with n_c
    pictures (0: every picture alike, 1: every landmark alike). negative_share: of a batch that is non-landmarks.
    epoch_size: landmark pictures in an epoch; None = as many as there are.
    """

    landmark: IntArray
    batch_size: int
    balance: float
    negative_share: float
    epoch_size: int | None
    seed: int

    def plan(self, epoch: int) -> EpochPlan:
        """The batches of one epoch, a function of the seed and the epoch alone."""
        rng = np.random.default_rng([self.seed, epoch])
        known = np.flatnonzero(self.landmark >= 0)
        others = np.flatnonzero(self.landmark < 0)
        counts = np.bincount(self.landmark[known])
        weights = counts[self.landmark[known]].astype(np.float64) ** -self.balance
        drawn = known[systematic_sample(weights, self.epoch_size or len(known), rng)]
        n_others = min(round(self.batch_size * self.negative_share), self.batch_size - 1) if len(others) else 0
        n_known = self.batch_size - n_others
        n_batches = max(1, len(drawn) // n_known)
        stream = np.concatenate(
            [rng.permutation(others) for _ in range(-(-n_batches * n_others // max(1, len(others))))] or [others]
        )
        rows = tuple(
            np.concatenate([drawn[i * n_known : (i + 1) * n_known], stream[i * n_others : (i + 1) * n_others]])
            for i in range(n_batches)
        )
        return EpochPlan(rows, tuple(rng.integers(0, 2**62, len(batch)) for batch in rows))


def systematic_sample(weights: FloatArray, n: int, rng: np.random.Generator) -> LongArray:
    """n positions in random order, each drawn floor or ceil of its expected number of times.

    Systematic resampling (Madow 1949): less noise than independent draws, and a permutation when weights are equal
    and n is their number.
    """
    order = rng.permutation(len(weights))
    edges = np.cumsum(weights[order])
    ticks = (np.arange(n) + rng.random()) * (edges[-1] / n)
    drawn: LongArray = order[np.searchsorted(edges, ticks, side="right").clip(max=len(order) - 1)]
    rng.shuffle(drawn)
    return drawn
