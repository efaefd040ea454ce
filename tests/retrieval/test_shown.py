"""Landmarks that images show, as a column: indexed as the array of tuples that it stands for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.arrays import object_array
from retrieval.shown import Labels, to_labels

SHOWN = st.lists(st.lists(st.sampled_from("abcdef"), unique=True, max_size=3).map(tuple), max_size=12)


@given(SHOWN, st.randoms())
def test_labels_are_the_tuples_they_were_made_of(shown, random):
    labels = to_labels(object_array(shown))
    assert (labels.tolist(), len(labels), labels.shape) == (shown, len(shown), (len(shown),))
    assert [labels[i] for i in range(len(shown))] == shown
    rows = [random.randrange(len(shown)) for _ in range(5)] if shown else []
    assert labels.select(rows).tolist() == [shown[row] for row in rows]
    assert labels[rows].tolist() == [shown[row] for row in rows]
    assert labels.n_shown.tolist() == [len(one) for one in shown]


@given(SHOWN)
def test_further_landmarks_have_codes_in_the_order_in_which_they_are_shown(shown):
    image, code, names = Labels.of(shown).coded(("c", "a"))
    further = dict.fromkeys(label for one in shown for label in one if label not in "ca")
    assert names == ("c", "a", *further)
    told = [tuple(names[c] for c in code[image == row]) for row in range(len(shown))]
    assert told == shown


def test_codes_of_a_manifest_with_further_landmarks_of_some_rows():
    first = np.array([1, -1, 0, 2], dtype=np.int32)
    labels = Labels.of_codes(("x", "y", "z"), first, {3: (0,), 0: (2, 0)})
    assert labels.tolist() == [("y", "z", "x"), (), ("x",), ("z", "x")]
    assert Labels.of_codes(("x", "y", "z"), first).tolist() == [("y",), (), ("x",), ("z",)]


@pytest.mark.parametrize(("code", "ends"), [([0], [0]), ([0, 1], [2, 1, 2]), ([5], [1]), ([], [1])])
def test_columns_that_do_not_fit_are_refused(code, ends):
    with pytest.raises(ValueError, match="must"):
        Labels(("a", "b"), np.array(code, np.int32), np.array(ends, np.int64))
