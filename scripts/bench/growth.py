"""How cost grows with the number of rows: embedding, building, searching, answering; with fitted exponents.

    python scripts/bench/growth.py --sizes 10000,100000,1000000 --images 1000,10000 [--output growth.json]

An inverted file is built over made descriptors (vectors.py) of each size, as a folder from a store, and tuned to the
same recall. Building, one query and a submission of the same number of queries are processes of their own, whose
processor time and own memory are told as memory.py tells them; search is timed in batches by one thread, beside exact
search of the same rows. Small images are embedded by a small network, in numbers of --images. The exponent b of
y = a n^b is fitted by least squares to the logarithms. Prints JSON, which --output keeps for scripts/images.py to draw.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import memory
from vectors import make_world, recall_at

K = 10
LANDMARKS_A_ROW = 0.05  # as in Google Landmarks 2
SIDES = (64, 48)  # pixels of an image
REPEATS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="10000,100000,1000000", help="numbers of rows (default %(default)s)")
    parser.add_argument("--images", default="1000,10000", help="numbers of images to embed (default %(default)s)")
    parser.add_argument("--dimensions", type=int, default=512, help="(default %(default)s)")
    parser.add_argument("--kind", default="ivf-pq", help="(default %(default)s)")
    parser.add_argument("--recall", type=float, default=0.95, help="(default %(default)s)")
    parser.add_argument("--queries", type=int, default=1000, help="(default %(default)s)")
    parser.add_argument("--output", type=Path, help="file that keeps the JSON")
    parser.add_argument("--work", type=Path, help="folder for what is made; a temporary one in it by default")
    parser.add_argument("--part", choices=tuple(memory.PARTS), help=argparse.SUPPRESS)
    args, _ = parser.parse_known_args()
    if args.part:
        print(json.dumps(memory.watched(args)))
        return
    args.storage, args.memory, args.lists, args.whitening, args.background = None, None, None, 0.0, 100
    room = args.work
    rows, images = {}, {}
    for sizes, found, measure in ((args.sizes, rows, measure_rows), (args.images, images, measure_images)):
        for n in [int(text) for text in sizes.split(",") if text]:
            with tempfile.TemporaryDirectory(dir=room) as scratch:
                args.rows, args.work, args.landmarks = n, Path(scratch), max(100, round(n * LANDMARKS_A_ROW))
                found[n] = measure(args)
            print(n, found[n], file=sys.stderr)
    report = {"kind": args.kind, "recall": args.recall, "queries": args.queries, "rows": rows, "images": images}
    report["exponents"] = exponents(rows) | exponents(images)
    text = json.dumps(report, indent=1)
    if args.output:
        args.output.write_text(text + "\n", encoding="utf-8")
    print(text)


def measure_rows(args: argparse.Namespace) -> dict[str, float]:
    """Processor time and memory of an index of --rows, from its store to a submission."""
    memory.make_store(args)
    empty = memory.run("nothing", args)
    made = memory.run("build", args)
    built = memory.beyond({name: made[name] for name in ("cpu_s", "own_mb")}, empty)
    asked = memory.beyond(memory.run("ask", args), empty)
    world = make_world(args.landmarks, args.dimensions)
    queries = world.block(0, args.queries, of_queries=True)[0]
    memory.write_store(args, "queries.h5", world.landmarks(args.queries, of_queries=True), iter([queries]), prefix="q")
    submitted = memory.beyond(memory.run("submit", args), empty)
    return {
        "build_cpu_s": built["cpu_s"],
        "build_own_mb": built["own_mb"],
        "search_mb": round(made["search_mb"], 1),
        "open_and_one_query_own_mb": asked["own_mb"],
        "submit_cpu_s": submitted["cpu_s"],
        "submit_own_mb": submitted["own_mb"],
        **searched(args.work / "index", queries.astype(np.float32)),
    }


def searched(index: Path, queries: np.ndarray) -> dict[str, float]:
    """Recall and processor time of a query, and of exact search, by one thread."""
    from index.folder.folder import open_folder

    folder = open_folder(index, device="cpu", threads=1)
    exact = folder.index.search(queries, K).rows
    return {
        "recall10": round(recall_at(folder.searched.search(queries, K).rows, exact), 4),
        "search_cpu_ms": cpu_ms(lambda: folder.searched.search(queries, K), len(queries)),
        "exact_cpu_ms": cpu_ms(lambda: folder.index.search(queries, K), len(queries)),
    }


def cpu_ms(work: Callable[[], object], n: int) -> float:
    """Median processor time for each of n, in milliseconds."""
    taken = []
    for _ in range(REPEATS):
        begun = time.process_time()
        work()
        taken.append(time.process_time() - begun)
    return round(1000 * float(np.median(taken)) / n, 4)


def measure_images(args: argparse.Namespace) -> dict[str, float]:
    """Processor time and memory of embedding so many images."""
    rng = np.random.default_rng(0)
    for i in range(args.rows):
        path = args.work / "images" / f"landmark_{i % args.landmarks:06}" / f"{i:08}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(256, size=(6, 8, 3), dtype=np.uint8))
        small.resize(SIDES).save(path)
    empty = memory.run("nothing", args)
    found = memory.beyond(memory.run("embed", args, __file__), empty)
    shutil.rmtree(args.work / "images")
    return {"embed_cpu_s": found["cpu_s"], "embed_own_mb": found["own_mb"]}


def embed(args: argparse.Namespace) -> dict[str, Any]:
    import lmr

    words: dict[str, Any] = {"backbone": "plain-cnn", "size": 32, "workers": 0, "threads": 1, "device": "cpu"}
    lmr.embed(args.work / "images", output=args.work / "images.h5", model=args.work / "small", **words)
    return {}


def exponents(measured: dict[int, dict[str, float]]) -> dict[str, float]:
    """b of a n^b for each figure that is always above 0."""
    if len(measured) < 2:
        return {}
    names = [name for name in next(iter(measured.values())) if name != "recall10"]
    figures = {name: [found[name] for found in measured.values()] for name in names}
    n = np.log(list(measured))
    return {name: round(float(np.polyfit(n, np.log(y), 1)[0]), 3) for name, y in figures.items() if min(y) > 0}


memory.PARTS["embed"] = embed

if __name__ == "__main__":
    main()
