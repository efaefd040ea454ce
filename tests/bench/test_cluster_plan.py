"""Plans past one machine: the formulas of their costs by hand, and what the script makes of them."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

BENCH = Path(__file__).parents[2] / "scripts" / "bench"
PLAN = BENCH / "plan.py"
SMALL = ["--pictures", "1e5,1e6", "--executors", "1,2", "--repeats", "1", "--tuned-executors", "2", "--queries", "2000"]


@pytest.fixture(scope="module")
def costs(load_bench: Any) -> ModuleType:
    return load_bench("costs")  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def plan(load_bench: Any) -> ModuleType:
    return load_bench("plan")  # type: ignore[no-any-return]


def test_embedding_costs_its_pictures_and_one_task_that_joins(costs: ModuleType) -> None:
    of = costs.Constants(image_s=0.05, image_bytes=100e3, join_bytes_s=1e6)
    step = costs.embed(3000, 512, of)
    assert step == costs.Step(150.0, 3000 * (2 * 512 + 100) / 1e6, 300e6, 3000 * 1124)


def test_a_million_rows_are_searched_by_four_thousand_lists_in_144_megabytes(costs: ModuleType) -> None:
    assert costs.lists_of(1e6) == 4000
    assert costs.index_bytes(1e6, 512) == 1e6 * (128 + 8) + 4 * 512 * 4000
    assert costs.index_bytes(1e6, 512, "ivf-pq-small") == 1e6 * (64 + 8) + 4 * 512 * 4000


def test_the_plan_of_an_index_and_the_formula_of_its_memory_agree(costs: ModuleType) -> None:
    from index.search.plan import IndexPlan, default_lists

    n = 1_000_000
    for kind in ("ivf-pq", "ivf-pq-small"):
        planned = IndexPlan(kind, n, 512, "float16", default_lists(n)).memory_bytes  # type: ignore[arg-type]
        assert costs.index_bytes(n, 512, kind) == pytest.approx(planned, rel=0.07)  # which fills up lists, too


def test_building_finds_the_list_of_each_row_and_merges_what_is_not_kept_in_shards(costs: ModuleType) -> None:
    of = costs.Constants(row_s=1e-6, flops=1e9, merge_bytes_s=1e6)
    whole, shards = costs.build(1e4, 8, of, 2), costs.build(1e4, 8, of, 2, n_shards=4)
    assert whole.work_s == pytest.approx(1e4 * (1e-6 + 2 * 8 * 400 / 1e9))
    learn_s = 6 * 2 * 8 * 1e4 * 400 / 1e9 / 2
    codes = 1e4 * (8 / 4 + 8) + 4 * 8 * 400
    assert costs.learn_s(1e4, 8, of, 2) == pytest.approx(learn_s)
    assert whole.serial_s == pytest.approx(learn_s + (2 * 8 * 1e4 + codes) / 1e6)
    assert whole.serial_s - shards.serial_s == pytest.approx(codes / 1e6)


def test_each_shard_more_costs_a_query_its_lists_and_candidates_again(costs: ModuleType) -> None:
    of = costs.Constants(query_s=1e-3, query_exponent=0.5, shard_query_s=2e-3, flops=1e9)
    assert costs.query_s(4e6, 8, of) == pytest.approx(2e-3)
    assert costs.query_s(4e6, 8, of, 4) == pytest.approx(2e-3 + 3 * (2e-3 + 2 * 8 * 8000 / 1e9))
    assert costs.exact_query_s(4e6, 8, of) == pytest.approx(2 * 8 * 4e6 / 1e9)


def test_an_index_needs_as_many_shards_as_fill_the_memory(costs: ModuleType) -> None:
    assert costs.shards_needed(1e6, 512, 145e6) == 1
    assert costs.shards_needed(1e6, 512, 100e6) == 2
    assert costs.shards_needed(1e6, 512, 100e6, "ivf-pq-small") == 1


def test_a_collection_of_milvus_takes_its_rows_and_links_on_nodes_of_so_much_memory(costs: ModuleType) -> None:
    node = costs.Node(cores=16, memory_bytes=128e9, fill=0.7, segment_bytes=1e9)
    prices = costs.Prices(memory_core_hour=0.05, gb_month=0.02, disk_gb_month=0.1)
    of = costs.Constants(graph_s=1e-3, graph_rows=1e4)
    found = costs.milvus(1e8, 512, "HNSW", of, prices, node)
    assert (found["row_bytes"], found["nodes"], found["segments"]) == (4 * 512 + 240, 3, 205)
    one_s = 205 * 1e-3 * np.log(1e8 / 205) / np.log(1e4)
    assert found["queries_s"] == pytest.approx(48 / one_s)
    assert found["dollars_month"] == pytest.approx(48 * 730 * 0.05 + 204.8 * 0.02)
    twice = costs.milvus(1e8, 512, "HNSW", of, prices, node, replicas=2)
    assert (twice["nodes"], twice["memory_gb"]) == (6, 2 * found["memory_gb"])
    on_disk = costs.milvus(1e8, 512, "DISKANN", of, prices, node)
    assert (on_disk["row_bytes"], on_disk["disk_row_bytes"], on_disk["nodes"]) == (pytest.approx(460.8), 4096, 1)


def test_larger_segments_answer_more_queries(costs: ModuleType) -> None:
    asked = (1e9, 512, "HNSW", costs.Constants(), costs.Prices())
    small, large = (costs.milvus(*asked, costs.Node(segment_bytes=gb * 1e9)) for gb in (1, 16))
    assert large["queries_s"] > 10 * small["queries_s"]


def test_tasks_differ_and_add_up_to_the_work(plan: ModuleType) -> None:
    works = plan.task_works(1000.0, 1e6, 50, (16, 0.1), 0.3, np.random.default_rng(0))
    assert works.sum() == pytest.approx(1000.0)
    assert 0.2 < works.std() / works.mean() < 0.4


def test_tasks_are_counted_as_lmr_counts_them(plan: ModuleType) -> None:
    from retrieval.spark.config import SparkJob

    for n, n_slots in ((1_000, 4), (100_000, 4), (10**9, 10**5)):
        assert plan.count_tasks(n, 10 * n_slots) == SparkJob().count_tasks(n, n_slots)


def test_the_knee_is_the_last_number_of_executors_that_saves_enough_beside_half_as_many(plan: ModuleType) -> None:
    hours = {1: 10.0, 2: 6.0, 4: 5.0, 8: 4.4}
    jobs = {k: {"total_hours": all_h, "hours": {"embed": all_h - 2, "join": 2.0}} for k, all_h in hours.items()}
    assert plan.knee(jobs, 0.25) == {"executors": 2, "total_hours": 6.0, "longest": "embed"}
    assert plan.knee(jobs, 0.1)["executors"] == 8
    assert plan.knee(jobs, 0.5)["executors"] == 1


def run_plan(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, PLAN, *SMALL, *words], capture_output=True, text=True, check=False)


def test_the_same_seed_gives_the_same_plan_with_the_constants_it_is_made_of(tmp_path: Path) -> None:
    first, second = run_plan("--output", str(tmp_path / "plan.json")), run_plan()
    assert (first.returncode, first.stdout) == (0, second.stdout)
    found = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    assert list(found["jobs"]) == list(found["milvus"]) == ["100000", "1e+06"]
    assert all(one["source"] for kind in ("constants", "prices") for one in found[kind].values())
    one, two = found["jobs"]["1e+06"].values()
    assert one["hours"]["embed"] > two["hours"]["embed"] > one["hours"]["embed"] / 3  # stragglers are luck
    assert one["hours"]["join"] == two["hours"]["join"]


def test_other_constants_and_prices_change_the_plan(tmp_path: Path) -> None:
    usual, other = (
        json.loads(run_plan(*words).stdout)["jobs"]["1e+06"]["1"]
        for words in ((), ("--set", "image_s=0.1", "--set", "million_reads=0"))
    )
    assert other["hours"]["embed"] > 2 * usual["hours"]["embed"]
    refused = run_plan("--set", "images=3")
    assert refused.returncode == 1
    assert refused.stderr == (
        "--set images=3: expected a constant or price of scripts/bench/costs.py, as image_s=0.02\n"
    )


def test_the_plan_that_is_drawn_is_of_the_times_that_are_kept(plan: ModuleType, costs: ModuleType) -> None:
    kept = json.loads((BENCH / "plan.json").read_text(encoding="utf-8"))
    times = json.loads((BENCH / "service_times.json").read_text(encoding="utf-8"))
    assert kept["constants"] == plan.rounded(costs.accounts(plan.from_times(costs.Constants(), times)))
    assert kept["prices"] == plan.rounded(costs.accounts(costs.Prices()))


def test_the_tables_of_the_page_are_those_of_the_plan_that_is_drawn(plan: ModuleType) -> None:
    kept = json.loads((BENCH / "plan.json").read_text(encoding="utf-8"))
    page = (BENCH.parents[1] / "docs" / "scale.md").read_text(encoding="utf-8")
    assert [table for table in plan.tables(kept) if table not in page] == []
