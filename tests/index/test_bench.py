"""lmr bench: every kind on the rows of an index folder, as table, JSON and curve."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import lmr
from cli.main import main
from index import bench as bench_module
from index.folder.build import BuildOptions, build_folder
from index.folder.inputs import BuildInputs
from index.search.plan import BY_SIZE
from retrieval.errors import LmrError


@pytest.fixture(scope="module")
def folder(make_store, tmp_path_factory):
    """An index folder of 1,500 rows, not to be changed."""
    return made(tmp_path_factory.mktemp("bench"), make_store([f"l{i % 40}" for i in range(1500)], seed=0))


@pytest.fixture(scope="module")
def measured(folder):
    """The benchmark of it, which leaves it as it was."""
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    found = lmr.bench(folder, threads=1)
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before
    return found


def made(place, store):
    (place / "model").mkdir()
    (place / "model" / "model.json").write_text(json.dumps({"fingerprint": store.info.fingerprint}))
    inputs = BuildInputs([store], place / "model", ())
    build_folder(place / "landmarks", inputs, BuildOptions(whitening_power=None), device="cpu")
    return place / "landmarks"


def run(*words: object):
    return CliRunner().invoke(main, ["bench", *map(str, words)])


def test_every_kind_is_measured_at_the_recalls_that_it_reaches(measured):
    found = measured
    assert found.rows[0].kind == "flat"
    assert {row.kind for row in found.rows} == {"flat", "ivf-pq-small", "ivf-pq", "ivf-sq8", "ivf-flat"}
    assert (found.n, found.d, found.n_queries) == (1500, 8, 1000)
    for kind in BY_SIZE:
        own = [row for row in found.rows if row.kind == kind]
        assert [row.recall for row in own] == sorted(row.recall for row in own)
        assert all(0 < row.recall <= 1 and row.queries_per_s > 0 and row.memory_bytes > 0 for row in own)
        assert own[-1].recall > 0.9


def test_the_table_and_the_json_say_the_same(folder, measured, monkeypatch):
    monkeypatch.setattr(bench_module, "bench", lambda job: measured)
    content = json.loads(run(folder, "--json").stdout)
    lines = run(folder).stdout.splitlines()
    assert content == json.loads(json.dumps(measured.to_json()))
    assert lines[0] == f"{folder}: 1,500 x 8, 1,000 rows asked on 1 thread, each without itself"
    assert lines[1].split()[:4] == ["kind", "recall@10", "top-1", "queries/s"]
    assert len(lines) == 3 + len(content["rows"])
    assert lines[-1].startswith("quickest: ")
    assert lines[2].split()[:3] == ["flat", "1.0000", "1.0000"]
    assert lines[3].split()[:2] == [content["rows"][1]["kind"], f"{content['rows'][1]['recall']:.4f}"]


def test_the_curve_is_drawn_and_what_could_not_be_is_refused_before_the_work(folder, measured, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(bench_module, "bench", lambda job: measured)
    plot = tmp_path / "kinds.png"
    assert run(folder, "--plot", plot).exit_code == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(bench_module, "bench", lambda job: pytest.fail("it was measured"))
    refused = run(folder, "--plot", tmp_path / "kinds.jpg")
    assert (refused.exit_code, Path(tmp_path / "kinds.jpg").exists()) == (1, False)
    lost = tmp_path / "none" / "kinds.png"
    said = f"Error: --plot {lost}: there is no folder {lost.parent}; make it or choose another place\n"
    assert run(folder, "--plot", lost).stderr == said


@pytest.fixture
def one_recall(monkeypatch):
    """Kinds are measured at the lowest recall alone."""
    monkeypatch.setattr(bench_module, "RECALLS", (0.9,))


def test_kinds_that_need_more_memory_are_left_out_and_said(folder, one_recall):
    with pytest.warns(UserWarning, match="ivf-flat is left out: `memory` 30.0 kB is too little for IVF46,Flat16"):
        found = lmr.bench(folder, memory=0.00003, threads=1)
    assert {row.kind for row in found.rows} == {"flat", "ivf-pq-small", "ivf-pq", "ivf-sq8"}


def test_the_quickest_kind_is_told_for_each_recall(monkeypatch):
    def row(kind, recall, speedup):
        return bench_module.BenchRow(kind, kind, 0.9, 1, 2, recall, 1.0, 100.0, speedup, 10, 0.0)

    rows = (row("flat", 1.0, 1.0), row("ivf-pq", 0.96, 3.0), row("ivf-sq8", 0.99, 2.0), row("ivf-sq8", 1.0, 0.5))
    found = bench_module.Benchmark("landmarks", 2000, 8, 1000, None, None, rows)
    assert found.to_json()["quickest"] == {
        "0.9": "ivf-pq",
        "0.95": "ivf-pq",
        "0.98": "ivf-sq8",
        "0.99": "ivf-sq8",
        "0.999": "flat",
    }
    monkeypatch.setattr(bench_module, "bench", lambda job: found)
    lines = run().stdout.splitlines()
    assert lines[0] == "landmarks: 2,000 x 8, 1,000 rows asked on all cores, each without itself"
    assert lines[-1] == "quickest: ivf-pq for recall 0.9 0.95, ivf-sq8 for recall 0.98 0.99, flat for recall 0.999"


def test_a_kind_that_does_not_fit_is_not_called_the_quickest(monkeypatch):
    def found(memory_bytes):
        rows = tuple(
            bench_module.BenchRow(kind, kind, 0.9, 1, 2, recall, 1.0, 100.0, speedup, n_bytes, 0.0)
            for kind, recall, speedup, n_bytes in (("flat", 1.0, 1.0, 100), ("ivf-pq", 0.96, 0.5, 10))
        )
        return bench_module.Benchmark("landmarks", 2000, 8, 1000, None, memory_bytes, rows)

    assert found(100).to_json()["quickest"]["0.9"] == "flat"
    assert found(99).to_json()["quickest"] == {"0.9": "ivf-pq", "0.95": "ivf-pq"}
    monkeypatch.setattr(bench_module, "bench", lambda job: found(9))
    assert run().stdout.splitlines()[-1] == "quickest: none fits into the memory"


def test_without_a_limit_kinds_that_the_machine_has_no_memory_for_are_left_out(folder, one_recall, monkeypatch):
    monkeypatch.setattr(bench_module.os, "sysconf", lambda name: {"SC_PHYS_PAGES": 8, "SC_PAGE_SIZE": 4096}[name])
    with pytest.warns(UserWarning, match="ivf-flat is left out: `memory` 32.8 kB is too little for IVF46,Flat16"):
        found = lmr.bench(folder, threads=1)
    assert {row.kind for row in found.rows} == {"flat", "ivf-pq-small", "ivf-pq", "ivf-sq8"}


def test_too_few_rows_are_nothing_to_choose_from(make_store, make_folder):
    small = make_folder(make_store(["a", "b"] * 20, seed=0)).path
    with pytest.raises(LmrError, match="has 40 rows; below 1,000 exact search takes less than a millisecond"):
        lmr.bench(small)


def test_the_first_rows_can_be_measured(folder, one_recall):
    assert lmr.bench(folder, rows=1000, threads=1).n == 1000
