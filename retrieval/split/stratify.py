"""Stratified group split: groups stay whole, and each stratum comes as near to its share as they allow."""

import itertools
from collections.abc import Sequence

import numpy as np

from retrieval.arrays import BoolArray, LongArray, UInt8Array
from retrieval.split.quotas import Quotas

TRAIN, VAL, TEST = 0, 1, 2

_GOLDEN = (5**0.5 - 1) / 2  # its multiples, without their whole parts, are spread evenly wherever one begins


def targets(counts: LongArray, quotas: Quotas, rng: np.random.Generator) -> LongArray:
    """(n_strata, 2) rows that val and test shall have of strata with these many rows.

    A wanted number that is not whole is rounded down or up, by chance and so that the sums over strata of a size are
    near what was wanted. Strata that are too small for both quotas and n_kept share what there is between val and test.
    """
    wanted = np.stack([quotas.val.wanted(counts), quotas.test.wanted(counts)], axis=1)
    whole = np.floor(wanted)
    part = wanted - whole
    rank = np.empty(len(counts), dtype=np.int64)
    rank[np.lexsort((rng.random(len(counts)), counts))] = np.arange(len(counts))
    point = (rng.random() + rank * _GOLDEN) % 1
    # Systematic sampling on a line of val's part, test's part and train's: with points one apart each is hit once or
    # not at all, in proportion to its length.
    up_val = point < part[:, 0]
    both = part.sum(axis=1)
    up_test = ((point >= part[:, 0]) & (point < both)) | (point < both - 1)
    asked = whole.astype(np.int64) + np.stack([up_val, up_test], axis=1)
    return _within(asked, counts, np.asarray(wanted.any(axis=0)), quotas)


def deal(
    stratum: LongArray, group: LongArray, target: LongArray, n_kept: LongArray, rng: np.random.Generator
) -> UInt8Array:
    """(n,) TRAIN, VAL or TEST for each row; rows of one group get the same.

    stratum: (n,) int64 row of target (n_strata, 2). group: (n,) int64. n_kept: (n_strata,) rows kept in train at least.
    Strata without groups of several rows meet their targets exactly, none loses its n_kept rows, and a stratum misses
    a target by at most half of its smallest group that is in train and may leave it (groups of several strata apart).
    """
    _, number, size = np.unique(group, return_inverse=True, return_counts=True)
    is_hard = np.zeros(len(target), dtype=np.bool_)
    is_hard[stratum[size[number] > 1]] = True
    part = np.zeros(len(stratum), dtype=np.uint8)
    hard = is_hard[stratum]
    easy = np.flatnonzero(~hard)
    part[easy] = _deal_rows(stratum[easy], target, rng)
    rows = np.flatnonzero(hard)
    if len(rows):
        part[rows] = _deal_groups(stratum[rows], number[rows], target, n_kept, rng)
    return part


def _within(asked: LongArray, counts: LongArray, is_asked: BoolArray, quotas: Quotas) -> LongArray:
    """The asked numbers where there are enough rows, else fewer."""
    least = np.where(is_asked, quotas.at_least, 0)
    is_large = counts >= least.sum() + quotas.n_kept
    if quotas.at_least:
        asked = np.where(is_large[:, None], np.maximum(asked, least), 0)
    free = np.maximum(counts - quotas.n_kept, 0)
    total = asked.sum(axis=1)
    test = free * asked[:, 1] // np.maximum(total, 1)
    test = np.clip(test, np.where(is_large, least[1], 0), np.where(is_large, free - least[0], free))
    return np.where((total > free)[:, None], np.stack([free - test, test], axis=1), asked)


def _deal_rows(stratum: LongArray, target: LongArray, rng: np.random.Generator) -> UInt8Array:
    """Rows that are each a group of their own: the first ones of each stratum in an order by chance."""
    order = np.lexsort((rng.random(len(stratum)), stratum))
    ordered = stratum[order]
    first = np.searchsorted(ordered, ordered, side="left")
    place = np.arange(len(order)) - first
    part = np.empty(len(stratum), dtype=np.uint8)
    in_val, held = target[ordered, 0], target[ordered].sum(axis=1)
    part[order] = np.where(place < in_val, VAL, np.where(place < held, TEST, TRAIN))
    return part


def _deal_groups(
    stratum: LongArray, group: LongArray, target: LongArray, n_kept: LongArray, rng: np.random.Generator
) -> UInt8Array:
    """In an order by chance each group goes to val or test, whichever wants more, where it fits, else to train."""
    codes, number = np.unique(group, return_inverse=True)
    pairs, n_rows = np.unique(number * len(target) + stratum, return_counts=True)
    starts = np.searchsorted(pairs, np.arange(len(codes) + 1) * len(target)).tolist()
    members = list(zip((pairs % len(target)).tolist(), n_rows.tolist(), strict=True))
    left: list[list[int]] = target.tolist()
    placed = [TRAIN] * len(codes)
    for i in rng.permutation(len(codes)).tolist():
        group_members = members[starts[i] : starts[i + 1]]
        wants_val, wants_test = left[group_members[0][0]]
        for which in (VAL, TEST) if wants_val >= wants_test else (TEST, VAL):
            if all(left[code][which - 1] >= n for code, n in group_members):
                placed[i] = which
                for code, n in group_members:
                    left[code][which - 1] -= n
                break
    _top_up(placed, [members[a:b] for a, b in itertools.pairwise(starts)], left, n_kept)
    return np.array(placed, dtype=np.uint8)[number]


def _top_up(
    placed: list[int], groups: Sequence[Sequence[tuple[int, int]]], left: list[list[int]], n_kept: LongArray
) -> None:
    """Moves groups from train to where that brings a stratum nearer to its target, although they overshoot it."""
    in_train: dict[int, int] = {}
    movable: dict[int, list[tuple[int, int]]] = {}
    for i, members in enumerate(groups):
        if placed[i] != TRAIN:
            continue
        for code, n in members:
            in_train[code] = in_train.get(code, 0) + n
        if len(members) == 1 and any(left[members[0][0]]):
            movable.setdefault(members[0][0], []).append((members[0][1], i))
    for code, candidates in movable.items():
        for which in (VAL, TEST):
            while (best := _nearest(candidates, left[code][which - 1], in_train[code] - int(n_kept[code]))) is not None:
                n, i = best
                candidates.remove(best)
                placed[i] = which
                left[code][which - 1] -= n
                in_train[code] -= n


def _nearest(candidates: Sequence[tuple[int, int]], wanted: int, n_free: int) -> tuple[int, int] | None:
    """Picks the (rows, group) that leaves least of what is wanted, of at most n_free rows; None if none helps."""
    best, least = None, wanted
    for candidate in candidates:
        if candidate[0] <= n_free and abs(wanted - candidate[0]) < least:
            best, least = candidate, abs(wanted - candidate[0])
    return best
