"""Memory of building an index folder from a store, of one query, and of submitting and evaluating many queries.

    python scripts/bench/memory.py --rows 200000 [--kind auto] [--storage float16] [--queries 50000,200000] [--work DIR]
    python scripts/bench/memory.py --rows 4132914 --memory 0.6 --recall 0.9 --background 1000 --queries 2000

Descriptors are made as vectors.py makes them and written in blocks, with ids and paths as long as those of Google
Landmarks, and a background of one image for a hundred rows, or of --background. Building and asking are processes of
their own. Of each the peak of its resident set is told, less that of a process that imported the same modules, and of
it what is its own: pages of mapped files are shared with others and given back when memory is short. 10^6 bytes a MB.
Of each number of --queries the answering of their store to a submission, and to the figures of evaluate, are processes
too; bytes_a_query is by how much the own memory grows from the first number to the last, for each query. Prints JSON,
and what each process found to stderr as it ends.
"""

import argparse
import contextlib
import importlib
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from vectors import BLOCK, make_world

FINGERPRINT = "ab" * 32
ROOM_MB = 1000  # beyond the index, that building may take
SAMPLED_S = 0.02  # between two looks at what a process has of its own
MB = 1e6


def main() -> None:
    """Makes the store, then measures the processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000, help="(default %(default)s)")
    parser.add_argument("--landmarks", type=int, default=30_000, help="(default %(default)s)")
    parser.add_argument("--dimensions", type=int, default=512, help="(default %(default)s)")
    parser.add_argument("--kind", default="auto", help="(default %(default)s)")
    parser.add_argument("--storage", choices=("float16", "float32"))
    parser.add_argument("--memory", type=float, help="GB of a search (default no limit)")
    parser.add_argument("--recall", type=float, default=0.99, help="(default %(default)s)")
    parser.add_argument("--lists", type=int, help="of an inverted file (default 4 sqrt(rows))")
    parser.add_argument("--whitening", type=float, default=0.5, help="power (default %(default)s)")
    parser.add_argument("--background", type=int, help="(default one for a hundred rows)")
    parser.add_argument("--queries", default="", help="numbers of queries, separated by commas")
    parser.add_argument("--many", nargs="+", choices=MANY, default=MANY, help="what is done with them (default both)")
    parser.add_argument("--work", type=Path, help="folder whose store is used, or made, and kept")
    parser.add_argument("--part", choices=tuple(PARTS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(watched(args)))
        return
    with contextlib.nullcontext(args.work) if args.work else tempfile.TemporaryDirectory() as scratch:
        args.work = Path(scratch)
        args.work.mkdir(parents=True, exist_ok=True)
        if not (args.work / "train.h5").exists():
            make_store(args)
        empty, built, asked = (run(part, args) for part in PARTS if part not in MANY)
        many = measure_many(args, empty)
        index = sum(path.stat().st_size for path in (args.work / "index").rglob("*")) / MB
        store = (args.work / "train.h5").stat().st_size / MB
    report = {
        "rows": args.rows,
        "d": args.dimensions,
        "store_mb": round(store),
        "index_mb": round(index),
        "search": built.pop("search"),
        "recall": built.pop("recall"),
        "search_mb": built.pop("search_mb"),
        "empty_process_mb": round(empty["peak_mb"]),
        "build": beyond(built, empty),
        "open_and_one_query": beyond(asked, empty),
    }
    report |= many
    report["build_is_within_index_and_room"] = report["build"]["peak_mb"] <= index + ROOM_MB
    print(json.dumps(report, indent=1))


def beyond(found: dict[str, Any], empty: dict[str, Any]) -> dict[str, Any]:
    """What a process took beyond the empty one."""
    return {name: round(value - (empty[name] if name.endswith("_mb") else 0), 2) for name, value in found.items()}


def measure_many(args: argparse.Namespace, empty: dict[str, Any]) -> dict[str, Any]:
    """What many queries took, of each number of them, and how it grows."""
    sizes = [int(text) for text in args.queries.split(",") if text]
    found: dict[str, Any] = {part: {} for part in args.many} if sizes else {}
    world = make_world(args.landmarks, args.dimensions)
    for n in sizes:
        own = (world.block(i, min(BLOCK, n - at), of_queries=True)[0] for i, at in enumerate(range(0, n, BLOCK)))
        write_store(args, "queries.h5", world.landmarks(n, of_queries=True), own, prefix="q")
        for part in found:
            found[part][n] = beyond(run(part, args), empty)
        (args.work / "queries.h5").unlink()
    for part in found if len(sizes) > 1 else ():
        few, many = found[part][sizes[0]], found[part][sizes[-1]]
        growth = (many["own_mb"] - few["own_mb"]) * MB / (sizes[-1] - sizes[0])
        found[part]["bytes_a_query"] = round(growth)
    return found


def make_store(args: argparse.Namespace) -> None:
    """A finished store, row by row, and the card of a model."""
    world = make_world(args.landmarks, args.dimensions)
    n_background = args.rows // 100 if args.background is None else args.background
    landmark = np.concatenate([world.landmarks(args.rows), np.full(n_background, -1, np.int32)])
    blocks = itertools.chain((vectors for vectors, _ in world.rows(args.rows)), [world.background(n_background)])
    write_store(args, "train.h5", landmark, blocks)
    np.save(args.work / "query.npy", world.block(0, 1)[0])
    model = args.work / "model"
    model.mkdir()
    (model / "model.json").write_text(json.dumps({"fingerprint": FINGERPRINT}))


def write_store(
    args: argparse.Namespace,
    name: str,
    landmark: np.ndarray,
    blocks: Iterator[np.ndarray],
    prefix: str = "",
    info: Any = None,
) -> None:
    """A finished store. landmark: (n,) of each row, -1 = none; blocks: their vectors. prefix: of the image_ids.

    info: a StoreInfo, None = of a model that is not there.
    """
    from retrieval.store.file import lay_out
    from retrieval.store.layout import Columns
    from retrieval.store.store import StoreInfo, partial_path, resume_store

    labels = tuple(f"landmark_{i:06}" for i in range(args.landmarks))
    info = info or StoreInfo(FINGERPRINT, {}, {}, "0", "made", "float16", args.dimensions)
    ids = [f"{prefix}{i:0{16 - len(prefix)}x}" for i in range(len(landmark))]
    paths = (f"images/{name[-3]}/{name[-2]}/{name[-1]}/{name}.jpg" for name in ids)
    store = args.work / name
    lay_out(partial_path(store), Columns(ids, landmark, labels, paths, None, {}), info)
    with resume_store(store) as writer:
        start = 0
        for vectors in blocks:
            writer.write(np.arange(start, start + len(vectors)), vectors.astype(np.float16))
            start += len(vectors)
        writer.finish()


def run(part: str, args: argparse.Namespace, script: str = __file__) -> dict[str, Any]:
    """What a part says of itself, in a process of its own."""
    words = ["--part", part, "--work", str(args.work), "--kind", args.kind]
    words += ["--recall", str(args.recall), "--whitening", str(args.whitening)]
    words += ["--storage", args.storage] if args.storage else []
    words += ["--memory", str(args.memory)] if args.memory else []
    words += ["--lists", str(args.lists)] if args.lists else []
    found = subprocess.run([sys.executable, script, *words], check=True, stdout=subprocess.PIPE)
    said: dict[str, Any] = json.loads(found.stdout)
    print(part, said, file=sys.stderr)
    return said


def watched(args: argparse.Namespace) -> dict[str, Any]:
    """Runs a part. peak_mb: of the resident set; own_mb: of what is not mapped from files, looked at in steps."""
    for name in ("faiss", "index.folder.build", "index.recognition"):
        importlib.import_module(name)
    own, is_done = [0], threading.Event()
    begun, cpu_begun = time.perf_counter(), time.process_time()

    def look() -> None:
        while not is_done.wait(SAMPLED_S):
            own.append(status("RssAnon"))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        told = PARTS[args.part](args)
    finally:
        is_done.set()
        watcher.join()
    taken = {"seconds": time.perf_counter() - begun, "cpu_s": time.process_time() - cpu_begun}
    return {"peak_mb": status("VmHWM") / 1000, "own_mb": max(*own, status("RssAnon")) / 1000, **taken, **told}


def status(name: str) -> float:
    """A figure of this process, 1000 bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1.024 for line in lines if line.startswith(name))


def build(args: argparse.Namespace) -> dict[str, Any]:
    from index.folder.build import build_folder
    from index.folder.config import BuildOptions
    from index.folder.inputs import BuildInputs
    from index.search.config import SearchOptions
    from retrieval.store.store import open_descriptors

    inputs = BuildInputs([open_descriptors(args.work / "train.h5")], args.work / "model")
    search = SearchOptions(kind=args.kind, recall=args.recall, memory_gb=args.memory, n_lists=args.lists)
    options = BuildOptions(storage=args.storage, whitening_power=args.whitening, search=search)
    info = build_folder(args.work / "index", inputs, options, overwrite=True, device="cpu").info
    if info.search is None:
        return {"search": "exact", "recall": info.recall, "search_mb": 0}
    found = asdict(info.search)
    return {"search": found, "recall": found["recall"], "search_mb": found["memory_bytes"] / MB}


def ask(args: argparse.Namespace) -> dict[str, Any]:
    from index.folder.folder import open_folder
    from index.recognition import answer

    query = np.load(args.work / "query.npy")
    begun = time.perf_counter()
    folder = open_folder(args.work / "index", device="cpu")
    opened = time.perf_counter()
    near = answer(folder, query).neighbours.rows[0]
    _ = [(folder.rows.image_id[row], folder.rows.path[row]) for row in near]
    asked = time.perf_counter()
    return {"open_s": opened - begun, "query_s": asked - opened}


def submit(args: argparse.Namespace) -> dict[str, Any]:
    from index.folder.folder import open_folder
    from index.kaggle.shares import answered_beside, predict_store
    from index.kaggle.submission import submission_lines
    from retrieval.files.made_of import write_with_record
    from retrieval.progress import SILENT
    from retrieval.store.store import open_descriptors

    folder, store = open_folder(args.work / "index", device="cpu"), open_descriptors(args.work / "queries.h5")
    output = args.work / "submission.csv"
    kept = answered_beside(output, {"set of descriptors": store.digest})
    write_with_record(output, submission_lines(predict_store(folder, store, -np.inf, kept, SILENT)), {})
    kept.remove()
    return {}


def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    import lmr

    found = lmr.evaluate(args.work / "queries.h5", index=args.work / "index", device="cpu", workers=1)
    return {"gap": found.evaluation.accuracy.gap}


MANY = ("submit", "evaluate")
PARTS = {"nothing": lambda args: {}, "build": build, "ask": ask, "submit": submit, "evaluate": evaluate}

if __name__ == "__main__":
    main()
