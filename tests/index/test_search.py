"""Search against comparing everything with everything, ties, padding, devices and files."""

import re

import faiss
import numpy as np
import pytest

from index.search import flat as search
from index.search.base import Neighbours
from index.search.flat import FlatIndex
from retrieval.errors import LmrError


def unit(n, d, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def slow_search(vectors, query, k):
    scores = [(-float(np.einsum("d,d->", query, vector)), row) for row, vector in enumerate(vectors)]
    return [row for _, row in sorted(scores)[:k]]


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_search_finds_what_comparing_with_every_row_finds(storage):
    vectors, queries = unit(300, 12), unit(40, 12, seed=1)
    index = FlatIndex.build(vectors, storage, device="cpu")
    stored = index.vectors(np.arange(300))
    found = index.search(queries, 7)
    assert found.rows.tolist() == [slow_search(stored, query, 7) for query in queries]
    assert found.scores == pytest.approx(np.take_along_axis(queries @ stored.T, found.rows, axis=1), abs=1e-6)


def test_float16_storage_keeps_the_vectors_rounded_to_float16():
    vectors = unit(5, 8)
    index = FlatIndex.build(vectors, "float16", device="cpu")
    assert (index.vectors(np.arange(5)) == vectors.astype(np.float16)).all()
    assert (index.storage, index.d, len(index)) == ("float16", 8, 5)


def test_equal_scores_are_ordered_by_lower_row_also_across_the_last_place():
    vectors = np.repeat(np.eye(3, 4, dtype=np.float32), 50, axis=0)
    vectors = vectors[np.random.default_rng(0).permutation(150)]
    queries = np.eye(3, 4, dtype=np.float32)
    found = FlatIndex.build(vectors, device="cpu").search(queries, 20)
    assert found.rows.tolist() == [slow_search(vectors, query, 20) for query in queries]


def test_an_index_of_one_repeated_vector_gives_the_lowest_rows(monkeypatch):
    monkeypatch.setattr(search, "MAX_WIDTH", 64)
    monkeypatch.setattr(search, "BLOCK_BYTES", 1 << 10)
    index = FlatIndex.build(np.repeat(unit(1, 8), 500, axis=0), device="cpu")
    found = index.search(unit(9, 8, seed=2), 5)
    assert (found.rows == np.arange(5)).all()
    assert np.ptp(found.scores, axis=1).max() == 0


@pytest.mark.parametrize("max_width", [2048, 64])
def test_near_ties_that_faiss_orders_by_its_own_rounding_are_ordered_by_the_rescored_value(monkeypatch, max_width):
    monkeypatch.setattr(search, "MAX_WIDTH", max_width)
    queries = unit(30, 64)
    vectors = np.repeat(unit(1, 64, seed=1), 400, axis=0) + np.float32(2e-8) * unit(400, 64, seed=2)
    found = FlatIndex.build(vectors, device="cpu").search(queries, 10)
    assert found.rows.tolist() == [slow_search(vectors, query, 10) for query in queries]


def test_a_row_that_rounding_keeps_out_of_the_proposed_ones_is_found(monkeypatch):
    monkeypatch.setattr(search, "MARGIN", 0)
    queries = unit(200, 64)
    vectors = np.repeat(unit(1, 64, seed=1), 3, axis=0) + np.float32(2e-8) * unit(3, 64, seed=2)
    found = FlatIndex.build(vectors, device="cpu").search(queries, 1)
    assert found.rows.tolist() == [slow_search(vectors, query, 1) for query in queries]


def test_the_batch_size_changes_nothing():
    index = FlatIndex.build(unit(500, 32), device="cpu")
    queries = unit(64, 32, seed=1)
    together = index.search(queries, 10)
    one_by_one = [index.search(query[None], 10) for query in queries]
    assert (np.concatenate([one.rows for one in one_by_one]) == together.rows).all()
    assert np.abs(np.concatenate([one.scores for one in one_by_one]) - together.scores).max() <= 1e-6


def test_small_blocks_give_the_same_neighbours(monkeypatch):
    vectors, queries = unit(100, 8), unit(30, 8, seed=1)
    whole = FlatIndex.build(vectors, device="cpu").search(queries, 5)
    monkeypatch.setattr(search, "BLOCK_BYTES", 512)
    blocks = FlatIndex.build(vectors, device="cpu").search(queries, 5)
    assert (whole.rows == blocks.rows).all()
    assert (whole.scores == blocks.scores).all()


def test_a_k_beyond_the_width_of_a_gpu_search_works(monkeypatch):
    monkeypatch.setattr(search, "MAX_WIDTH", 16)
    vectors, query = unit(100, 8), unit(1, 8, seed=1)
    found = FlatIndex.build(vectors, device="cpu").search(query, 40)
    assert found.rows[0].tolist() == slow_search(vectors, query[0], 40)


def test_places_beyond_the_number_of_rows_are_padding():
    found = FlatIndex.build(unit(3, 4), device="cpu").search(unit(2, 4, seed=1), 5)
    assert (found.rows[:, 3:] == -1).all()
    assert np.isneginf(found.scores[:, 3:]).all()
    assert (found.rows[:, :3] >= 0).all()


def test_an_empty_index_gives_only_padding():
    found = FlatIndex.build(np.empty((0, 4), np.float32), device="cpu").search(unit(2, 4), 3)
    assert found.rows.tolist() == [[-1] * 3] * 2
    assert np.isneginf(found.scores).all()


def test_no_queries_give_no_neighbours():
    found = FlatIndex.build(unit(5, 4), device="cpu").search(np.empty((0, 4), np.float32), 3)
    assert (found.n_queries, found.k) == (0, 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_query_that_is_not_finite_is_refused_by_its_row(bad):
    queries = unit(3, 4)
    queries[1, 2] = bad
    with pytest.raises(ValueError, match=re.escape("queries[1] holds NaN or infinity")):
        FlatIndex.build(unit(5, 4), device="cpu").search(queries, 1)


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_a_vector_that_is_not_finite_is_refused_by_its_row(storage):
    vectors = unit(5, 4)
    vectors[3, 0] = np.nan
    with pytest.raises(ValueError, match=re.escape("vectors[3] holds NaN or infinity")):
        FlatIndex.build(vectors, storage, device="cpu")


def test_a_vector_too_large_for_float16_is_refused():
    with pytest.raises(ValueError, match=re.escape("vectors[0] holds NaN or infinity")):
        FlatIndex.build(np.full((1, 4), 1e6, np.float32), "float16", device="cpu")


def test_queries_of_another_dimension_are_refused():
    with pytest.raises(ValueError, match=re.escape("queries must be (q, 4), not (2, 5)")):
        FlatIndex.build(unit(5, 4), device="cpu").search(unit(2, 5), 1)


def test_k_of_zero_is_refused():
    with pytest.raises(ValueError, match="k must be at least 1, not 0"):
        FlatIndex.build(unit(5, 4), device="cpu").search(unit(2, 4), 0)


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("n", [0, 20])
def test_a_saved_index_answers_as_before(tmp_path, storage, n):
    index = FlatIndex.build(unit(n, 8), storage, device="cpu")
    index.save(tmp_path / "index.faiss")
    loaded = FlatIndex.load(tmp_path / "index.faiss", device="cpu")
    queries = unit(4, 8, seed=1)
    assert loaded.storage == storage
    assert (loaded.search(queries, 3).rows == index.search(queries, 3).rows).all()
    assert (loaded.search(queries, 3).scores == index.search(queries, 3).scores).all()


def test_a_missing_index_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "index.faiss"
    with pytest.raises(LmrError) as error:
        FlatIndex.load(path)
    assert str(error.value) == f"{path}: there is no such file; run lmr build-index"


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_an_index_cut_short_anywhere_is_an_error_that_names_it(tmp_path, storage):
    path = tmp_path / "index.faiss"
    FlatIndex.build(unit(4, 4), storage, device="cpu").save(path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(LmrError) as error:
            FlatIndex.load(path, device="cpu")
        assert str(error.value) == f"{path}: damaged or cut short; run lmr build-index again"


def test_another_kind_of_faiss_index_is_refused(tmp_path):
    path = tmp_path / "index.faiss"
    faiss.write_index(faiss.IndexFlatL2(4), str(path))
    with pytest.raises(LmrError) as error:
        FlatIndex.load(path)
    assert str(error.value) == f"{path}: not an index that lmr wrote; run lmr build-index"


def test_an_index_file_that_holds_nan_is_refused(tmp_path):
    path = tmp_path / "index.faiss"
    flat = faiss.IndexFlatIP(4)
    flat.add(np.full((2, 4), np.nan, np.float32))
    faiss.write_index(flat, str(path))
    with pytest.raises(LmrError) as error:
        FlatIndex.load(path, device="cpu")
    expected = f"{path}: damaged: vectors[0] holds NaN or infinity; run lmr build-index again"
    assert str(error.value) == expected


def test_an_index_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "nowhere" / "index.faiss"
    with pytest.raises(LmrError) as error:
        FlatIndex.build(unit(4, 4), device="cpu").save(path)
    reason = "No such file or directory"
    assert str(error.value) == f"{path}: the index cannot be written ({reason}); free space or choose another folder"


def test_a_gpu_that_is_not_there_is_an_error_that_names_it(monkeypatch):
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    with pytest.raises(LmrError) as error:
        FlatIndex.build(unit(4, 4), device="cuda:1")
    assert str(error.value) == "`device` cuda:1: FAISS sees 0 GPUs; give `device` cpu or auto"


def test_a_device_that_does_not_exist_is_an_error():
    with pytest.raises(LmrError) as error:
        FlatIndex.build(unit(4, 4), device="gpu")
    expected = "`device` gpu: not a device; use auto, cpu, cuda, cuda:N, cuda:N,N or mps"
    assert str(error.value) == expected


def test_auto_uses_the_cpu_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    assert FlatIndex.build(unit(4, 4), device="auto").search(unit(1, 4), 1).rows.tolist() == [[0]]


def test_neighbours_cannot_be_written_to():
    found = FlatIndex.build(unit(4, 4), device="cpu").search(unit(1, 4), 1)
    with pytest.raises(ValueError, match="read-only"):
        found.rows[0, 0] = 1


def test_neighbours_of_unequal_shapes_are_refused():
    with pytest.raises(ValueError, match=re.escape("rows (1, 2) and scores (1, 3) must be equal (q, k)")):
        Neighbours(np.zeros((1, 2), np.int64), np.zeros((1, 3), np.float32))


def test_a_search_puts_the_switches_of_faiss_back():
    def switches():
        return faiss.cvar.distance_compute_blas_threshold, faiss.omp_get_max_threads()

    before = switches()
    vectors = np.eye(3, dtype=np.float32)
    FlatIndex.build(vectors, threads=before[1] + 1).search(vectors, 2)
    assert switches() == before
