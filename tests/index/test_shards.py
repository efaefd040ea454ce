"""Rows in shards against the same rows in one search."""

import gc
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.folder.build import BuildOptions
from index.folder.folder import open_folder
from index.folder.info import search_names
from index.folder.searching import Searching, open_shard
from index.search import ivf_builder
from index.search.base import Neighbours
from index.search.choose import build_search, plan_search, without_own
from index.search.config import SearchOptions
from index.search.flat import FlatIndex
from index.search.ivf import IvfIndex, IvfShards, SearchSettings
from index.search.ivf_builder import build_ivf
from index.search.plan import IndexPlan
from index.search.shards import Shard, ShardedIndex, first_rows, merge_neighbours, shard_sizes
from index.update.addition import plan_addition
from index.update.change import plan_removal
from index.update.compact import IndexCompactJob, compact
from index.update.images import Images
from index.update.inspect import IndexVerifyJob, verify
from index.update.write import write_changed
from retrieval.errors import LmrError
from retrieval.files.folders import replacing_folder
from retrieval.progress import SILENT

KINDS = ("ivf-flat", "ivf-sq8", "ivf-pq", "ivf-pq-small")


def unit(n, d, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def neighbours(rows, scores):
    return Neighbours(np.array(rows, dtype=np.int64), np.array(scores, dtype=np.float32))


def same(one, other):
    return (one.rows == other.rows).all() and (one.scores == other.scores).all()


@given(st.integers(0, 1000), st.integers(1, 40))
def test_shards_cover_all_rows_and_differ_by_one_at_most(n, n_shards):
    sizes = shard_sizes(n, n_shards)
    assert sum(sizes) == n
    assert len(sizes) == n_shards
    assert max(sizes) - min(sizes) <= 1
    assert first_rows(sizes) == tuple(sum(sizes[:i]) for i in range(n_shards))


def test_merging_orders_by_score_then_by_row_and_leaves_padding_to_the_end():
    merged = merge_neighbours(
        [neighbours([[3, 1, -1]], [[0.5, 0.25, -np.inf]]), neighbours([[9, 5, 7]], [[0.5, 0.5, 0.25]])], 5
    )
    assert merged.rows.tolist() == [[3, 5, 9, 1, 7]]
    assert merged.scores.tolist() == [[0.5, 0.5, 0.5, 0.25, 0.25]]


def test_merging_fewer_than_k_pads():
    merged = merge_neighbours([neighbours([[2]], [[0.5]]), neighbours([[-1]], [[-np.inf]])], 4)
    assert merged.rows.tolist() == [[2, -1, -1, -1]]
    assert merged.scores.tolist() == [[0.5, -np.inf, -np.inf, -np.inf]]


def test_merging_nothing_is_refused():
    with pytest.raises(ValueError, match="0 parts and k = 3 must be at least 1"):
        merge_neighbours([], 3)


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("n_shards", [1, 3, 7])
@pytest.mark.parametrize("n_queries", [3, 70])
def test_exact_search_in_shards_is_bit_equal_to_exact_search_in_one(storage, n_shards, n_queries):
    vectors = np.concatenate([unit(500, 12), unit(500, 12)])  # every score is there twice
    whole = FlatIndex.build(vectors, storage, device="cpu")
    queries = unit(n_queries, 12, seed=1)
    assert same(whole.shards(shard_sizes(1000, n_shards)).search(queries, 21), whole.search(queries, 21))


def test_more_neighbours_than_rows_are_padded_in_shards_too():
    whole = FlatIndex.build(unit(5, 8), device="cpu")
    assert same(whole.shards((2, 0, 3)).search(unit(2, 8, 1), 9), whole.search(unit(2, 8, 1), 9))


def test_vectors_of_shards_are_those_of_the_rows():
    whole = FlatIndex.build(unit(10, 8), "float16", device="cpu")
    rows = np.array([[9, 0, -1], [4, 3, 5]])
    assert (whole.shards((4, 1, 5)).vectors(rows) == whole.vectors(rows)).all()


def test_a_part_of_the_rows_lives_on_without_the_whole_and_reads_its_file(tmp_path):
    vectors = unit(300, 8)
    FlatIndex.build(vectors, "float16", device="cpu").save(tmp_path / "rows.faiss")
    part = FlatIndex.load(tmp_path / "rows.faiss", "cpu").part(100, 50)
    gc.collect()
    assert part.stored.base is not None
    assert (part.stored == vectors[100:150].astype(np.float16)).all()
    assert (part.search(vectors[100:150], 1).rows[:, 0] == np.arange(50)).all()
    assert (Shard(part, 100).search(vectors[100:150], 1).rows[:, 0] == np.arange(100, 150)).all()


def test_a_part_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="5 rows from 8 on are not among 10"):
        FlatIndex.build(unit(10, 8), device="cpu").part(8, 5)


def test_parts_of_another_length_are_refused():
    with pytest.raises(ValueError, match="the same d and storage"):
        ShardedIndex([FlatIndex.build(unit(4, 8), device="cpu"), FlatIndex.build(unit(4, 6), device="cpu")])
    with pytest.raises(ValueError, match="parts is empty"):
        ShardedIndex([])


# Inverted files


def clustered(n, seed=0):
    """Unit vectors around a few centres, as images of landmarks are."""
    rng = np.random.default_rng(seed)
    vectors = np.random.default_rng(7).standard_normal((20, 16))[rng.integers(20, size=n)]
    vectors = vectors + 0.4 * rng.standard_normal((n, 16))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def rows():
    return FlatIndex.build(clustered(3000), "float16", "cpu")


def planned(kind, n_shards, n=3000):
    return IndexPlan(kind, n, 16, "float16", 20, n_shards)


@pytest.mark.parametrize("kind", KINDS)
def test_shards_hold_together_what_one_inverted_file_holds(rows, kind, monkeypatch):
    monkeypatch.setattr(ivf_builder, "CODED_ROWS", 700)  # so that shards end within blocks
    queries = clustered(50, seed=1)
    whole, parts = build_ivf(rows, planned(kind, 1)), build_ivf(rows, planned(kind, 4))
    assert [shard.first for shard in parts.shards] == [0, 750, 1500, 2250]
    wide = SearchSettings(20, 300)
    assert same(parts.with_settings(wide).search(queries, 9), whole.with_settings(wide).search(queries, 9))
    one_list = SearchSettings(1, 300)
    proposed = [one.with_settings(one_list).propose(queries, 3000) for one in (whole, parts)]
    assert proposed[1].shape == (50, 4 * 3000)
    for of_whole, of_parts in zip(*proposed, strict=True):
        assert sorted(of_parts[of_parts >= 0]) == sorted(of_whole[of_whole >= 0])


@pytest.mark.parametrize("kind", KINDS)
def test_shards_of_no_rows_and_of_one_are_searched_and_read(rows, kind, tmp_path):
    few = FlatIndex.build(clustered(40), "float16", "cpu")
    made = build_ivf(few, planned(kind, 40, 40)).with_settings(SearchSettings(20, 5))
    assert same(made.search(clustered(5, seed=1), 9), few.search(clustered(5, seed=1), 9))
    paths = [tmp_path / name for name in search_names(40)]
    made.save(paths)
    assert [path.name for path in paths[:2]] == ["search-01-of-40.faiss", "search-02-of-40.faiss"]
    again = IvfShards.load(paths, few, [1] * 40, SearchSettings(20, 5))
    assert same(again.search(clustered(5, seed=1), 9), few.search(clustered(5, seed=1), 9))
    gone = [IvfIndex.changed(paths[0], few.part(0, 0), SearchSettings(), np.empty(0, np.int64)), *again.parts[1:]]
    left = FlatIndex.build(clustered(40)[1:], "float16", "cpu")
    assert same(ShardedIndex(gone).search(clustered(5, seed=1), 9), left.search(clustered(5, seed=1), 9))


def test_settings_are_tuned_and_recall_measured_over_all_shards(rows):
    options = SearchOptions("ivf-pq", 0.97, n_lists=20, n_shards=3)
    found = build_search(rows, plan_search(options, None, 3000, 16), options, SILENT)
    assert found is not None
    index, info, sample = found
    assert len(index.parts) == 3
    own = index.search(sample.queries, 11).rows
    hit = np.mean([np.isin(e, f).mean() for e, f in zip(sample.exact, without_own(own, sample.own), strict=True)])
    assert info.recall == pytest.approx(hit)
    assert info.recall >= 0.97


def test_more_shards_than_rows_are_refused():
    with pytest.raises(LmrError, match=r"^`n_shards` 31 is more than the 30 rows; give at most 30$"):
        plan_search(SearchOptions(n_shards=31), None, 30, 16)


# In a folder

INVERTED = BuildOptions(whitening_power=None, search=SearchOptions("ivf-sq8", 0.5, n_lists=8, n_shards=3))
FLAT = BuildOptions(whitening_power=None, search=SearchOptions("flat", n_shards=3))
LABELS = [f"l{i % 20}" for i in range(600)]


def answers(folder, k=7):
    return folder.search(folder.index.vectors(np.arange(0, len(folder.rows), 9)), k)[0]


def changed(folder, change):
    with replacing_folder(folder.path) as target:
        write_changed(folder, change, target)
    return open_folder(folder.path, device="cpu")


def added(folder, store):
    given = Images(
        store.source, store.image_id, store.path, store.landmark, store.landmarks, lambda rows: store.vectors[rows]
    )
    return changed(folder, plan_addition(folder, "add", [given], {}, to_background=False))


def test_a_folder_in_shards_has_a_file_for_each_and_answers_in_all_of_them(make_folder, make_store):
    folder = make_folder(make_store(LABELS, seed=0), options=INVERTED)
    assert folder.info.shards == (200, 200, 200)
    assert sorted(path.name for path in folder.path.glob("search*")) == [f"search-{i}-of-3.faiss" for i in (1, 2, 3)]
    wide = folder.ivf.with_settings(SearchSettings(8, 600))
    vectors = folder.index.vectors(np.arange(0, 600, 9))
    assert same(wide.search(vectors, 7), folder.index.search(vectors, 7))
    alone = [open_shard(folder.path, i, 3, Searching("cpu", 1))[1].search(vectors, 7) for i in range(3)]
    assert same(merge_neighbours(alone, 7), answers(folder))
    assert verify(IndexVerifyJob(folder.path)).self_recall > 0.9


def test_a_flat_folder_in_shards_has_the_files_and_answers_of_one(make_folder, make_store, tmp_path):
    one = make_folder(make_store(LABELS, seed=0), options=replace(FLAT, search=SearchOptions("flat")))
    before, digest = answers(one), one.info.answers_digest
    files = {name: listed["sha256"] for name, listed in one.info.files.items() if name.endswith("faiss")}
    shutil.rmtree(one.path)
    folder = make_folder(make_store(LABELS, seed=0), options=FLAT)
    assert folder.info.shards == (200, 200, 200)
    assert {name: folder.info.files[name]["sha256"] for name in files} == files
    assert folder.info.answers_digest == digest
    assert folder.info.inputs_digest != one.info.inputs_digest
    assert same(answers(folder), before)


@pytest.mark.parametrize("options", [INVERTED, FLAT], ids=["ivf", "flat"])
def test_rows_that_come_are_of_the_last_shard_and_rows_that_go_leave_theirs(make_folder, make_store, options):
    folder = make_folder(make_store(LABELS, seed=0), options=options)
    files = {path.name: path.stat().st_ino for path in folder.path.glob("search*")}
    folder = added(folder, make_store(LABELS[:50], seed=1, source="more.h5"))
    assert folder.info.shards == (200, 200, 250)
    kept = {path.name for path in folder.path.glob("search*") if path.stat().st_ino == files[path.name]}
    assert kept == (set() if options is FLAT else {"search-1-of-3.faiss", "search-2-of-3.faiss"})
    folder = changed(folder, plan_removal(folder, [f"train.h5-{i}" for i in range(190, 400)], "given"))
    assert folder.info.shards == (190, 0, 250)
    vectors = folder.index.vectors(np.arange(0, 440, 9))
    if folder.ivf is not None:
        assert same(
            folder.ivf.with_settings(SearchSettings(8, 440)).search(vectors, 7), folder.index.search(vectors, 7)
        )
    assert verify(IndexVerifyJob(folder.path)).self_recall > 0.9
    compact(IndexCompactJob(index=folder.path))
    assert open_folder(folder.path, device="cpu").info.shards == (146, 147, 147)
    assert compact(IndexCompactJob(index=folder.path)).state == "unchanged"
    compact(IndexCompactJob(index=folder.path, n_shards=1))
    folder = open_folder(folder.path, device="cpu")
    assert folder.info.shards == ()
    assert [path.name for path in folder.path.glob("search*")] == ([] if options is FLAT else ["search.faiss"])


@pytest.mark.parametrize("damage", ["missing", "shortened", "changed"])
def test_a_shard_that_is_missing_or_damaged_is_named(make_folder, make_store, damage):
    folder = make_folder(make_store(LABELS, seed=0), options=INVERTED)
    path = folder.path / "search-2-of-3.faiss"
    if damage == "missing":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(content[:-9] if damage == "shortened" else content[:-9] + b"damaged!!")
    with pytest.raises(LmrError, match=re.escape(str(path))):
        open_folder(folder.path, device="cpu")


def test_shards_that_do_not_make_up_the_rows_are_no_index(make_folder, make_store):
    folder = make_folder(make_store(LABELS, seed=0), options=INVERTED)
    with pytest.raises(ValueError, match="shards must be rows of 600 in all"):
        replace(folder.info, shards=(200, 200, 100))
    with pytest.raises(ValueError, match=r"files does not list search-1-of-2\.faiss"):
        replace(folder.info, shards=(300, 300))
