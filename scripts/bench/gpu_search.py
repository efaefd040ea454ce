"""Search on a GPU: queries a second of each way, and how much of what the card can do they reach.

    python scripts/bench/gpu_search.py [--rows 1000000] [--device cuda] [--kinds ivf-sq8]

Everything is measured in one run on the same rows and the same card: exact search of lmr, whose answers are compared
with those of its CPU, number by number; FAISS's flat index over float32 and float16, which only sums up; the plain loop
of torch over float16 rows, a product and a topk for each batch; and inverted files of lmr on the card and on the CPU.
What the card can do: the products alone, and reading the rows once for each batch, whichever takes longer. Wall time,
medians of --repeats. Prints JSON; without a GPU it says so and ends.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from vectors import Spectrum, make_world, recall_at

from index.search.choose import take_sample, tune
from index.search.faiss_io import RowsFile
from index.search.flat import FlatIndex
from index.search.gpu import flat_on, gpus_of
from index.search.ivf import IvfShards
from index.search.ivf_builder import build_ivf
from index.search.plan import make_plan
from retrieval.progress import PYTHON_WARNINGS, SILENT

K = 20  # neighbours that vote
BATCH = 1024  # queries that torch and FAISS are given at once; lmr takes as many
TARGET = 0.99
ON_CPU = 500  # queries that the CPU is asked for its answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="(default %(default)s)")
    parser.add_argument("--landmarks", type=int, default=30_000, help="(default %(default)s)")
    parser.add_argument("--dimensions", type=int, default=512, help="(default %(default)s)")
    parser.add_argument("--queries", type=int, default=20_000, help="(default %(default)s)")
    parser.add_argument("--device", default="cuda", help="cuda:N,N is for lmr alone (default %(default)s)")
    parser.add_argument("--kinds", nargs="*", default=["ivf-sq8"], help="(default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="(default %(default)s)")
    args = parser.parse_args()
    if not torch.cuda.is_available() or not gpus_of("auto", SILENT):
        sys.exit("gpu_search.py: there is no GPU that torch and FAISS see; nothing is measured")
    world = make_world(args.landmarks, args.dimensions, spectrum=Spectrum())
    queries = world.block(0, args.queries, of_queries=True)[0].astype(np.float32)
    with tempfile.TemporaryDirectory() as scratch:
        report = compare(stored(Path(scratch) / "rows", world, args), queries, args)
    print(json.dumps(report, indent=1))


def stored(path: Path, world: Any, args: argparse.Namespace) -> FlatIndex:
    """The rows as float16 in a file, opened as an index folder opens them."""
    with path.open("wb") as file:
        writer = RowsFile(file, args.dimensions, "float16")
        for vectors, _ in world.rows(args.rows):
            writer.write(vectors)
        writer.finish()
    return FlatIndex.load(path, args.device, progress=PYTHON_WARNINGS)


def compare(rows: FlatIndex, queries: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Every way on the same rows and queries."""
    number = rows.gpus[0]
    begun = time.perf_counter()
    rows.search(queries[:ON_CPU], K)
    report: dict[str, Any] = {
        "card": torch.cuda.get_device_name(number),
        "device": args.device,
        "rows": args.rows,
        "d": args.dimensions,
        "queries": len(queries),
        "k": K,
        "first_batch_s": round(time.perf_counter() - begun, 2),  # which puts the rows there
    }
    on_cpu, on_gpu = rows.on_cpu().search(queries[:ON_CPU], K), rows.search(queries[:ON_CPU], K)
    report["same_rows_as_the_cpu"] = bool((on_cpu.rows == on_gpu.rows).all())
    report["same_scores_as_the_cpu"] = bool((on_cpu.scores == on_gpu.scores).all())
    rates = {"lmr": rate(lambda: rows.search(queries, K), len(queries), args.repeats)}
    rates |= of_faiss(rows, queries, number, args.repeats)
    rates |= of_torch(rows, queries, number, args.repeats)
    bound = min(rates.pop("products_alone"), rates.pop("rows_read_alone"))
    report["queries_per_s"] = {name: round(found) for name, found in rates.items()} | {"bound": round(bound)}
    report["x_torch"] = round(rates["lmr"] / rates["torch_float16"], 2)
    report["x_faiss_float32"] = round(rates["lmr"] / rates["faiss_float32"], 2)
    report["share_of_bound"] = {name: round(found / bound, 3) for name, found in rates.items()}
    exact = rows.search(queries[:ON_CPU], 10).rows
    for kind in args.kinds:
        report[kind] = of_kind(rows, kind, queries, exact, args)
    return report


def of_faiss(rows: FlatIndex, queries: Any, number: int, repeats: int) -> dict[str, float]:
    """FAISS's flat index on the card, which gives what it sums up."""
    found = {}
    for name, is_float16 in (("faiss_float32", False), ("faiss_float16", True)):
        index = flat_on(number, rows.d, is_float16=is_float16)
        for block in rows.blocks():
            index.add(block)

        def search(index: Any = index) -> None:
            for start in range(0, len(queries), BATCH):
                index.search(queries[start : start + BATCH], K)

        found[name] = rate(search, len(queries), repeats)
        del index
    return found


def of_torch(rows: FlatIndex, queries: Any, number: int, repeats: int) -> dict[str, float]:
    """The plain loop of torch, its products alone, and reading the rows alone."""
    device = torch.device("cuda", number)
    there = torch.from_numpy(rows.stored.copy()).to(device)
    copy = torch.empty_like(there)
    given = [torch.from_numpy(queries[start : start + BATCH]) for start in range(0, len(queries), BATCH)]

    def products() -> None:
        for batch in given:
            batch.to(device, torch.float16) @ there.T
        torch.cuda.synchronize(device)

    def search() -> None:
        for batch in given:
            (batch.to(device, torch.float16) @ there.T).topk(K, dim=1).indices.cpu()

    def read() -> None:  # a copy reads and writes
        for _ in given:
            copy.copy_(there)
        torch.cuda.synchronize(device)

    return {
        "torch_float16": rate(search, len(queries), repeats),
        "products_alone": rate(products, len(queries), repeats),
        "rows_read_alone": 2 * rate(read, len(queries), repeats),
    }


def of_kind(rows: FlatIndex, kind: Any, queries: Any, exact: Any, args: argparse.Namespace) -> dict[str, Any]:
    """An inverted file at the settings that reach the recall, on the card and on the CPU."""
    begun = time.perf_counter()
    built = build_ivf(rows, make_plan(kind, args.rows, args.dimensions, recall=TARGET))
    build_s = time.perf_counter() - begun
    tuned, _ = tune(built, TARGET, take_sample(rows))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "search.faiss"
        tuned.save([path])
        on_gpu = IvfShards.load([path], rows, [len(rows)], tuned.settings)
        on_gpu.search(queries[:2000], K)  # which puts the codes there
        found, of_cpu = on_gpu.search(queries[:ON_CPU], 10), tuned.search(queries[:ON_CPU], 10)
        gpu_rate = rate(lambda: on_gpu.search(queries, K), len(queries), args.repeats)
    cpu_rate = rate(lambda: tuned.search(queries, K), len(queries), 1)
    return {
        "build_s": round(build_s, 1),
        "n_probe": tuned.settings.n_probe,
        "n_candidates": tuned.settings.n_candidates,
        "recall10": round(recall_at(found.rows, exact), 4),
        "same_rows_as_the_cpu": round(float(np.mean(found.rows == of_cpu.rows)), 5),
        "queries_per_s": round(gpu_rate),
        "queries_per_s_cpu": round(cpu_rate),
        "x_cpu": round(gpu_rate / cpu_rate, 1),
    }


def rate(work: Callable[[], object], n: int, repeats: int) -> float:
    """Queries a second, the median; once before to warm up."""
    work()
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return n / float(np.median(seconds))


if __name__ == "__main__":
    main()
