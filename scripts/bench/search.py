"""Search of made descriptors: recall, processor time and memory of each kind, beside FAISS's exact search.

    python scripts/bench/search.py [--rows 1000000] [--kinds ivf-pq ivf-sq8] [--whitened]

Everything is measured in one run on the same rows: FAISS's IndexFlatIP over float32, exact search of lmr over float32
and float16, and inverted files at the settings that reach each recall on rows of their own (the queries are others).
recall@10 is the share of the exact 10 nearest that are found; queries of known landmarks and of none are counted apart.
Times are of the processor, medians of --repeats, so that they stand other work on the machine; single queries are wall
time. FAISS's exact search is measured as its wheel comes, in a process of its own, whose BLAS may not know the
processor, and as index/search/library.py imports it (faiss_flat_told).
--whitened takes the flatter spectrum of half-whitened descriptors, which is harder. Prints JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from vectors import Spectrum, make_world, recall_at

from index.search.base import SearchIndex
from index.search.choose import take_sample, tune
from index.search.faiss_io import RowsFile
from index.search.flat import FlatIndex
from index.search.ivf import SearchSettings
from index.search.ivf_builder import build_ivf
from index.search.plan import make_plan

K = 10
TARGETS = (0.95, 0.98, 0.99, 0.995)
WHITENED = Spectrum(between=0.57, within=0.65)
N_SINGLE = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="(default %(default)s)")
    parser.add_argument("--landmarks", type=int, default=30_000, help="(default %(default)s)")
    parser.add_argument("--dimensions", type=int, default=512, help="(default %(default)s)")
    parser.add_argument("--queries", type=int, default=1000, help="of known landmarks, and as many of none")
    parser.add_argument("--kinds", nargs="+", default=["ivf-pq", "ivf-sq8"], help="(default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="(default %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="(default %(default)s)")
    parser.add_argument("--whitened", action="store_true", help="half-whitened descriptors")
    parser.add_argument("--as-it-comes", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.as_it_comes:
        print(json.dumps(flat_as_it_comes(args)))
        return
    world = make_world(args.landmarks, args.dimensions, spectrum=WHITENED if args.whitened else Spectrum())
    known = world.block(0, args.queries, of_queries=True)[0].astype(np.float32)
    queries = {"known": known, "background": world.background(args.queries).astype(np.float32)}
    with tempfile.TemporaryDirectory() as scratch:
        rows = {storage: stored(Path(scratch) / storage, world, args, storage) for storage in ("float32", "float16")}
        np.save(Path(scratch) / "known.npy", known)
        report = compare(rows, queries, args, Path(scratch))
    print(json.dumps(report, indent=1))


def stored(path: Path, world: Any, args: argparse.Namespace, storage: Any) -> FlatIndex:
    """The rows in a file, opened as an index folder opens them."""
    with path.open("wb") as file:
        writer = RowsFile(file, args.dimensions, storage)
        for vectors, _ in world.rows(args.rows):
            writer.write(vectors)
        writer.finish()
    return FlatIndex.load(path, "cpu", args.threads)


def flat_as_it_comes(args: argparse.Namespace) -> float:
    """Processor time of a query by FAISS's exact search, imported as it is."""
    import faiss

    faiss.omp_set_num_threads(args.threads)
    queries = np.load(args.as_it_comes / "known.npy")
    flat = FlatIndex.load(args.as_it_comes / "float32", "cpu", args.threads).faiss_rows
    return cpu_s(lambda: flat.search(queries, K), args.repeats) / len(queries)


def compare(
    rows: dict[str, FlatIndex], queries: dict[str, Any], args: argparse.Namespace, scratch: Path
) -> dict[str, Any]:
    """Every system on the same rows and queries."""
    from index.search.library import faiss

    faiss.omp_set_num_threads(args.threads)
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    command = [sys.executable, *sys.argv, "--as-it-comes", str(scratch)]
    baseline_s = float(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout)
    flat = rows["float32"].faiss_rows
    told_s = cpu_s(lambda: flat.search(queries["known"], K), args.repeats) / args.queries
    exact = {name: flat.search(q, K)[1] for name, q in queries.items()}
    report: dict[str, Any] = {
        "rows": args.rows,
        "d": args.dimensions,
        "threads": args.threads,
        "faiss_flat_cpu_ms_per_query": round(1000 * baseline_s, 3),
        "faiss_flat_told_cpu_ms_per_query": round(1000 * told_s, 3),
        "recall_of_sqrt_n_lists_and_1_probe": trivial(rows["float16"], queries["known"], exact["known"]),
    }
    for storage, index in rows.items():
        seconds = cpu_s(lambda index=index: index.search(queries["known"], K), args.repeats) / args.queries  # type: ignore[misc]
        report[f"exact_{storage}"] = figures(index, queries, exact, seconds, (baseline_s, told_s))
    for kind in args.kinds:
        report[kind] = measure_kind(rows["float16"], kind, queries, exact, (baseline_s, told_s), args)
    return report


def measure_kind(
    rows: FlatIndex,
    kind: Any,
    queries: dict[str, Any],
    exact: dict[str, Any],
    baselines: tuple[float, float],
    args: argparse.Namespace,
) -> dict[str, Any]:
    """One kind: what building takes, and search at each recall."""
    plan = make_plan(kind, args.rows, args.dimensions, recall=0.99)
    begun = time.process_time()
    index = build_ivf(rows, plan)
    found: dict[str, Any] = {
        "name": plan.name,
        "build_cpu_s": round(time.process_time() - begun, 1),
        "bytes_a_row": round(plan.memory_bytes / args.rows, 1),
    }
    sample = take_sample(rows)
    for target in TARGETS:
        tuned, _ = tune(index, target, sample)
        seconds = cpu_s(lambda tuned=tuned: tuned.search(queries["known"], K), args.repeats) / args.queries  # type: ignore[misc]
        found[f"recall_{target}"] = {
            **asdict(tuned.settings),
            **figures(tuned, queries, exact, seconds, baselines),
            "single_query_p50_ms": p50_ms(tuned, queries["known"]),
        }
    return found


def figures(
    index: SearchIndex, queries: dict[str, Any], exact: dict[str, Any], seconds: float, baselines: tuple[float, float]
) -> dict[str, Any]:
    """Processor time of a query, how many times less than FAISS's exact search that is, and recalls.

    baselines: of FAISS's exact search as it comes, and with matrix products for the processor.
    """
    told: dict[str, Any] = {
        "cpu_ms_per_query": round(1000 * seconds, 4),
        "x_faiss_flat": round(baselines[0] / seconds, 1),
        "x_faiss_flat_told": round(baselines[1] / seconds, 1),
    }
    for name, vectors in queries.items():
        rows = index.search(vectors, K).rows
        told[f"recall10_{name}"] = round(recall_at(rows, exact[name]), 4)
        told[f"top1_{name}"] = round(float(np.mean(rows[:, 0] == exact[name][:, 0])), 4)
    return told


def trivial(rows: FlatIndex, queries: Any, exact: Any) -> float:
    """recall@10 of sqrt(n) lists of which one is read: below 0.8 where the data is not too easy."""
    plan = make_plan("ivf-flat", len(rows), rows.d, n_lists=max(2, round(len(rows) ** 0.5)), recall=0.9)
    index = build_ivf(rows, plan)
    return round(recall_at(index.with_settings(SearchSettings(1, 1)).propose(queries, K), exact), 4)


def p50_ms(index: SearchIndex, queries: Any) -> float:
    """Median wall time of one query, in milliseconds."""
    taken = []
    for query in queries[:N_SINGLE]:
        begun = time.perf_counter()
        index.search(query[None], K)
        taken.append(time.perf_counter() - begun)
    return round(1000 * float(np.median(taken)), 3)


def cpu_s(work: Callable[[], Any], repeats: int) -> float:
    """Median processor time of the whole process."""
    taken = []
    for _ in range(repeats):
        begun = time.process_time()
        work()
        taken.append(time.process_time() - begun)
    return float(np.median(taken))


if __name__ == "__main__":
    main()
