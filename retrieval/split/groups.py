"""Near-duplicates among the images of a manifest, found by their looks or by their descriptors."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from retrieval.arrays import LongArray
from retrieval.errors import LmrError
from retrieval.progress import Progress
from retrieval.words import agreeing, counted, shortened

if TYPE_CHECKING:
    from retrieval.data.image_source import ImageSource
    from retrieval.data.manifest import Manifest

_N_SHOWN = 5  # unreadable images named


@dataclass(frozen=True, slots=True)
class Grouping:
    """group: (n,) int64 in [0, n), the same for near-duplicates. by: how they were found. n_compared: images that
    could be compared."""

    group: LongArray
    by: Literal["pictures", "descriptors", "none"]
    n_compared: int


def no_groups(n: int) -> Grouping:
    """Every image on its own."""
    return Grouping(np.arange(n), "none", 0)


def groups_of_images(
    manifest: "Manifest",
    source: "ImageSource",
    cache: Path | None,
    max_bits: int,
    *,
    n_workers: int,
    progress: Progress,
) -> Grouping:
    """Images with the same bytes or with perceptual hashes that differ in at most max_bits bits, and what they join.

    Images that were measured before are taken from the cache; unreadable ones are listed and stand alone.
    """
    from retrieval.data.near_duplicates import components, near_pairs
    from retrieval.data.quality_cache import measure_manifest

    facts = measure_manifest(source, cache, n_workers=n_workers, progress=progress)
    for row, reason in list(facts.unreadable.items())[:_N_SHOWN]:
        progress.warn(f"unreadable: {shortened(manifest.name_unreadable(row, reason))}: {shortened(reason)}")
    if facts.unreadable:
        n = len(facts.unreadable)
        progress.warn(
            f"{counted(n, 'picture', of=len(manifest))} {agreeing(n, 'is', 'are')} missing or unreadable and "
            f"{agreeing(n, 'was', 'were')} not compared"
        )
    rows = facts.readable
    return Grouping(components(rows[near_pairs(facts.hashes, max_bits)], len(manifest)), "pictures", len(rows))


def groups_of_descriptors(
    manifest: "Manifest", store_path: Path, min_similarity: float, progress: Progress
) -> Grouping:
    """Images whose descriptors in a store have this similarity or more, and what they join.

    LmrError when the store has descriptors of none of them, or one that is zero or not finite.
    """
    from retrieval.store.blocks import open_blocks
    from retrieval.store.layout import DONE
    from retrieval.store.near_duplicates import similar_groups

    store = open_blocks(store_path)
    row_of = {image_id: row for row, image_id in enumerate(store.image_id.tolist())}
    in_store = np.array([row_of.get(image_id, -1) for image_id in manifest.image_id.tolist()], dtype=np.int64)
    rows = np.flatnonzero((in_store >= 0) & (store.state[in_store] == DONE))
    if not len(rows):
        raise LmrError(f"`store` {store_path}: has no descriptor of the pictures of {manifest.source}; give its store")
    if len(rows) < len(manifest):
        n = len(manifest) - len(rows)
        progress.warn(
            f"{counted(n, 'picture', of=len(manifest))} {agreeing(n, 'has', 'have')} no descriptor and "
            f"{agreeing(n, 'was', 'were')} not compared"
        )
    found = similar_groups(store, in_store[rows], min_similarity, progress=progress)
    group = np.arange(len(manifest))
    first = rows[np.unique(found, return_index=True)[1]]
    group[rows] = first[found]
    return Grouping(group, "descriptors", len(rows))
