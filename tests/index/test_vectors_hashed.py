"""Vectors that stay in their stores: read, hashed and whitened block by block as the whole matrix would be."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest

from index.folder.build import _hash_vectors
from index.folder.inputs import UnitRows
from index.folder.sums import MatrixSums, Pairs
from index.whitening import fit_whitening, whitening_of
from retrieval.progress import SILENT


def fit_supervised_whitening(vectors, landmark, power=0.5, n_dimensions=None):
    return whitening_of(MatrixSums(vectors, Pairs(landmark)), "supervised", power, n_dimensions)


@pytest.mark.parametrize("n_rows", [1, 3, 7])
def test_the_digest_is_that_of_the_bytes_in_their_order(make_store, n_rows, monkeypatch):
    monkeypatch.setattr("index.folder.inputs.BLOCK_ROWS", n_rows)
    stores = [make_store(["rome"] * 4, seed=1), make_store([], seed=2), make_store(["rome"] * 3, seed=3)]
    vectors = np.concatenate([store.vectors for store in stores])
    unit = vectors / np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
    found = _hash_vectors(SimpleNamespace(both=UnitRows(stores)), SILENT)
    assert found.hexdigest() == hashlib.sha256(unit.tobytes()).hexdigest()


def test_rows_of_several_stores_are_read_in_any_order(make_store):
    stores = [make_store(["rome"] * 4, seed=1), make_store([], seed=2), make_store(["rome"] * 3, seed=3)]
    rows = UnitRows(stores)
    whole = rows[:]
    assert rows.shape == whole.shape == (7, 8)
    assert np.array_equal(rows[np.array([6, 0, 4, 4])], whole[[6, 0, 4, 4]])
    assert np.array_equal(rows[2:5], whole[2:5])


def test_a_whitening_is_fitted_in_blocks_as_to_the_whole_matrix(make_store, monkeypatch):
    monkeypatch.setattr("index.folder.sums.BLOCK_ROWS", 7)
    rows = UnitRows([make_store(["rome"] * 40, seed=1), make_store(["rome"] * 50, seed=2)])
    landmark = np.random.default_rng(3).integers(-1, 20, size=90).astype(np.int32)
    parts = [fit_whitening(rows), fit_supervised_whitening(rows, landmark)]
    monkeypatch.setattr("index.folder.sums.BLOCK_ROWS", 1000)
    for found, whole in zip(parts, [fit_whitening(rows[:]), fit_supervised_whitening(rows[:], landmark)], strict=True):
        assert found.mean == pytest.approx(whole.mean, abs=1e-12)
        assert found.matrix == pytest.approx(whole.matrix, rel=1e-9, abs=1e-9)
