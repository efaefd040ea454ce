"""The largest connected component of each landmark: pictures that hang together."""

import numpy as np

from retrieval.arrays import BoolArray, IntArray, LongArray
from retrieval.near_duplicates import components


def outside_largest(pairs: LongArray, landmark: IntArray) -> tuple[BoolArray, LongArray]:
    """Which rows lie outside the largest component of their landmark, (n,), and the size of each row's own, (n,).

    pairs: (m, 2) rows of one landmark that are joined; landmark: (n,) int32, -1 = not considered. Of components of
    equal size the one with the lowest row counts as the largest; where the largest is a single picture nothing hangs
    together, and none lies outside.
    """
    group = components(pairs, len(landmark))
    sizes = np.bincount(group, minlength=1)
    size = sizes[group]
    order = np.lexsort((group, -size, landmark))
    label = landmark[order]
    first = np.flatnonzero(np.diff(label, prepend=-2))
    largest = np.full(int(landmark.max(initial=-1)) + 2, -1, dtype=np.int64)
    largest[label[first]] = group[order[first]]
    of_row = largest[landmark]
    outside = (landmark >= 0) & (group != of_row) & (sizes[of_row] > 1)
    return outside, size.astype(np.int64)
