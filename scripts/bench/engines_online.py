"""Search in this process beside search on a Milvus server: time of a query, and whether the answers are equal.

Random unit rows are searched by the exact index of a folder and, over gRPC, by the same rows in a collection, which is
made and removed. Without `server` one of Milvus Lite is started from .venv-milvus (python3 scripts/run.py milvus makes
that); it is a Python program for trying things out, so its times say nothing of a Milvus. Prints JSON.

    python scripts/bench/engines_online.py [--rows 20000] [--d 512] [--k 20] [--kinds flat,hnsw] [--server HOST:PORT]
"""

import argparse
import json
import platform
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from index.search.address import Address
from index.search.base import SearchIndex
from index.search.choose import find_sample, take_sample
from index.search.config import MilvusKind
from index.search.engine import VECTOR, Batch, Engine, ServedIndex, Table, open_engine
from index.search.flat import FlatIndex
from index.search.milvus import KINDS
from index.update.export import EFFORTS, RECALL

LITE = Path(__file__).resolve().parents[2] / ".venv-milvus" / "bin" / "milvus-lite"
BATCHES = (1, 32)
TIMES = 20  # searches of each batch, of which the median is told
SENT = 2_000  # rows at once


@contextmanager
def lite() -> Iterator[str]:
    """The address of a server of Milvus Lite."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        words = ["server", "--data-dir", folder, "--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen([str(LITE), *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while True:
                with socket.socket() as asked:
                    if asked.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def milliseconds(index: SearchIndex, queries: np.ndarray, k: int) -> dict[str, float]:
    """Median time of a search by its number of queries."""
    found = {}
    for n in BATCHES:
        index.search(queries[:n], k)
        taken = []
        for i in range(TIMES):
            part = np.roll(queries, -i * n, axis=0)[:n]
            began = time.perf_counter()
            index.search(part, k)
            taken.append(1000 * (time.perf_counter() - began))
        found[f"{n}"] = round(statistics.median(taken), 2)
    return found


def exported(engine: Engine, flat: FlatIndex, kind: MilvusKind) -> tuple[ServedIndex, float, float]:
    """The rows on the server, their recall@10, and the seconds that it took to put them there."""
    name, began = f"bench_{kind.replace('-', '_')}", time.perf_counter()
    engine.drop(name)
    engine.create(name, flat.d, (VECTOR,))
    for first in range(0, len(flat), SENT):
        part = flat.vectors(np.arange(first, min(first + SENT, len(flat))))
        engine.write(name, Batch(first, {VECTOR: part}, ["image"] * len(part), ["landmark"] * len(part)))
    engine.build(name, (VECTOR,), kind, len(flat))
    seconds = time.perf_counter() - began
    sample = take_sample(flat, 200)
    for effort in (0,) if kind == "flat" else EFFORTS:
        table = Table(name, len(flat), flat.d, "float32", kind == "flat", KINDS[kind].coded, effort)
        index = ServedIndex(engine, table)
        recall, _ = find_sample(index, sample)
        if recall >= RECALL:
            break
    return index, recall, seconds


def compared(server: str, options: argparse.Namespace) -> dict[str, Any]:
    """Times and answers of both, for each kind."""
    rng = np.random.default_rng(0)
    rows, queries = (rng.standard_normal((n, options.d), dtype=np.float32) for n in (options.rows, 256))
    for one in (rows, queries):
        one /= np.linalg.norm(one, axis=1, keepdims=True)
    flat = FlatIndex.build(rows, device="cpu")
    host, _, port = server.rpartition(":")
    engine = open_engine(Address("milvus", host, int(port), "bench"))
    own, expected = milliseconds(flat, queries, options.k), flat.search(queries[:64], options.k)
    kinds = {}
    for kind in options.kinds.split(","):
        index, recall, seconds = exported(engine, flat, kind)
        taken, found = milliseconds(index, queries, options.k), index.search(queries[:64], options.k)
        same = found.rows == expected.rows
        kinds[kind] = {
            "ms": taken,
            "ratio": {n: round(ms / own[n], 1) for n, ms in taken.items()},
            "recall_at_10": round(recall, 4),
            "same_rows": round(float(same.mean()), 4),
            "largest_difference_of_scores": float(np.abs(found.scores - expected.scores)[same].max()),
            "seconds_to_export": round(seconds, 1),
        }
        engine.drop(index.table.name)
    return {
        "rows": options.rows,
        "d": options.d,
        "k": options.k,
        "server": engine.told(),
        "processor": platform.processor() or platform.machine(),
        "in_process_ms": own,
        "kinds": kinds,
    }


def main() -> None:
    """Prints what was measured as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--d", type=int, default=512)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--kinds", default="flat,hnsw")
    parser.add_argument("--server")
    options = parser.parse_args()
    if options.server:
        print(json.dumps(compared(options.server, options), indent=1))
        return
    with lite() as server:
        print(json.dumps(compared(server, options), indent=1))


if __name__ == "__main__":
    main()
