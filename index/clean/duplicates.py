"""Copies, unusable images and landmarks that hang together: what is judged without asking for labels."""

import numpy as np

from index.clean.config import CleaningRule
from retrieval.arrays import BoolArray, FloatArray, IntArray, LongArray, ObjArray
from retrieval.data.near_duplicates import HashArray, components, near_pairs
from retrieval.images.quality import PictureFacts, pixels_per_inch

# Plain and nearly plain images have equal hashes whatever they show; their descriptors then have to agree too.
HASH_SIMILARITY = 0.5
_PAIRS_AT_ONCE = 4096  # whose descriptors are held at a time


def equal_files(sha256: ObjArray) -> LongArray:
    """Pairs of rows (m, 2) with equal digests (n,), each row with the first one."""
    _, first, group = np.unique(sha256.astype(str), return_index=True, return_inverse=True)
    rows = np.arange(len(sha256))
    others = first[group] != rows
    return np.stack([first[group][others], rows[others]], axis=1).astype(np.int64)


def equal_looks(hashes: HashArray, max_bits: int, vectors: FloatArray) -> LongArray:
    """Pairs of rows (m, 2) whose hashes (n,) nearly agree, and their descriptors (n, d) too where both have one.

    A descriptor of zeros stands for none.
    """
    pairs = near_pairs(hashes, max_bits)
    alike = [_agree(vectors, pairs[i : i + _PAIRS_AT_ONCE]) for i in range(0, len(pairs), _PAIRS_AT_ONCE)]
    kept: LongArray = pairs[np.concatenate([np.zeros(0, dtype=np.bool_), *alike])]
    return kept


def copies_to_leave_out(pairs: LongArray, preference: LongArray) -> LongArray:
    """(n,) of each row the row that is kept in its place, -1 where the row itself is kept.

    pairs: (m, 2) of copies. preference: (n,) all different; of a group of copies the row with the lowest is kept.
    """
    n = len(preference)
    group = components(pairs, n)
    order = np.lexsort((preference, group))
    first = order[np.searchsorted(group[order], np.arange(group.max(initial=-1) + 1))]
    kept = first[group]
    return np.where(kept == np.arange(n), -1, kept).astype(np.int64)


def _agree(vectors: FloatArray, pairs: LongArray) -> BoolArray:
    """(m,) whether the descriptors of the pairs (m, 2) agree, or one has none."""
    one, other = vectors[pairs[:, 0]], vectors[pairs[:, 1]]
    alike: BoolArray = np.einsum("md,md->m", one, other) >= HASH_SIMILARITY
    return alike | ~one.any(axis=1) | ~other.any(axis=1)


def outside_largest(pairs: LongArray, landmark: IntArray, share: float) -> tuple[BoolArray, LongArray]:
    """Finds the rows outside the largest component of their landmark, (n,), and the size of each row's own, (n,).

    pairs: (m, 2) rows of one landmark that are joined; landmark: (n,) int32, -1 = not considered. Components of at
    least `share` of the largest are not outside. Where the largest is a single image nothing hangs together, and none
    lies outside.
    """
    group = components(pairs, len(landmark))
    sizes = np.bincount(group, minlength=1)
    size = sizes[group]
    largest = np.zeros(int(landmark.max(initial=-1)) + 2, dtype=np.int64)
    np.maximum.at(largest, landmark, size)
    of_row = largest[landmark]
    outside: BoolArray = (landmark >= 0) & (size < share * of_row) & (of_row > 1)
    return outside, size.astype(np.int64)


def picture_fault(facts: PictureFacts, rule: CleaningRule) -> str:
    """The first fault in words, '' for none."""
    ppi = round(float(pixels_per_inch(facts.width, facts.height, rule.diagonal_in)), 1)  # 224 x 224 is 18, not 17.999
    low, high = rule.ppi_low, rule.ppi_high
    if (low is not None and ppi < low) or (high is not None and ppi > high):
        return f"{ppi:.1f} pixels per inch, not {_span(low, high)}"
    if min(facts.width, facts.height) < rule.min_side_px:
        return f"{facts.width} x {facts.height} pixels, the shorter side under {rule.min_side_px}"
    if facts.brightness < rule.min_brightness:
        return f"too dark: brightness {facts.brightness:.1f} under {rule.min_brightness:g}"
    if facts.brightness > rule.max_brightness:
        return f"too bright: brightness {facts.brightness:.1f} over {rule.max_brightness:g}"
    if facts.contrast < rule.min_contrast:
        return f"flat: contrast {facts.contrast:.1f} under {rule.min_contrast:g}"
    if facts.sharpness < rule.min_sharpness:
        return f"blurred: sharpness {facts.sharpness:.1f} under {rule.min_sharpness:g}"
    return ""


def _span(low: float | None, high: float | None) -> str:
    if low is None:
        return f"at most {high:g}"
    return f"at least {low:g}" if high is None else f"{low:g} to {high:g}"
