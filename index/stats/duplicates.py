"""Images that are there more than once: the same bytes, the same look, or nearly the same descriptor."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.arrays import LongArray, ObjArray
from retrieval.data.facts_shares import Pieces
from retrieval.data.near_duplicates import HashArray, components, near_pairs
from retrieval.data.request import NEAR_BITS
from retrieval.progress import SILENT, Progress
from retrieval.store.blocks import StoreBlocks
from retrieval.store.near_duplicates import similar_groups

N_COMPARED = 20_000  # descriptors that are compared with all others at most

Groups = tuple[LongArray, ...]  # rows of each group in order, at least two; larger groups first


def same_bytes(sha256: ObjArray) -> Groups:
    """Groups of equal digests. sha256: (n,) str."""
    return _groups(np.unique(sha256.astype(str), return_inverse=True)[1])


def same_look(hashes: HashArray, max_bits: int = NEAR_BITS) -> Groups:
    """Groups of perceptual hashes (n,) that are joined by differences of at most max_bits bits; equal ones too."""
    return _groups(components(near_pairs(hashes, max_bits), len(hashes)))


@dataclass(frozen=True, slots=True)
class Alike:
    """Groups of store rows with near descriptors, and how many of the rows were compared with all others."""

    groups: Groups
    n_compared: int


def same_descriptor(
    store: StoreBlocks,
    rows: LongArray,
    min_similarity: float,
    rng: np.random.Generator,
    progress: Progress = SILENT,
    pieces: Pieces | None = None,
) -> Alike:
    """Groups of rows that are joined by cosine similarities of at least min_similarity.

    At most N_COMPARED of the rows, drawn by rng, are compared with all of them. Groups are positions in rows.
    pieces: as of `similar_groups`.
    """
    asked = asked_rows(len(rows), rng)
    groups = _groups(similar_groups(store, rows, min_similarity, asked, progress, pieces))
    return Alike(groups, len(rows) if asked is None else len(asked))


def asked_rows(n: int, rng: np.random.Generator) -> LongArray | None:
    """Positions of n rows that are compared with all others; None = all of them."""
    return None if n <= N_COMPARED else np.sort(rng.choice(n, N_COMPARED, replace=False))


def across(groups: Groups, label: LongArray) -> Groups:
    """The groups that hold images of at least two labels. label: (n,); -1 (none) is no label."""
    return tuple(group for group in groups if len(np.unique(label[group][label[group] >= 0])) > 1)


def on_both_sides(groups: Groups, n_first: int) -> Groups:
    """The groups that hold rows below n_first and others."""
    return tuple(group for group in groups if group[0] < n_first <= group[-1])


@dataclass(frozen=True, slots=True)
class GroupCounts:
    """Number of groups, of images in them, and of those that could go."""

    groups: int
    pictures: int
    surplus: int


def count_groups(groups: Groups) -> GroupCounts:
    """Counts groups and what is in them."""
    images = sum(map(len, groups))
    return GroupCounts(len(groups), images, images - len(groups))


def _groups(number: LongArray) -> Groups:
    """Rows by group; only groups of two and more, larger ones first, equal ones by their first row."""
    counts = np.bincount(number)
    rows = np.flatnonzero(counts[number] > 1)
    order = rows[np.argsort(number[rows], kind="stable")]
    cuts = np.flatnonzero(np.diff(number[order])) + 1
    parts: Sequence[LongArray] = np.split(order, cuts) if len(order) else []
    return tuple(sorted(parts, key=lambda part: (-len(part), int(part[0]))))
