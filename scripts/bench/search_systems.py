"""One system that finds nearest rows, in a process of its own: built, tuned to each recall and measured.

    python scripts/bench/search_systems.py SYSTEM FOLDER

search_others.py makes the folder and starts this, in the environment that the system needs. FOLDER holds rows.faiss
(float16, as an index folder has them) and, as .npy, `tuning`, `known`, `background` and the exact rows of each. One
thread; processor time. Of settings that reach a recall on the queries `tuning`, the quickest one is measured on the
others. Memory: of the process itself after building, without the rows that it was built from, and at the peak, both
beyond the same process before. Prints JSON.
"""

import argparse
import contextlib
import ctypes
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from vectors import recall_at

K = 10
TARGETS = (0.9, 0.95, 0.98, 0.99)
N_SINGLE = 200
PROBES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
Search = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Setting:
    """One way of searching what was built. search: queries (q, d) to rows (q, K)."""

    name: str
    search: Search


@dataclass(frozen=True)
class Data:
    """The folder. Rows are read when they are asked for, and belong to who asks."""

    folder: Path

    def __getitem__(self, name: str) -> np.ndarray:
        return np.load(self.folder / f"{name}.npy")

    def rows(self) -> np.ndarray:
        """(n, d) float32."""
        n, d = json.loads((self.folder / "shape.json").read_text())
        found = np.empty((n, d), np.float32)
        place = self.folder / "rows.faiss"
        with place.open("rb") as file:
            file.seek(place.stat().st_size - 2 * n * d)
            for start in range(0, n, 1 << 14):
                some = min(1 << 14, n - start)
                found[start : start + some] = np.fromfile(file, np.float16, some * d).reshape(some, d)
        return found


def lmr_exact(data: Data) -> Iterator[Setting]:
    from index.search.flat import FlatIndex

    rows = FlatIndex.load(data.folder / "rows.faiss", "cpu", 1)
    yield Setting("exact", lambda queries: rows.search(queries, K).rows)


def lmr(data: Data) -> Iterator[Setting]:
    """Settings are those that lmr chooses by rows of its own."""
    from index.search.choose import take_sample, tune
    from index.search.flat import FlatIndex
    from index.search.ivf_builder import build_ivf
    from index.search.plan import make_plan

    rows = FlatIndex.load(data.folder / "rows.faiss", "cpu", 1)
    index = build_ivf(rows, make_plan("ivf-pq", len(rows), rows.d, recall=0.99))
    built()
    sample = take_sample(rows)
    for target in TARGETS:
        tuned, _ = tune(index, target, sample)
        yield Setting(f"{asdict(tuned.settings)}", lambda queries, tuned=tuned: tuned.search(queries, K).rows)


def faiss_flat(data: Data) -> Iterator[Setting]:
    import faiss

    rows = data.rows()
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    yield Setting("exact", lambda queries: index.search(queries, K)[1])


def faiss_ivf_flat(data: Data) -> Iterator[Setting]:
    return of_factory(data, "IVF{lists},Flat", [("nprobe={}", probe) for probe in PROBES])


def faiss_ivf_pq(data: Data) -> Iterator[Setting]:
    """FastScan codes, re-scored from float16 rows in memory."""
    steps = [(f"nprobe={{}},k_factor_rf={factor}", probe) for factor in (5, 10, 20) for probe in PROBES]
    return of_factory(data, "IVF{lists},PQ{half}x4fs,Refine(SQfp16)", steps)


def faiss_hnsw(data: Data) -> Iterator[Setting]:
    return of_factory(data, "HNSW32,Flat", [("efSearch={}", ef) for ef in (16, 32, 64, 128, 256, 512)])


def of_factory(data: Data, name: str, steps: list[tuple[str, int]]) -> Iterator[Setting]:
    """A FAISS index by the name that its factory gives it, with 4 sqrt(n) lists."""
    import faiss

    rows = data.rows()
    n, d = rows.shape
    key = name.format(lists=round(4 * n**0.5), half=d // 2)
    index = faiss.index_factory(d, key, faiss.METRIC_INNER_PRODUCT)
    index.train(rows)
    index.add(rows)
    del rows
    built()
    yield from set_parameters(faiss, index, key, steps)


def set_parameters(faiss: Any, index: Any, key: str, steps: list[tuple[str, int]]) -> Iterator[Setting]:
    space = faiss.ParameterSpace()
    for words, value in steps:
        text = words.format(value)

        def search(queries: np.ndarray, text: str = text) -> np.ndarray:
            space.set_index_parameters(index, text)
            return index.search(queries, K)[1]

        yield Setting(f"{key} {text}", search)


def scann(data: Data) -> Iterator[Setting]:
    """Its documentation's configuration: sqrt(n) leaves, anisotropic codes of two dimensions, re-ordering."""
    from scann import scann_ops_pybind

    rows = data.rows()
    n_leaves = round(len(rows) ** 0.5)
    builder = scann_ops_pybind.builder(rows, K, "dot_product").set_n_training_threads(1)
    builder = builder.tree(num_leaves=n_leaves, num_leaves_to_search=16, training_sample_size=len(rows))
    index = builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100).build()
    del rows, builder
    built()
    for reorder in (50, 100, 200, 400):
        for leaves in [probe for probe in PROBES if probe <= n_leaves]:

            def search(queries: np.ndarray, leaves: int = leaves, reorder: int = reorder) -> np.ndarray:
                return index.search_batched(queries, K, leaves_to_search=leaves, pre_reorder_num_neighbors=reorder)[
                    0
                ].astype(np.int64)

            yield Setting(f"tree({n_leaves}),ah(2) leaves={leaves},reorder={reorder}", search)


def hnswlib(data: Data) -> Iterator[Setting]:
    """M = 16 and ef_construction = 200, its documentation's."""
    import hnswlib as library

    rows = data.rows()
    index = library.Index("ip", rows.shape[1])
    index.init_index(len(rows), ef_construction=200, M=16)
    index.set_num_threads(1)
    index.add_items(rows)
    del rows
    built()
    for ef in (16, 32, 64, 128, 256, 512, 1024):

        def search(queries: np.ndarray, ef: int = ef) -> np.ndarray:
            index.set_ef(ef)
            return index.knn_query(queries, K)[0].astype(np.int64)

        yield Setting(f"M=16 ef={ef}", search)


def usearch(data: Data) -> Iterator[Setting]:
    """float16 graph of its default connectivity."""
    from usearch.index import Index

    rows = data.rows()
    index = Index(ndim=rows.shape[1], metric="ip", dtype="f16")
    index.add(np.arange(len(rows)), rows, threads=1)
    del rows
    built()
    for ef in (16, 32, 64, 128, 256, 512, 1024):

        def search(queries: np.ndarray, ef: int = ef) -> np.ndarray:
            index.expansion_search = ef
            return index.search(queries, K, threads=1).keys.astype(np.int64)

        yield Setting(f"f16 expansion={ef}", search)


def autofaiss(data: Data) -> Iterator[Setting]:
    """The kind that it picks by itself, at its defaults; then searched at other settings too."""
    import autofaiss as library
    import faiss

    rows = data.rows()
    with contextlib.redirect_stdout(sys.stderr):
        index, told = library.build_index(rows, save_on_disk=False, metric_type="ip", nb_cores=1)
    del rows
    built()
    space = faiss.ParameterSpace()
    space.initialize(index)
    own = told["index_param"]
    settings = [(own.replace("{", "{{").replace("}", "}}"), 0)]
    if "efSearch" in own:
        settings += [("efSearch={}", ef) for ef in (16, 32, 64, 128, 256, 512)]
    elif "nprobe" in own:
        settings += [("nprobe={}", probe) for probe in PROBES]
    yield from set_parameters(faiss, index, told["index_key"], settings)


SYSTEMS: dict[str, Callable[[Data], Iterator[Setting]]] = {
    "lmr-exact": lmr_exact,
    "lmr-ivf-pq": lmr,
    "faiss-flat": faiss_flat,
    "faiss-ivf-flat": faiss_ivf_flat,
    "faiss-ivf-pq": faiss_ivf_pq,
    "faiss-hnsw": faiss_hnsw,
    "scann": scann,
    "hnswlib": hnswlib,
    "usearch": usearch,
    "autofaiss": autofaiss,
}
MODULES = {
    "lmr-exact": "faiss",
    "lmr-ivf-pq": "faiss",
    "scann": "scann",
    "hnswlib": "hnswlib",
    "usearch": "usearch.index",
}
_done: dict[str, float] = {}


def built() -> None:
    """Notes what building took."""
    if _done:
        return
    _done["build_cpu_s"] = round(time.process_time() - _begun, 1)
    _done["build_peak_mb"] = status("VmHWM")
    gc.collect()
    with contextlib.suppress(OSError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    _done["held_mb"] = status("RssAnon")


def status(name: str) -> float:
    """A figure of this process, 10^6 bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return round(next(int(line.split()[1]) * 1.024 / 1000 for line in lines if line.startswith(name)), 1)


def measure(setting: Setting, data: Data, repeats: int) -> dict[str, Any]:
    """Recall of known and background queries, apart, and the time of the known ones."""
    known = data["known"]
    told: dict[str, Any] = {"setting": setting.name}
    for name in ("known", "background"):
        rows, exact = setting.search(data[name]), data[f"exact_{name}"]
        told[f"recall10_{name}"] = round(recall_at(rows, exact), 4)
        told[f"top1_{name}"] = round(float(np.mean(rows[:, 0] == exact[:, 0])), 4)
    seconds = [cpu_s(lambda: setting.search(known)) for _ in range(repeats)]
    told["cpu_ms_per_query"] = round(1000 * float(np.median(seconds)) / len(known), 4)
    singles = known[:N_SINGLE, None]
    told["single_query_cpu_ms"] = round(
        1000 * cpu_s(lambda: [setting.search(one) for one in singles]) / len(singles), 3
    )
    return told


def cpu_s(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def sweep(settings: Iterator[Setting], data: Data, repeats: int) -> dict[str, Any]:
    """For each recall the setting that is quickest of those that reach it on the queries for tuning."""
    queries, exact = data["tuning"], data["exact_tuning"]
    tried = []
    for setting in settings:
        built()
        setting.search(queries[:2])
        begun = time.process_time()
        rows = setting.search(queries)
        tried.append((time.process_time() - begun, recall_at(rows, exact), setting))
    chosen = {}
    for target in TARGETS:
        reaching = [one for one in tried if one[1] >= target]
        if reaching:
            chosen[f"recall_{target}"] = min(reaching, key=lambda one: one[0])[2]
    chosen = chosen or {"best": max(tried, key=lambda one: one[1])[2]}
    figures = {setting.name: measure(setting, data, repeats) for setting in chosen.values()}
    return {name: figures[setting.name].copy() for name, setting in chosen.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with contextlib.suppress(ImportError):
        __import__(MODULES.get(args.system, "faiss"))
    empty = {"build_peak_mb": status("VmHWM"), "held_mb": status("RssAnon")}
    said = os.dup(1)
    os.dup2(2, 1)  # libraries print what they like
    _begun = time.process_time()
    figures = sweep(SYSTEMS[args.system](Data(args.folder)), Data(args.folder), args.repeats)
    told = {name: round(value - empty.get(name, 0), 1) for name, value in _done.items()}
    os.write(said, json.dumps({**told, **figures}).encode())
