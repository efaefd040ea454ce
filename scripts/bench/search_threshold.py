"""Time of a flat search by batch size with FAISS's own BLAS threshold and with ours: prints JSON.

    python scripts/bench/search_threshold.py [--threads N]

Best of some repeats at d = 512 on random unit vectors; ratio = seconds with FAISS's default / with ours. Both go
through the same index and return the same rows. Run it on an idle machine: FAISS's threads wait for each other.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from index.search import faiss_io

D = 512
K = 30
N_ROWS = (10_000, 200_000)
BATCHES = (1, 2, 4, 7, 8, 16, 20, 32, 64, 128, 256)
N_REPEATS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=None)
    threads = parser.parse_args().threads
    default = faiss.cvar.distance_compute_blas_threshold
    ours = faiss_io.BLAS_FROM_QUERIES * (D if faiss_io.counts_products() else 1)
    if threads is not None:
        faiss.omp_set_num_threads(threads)
    rng = np.random.default_rng(0)
    lines = []
    for n in N_ROWS:
        flat = faiss.IndexFlatIP(D)
        flat.add(unit(rng, n))
        for batch in BATCHES:
            queries = unit(rng, batch)
            seconds = best_seconds(flat, queries, (default, ours))
            lines.append(
                {
                    "n_rows": n,
                    "n_queries": batch,
                    "default_ms": round(1000 * seconds[0], 2),
                    "ours_ms": round(1000 * seconds[1], 2),
                    "ratio": round(seconds[0] / seconds[1], 2),
                }
            )
    print(
        json.dumps(
            {
                "faiss": faiss.__version__,
                "d": D,
                "k": K,
                "threads": threads or faiss.omp_get_max_threads(),
                "default_threshold": default,
                "our_threshold": ours,
                "batches": lines,
            },
            indent=1,
        )
    )


def unit(rng: np.random.Generator, n: int) -> Any:
    vectors = rng.standard_normal((n, D), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def best_seconds(flat: Any, queries: Any, thresholds: tuple[int, ...]) -> list[float]:
    """Best time of each threshold; they take turns, so that a busy moment hits all of them."""
    seconds = [float("inf")] * len(thresholds)
    for _ in range(N_REPEATS):
        for i, threshold in enumerate(thresholds):
            faiss.cvar.distance_compute_blas_threshold = threshold
            start = time.perf_counter()
            flat.search(queries, K)
            seconds[i] = min(seconds[i], time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main()
