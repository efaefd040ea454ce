"""Search of made descriptors by lmr, FAISS, ScaNN, hnswlib, usearch and autofaiss, at equal recall, in one run.

    python scripts/bench/search_others.py --environments DIR [--rows 200000] [--systems scann hnswlib] [--limit 600]

The others are installed in environments of their own in DIR, which are made where they are missing: pinned versions,
and autofaiss with the numpy, FAISS and pyarrow that it asks for. Every system is a process with one thread, gets the
same float16 rows and queries, and is described in search_systems.py. Ratios are of processor time: `x_faiss_flat` over
FAISS's exact search, `x_lmr` over lmr at the same recall. FAISS's wheel brings an old OpenBLAS, which does not know
newer processors: systems that use it are run with OPENBLAS_CORETYPE=Haswell, its exact search also as it is. A
system that takes more than --limit seconds of the processor is stopped, and said to be. Prints JSON.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from search_systems import SYSTEMS, TARGETS, K
from vectors import World, make_world

from index.search.faiss_io import RowsFile
from index.search.flat import FlatIndex

HELPED = {"OPENBLAS_CORETYPE": "Haswell"}
NEW = ("scann==1.4.2", "hnswlib==0.8.0", "usearch==2.26.6", "faiss-cpu==1.15.1", "numpy==2.4.6")
OLD = (
    "faiss-cpu==1.7.4",
    "numpy==1.26.4",
    "pyarrow==17.0.0",
    "pandas==2.2.3",
    "embedding-reader==1.8.1",
    "fire==0.7.1",
)
OLD_ALONE = "autofaiss==2.18.0"  # without what it asks for: its bound on fire shuts out every version to be had


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--environments", type=Path, required=True, help="folder of the others' environments")
    parser.add_argument("--rows", type=int, default=200_000, help="(default %(default)s)")
    parser.add_argument("--landmarks", type=int, default=12_000, help="(default %(default)s)")
    parser.add_argument("--dimensions", type=int, default=512, help="(default %(default)s)")
    parser.add_argument("--queries", type=int, default=1000, help="known, as many background, half for tuning")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), metavar="SYSTEM")
    parser.add_argument("--limit", type=int, default=600, help="processor seconds (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="(default %(default)s)")
    args = parser.parse_args()
    world = make_world(args.landmarks, args.dimensions)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_data(folder, world, args)
        as_it_is = run("faiss-flat", folder, args, {})
        found = {
            name: run(name, folder, args, environment_of(name)) for name in dict.fromkeys(["faiss-flat", *args.systems])
        }
    add_ratios(found)
    report = {
        "rows": args.rows,
        "d": args.dimensions,
        "faiss_flat_without_a_hint_cpu_ms": exact_ms(as_it_is),
        "systems": found,
    }
    print(json.dumps(report, indent=1))


def make_data(folder: Path, world: World, args: argparse.Namespace) -> None:
    """The rows as an index folder has them, the queries and their exact neighbours among the stored rows."""
    with (folder / "rows.faiss").open("wb") as file:
        writer = RowsFile(file, args.dimensions, "float16")
        for vectors, _ in world.rows(args.rows):
            writer.write(vectors)
        writer.finish()
    (folder / "shape.json").write_text(json.dumps([args.rows, args.dimensions]))
    queries = {
        "tuning": world.block(1, args.queries // 2, of_queries=True)[0],
        "known": world.block(0, args.queries, of_queries=True)[0],
        "background": world.background(args.queries),
    }
    rows = FlatIndex.load(folder / "rows.faiss", "cpu", 1)
    for name, vectors in queries.items():
        vectors = vectors.astype(np.float32)
        np.save(folder / f"{name}.npy", vectors)
        np.save(folder / f"exact_{name}.npy", rows.search(vectors, K).rows)


def environment_of(name: str) -> dict[str, str]:
    return HELPED if name.startswith(("faiss", "autofaiss")) else {}


def run(name: str, folder: Path, args: argparse.Namespace, extra: dict[str, str]) -> dict[str, Any]:
    """What a system says of itself; `stopped` where it took too long, `failed` with its last line."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENBLAS")}
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} | extra
    script = Path(__file__).with_name("search_systems.py")
    words = [str(interpreter(name, args.environments)), str(script), name, str(folder), "--repeats", str(args.repeats)]
    print(name, file=sys.stderr)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (args.limit, args.limit + 1))

    found = subprocess.run(words, capture_output=True, preexec_fn=limit, env=environment)
    if found.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return {"stopped": f"not done after {args.limit} s of the processor"}
    if found.returncode:
        return {"failed": found.stderr.decode().splitlines()[-1]}
    said: dict[str, Any] = json.loads(found.stdout)
    return said


def interpreter(name: str, environments: Path) -> Path:
    """Python that has what a system needs."""
    if name.startswith("lmr"):
        return Path(sys.executable)
    wanted, alone = (OLD, OLD_ALONE) if name == "autofaiss" else (NEW, None)
    folder = environments / ("old" if alone else "new")
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, *wanted], check=True)
        if alone:
            subprocess.run([*pip, "--no-deps", alone], check=True)
    return python


def exact_ms(found: dict[str, Any]) -> float | None:
    """Processor time of a query of exact search."""
    ms: float | None = found.get(f"recall_{TARGETS[0]}", {}).get("cpu_ms_per_query")
    return ms


def add_ratios(found: dict[str, dict[str, Any]]) -> None:
    """How many times less processor time than FAISS's exact search a query takes, and how many times that of lmr."""
    exact = exact_ms(found["faiss-flat"])
    for told in found.values():
        for target in [f"recall_{target}" for target in TARGETS if f"recall_{target}" in told]:
            ms = told[target]["cpu_ms_per_query"]
            own = found.get("lmr-ivf-pq", {}).get(target, {}).get("cpu_ms_per_query")
            if exact:
                told[target]["x_faiss_flat"] = round(exact / ms, 1)
            if own:
                told[target]["x_lmr"] = round(ms / own, 2)


if __name__ == "__main__":
    main()
