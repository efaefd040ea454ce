"""The largest connected component of each landmark: pictures that hang together."""

import numpy as np

from retrieval.arrays import BoolArray, IntArray, LongArray
from retrieval.near_duplicates import components


def outside_largest(pairs: LongArray, landmark: IntArray, share: float) -> tuple[BoolArray, LongArray]:
    """Which rows lie outside the largest component of their landmark, (n,), and the size of each row's own, (n,).

    pairs: (m, 2) rows of one landmark that are joined; landmark: (n,) int32, -1 = not considered. Components of at
    least `share` of the largest are not outside. Where the largest is a single picture nothing hangs together, and none
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
