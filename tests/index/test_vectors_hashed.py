"""Vectors are hashed where they lie, to the same digests as their bytes."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest

from index.folder.build import _hash_vectors

ROWS = np.arange(24, dtype=np.float32).reshape(4, 6)


@pytest.mark.parametrize("vectors", [ROWS, ROWS[:, ::2], ROWS[::-1], ROWS.T, ROWS[:0]])
def test_the_digest_is_that_of_the_bytes_in_their_order(vectors):
    background = ROWS[1:]
    found = _hash_vectors(SimpleNamespace(vectors=vectors, background=background))
    assert found.hexdigest() == hashlib.sha256(vectors.tobytes() + background.tobytes()).hexdigest()
