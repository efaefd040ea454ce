"""Roles of landmarks in a split: known, rare, held out as unknown, or not at all."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from retrieval.arrays import BoolArray, IntArray, LongArray, UInt8Array
from retrieval.data.manifest import Manifest
from retrieval.errors import LmrError
from retrieval.split.quotas import Rare
from retrieval.words import agreeing, counted

KNOWN, UNKNOWN, RARE, RARE_DROPPED, UNPICKED, NO_LANDMARK, IGNORED = range(7)

PickBy = Literal["biggest", "random"]


@dataclass(frozen=True, slots=True)
class Choice:
    """Choice of the landmarks that are used, and of their roles.

    n_landmarks: of those with low to high images, None = all of them. pick: which ones, where n_landmarks is fewer.
    min_pictures: landmarks with fewer are rare. rare: what becomes of their images. unknown: landmarks that are held
    out, a number or (below 1) a fraction of the known ones.
    """

    n_landmarks: int | None = None
    pick: PickBy = "biggest"
    low: int = 1
    high: int | None = None
    min_pictures: int = 0
    rare: Rare = "non-landmark"
    unknown: float = 0

    def __post_init__(self) -> None:
        if self.n_landmarks is not None and self.n_landmarks < 1:
            raise ValueError(f"n_landmarks must be positive, got {self.n_landmarks}")
        if not 0 <= self.low <= (self.low if self.high is None else self.high):
            raise ValueError(f"low and high must be in order, got {self.low} and {self.high}")
        if self.unknown < 0 or (self.unknown > 1 and self.unknown != int(self.unknown)):
            raise ValueError(f"unknown must be a whole number or a fraction, got {self.unknown}")


@dataclass(frozen=True, slots=True, eq=False)
class Roles:
    """of_landmark: (n_landmarks,) uint8. of_row: (n,) uint8; a row with a known landmark is KNOWN.

    landmark, more_landmarks: as a manifest has them, with the known landmarks alone; of a row that is UNKNOWN or RARE
    landmark is -1.
    """

    of_landmark: UInt8Array
    of_row: UInt8Array
    landmark: IntArray
    more_landmarks: Mapping[int, tuple[int, ...]]


def choose_landmarks(manifest: Manifest, group: LongArray, choice: Choice, rng: np.random.Generator) -> Roles:
    """The role of each landmark and row. group: (n,) int64 in [0, n), the same for near-duplicates.

    Held out as unknown are only landmarks that no image and no group shares with another one. Raises LmrError where
    there are not as many landmarks as were asked for.
    """
    if not manifest.landmarks:
        what = "no row has a landmark_id" if manifest.has_labels else "there is no landmark_id column"
        raise LmrError(f"{manifest.source}: {what}; a split needs labelled pictures")
    is_used = np.ones(len(manifest), dtype=np.bool_) if manifest.usage is None else manifest.usage != "Ignored"
    roles = np.full(len(manifest.landmarks), KNOWN, dtype=np.uint8)
    counts = _counts(manifest, is_used)
    roles[~_picked(counts, choice, rng, manifest.source)] = UNPICKED
    rare = (roles == KNOWN) & (counts < choice.min_pictures)
    roles[rare] = RARE if choice.rare == "non-landmark" else RARE_DROPPED
    if not (roles == KNOWN).any():
        raise LmrError(
            f"{manifest.source}: no landmark has {counted(choice.min_pictures, 'picture')}; lower `min_per_landmark`"
        )
    if choice.unknown:
        alone = ~_sharing(manifest, group, is_used, roles)
        roles[_unknown(roles, alone, choice.unknown, rng, manifest.source)] = UNKNOWN
    return _by_row(manifest, roles, is_used)


def without_rare(manifest: Manifest, min_pictures: int, rare: Rare) -> Manifest:
    """The manifest with the images of landmarks that have fewer than min_pictures as non-landmarks, or without them.

    Raises LmrError when no landmark is left.
    """
    choice = Choice(min_pictures=min_pictures, rare=rare)
    roles = choose_landmarks(manifest, np.arange(len(manifest)), choice, np.random.default_rng(0))
    left = replace(manifest, landmark=roles.landmark, more_landmarks=roles.more_landmarks)
    return left.select(roles.of_row != RARE_DROPPED)


def mixed_groups(landmark: LongArray | IntArray, group: LongArray) -> BoolArray:
    """(n,) whether a group holds rows of several landmarks; rows with -1 do not count. Groups are in [0, n)."""
    lowest = np.full(len(group), np.iinfo(np.int64).max)
    highest = np.full(len(group), -1, dtype=np.int64)
    rows = landmark >= 0
    np.minimum.at(lowest, group[rows], landmark[rows])
    np.maximum.at(highest, group[rows], landmark[rows])
    return np.asarray(highest > lowest)


def _counts(manifest: Manifest, is_used: BoolArray) -> LongArray:
    """(n_landmarks,) images of each, those on which it is not the first one too."""
    counts = np.bincount(manifest.landmark[is_used & (manifest.landmark >= 0)], minlength=len(manifest.landmarks))
    for row, codes in manifest.more_landmarks.items():
        counts[list(codes)] += int(is_used[row])
    return counts


def _picked(counts: LongArray, choice: Choice, rng: np.random.Generator, source: str) -> BoolArray:
    high = int(counts.max()) if choice.high is None else choice.high
    fitting = np.flatnonzero((counts >= max(choice.low, 1)) & (counts <= high))
    n_wanted = choice.n_landmarks
    if not len(fitting) or (n_wanted is not None and n_wanted > len(fitting)):
        which = "pictures" if choice.high is None else f"{choice.low} to {choice.high} pictures"
        asked = "" if n_wanted is None else f", `landmarks` {n_wanted} asks for more"
        raise LmrError(
            f"{source}: {counted(len(fitting), 'landmark')} {agreeing(len(fitting), 'has', 'have')} "
            f"{which}{asked}; choose another `landmarks` or `pick`"
        )
    order = rng.permutation(len(fitting))
    if choice.pick == "biggest":
        order = np.argsort(-counts[fitting], kind="stable")
    picked = np.zeros(len(counts), dtype=np.bool_)
    picked[fitting[order[:n_wanted]]] = True
    return picked


def _sharing(manifest: Manifest, group: LongArray, is_used: BoolArray, roles: UInt8Array) -> BoolArray:
    """(n_landmarks,) whether a landmark shares an image or a group with another landmark."""
    sharing = np.zeros(len(roles), dtype=np.bool_)
    for row, codes in manifest.more_landmarks.items():
        sharing[[manifest.landmark[row], *codes]] = True
    rows = np.flatnonzero(is_used & (manifest.landmark >= 0) & (roles[manifest.landmark] != UNPICKED))
    landmark, of_rows = manifest.landmark[rows], np.unique(group[rows], return_inverse=True)[1]
    sharing[landmark[mixed_groups(landmark, of_rows)[of_rows]]] = True
    return sharing


def _unknown(roles: UInt8Array, alone: BoolArray, asked: float, rng: np.random.Generator, source: str) -> LongArray:
    n_known = int((roles == KNOWN).sum())
    n = int(asked) if asked >= 1 else max(1, round(asked * n_known))
    candidates = np.flatnonzero((roles == KNOWN) & alone)
    if n > min(len(candidates), n_known - 1):
        raise LmrError(
            f"{source}: `unknown_landmarks` {asked:g} asks for {counted(n, 'landmark', of=n_known)}, of which "
            f"{len(candidates)} "
            "share no picture or near-duplicate with another; one must stay known"
        )
    return rng.permutation(candidates)[:n]


def _by_row(manifest: Manifest, roles: UInt8Array, is_used: BoolArray) -> Roles:
    of_row = np.array([*roles, NO_LANDMARK], dtype=np.uint8)[manifest.landmark]
    landmark = np.where(of_row == KNOWN, manifest.landmark, -1).astype(np.int32)
    more: dict[int, tuple[int, ...]] = {}
    for row in manifest.more_landmarks:
        truths = manifest.truths(row)
        known = [code for code in truths if roles[code] == KNOWN]
        of_row[row] = min(roles[code] for code in truths)
        if known:
            landmark[row] = known[0]
        if known[1:]:
            more[row] = tuple(known[1:])
    of_row[~is_used] = IGNORED
    return Roles(roles, of_row, landmark, more)
