"""Changes to an index of made descriptors: their time and recall beside those of building it again.

    python scripts/bench/grow.py [--rows 1200000] [--added 10000] [--times 100] [--each 1000] [--removed 100000]

An index of --rows is built, added to, added to --times times more with --each rows, and loses --removed rows; what the
first addition makes is built again too. Each change opens the folder, plans, writes and puts in place as `lmr index`
does. Ratios are of processor and of wall time over the same of that build. recall@10 is the share of the exact 10
nearest rows that are found by queries that are not in the index. Prints JSON.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from vectors import World, make_world, recall_at

from index.folder.build import build_folder
from index.folder.config import BuildOptions
from index.folder.folder import IndexFolder, open_folder
from index.folder.inputs import BuildInputs
from index.search.config import SearchOptions
from index.update.addition import plan_addition
from index.update.change import Change, plan_removal
from index.update.images import Images
from index.update.write import write_changed
from retrieval.arrays import object_array
from retrieval.files.folders import replacing_folder
from retrieval.store.store import DONE, Descriptors, StoreInfo

K = 10
MODEL = "ab" * 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_200_000, help="(default %(default)s)")
    parser.add_argument("--landmarks", type=int, default=30_000, help="(default %(default)s)")
    parser.add_argument("--dimensions", type=int, default=512, help="(default %(default)s)")
    parser.add_argument("--kind", default="ivf-pq", help="(default %(default)s)")
    parser.add_argument("--added", type=int, default=10_000, help="rows of the first addition (default %(default)s)")
    parser.add_argument("--times", type=int, default=100, help="further additions (default %(default)s)")
    parser.add_argument("--each", type=int, default=1000, help="rows of each of them (default %(default)s)")
    parser.add_argument("--removed", type=int, default=100_000, help="(default %(default)s)")
    parser.add_argument("--queries", type=int, default=500, help="(default %(default)s)")
    args = parser.parse_args()
    world = make_world(args.landmarks, args.dimensions)
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        Path("model").mkdir()
        Path("model/model.json").write_text(json.dumps({"fingerprint": MODEL}), encoding="utf-8")
        print(json.dumps({"settings": vars(args), **measure(world, args)}, indent=1))


def measure(world: World, args: argparse.Namespace) -> dict[str, Any]:
    queries = world.block(0, args.queries, of_queries=True)[0].astype(np.float32)
    n_all = args.rows + args.added + args.times * args.each
    vectors, landmark = (np.concatenate(parts) for parts in zip(*blocks(world, n_all), strict=True))

    def store(start: int, n: int) -> Descriptors:
        return made_store(vectors[start : start + n], landmark[start : start + n], start)

    options = BuildOptions(whitening_power=None, search=SearchOptions(args.kind))
    first, added = store(0, args.rows), store(args.rows, args.added)
    build_folder("grown", BuildInputs([first], Path("model")), options, device="cpu")
    report = {"before": recall("grown", queries)}
    inputs = BuildInputs([first, added], Path("model"))
    build = timed(lambda: build_folder("built", inputs, options, device="cpu"))
    report["rebuild"] = build | recall("built", queries)

    def over_build(seconds: dict[str, float]) -> dict[str, float]:
        return seconds | {f"{name}_ratio": round(value / build[name], 4) for name, value in seconds.items()}

    report["add"] = over_build(timed(lambda: change(lambda f: addition(f, added)))) | recall("grown", queries)
    each, start = [], args.rows + args.added
    for i in range(args.times):
        more = store(start + i * args.each, args.each)
        each.append(timed(lambda more=more: change(lambda f: addition(f, more))))
    if each:
        median = {name: round(float(np.median([one[name] for one in each])), 3) for name in each[0]}
        report["add_each"] = over_build(median) | recall("grown", queries)
    gone = np.random.default_rng(0).permutation(n_all)[: args.removed]
    ids = [f"i{row}" for row in gone.tolist()]
    report["remove"] = over_build(timed(lambda: change(lambda f: plan_removal(f, ids, "made")))) | recall(
        "grown", queries
    )
    return report


def blocks(world: World, n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(vectors.astype(np.float16), landmark) for vectors, landmark in world.rows(n)]


def made_store(vectors: np.ndarray, landmark: np.ndarray, start: int) -> Descriptors:
    """A store in memory; image_ids are `i` and the number of the row."""
    names, codes = np.unique(landmark, return_inverse=True)
    n, d = vectors.shape
    return Descriptors(
        vectors=vectors,
        image_id=object_array([f"i{row}" for row in range(start, start + n)]),
        landmark=codes.astype(np.int32),
        landmarks=tuple(f"l{name}" for name in names.tolist()),
        state=np.full(n, DONE, dtype=np.uint8),
        path=object_array([""] * n),
        kind=None,
        info=StoreInfo(MODEL, {}, {}, "0.1", "made", "float16", d),
        source=f"from-{start}.h5",
    )


def addition(folder: IndexFolder, store: Descriptors) -> Change:
    from index.recognition import to_index_space

    images = Images(
        store.source,
        store.image_id,
        store.path,
        store.landmark,
        store.landmarks,
        lambda rows: to_index_space(folder, store.vectors[rows]),
    )
    return plan_addition(folder, "add", [images], {}, to_background=False)


def change(plan: Callable[[IndexFolder], Change]) -> None:
    """Opens the index that grows, plans and makes a change to it."""
    folder = open_folder("grown", device="cpu")
    planned = plan(folder)
    with replacing_folder(Path("grown")) as target:
        write_changed(folder, planned, target)


def timed(work: Callable[[], object]) -> dict[str, float]:
    """Seconds of the processor and of the clock."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return {"cpu_s": round(time.process_time() - cpu, 3), "wall_s": round(time.perf_counter() - wall, 3)}


def recall(path: str, queries: np.ndarray) -> dict[str, Any]:
    """recall@10 of an index as it is, and what it measured of itself."""
    folder = open_folder(path, device="cpu")
    exact = folder.index.search(queries, K).rows
    search = folder.info.search
    own = None if search is None else round(search.recall, 4)
    found = recall_at(folder.search(queries, K)[0].rows, exact)
    return {"rows": len(folder.rows), "recall": round(found, 4), "own_recall": own}


if __name__ == "__main__":
    main()
