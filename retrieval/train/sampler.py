"""Sampling of the batches of an epoch: class-balanced, seeded, the same on every machine."""

from dataclasses import dataclass, replace

import numpy as np

from retrieval.arrays import FloatArray, IntArray, LongArray
from retrieval.errors import LmrError
from retrieval.train.config import BalanceConfig, TrainConfig

_CAP = 1  # third word of the seed of capped subsets; that of an epoch has two words


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """Batches of one epoch, all of one size; the few images that would fill only a part of one are left to others.

    rows: one int64 array of manifest rows a batch. seeds: the same shapes, a seed for each image's augmentation;
    below zero they are those of repeats that belong together (`spread_seeds`).
    """

    rows: tuple[LongArray, ...]
    seeds: tuple[LongArray, ...]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class Sampler:
    """Draws epochs.

    landmark: (n,) int32, -1 = non-landmark. rule: which images, and how often. epoch_size: landmark images in an
    epoch; None = as many as there are.

    With `rule.cap`, a landmark with more images has a random subset of `cap` in all epochs, a function of the seed
    and of `rule.member` alone (ERUS, ensembles of random under-sampling: one subset for each member).

    With `rule.floor`, a landmark with n_c images, fewer than the floor f, is drawn f times for each epoch: every one
    of its images floor(f / n_c) times, and f mod n_c of them, drawn anew in each epoch, once more (the up-sampling of
    the CS231N report). n_c is then what the landmark has after cap and floor, in `rule.balance` too. No two appearances
    of an image in an epoch have the same seed, and those seeds spread their crops (`spread_seeds`).

    With `rule.per_landmark`, K, a batch is made of P landmarks with K images each, P the largest number for which
    there is room. Landmarks are drawn as often as their images would be, floor or ceil of the expected number of
    groups. The K images are different ones where the landmark has K, and all of its images are dealt out before
    one comes again. No landmark is in a batch twice unless it has more groups than there are batches. An LmrError if
    there is no room for two landmarks.
    """

    landmark: IntArray
    batch_size: int
    rule: BalanceConfig
    epoch_size: int | None
    seed: int

    def __post_init__(self) -> None:
        room = self.batch_size - self._n_others()
        if 2 * self.rule.per_landmark > room:
            raise LmrError(
                f"`per_landmark` {self.rule.per_landmark}: a batch of {self.batch_size} has room for {room} landmark "
                "pictures, which is not 2 landmarks; lower it or raise `batch_size`"
            )

    def plan(self, epoch: int) -> EpochPlan:
        """The batches of one epoch, a function of the seed and the epoch alone."""
        rng = np.random.default_rng([self.seed, epoch])
        n_others = self._n_others()
        n_known = self.batch_size - n_others
        known = self._groups(n_known, rng) if self.rule.per_landmark else self._images(n_known, rng)
        others = np.flatnonzero(self.landmark < 0)
        n_rounds = -(-len(known) * n_others // max(1, len(others)))
        stream = np.concatenate([rng.permutation(others) for _ in range(n_rounds)] or [others])
        rows = np.hstack([known, stream[: len(known) * n_others].reshape(len(known), n_others)])
        seeds = rng.integers(0, 2**62, rows.size)
        if self.rule.floor:
            seeds = spread_seeds(rows.ravel(), seeds)
        return EpochPlan(tuple(rows), tuple(seeds.reshape(rows.shape)))

    def kept(self) -> LongArray:
        """The landmark rows that are used at all, in order: those that the cap leaves."""
        rows = np.flatnonzero(self.landmark >= 0)
        if not self.rule.cap:
            return rows
        order = np.random.default_rng([self.seed, self.rule.member, _CAP]).permutation(rows)
        return np.sort(order[_turns(self.landmark[order]) < self.rule.cap])

    def _n_others(self) -> int:
        """Non-landmarks in a batch."""
        if not (self.landmark < 0).any():
            return 0
        return min(round(self.batch_size * self.rule.negative_share), self.batch_size - 1)

    def _images(self, n_known: int, rng: np.random.Generator) -> LongArray:
        """(n_batches, n_known) rows, image by image; of a single batch there may be fewer."""
        pool = self.kept()
        if self.rule.floor:
            pool = pool[_up_to_floor(self.landmark[pool], self.rule.floor, rng)]
        landmark = self.landmark[pool]
        weights = np.bincount(landmark)[landmark].astype(np.float64) ** -self.rule.balance
        drawn = pool[systematic_sample(weights, self.epoch_size or len(pool), rng)]
        n_batches = max(1, len(drawn) // n_known)
        return drawn[: n_batches * n_known].reshape(n_batches, -1)

    def _groups(self, n_known: int, rng: np.random.Generator) -> LongArray:
        """(n_batches, P * K) rows, landmark by landmark."""
        k = self.rule.per_landmark
        p = n_known // k
        order = rng.permutation(self.kept())
        order = order[np.argsort(self.landmark[order], kind="stable")]
        _, first, counts = np.unique(self.landmark[order], return_index=True, return_counts=True)
        wanted = np.maximum(counts, self.rule.floor).astype(np.float64)
        n_batches = max(1, (self.epoch_size or int(wanted.sum())) // (p * k))
        drawn = systematic_sample(wanted ** (1 - self.rule.balance), n_batches * p, rng)
        drawn = drawn[np.argsort(rng.permutation(len(counts))[drawn], kind="stable")]
        dealt = _turns(drawn)[:, None] * k + np.arange(k)
        groups = order[first[drawn][:, None] + dealt % counts[drawn][:, None]]
        batches = groups.reshape(p, n_batches, k).swapaxes(0, 1).reshape(n_batches, p * k)
        return batches[rng.permutation(n_batches)]


def training_sampler(landmark: IntArray, config: TrainConfig) -> Sampler:
    """The sampler of a training run: it draws what a step takes, several batches as one. landmark: (n,) int32, -1 = no
    landmark."""
    rule = config.sampling if config.loss.negative_weight else replace(config.sampling, negative_share=0.0)
    return Sampler(landmark, config.batch_size * config.accumulate, rule, config.epoch_size, config.seed)


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


def spread_seeds(rows: LongArray, seeds: LongArray) -> LongArray:
    """The seeds of an epoch, (n,) int64 from 0 on, with those of repeats below zero.

    The appearances of a row that has several get consecutive numbers, so that none share a seed (also modulo 2**32,
    which is all that torch's generator on the CPU takes of it) and that `repeat_place` spreads them evenly.
    """
    _, first, which, counts = np.unique(rows, return_index=True, return_inverse=True, return_counts=True)
    return np.where(counts[which] > 1, -1 - seeds[first][which] - _turns(rows), seeds)


def _up_to_floor(landmark: IntArray, floor: int, rng: np.random.Generator) -> LongArray:
    """Positions in landmark, (n,), repeated as evenly as can be so that each landmark has at least `floor`."""
    order = rng.permutation(len(landmark))
    turns = np.empty(len(landmark), dtype=np.int64)
    turns[order] = _turns(landmark[order])
    counts = np.bincount(landmark)[landmark]
    times = np.where(counts < floor, floor // counts + (turns < floor % counts), 1)
    return np.repeat(np.arange(len(landmark)), times)


def _turns(values: IntArray | LongArray) -> LongArray:
    """(n,) how many of the same value stand before each."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(values)])
    turns = np.empty(len(values), dtype=np.int64)
    turns[order] = np.arange(len(values)) - np.repeat(starts, np.diff(np.append(starts, len(values))))
    return turns
