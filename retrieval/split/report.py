"""Report on a split: parts, what was dropped, near-duplicates."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from retrieval.arrays import LongArray
from retrieval.data.manifest import Manifest
from retrieval.split.roles import UNKNOWN, mixed_groups
from retrieval.split.split import DROPPED, Split
from retrieval.split.stratify import TEST, VAL


@dataclass(frozen=True, slots=True)
class PartCounts:
    """One part of a split. share: of all images of known landmarks."""

    pictures: int
    landmarks: int
    non_landmarks: int
    share: float


@dataclass(frozen=True, slots=True)
class GroupCounts:
    """Near-duplicates that were not dropped: groups of several, the images in them, groups of several landmarks."""

    n_groups: int
    n_pictures: int
    n_mixed: int
    largest: int


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """parts: by name, those that have rows. dropped: from reason to rows. unknown_landmarks: those held out whole."""

    parts: Mapping[str, PartCounts]
    dropped: Mapping[str, int]
    unknown_landmarks: Mapping[Literal["val", "test"], int]
    groups: GroupCounts


@dataclass(frozen=True, slots=True)
class TreeCounts:
    """A tree of links to the images, and how many of them are new."""

    path: str
    n_links: int
    n_new: int


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """How near-duplicates were found, and among how many images.

    near_bits: of hashes that differ, None unless by pictures. near_similarity: None unless by descriptors.
    """

    by: Literal["pictures", "descriptors", "none"]
    near_bits: int | None
    near_similarity: float | None
    n_compared: int


@dataclass(frozen=True, slots=True)
class SplitReport:
    """output: the folder."""

    output: Path
    state: Literal["written", "unchanged", "dry run"]
    near_duplicates: NearDuplicates
    counts: SplitCounts
    class_folders: TreeCounts | None = None

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        tree = {} if self.class_folders is None else {"class_folders": asdict(self.class_folders)}
        return {
            "output": str(self.output),
            "state": self.state,
            "near_duplicates": {k: v for k, v in asdict(self.near_duplicates).items() if v is not None},
            **asdict(self.counts),
            **tree,
        }


def count_split(split: Split, parts: Mapping[str, Manifest], group: LongArray, given: Manifest) -> SplitCounts:
    """Counts of each part, of what was dropped and of near-duplicates. given: the manifest before the split."""
    n_of_landmarks = int((split.roles.landmark >= 0).sum())
    is_unknown = split.roles.of_row == UNKNOWN
    return SplitCounts(
        {name: _counts(part, n_of_landmarks) for name, part in parts.items()},
        dict(split.dropped),
        {
            "val": len(set(given.landmark[(split.part == VAL) & is_unknown].tolist())),
            "test": len(set(given.landmark[(split.part == TEST) & is_unknown].tolist())),
        },
        _group_counts(split, group, given),
    )


def _counts(part: Manifest, n_of_landmarks: int) -> PartCounts:
    known = part.landmark[part.landmark >= 0]
    share = round(len(known) / n_of_landmarks, 6)
    return PartCounts(len(part), len(np.unique(known)), len(part) - len(known), share)


def _group_counts(split: Split, group: LongArray, given: Manifest) -> GroupCounts:
    rows = np.flatnonzero(split.part != DROPPED)
    _, number, size = np.unique(group[rows], return_inverse=True, return_counts=True)
    mixed = mixed_groups(given.landmark[rows], number)
    return GroupCounts(
        n_groups=int((size > 1).sum()),
        n_pictures=int(size[size > 1].sum()),
        n_mixed=int(mixed.sum()),
        largest=int(size.max(initial=0)),
    )
