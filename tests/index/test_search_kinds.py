"""Inverted files against exact search: proposals, scores, ties, settings, files; and which kind is chosen."""

import json
import re
from dataclasses import replace

import faiss
import numpy as np
import pytest
from recorder import Recorder

from index.calibrate.config import CalibrationSettings
from index.calibrate.fit import calibrate
from index.calibrate.selection import CalibrationQueries, Grid
from index.calibration import Origin
from index.evaluate.leave_one_out import agreement
from index.folder.build import BuildOptions, build_folder
from index.folder.folder import open_folder, replace_calibration
from index.folder.info import SEARCH, read_info
from index.folder.inputs import BuildInputs
from index.metrics import make_truths
from index.search import choose, ivf_builder, plan, scan
from index.search import flat as flat_module
from index.search.base import Neighbours
from index.search.choose import build_search, measure, plan_search, take_sample, tune
from index.search.config import SearchInfo, SearchOptions, search_line
from index.search.faiss_io import RowsFile, is_whole, read_outline
from index.search.flat import FlatIndex
from index.search.ivf import IvfIndex, IvfShards, SearchSettings
from index.search.ivf_builder import Coder, Packer, build_ivf
from index.search.plan import IndexPlan, make_plan
from index.search.scan import nearest_centroid
from retrieval.arrays import object_array
from retrieval.errors import LmrError
from retrieval.progress import SILENT

D = 16
KINDS = ("ivf-flat", "ivf-sq8", "ivf-pq", "ivf-pq-small")


def clustered(n, d=D, seed=0, n_clusters=40):
    """Unit vectors around a few centres, as images of landmarks are."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).standard_normal((n_clusters, d))
    vectors = centres[rng.integers(n_clusters, size=n)] + 0.4 * rng.standard_normal((n, d))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def rows():
    return FlatIndex.build(clustered(3000), "float16", "cpu")


@pytest.fixture(scope="module", params=KINDS)
def index(request, rows):
    return build_ivf(rows, IndexPlan(request.param, len(rows), D, "float16", 50))


def test_an_inverted_file_whose_lists_are_all_read_finds_what_exact_search_finds(index, rows):
    queries = clustered(60, seed=1)
    exact = rows.search(queries, 7)
    found = index.with_settings(SearchSettings(index.n_lists, 100)).search(queries, 7)
    assert found.rows.tolist() == exact.rows.tolist()
    assert (found.scores == exact.scores).all()


def test_scores_are_those_of_the_stored_rows_whatever_was_proposed(index, rows):
    queries = clustered(60, seed=1)
    found = index.with_settings(SearchSettings(2, 2)).search(queries, 7)
    assert (found.rows >= 0).all()
    assert found.scores == pytest.approx(np.einsum("qd,qkd->qk", queries, rows.vectors(found.rows)), abs=1e-6)
    assert (np.diff(found.scores, axis=1) <= 0).all()


def test_the_batch_changes_nothing(index):
    queries = clustered(40, seed=2)
    quick = index.with_settings(SearchSettings(4, 5))
    together = quick.search(queries, 5)
    alone = [quick.search(query[None], 5) for query in queries]
    assert np.concatenate([one.rows for one in alone]).tolist() == together.rows.tolist()
    assert (np.concatenate([one.scores for one in alone]) == together.scores).all()


@pytest.mark.parametrize("kind", KINDS)
def test_equal_rows_are_ordered_by_lower_row_also_beyond_the_kept_ones(kind):
    vectors = np.repeat(clustered(8), 100, axis=0)
    rows = FlatIndex.build(vectors[np.random.default_rng(0).permutation(800)], "float16", "cpu")
    found = build_ivf(rows, IndexPlan(kind, 800, D, "float16", 4)).with_settings(SearchSettings(4, 80))
    queries = clustered(20, seed=3)
    assert found.search(queries, 10).rows.tolist() == rows.search(queries, 10).rows.tolist()


def test_a_query_whose_lists_hold_too_few_rows_is_compared_with_all(rows):
    index = build_ivf(rows, IndexPlan("ivf-sq8", len(rows), D, "float16", 50)).with_settings(SearchSettings(1, 2))
    queries = clustered(5, seed=4)
    assert index.search(queries, 1500).rows.tolist() == rows.search(queries, 1500).rows.tolist()


def test_more_neighbours_than_rows_are_padding(rows):
    small = FlatIndex.build(clustered(30), "float16", "cpu")
    found = build_ivf(small, IndexPlan("ivf-sq8", 30, D, "float16", 2)).search(clustered(3, seed=1), 40)
    assert (found.rows[:, 30:] == -1).all()
    assert np.isneginf(found.scores[:, 30:]).all()
    assert sorted(found.rows[0, :30].tolist()) == list(range(30))


def test_what_no_search_takes_is_a_callers_mistake(index):
    for queries, k, said in (
        (np.ones((2, 3), np.float32), 1, "queries must be"),
        (np.full((2, D), np.nan, np.float32), 1, "NaN or infinity"),
        (np.ones((2, D), np.float32), 0, "k must be at least 1"),
    ):
        with pytest.raises(ValueError, match=said):
            index.search(queries, k)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        SearchSettings(n_probe=0)


def test_a_file_gives_the_same_neighbours_and_one_of_other_rows_is_refused(index, rows, tmp_path):
    path = tmp_path / "search.faiss"
    index.save([path])
    settings, queries = SearchSettings(8, 5), clustered(30, seed=1)
    again = IvfShards.load([path], rows, [3000], settings)
    assert again.search(queries, 5).rows.tolist() == index.with_settings(settings).search(queries, 5).rows.tolist()
    assert (len(again), again.d, again.storage, again.n_lists) == (3000, D, "float16", 50)
    with pytest.raises(LmrError, match=r"search\.faiss: an inverted file of 3000 x 16 does not fit 30 x 16 rows; run"):
        IvfIndex.load(path, FlatIndex.build(clustered(30), "float16", "cpu"), settings)
    rows.save(path)
    with pytest.raises(LmrError, match="not an inverted file; run lmr build-index again"):
        IvfIndex.load(path, rows, settings)


def test_the_same_rows_give_the_same_inverted_file(rows, tmp_path):
    for name in ("one", "other"):
        build_ivf(rows, IndexPlan("ivf-pq", len(rows), D, "float16", 20)).save([tmp_path / name])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_codes_that_are_put_in_order_some_lists_at_a_time_make_the_inverted_file_that_faiss_makes(
    kind, rows, tmp_path, monkeypatch
):
    monkeypatch.setattr(ivf_builder, "PACKED_ROWS", 100)  # of lists that hold 150 rows on average, so some are larger
    vectors = rows.vectors(np.arange(len(rows)))
    coder = Coder.learn(IndexPlan(kind, len(rows), D, "float16", 20), vectors)
    slow = faiss.clone_index(coder.ivf)
    lists = nearest_centroid(vectors, coder.centroids)
    slow.add_core(len(rows), faiss.swig_ptr(vectors), None, faiss.swig_ptr(lists))
    coder.save(tmp_path / "coder")
    again = Coder.load(tmp_path / "coder", coder.plan)
    for one in (coder, again, again):  # which is as it was after it packed
        packer = Packer(one, len(rows))
        for start in range(0, len(rows), 700):
            packer.add(one.encode(vectors[start : start + 700]))
        IvfIndex(packer.finish(), rows, SearchSettings()).save(tmp_path / "made")
        slow_file = faiss.IndexIVFPQFastScan(slow) if coder.plan.n_parts else slow
        faiss.write_index(slow_file, str(tmp_path / "slow"))
        assert (tmp_path / "made").read_bytes() == (tmp_path / "slow").read_bytes()


# Exact search by matrix products


@pytest.mark.parametrize("n", [40, 100, 257, 1000])
def test_batches_are_compared_with_all_rows_as_single_queries_are(monkeypatch, n):
    monkeypatch.setattr(scan, "ROWS", 128)
    vectors, queries = clustered(n), clustered(50, seed=1)
    index = FlatIndex.build(vectors, "float16", "cpu")
    single = index.search(queries, 9)
    monkeypatch.setattr(flat_module, "SCAN_FROM_ROWS", 1)
    asked = []
    monkeypatch.setattr(
        flat_module, "propose_groups", lambda *args: asked.append(len(args[0])) or scan.propose_groups(*args)
    )
    found = index.search(queries, 9)
    assert asked == [50]
    assert found.rows.tolist() == single.rows.tolist()
    assert (found.scores == single.scores).all()


def test_ties_at_the_end_of_a_batch_are_searched_wider(monkeypatch):
    monkeypatch.setattr(flat_module, "SCAN_FROM_ROWS", 1)
    monkeypatch.setattr(scan, "GROUP", 2)
    monkeypatch.setattr(scan, "ROWS", 64)
    vectors = np.repeat(clustered(4), 100, axis=0)[np.random.default_rng(0).permutation(400)]
    index, queries = FlatIndex.build(vectors, "float16", "cpu"), clustered(40, seed=1)
    found = index.search(queries, 5)
    assert found.rows.tolist() == np.concatenate([index.search(query[None], 5).rows for query in queries]).tolist()


# Which kind


@pytest.mark.parametrize(
    ("n", "d", "memory_gb", "kind"),
    [
        (1_000, 512, None, "flat"),
        (40_000, 512, None, "flat"),
        (1_225_030, 512, None, "ivf-pq"),
        (1_225_030, 509, None, "ivf-sq8"),
        (10_000_000, 2, None, "flat"),
        (40_000, 512, 0.03, "ivf-pq"),
        (40_000, 512, 0.006, "ivf-pq-small"),
        (4_132_914, 512, 0.6, "ivf-pq"),
        (4_132_914, 512, 0.4, "ivf-pq-small"),
        (20_000_000, 2, None, "ivf-sq8"),
    ],
)
def test_auto_chooses_by_rows_dimensions_and_memory(n, d, memory_gb, kind):
    chosen = plan_search(SearchOptions(memory_gb=memory_gb), None, n, d)
    assert chosen.kind == kind
    assert chosen.storage == ("float32" if kind == "flat" else "float16")


def test_a_recall_of_one_is_exact_search():
    assert plan_search(SearchOptions(recall=1.0), None, 1_000_000, 512).kind == "flat"


@pytest.mark.parametrize(
    ("options", "n", "d", "said"),
    [
        (
            SearchOptions(kind="ivf-pq", recall=1.0),
            100_000,
            512,
            "`recall` 1 is exact search, which `kind` ivf-pq is not; give `kind` flat or `recall` 0.99",
        ),
        (
            SearchOptions(kind="ivf-sq8", n_lists=900),
            1_000,
            64,
            "`n_lists` 900 is too many for 1,000 rows; give at most 31, or `kind` flat",
        ),
        (
            SearchOptions(kind="flat", n_lists=900),
            1_000,
            64,
            "`n_lists` 900: exact search has no lists; give a `kind` that begins with ivf, or none",
        ),
        (
            SearchOptions(kind="ivf-pq"),
            100_000,
            1,
            "`kind` ivf-pq cannot split 1 dimension; give `kind` ivf-sq8",
        ),
        (
            SearchOptions(kind="flat", memory_gb=0.5),
            1_000_000,
            512,
            "`memory` 0.5 GB is too little for Flat over 1,000,000 x 512, which needs 2.0 GB; "
            "`kind` ivf-pq needs 0.2 GB",
        ),
        (
            SearchOptions(memory_gb=0.01),
            1_000_000,
            512,
            "`memory` 10.0 MB is too little for IVF4000,PQ128x4fs over 1,000,000 x 512, which needs 84.8 MB; "
            "give at least `memory` 0.09, which `kind` ivf-pq-small needs",
        ),
        (
            SearchOptions(kind="ivf-sq8", memory_gb=0.2),
            1_000_000,
            512,
            "`memory` 0.2 GB is too little for IVF4000,SQ8 over 1,000,000 x 512, which needs 0.5 GB; "
            "`kind` ivf-pq needs 0.2 GB",
        ),
        (
            SearchOptions(kind="ivf-flat", memory_gb=0.01),
            1_000_000,
            509,
            "`memory` 10.0 MB is too little for IVF4000,Flat16 over 1,000,000 x 509, which needs 1.0 GB; "
            "give at least `memory` 0.53, which `kind` ivf-sq8 needs",
        ),
        (
            SearchOptions(kind="ivf-sq8", n_lists=100),
            24,
            128,
            "`n_lists` 100 is too many for 24 rows; give `kind` flat alone",
        ),
        (
            SearchOptions(recall=1, memory_gb=0.5),
            1_000_000,
            512,
            "`memory` 0.5 GB is too little for Flat over 1,000,000 x 512, which needs 2.0 GB; "
            "`kind` ivf-pq needs 0.2 GB, with `recall` 0.99",
        ),
        (
            SearchOptions(kind="flat", memory_gb=0.000001),
            24,
            127,
            "`memory` 1.0 kB is too little for Flat over 24 x 127, which needs 12.2 kB; "
            "give at least `memory` 0.01, which `kind` ivf-sq8 needs",
        ),
    ],
)
def test_settings_that_cannot_be_are_explained_with_one_that_can(options, n, d, said):
    with pytest.raises(LmrError) as error:
        plan_search(options, None, n, d)
    assert str(error.value) == said
    advised = said.rpartition("; ")[2]
    found = {name: re.search(f"`{name}` ([a-z0-9.-]+)", advised) for name in ("kind", "memory", "recall")}
    kind, memory, recall = (None if one is None else one[1] for one in found.values())
    followed = SearchOptions(
        kind=options.kind if kind in (None, "that") else kind,
        memory_gb=options.memory_gb if memory is None else float(memory),
        recall=options.recall if recall is None else float(recall),
    )
    plan_search(followed if kind != "flat" or recall is None else replace(followed, recall=1.0), None, n, d)


def test_rows_that_numbers_of_parts_do_not_divide_are_split_into_larger_ones():
    assert [plan.n_parts("ivf-pq", d) for d in (512, 96, 15, 7, 2, 1)] == [256, 48, 5, 1, 1, 1]
    assert [plan.n_parts("ivf-pq-small", d) for d in (512, 96, 15, 7, 2, 1)] == [128, 24, 3, 1, 1, 1]
    assert plan.n_parts("ivf-sq8", 512) == 0
    assert make_plan("ivf-pq", 10_000, 512, recall=0.9).n_code_bytes == 136
    assert make_plan("ivf-pq-small", 10_000, 512, recall=0.9).n_code_bytes == 72


# Tuning


def test_settings_are_the_quickest_that_reach_the_recall(rows, monkeypatch):
    index, sample = build_ivf(rows, IndexPlan("ivf-pq", len(rows), D, "float16", 50)), take_sample(rows)
    modest, thorough = (tune(index, target, sample) for target in (0.5, 0.98))
    assert modest[0].settings.n_probe < thorough[0].settings.n_probe
    assert modest[1].recall >= 0.5
    assert thorough[1].recall >= 0.98
    assert measure(thorough[0], sample).recall == thorough[1].recall


def test_a_row_is_no_neighbour_of_itself_when_the_recall_is_measured(rows):
    sample = take_sample(rows)
    assert sample.exact.shape == (1000, 10)
    assert not (sample.exact == sample.own[:, None]).any()
    assert choose.without_own(np.array([[5, 1, 2], [1, 2, 3]]), np.array([1, 9])).tolist() == [[5, 2], [1, 2]]


def test_what_does_not_reach_the_recall_is_said_with_what_finds_more(rows, monkeypatch):
    options = SearchOptions(kind="ivf-pq", recall=0.999, n_lists=50)
    monkeypatch.setattr(choose, "CANDIDATES", (1,))
    recorder = Recorder()
    found = build_search(rows, plan_search(options, None, len(rows), D), options, recorder)
    assert found is not None
    assert found[1].recall < 0.999
    (said,) = recorder.warnings
    assert said.startswith("warning: IVF50,PQ8x4fs finds 0.")
    assert said.endswith("`recall` asks for 0.999; `kind` ivf-sq8 finds more and needs 75.2 kB")


def test_auto_takes_a_larger_kind_where_the_smaller_does_not_reach_the_recall(rows, monkeypatch):
    monkeypatch.setattr(plan, "EXACT_NUMBERS", 1)
    monkeypatch.setattr(choose, "CANDIDATES", (1,))
    monkeypatch.setattr(choose, "measure", lambda index, sample: replace(measure(index, sample), speedup=2.0))
    options, recorder = SearchOptions(recall=0.99), Recorder()
    found = build_search(rows, plan_search(options, None, len(rows), D), options, recorder)
    assert found is not None
    assert (found[1].kind, recorder.warnings) == ("ivf-sq8", [])
    assert found[1].recall >= 0.99


def test_auto_within_little_memory_takes_what_fits_and_says_what_would_find_more(rows, monkeypatch):
    monkeypatch.setattr(choose, "CANDIDATES", (1,))
    small, usual = (
        replace(make_plan(kind, len(rows), D, recall=0.9), n_lists=50) for kind in ("ivf-pq-small", "ivf-pq")
    )
    options = SearchOptions(recall=0.999, n_lists=50, memory_gb=(small.memory_bytes + usual.memory_bytes) / 2e9)
    planned, recorder = plan_search(options, None, len(rows), D), Recorder()
    found = build_search(rows, planned, options, recorder)
    assert found is not None
    assert (planned.kind, found[1].kind, found[1].name) == ("ivf-pq-small", "ivf-pq-small", "IVF50,PQ4x4fs")
    (said,) = recorder.warnings
    assert said.startswith("warning: IVF50,PQ4x4fs finds 0.")
    assert said.endswith("`recall` asks for 0.999; `kind` ivf-pq finds more and needs 48.8 kB")


def test_auto_stays_exact_where_that_is_quicker(rows, monkeypatch):
    monkeypatch.setattr(plan, "EXACT_NUMBERS", 1)
    monkeypatch.setattr(choose, "measure", lambda index, sample: replace(measure(index, sample), speedup=0.9))
    options = SearchOptions(recall=0.5)
    planned = plan_search(options, None, len(rows), D)
    assert planned.kind == "ivf-pq"
    assert build_search(rows, planned, options, Recorder()) is None


# In a folder


def labelled(n):
    return [f"l{i % 40}" for i in range(n)]


def test_a_folder_with_an_inverted_file_opens_and_answers_as_it_was_measured(make_store, make_folder):
    options = BuildOptions(whitening_power=None, search=SearchOptions(kind="ivf-sq8", n_lists=20, recall=0.9))
    folder = make_folder(make_store(labelled(2000), seed=0), options=options)
    info = read_info(folder.path)
    assert isinstance(info.search, SearchInfo)
    assert (info.search.kind, info.search.name, folder.index.storage) == ("ivf-sq8", "IVF20,SQ8", "float16")
    assert info.search.recall >= 0.9
    assert info.recall == info.search.recall
    assert SEARCH in info.files
    assert search_line(info.search, info.n_rows, info.d).startswith(
        "2,000 x 8: IVF20,SQ8 + re-scoring, 33.0 kB, recall"
    )
    queries = np.random.default_rng(5).normal(size=(30, 8)).astype(np.float32)
    found, _ = folder.search(queries, 5)
    assert isinstance(found, Neighbours)
    exact = folder.index.search(queries, 5)
    assert np.mean([np.isin(e, f).mean() for e, f in zip(exact.rows, found.rows, strict=True)]) > 0.8


def test_an_exact_folder_is_as_it_was_before_there_were_kinds(make_store, make_folder):
    folder = make_folder(make_store(labelled(50), seed=0), options=BuildOptions(whitening_power=None))
    content = json.loads((folder.path / "index.json").read_text())
    assert content["search"] is None
    assert content["options"]["storage"] == "float32"
    assert "search" not in content["options"]
    assert not (folder.path / SEARCH).exists()


def test_rows_of_a_folder_stay_in_their_file_and_are_not_read_to_open_it(make_store, make_folder, monkeypatch):
    folder = make_folder(make_store(labelled(50), seed=0))
    monkeypatch.setattr(FlatIndex, "_measure_norms", lambda self: pytest.fail("all rows are read"))
    assert len(open_folder(folder.path, device="cpu").rows) == 50


def calibration_for(folder):
    found = folder.index.search(np.random.default_rng(3).normal(size=(12, 8)).astype(np.float32), 4)
    truths = make_truths([[i % 3] if i % 4 else [] for i in range(12)])
    queries = CalibrationQueries(found, folder.rows.landmark, truths, object_array([str(i) for i in range(12)]))
    grid = Grid(k=(3,), tau=(0.05,), r=(0.5,), beta=(0.0,))
    return calibrate(queries, Origin("val.h5", "ab" * 32, folder.info.inputs_digest), CalibrationSettings(), grid)


def test_another_kind_over_the_same_rows_keeps_the_calibration_only_where_answers_agree(make_store, make_folder):
    store = make_store(labelled(2000), seed=0)
    folder = make_folder(store)
    calibration = calibration_for(folder)
    replace_calibration(folder.path, calibration)
    inputs = BuildInputs([store], folder.path.parent / "model")
    build = {"overwrite": True, "device": "cpu"}
    seen = []

    def agree(share):
        def measured(one, other):
            seen.append((one.info.search, other.info.search.kind, agreement(one, other)))
            return share

        return measured

    options = BuildOptions(whitening_power=None, search=SearchOptions(kind="ivf-flat", n_lists=20, recall=0.95))
    lost = build_folder(folder.path, inputs, options, agreement=agree(0.5), **build)
    assert (lost.kept, lost.lost) == (None, calibration)
    build_folder(folder.path, inputs, BuildOptions(whitening_power=None), **build)
    replace_calibration(folder.path, calibration)
    kept = build_folder(folder.path, inputs, options, agreement=agree(0.995), **build)
    assert (kept.kept, kept.lost) == (calibration, None)
    assert open_folder(folder.path, device="cpu").calibration is not None
    assert [one[:2] for one in seen] == [(None, "ivf-flat")] * 2
    assert all(0.9 < one[2] <= 1 for one in seen)


# The file of rows


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_rows_that_are_written_in_blocks_make_the_file_that_faiss_writes(tmp_path, storage):
    vectors = clustered(100)
    FlatIndex.build(vectors, storage, "cpu").save(tmp_path / "whole")
    with (tmp_path / "blocks").open("wb") as file:
        writer = RowsFile(file, D, storage)
        for start in range(0, 100, 30):
            writer.write(vectors[start : start + 30])
        writer.finish()
    assert (tmp_path / "blocks").read_bytes() == (tmp_path / "whole").read_bytes()
    outline = read_outline(tmp_path / "blocks")
    assert (outline.n, outline.d, outline.storage) == (100, D, storage)
    assert is_whole(tmp_path / "blocks")
    (tmp_path / "blocks").write_bytes((tmp_path / "whole").read_bytes()[:-1])
    assert not is_whole(tmp_path / "blocks")


def test_numbers_that_the_storage_cannot_hold_are_named_by_their_row(tmp_path):
    with (tmp_path / "rows").open("wb") as file:
        writer = RowsFile(file, 2, "float16")
        writer.write(np.ones((3, 2), np.float32))
        with pytest.raises(ValueError, match=r"vectors\[4\] holds NaN or infinity"):
            writer.write(np.array([[1, 1], [1e6, 1]], np.float32))


def test_training_rows_are_bounded(monkeypatch):
    wide = IndexPlan("ivf-pq", 10**8, 512, "float16", 40_000)
    assert ivf_builder.n_training_rows(wide) == 524_288
    assert ivf_builder.n_training_rows(IndexPlan("ivf-pq", 5000, 512, "float16", 100)) == 4096


def test_nothing_is_told_of_exact_search(rows):
    assert build_search(rows, plan_search(SearchOptions(), None, len(rows), D), SearchOptions(), SILENT) is None
