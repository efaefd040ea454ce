"""GPUs give the answers of the CPU: FAISS's GPUs are fakes that round and run out of room as real ones do."""

import faiss
import numpy as np
import pytest
from fake_gpus import FakeGpus

from index.search import flat, gpu, ivf
from index.search.choose import take_sample
from index.search.flat import FlatIndex
from index.search.gpu import GpuRows, gpus_of
from index.search.ivf import IvfIndex, IvfShards, SearchSettings
from index.search.ivf_builder import build_ivf
from index.search.plan import make_plan
from retrieval.device_name import DeviceName, parse_device
from retrieval.errors import LmrError
from retrieval.progress import SILENT, Silent


class Told(Silent):
    """Keeps what is told."""

    def __init__(self):
        self.told, self.warned = [], []

    def tell(self, text):
        self.told.append(text)

    def warn(self, text):
        self.warned.append(text)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A few hundred rows are many, and so are a few queries; the resources of a fake are not those of the next."""
    for module in (flat, ivf):
        monkeypatch.setattr(module, "ROWS_FROM", 100)
    monkeypatch.setattr(flat, "GPU_FROM_QUERIES", 4)
    monkeypatch.setattr(ivf, "GPU_FROM_QUERIES", 10)
    monkeypatch.setattr(gpu, "SLAB_BYTES", 4 * 16 * 150)  # 150 rows of 16 numbers
    yield
    gpu._resources.cache_clear()


def close_rows(n, d=16, seed=0, spread=3e-4):
    """Rows around a few directions, whose scores differ by less than float16 rounds off."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((5, d))[rng.integers(0, 5, n)] + spread * rng.standard_normal((n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def level(n, d=16):
    """(n, d) rows that point everywhere, and (30, d) queries to which all score alike, but for what float16 rounds."""
    rng = np.random.default_rng(0)
    middle = rng.standard_normal(d)
    middle /= np.linalg.norm(middle)
    rows = rng.standard_normal((n, d))
    rows -= (rows @ middle)[:, None] * middle
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows += (1 + 3e-4 * rng.standard_normal((n, 1))) * middle
    return rows.astype(np.float32), (rng.uniform(0.5, 2, (30, 1)) * middle).astype(np.float32)


def same(one, other):
    return one.rows.tolist() == other.rows.tolist() and one.scores.tolist() == other.scores.tolist()


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("device", ["cuda", "cuda:0,2,1", "auto"])
def test_gpus_answer_as_the_cpu_where_float16_alone_would_not(monkeypatch, storage, device):
    gpus = FakeGpus(3).install(monkeypatch)
    rows, queries = level(3000)
    exact = FlatIndex.build(rows, storage, "cpu").search(queries, 10)
    rounded = np.argsort(-(queries.astype(np.float16).astype(np.float32) @ rows.astype(np.float16).T), axis=1)[:, :10]
    assert (np.sort(rounded) != np.sort(exact.rows)).any(axis=1).mean() > 0.5
    assert same(FlatIndex.build(rows, storage, device).search(queries, 10), exact)
    assert gpus.n_searches > 0
    monkeypatch.setattr(flat, "BLOCK_BYTES", 4 * 16 * 20 * 2)  # two queries at once, scored by threads
    assert same(FlatIndex.build(rows, storage, device, 4).search(queries, 10), exact)


def test_each_gpu_holds_a_part_of_the_rows_in_slabs_that_are_filled_at_once(monkeypatch):
    gpus, told = FakeGpus(4).install(monkeypatch), Told()
    index = FlatIndex.build(close_rows(1000), "float16", "cuda:3,1,0", progress=told)
    assert gpus.rows == {0: 0, 1: 0, 2: 0, 3: 0}
    index.search(close_rows(4, seed=1), 3)
    assert gpus.rows == {3: 333, 1: 333, 0: 334, 2: 0}
    assert told.told == ["1,000 x 16 rows are put on cuda:3,1,0 (32.0 kB)"]
    assert told.warned == []


def test_the_memory_that_faiss_takes_for_itself_is_bounded_and_taken_once(monkeypatch):
    gpus = FakeGpus(2).install(monkeypatch)
    for seed in (0, 1):
        FlatIndex.build(close_rows(200, seed=seed), device="cuda:0,1").search(close_rows(4), 3)
    assert gpus.scratch == [1 << 29, 1 << 29]


def test_rows_stay_on_the_cpu_until_as_many_queries_have_been_asked_as_pay_for_the_copy(monkeypatch):
    gpus = FakeGpus().install(monkeypatch)
    index = FlatIndex.build(close_rows(200), device="cuda")
    index.search(close_rows(3), 3)
    assert gpus.rows == {0: 0}
    index.search(close_rows(1), 3)
    assert gpus.rows == {0: 200}
    few = FlatIndex.build(close_rows(99), device="cuda")
    few.search(close_rows(50), 3)
    assert gpus.rows == {0: 200}


def test_a_gpu_without_room_is_told_once_and_the_cpu_answers(monkeypatch):
    gpus, told = FakeGpus(free_bytes=2 * 16 * 400).install(monkeypatch), Told()
    rows, queries = close_rows(1000), close_rows(20, seed=1)
    monkeypatch.setattr(flat, "BLOCK_BYTES", 4 * 16 * 20 * 2)  # which several threads find out
    index = FlatIndex.build(rows, device="cuda", threads=4, progress=told)
    exact = FlatIndex.build(rows, device="cpu").search(queries, 5)
    assert same(index.search(queries, 5), exact)
    gpus.free_bytes = 1 << 40
    assert same(index.search(queries, 5), exact)
    assert told.warned == [
        "cuda:0 cannot be used (it has too little free memory); the CPU searches, with the same answers"
    ]
    assert gpus.n_searches == 0


def test_a_gpu_that_fails_while_it_searches_is_left_alone(monkeypatch):
    gpus, told = FakeGpus().install(monkeypatch), Told()
    rows, queries = close_rows(1000), close_rows(20, seed=1)
    index = FlatIndex.build(rows, "float16", "auto", progress=told)
    exact = FlatIndex.build(rows, "float16", "cpu").search(queries, 5)
    assert same(index.search(queries, 5), exact)
    n = gpus.n_searches

    def fail(device, n_bytes):
        raise RuntimeError("Error in faiss::gpu at x.cu:1: Error: 'k <= 2' failed: the card fell off\n")

    monkeypatch.setattr(gpus, "take", fail)
    assert same(index.search(queries, 5), exact)
    assert same(index.search(queries, 5), exact)
    assert told.warned == ["cuda:0 cannot be used (the card fell off); the CPU searches, with the same answers"]
    assert gpus.n_searches == n


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e4])
def test_no_row_scores_more_than_its_rounded_score_and_the_slack(monkeypatch, storage, scale):
    """Also where float16 has few bits left, below 6e-5, and near the end of its range."""
    FakeGpus().install(monkeypatch)
    rng = np.random.default_rng(0)
    rows = (scale * rng.standard_normal((150, 16))).astype(storage)
    queries = rng.standard_normal((50, 16)).astype(np.float32)
    queries[::7] *= np.float32(1e-6)
    longest = float(np.linalg.norm(rows.astype(np.float64), axis=1).max())
    on_gpu = GpuRows(rows, longest, [0], SILENT)
    exact = queries.astype(np.float64) @ rows.astype(np.float64).T
    found, bound = on_gpu.propose(queries, 5)
    np.put_along_axis(exact, found, -np.inf, axis=1)
    assert (exact.max(axis=1) <= bound).all()


@pytest.mark.parametrize("rounded", ["query", "row"])
def test_a_row_that_rounding_puts_behind_all_others_is_found(monkeypatch, rounded):
    """Row 0 is the best, by less than each of 8 numbers just below the middle of two float16 loses: 2 ** -11."""
    FakeGpus().install(monkeypatch)
    step, almost_up = np.float32(2**-10), np.float32(1 + 2**-11 - 2**-20)
    rows, queries = np.zeros((300, 16), np.float32), np.ones((4, 16), np.float32)
    rows[0, :8], rows[1:, 8:] = 1, 1
    rows[1:, 8] += step
    rows[1:40, 8:11] = 1 + step
    if rounded == "query":
        queries[:, :8] = almost_up
    else:
        rows[0, :8] = almost_up
    index = FlatIndex.build(rows, "float16" if rounded == "query" else "float32", "cuda")
    assert index.search(queries, 5).rows.tolist() == [[0, 1, 2, 3, 4]] * 4


def test_unit_vectors_lose_less_than_a_thousandth_of_their_score(monkeypatch):
    FakeGpus().install(monkeypatch)
    on_gpu = GpuRows(close_rows(200), 1.0, [0], SILENT)
    slack = on_gpu.slack(close_rows(200, seed=1))
    assert slack.shape == (200,)
    assert (slack < 1e-3).all()


def test_queries_beyond_the_range_of_float16_are_answered_all_the_same(monkeypatch):
    FakeGpus().install(monkeypatch)
    rows, queries = close_rows(300), 1e6 * close_rows(6, seed=1)
    exact = FlatIndex.build(rows, device="cpu").search(queries, 5)
    assert same(FlatIndex.build(rows, device="cuda").search(queries, 5), exact)


def test_more_neighbours_than_a_gpu_selects_are_found_by_the_cpu(monkeypatch):
    gpus = FakeGpus().install(monkeypatch)
    rows, queries = close_rows(2500), close_rows(5, seed=1)
    exact = FlatIndex.build(rows, device="cpu").search(queries, 2100)
    assert same(FlatIndex.build(rows, device="cuda").search(queries, 2100), exact)
    assert gpus.n_searches == 0


def test_equal_rows_are_ordered_by_row_whichever_the_gpu_puts_first(monkeypatch):
    FakeGpus(2).install(monkeypatch)
    index = FlatIndex.build(np.repeat(close_rows(1), 400, axis=0), device="cuda:0,1")
    assert (index.search(close_rows(5, seed=1), 20).rows == np.arange(20)).all()


def test_a_faiss_without_gpus_searches_on_the_cpu_and_says_so_where_one_was_asked_for(monkeypatch):
    monkeypatch.delattr(faiss, "StandardGpuResources", raising=False)
    told = Told()
    assert gpus_of("auto", told) == gpus_of("mps", told) == ()
    assert told.warned == []
    assert gpus_of("cuda:1", told) == ()
    assert told.warned == ["`device` cuda:1: this FAISS was built without GPUs; rows are searched on the CPU"]


def test_gpus_are_those_that_the_name_lists(monkeypatch):
    FakeGpus(3).install(monkeypatch)
    names = ("auto", "cuda", "cuda:2", "cuda:2,0", "cpu", "mps")
    assert [gpus_of(name, SILENT) for name in names] == [(0,), (0,), (2,), (2, 0), (), ()]
    with pytest.raises(LmrError) as error:
        gpus_of("cuda:0,3", SILENT)
    assert str(error.value) == "`device` cuda:0,3: FAISS sees 3 GPUs; give `device` cpu or auto"


def test_a_name_lists_each_gpu_once():
    assert parse_device("cuda:1,0") == DeviceName("cuda", (1, 0))
    assert (parse_device("cuda:1,0").first, parse_device("cuda").first, parse_device("auto").first) == (
        "cuda:1",
        "cuda",
        "auto",
    )
    for name, message in {
        "cuda:1,1": "`device` cuda:1,1 lists a GPU twice; give each once",
        "cpu:0": "`device` cpu:0: not a device; use auto, cpu, cuda, cuda:N, cuda:N,N or mps",
        "cuda:": "`device` cuda:: not a device; use auto, cpu, cuda, cuda:N, cuda:N,N or mps",
    }.items():
        with pytest.raises(LmrError) as error:
            parse_device(name)
        assert str(error.value) == message


def inverted(kind, device, rows=None, progress=SILENT):
    """An inverted file as it is opened, of a few lists."""
    vectors = close_rows(2000, spread=0.3) if rows is None else rows
    stored = FlatIndex.build(vectors, "float16", device, progress=progress)
    built = build_ivf(stored, make_plan(kind, len(vectors), 16, n_lists=20, recall=0.9), progress=progress)
    return IvfIndex(built.parts[0]._ivf, stored, SearchSettings(4, 3))


@pytest.mark.parametrize("kind", ["ivf-sq8", "ivf-flat"])
@pytest.mark.parametrize("device", ["cuda:1", "cuda:0,1"])
def test_an_inverted_file_on_gpus_answers_as_on_the_cpu(monkeypatch, kind, device):
    gpus = FakeGpus(2).install(monkeypatch)
    index, queries = inverted(kind, device), close_rows(50, seed=1, spread=0.3)
    on_cpu = IvfIndex(index._ivf, index.rows.on_cpu(), index.settings)
    assert same(index.search(queries[:9], 5), on_cpu.search(queries[:9], 5))
    assert sum(gpus.rows.values()) == 0
    found = index.search(queries, 5)
    assert sum(gpus.rows.values()) == 2000
    assert gpus.rows[0] == (1000 if device == "cuda:0,1" else 0)
    assert same(found, on_cpu.search(queries, 5))


@pytest.mark.parametrize(("n_probe", "k", "n_on_gpu"), [(4, 5, 2000), (4, 6, 0), (16, 5, 2000), (17, 5, 0), (30, 5, 0)])
def test_more_candidates_or_lists_than_a_gpu_takes_are_left_to_the_cpu(monkeypatch, n_probe, k, n_on_gpu):
    """Three candidates for each neighbour, and at least ten more than neighbours."""
    monkeypatch.setattr(ivf, "MAX_WIDTH", 16)
    gpus = FakeGpus().install(monkeypatch)
    made, queries = inverted("ivf-sq8", "cuda"), close_rows(20, seed=1, spread=0.3)
    index = IvfIndex(made._ivf, made.rows, SearchSettings(n_probe, 3))
    on_cpu = IvfIndex(made._ivf, made.rows.on_cpu(), SearchSettings(n_probe, 3))
    assert same(index.search(queries, k), on_cpu.search(queries, k))
    assert gpus.rows == {0: n_on_gpu}


def test_an_inverted_file_that_a_gpu_has_no_room_for_is_searched_on_the_cpu(monkeypatch):
    gpus, told = FakeGpus(free_bytes=1000).install(monkeypatch), Told()
    index, queries = inverted("ivf-sq8", "cuda", progress=told), close_rows(50, seed=1, spread=0.3)
    on_cpu = IvfIndex(index._ivf, index.rows.on_cpu(), index.settings)
    assert same(index.search(queries, 5), on_cpu.search(queries, 5))
    assert told.warned == [
        "cuda:0 cannot be used (it has too little free memory); the CPU searches, with the same answers"
    ]
    assert gpus.rows == {0: 0}


@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_a_kind_that_gpus_have_no_form_of_is_searched_on_the_cpu(monkeypatch, tmp_path, device):
    gpus, told = FakeGpus().install(monkeypatch), Told()
    made = inverted("ivf-pq", device, progress=told)
    made.save(tmp_path / "search.faiss")
    index = IvfShards.load([tmp_path / "search.faiss"], made.rows, [len(made)], made.settings)
    queries = close_rows(50, seed=1, spread=0.3)
    assert same(index.search(queries, 5), IvfIndex(made._ivf, made.rows.on_cpu(), made.settings).search(queries, 5))
    assert gpus.rows == {0: 0}
    asked_for = (
        "`device` cuda: FAISS has no GPU form of this inverted file, which the CPU searches; lmr build-index with "
        "`kind` flat or ivf-sq8 makes an index that a GPU searches"
    )
    assert told.warned == ([asked_for] if device == "cuda" else [])


def test_the_lists_of_an_inverted_file_are_found_on_the_first_gpu(monkeypatch):
    gpus = FakeGpus(2).install(monkeypatch)
    rows = close_rows(2000, spread=0.3)
    found = inverted("ivf-flat", "cuda:1,0", rows)
    assert gpus.options == [1]
    on_cpu = inverted("ivf-flat", "cpu", rows)
    queries = close_rows(50, seed=1, spread=0.3)
    assert same(found.search(queries[:5], 5), on_cpu.search(queries[:5], 5))
    plan = make_plan("ivf-flat", 2000, 16, n_lists=20, recall=0.9)
    assert build_ivf(found.rows, plan).rows.gpus == ()  # settings that are chosen on the CPU are right on any machine


def test_lists_are_found_on_the_cpu_where_the_gpu_has_no_room(monkeypatch):
    FakeGpus(free_bytes=0).install(monkeypatch)
    told, rows = Told(), close_rows(2000, spread=0.3)
    found = inverted("ivf-flat", "cuda", rows, told)
    queries = close_rows(5, seed=1, spread=0.3)
    assert same(found.search(queries, 5), inverted("ivf-flat", "cpu", rows).search(queries, 5))
    assert len(told.warned) == 1


def test_kinds_are_compared_on_the_cpu_so_that_machines_choose_alike(monkeypatch):
    gpus = FakeGpus().install(monkeypatch)
    rows = FlatIndex.build(close_rows(500), "float16", "cuda")
    sample = take_sample(rows, 50)
    assert (len(sample.queries), gpus.rows) == (50, {0: 0})


@pytest.mark.skipif(not hasattr(faiss, "StandardGpuResources"), reason="this FAISS was built without GPUs")
@pytest.mark.parametrize("kind", ["flat", "ivf-sq8"])
def test_faiss_itself_takes_what_the_imitated_gpus_take(monkeypatch, kind):
    """It searches where there is a GPU; where there is none it gets as far as looking for it, and the CPU answers."""
    there = faiss.get_num_gpus()
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    told, rows, queries = Told(), close_rows(2000, spread=0.3), close_rows(50, seed=1, spread=0.3)
    stored = FlatIndex.build(rows, "float16", "cuda", progress=told)
    on_cpu = stored.on_cpu()
    if kind == "flat":
        found, exact = stored.search(queries, 5), on_cpu.search(queries, 5)
    else:
        made = build_ivf(on_cpu, make_plan(kind, 2000, 16, n_lists=20, recall=0.9)).parts[0]
        found, exact = (
            IvfIndex(made._ivf, index, SearchSettings(4, 3)).search(queries, 5) for index in (stored, on_cpu)
        )
    assert same(found, exact)
    missing = "cuda:0 cannot be used (Invalid GPU device 0); the CPU searches, with the same answers"
    assert told.warned == ([] if there else [missing])
