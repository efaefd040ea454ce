"""What the parts of a job on a cluster take, measured one by one: the service times that plan.py simulates with.

    python scripts/bench/service_times.py --images FOLDER --output scripts/bench/service_times.json [--parts embed,join]

    start    a process of Python from nothing to the first image described: imports, the network, a batch
    embed    batches of --batch images of FOLDER from files to descriptors by a ResNet-50 with random weights at 224 px
    join     two shares of --rows rows joined into one store: bytes a second, and memory a row
    search   blocks of --block queries on an inverted file of --rows rows, whole and in 2, 4 and 8 shards with the same
             lists; exact search of them; and how quickly the list of a row is found
    spark    a session of two executors on this machine: until it is there, what a task that does nothing takes on its
             executor in Python, and what tasks without Python take one after another, which is the driver's at most

All in seconds of the processor and by one thread, which other work on the machine changes least; `start` and `spark` by
the clock too. Each part is measured when it is asked for, and takes the place of that part in --output. Prints JSON.
"""

import argparse
import json
import operator
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

D = 512
N_LANDMARKS = 1_000
N_BLOCKS = 8  # of queries, timed one by one
K = 20
SHARDS = (1, 2, 4, 8)
LISTS_READ, CANDIDATES = 64, 10  # the settings that search.py chose for a recall of 0.95, rounded up
N_STARTS = 3
N_TASKS = 200
SIZE = 224
FIRST = """
import time, numpy as np, torch
from retrieval.embed.torch_embedder import TorchEmbedder
from retrieval.images.spec import ImageSpec
from retrieval.models.config import ModelConfig
from retrieval.models.network import build_model
torch.set_num_threads(1)
model = build_model(ModelConfig(backbone="resnet50", pooling="avg", n_dimensions=0), image_size={size}).eval()
embedder = TorchEmbedder(model, ImageSpec(size={size}), torch.device("cpu"), n_workers=1)
embedder.embed_batch(np.zeros(({batch}, {size}, {size}, 3), np.uint8))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of images to describe, for the part embed")
    parser.add_argument("--n-images", type=int, default=512, help="of them (default %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="images of one batch (default %(default)s)")
    parser.add_argument("--rows", type=int, default=100_000, help="of an index and of a store (default %(default)s)")
    parser.add_argument("--block", type=int, default=1_024, help="queries (default %(default)s)")
    parser.add_argument("--parts", default=",".join(PARTS), help="(default %(default)s)")
    parser.add_argument("--output", type=Path, help="file that keeps the JSON, of other parts too")
    args = parser.parse_args()
    kept = json.loads(args.output.read_text(encoding="utf-8")) if args.output and args.output.exists() else {}
    for name in args.parts.split(","):
        kept[name] = {
            **PARTS[name](args),
            "date": date.today().isoformat(),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}",
            "load": round(os.getloadavg()[0], 1),
        }
        print(name, kept[name], file=sys.stderr)
        if args.output:
            args.output.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(kept, indent=1))


def timed(work: Callable[[], object]) -> float:
    """Seconds of the processor."""
    begun = time.process_time()
    work()
    return round(time.process_time() - begun, 5)


def start(args: argparse.Namespace) -> dict[str, Any]:
    code = FIRST.format(size=SIZE, batch=args.batch)
    found: dict[str, list[float]] = {"cpu_s": [], "wall_s": []}
    for _ in range(N_STARTS):
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found["cpu_s"].append(round(used, 2))
        found["wall_s"].append(round(time.perf_counter() - begun, 2))
    return found


def embed(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from retrieval.embed.torch_embedder import TorchEmbedder
    from retrieval.images.given import list_images
    from retrieval.images.spec import ImageSpec
    from retrieval.models.config import ModelConfig
    from retrieval.models.network import build_model

    if args.images is None:
        sys.exit("the part embed needs --images")
    torch.set_num_threads(1)
    paths = [Path(image.where) for image in list_images([str(args.images)])][: args.n_images]
    source = SimpleNamespace(read=lambda i: paths[i].read_bytes())
    model = build_model(ModelConfig(backbone="resnet50", pooling="avg", n_dimensions=0), image_size=SIZE).eval()
    embedder = TorchEmbedder(model, ImageSpec(size=SIZE), torch.device("cpu"), n_workers=1)
    embedder.settle_batches(len(paths), asked=args.batch)

    def describe(begin: int) -> None:
        list(embedder.embed(source, range(begin, begin + args.batch)))

    describe(0)
    begins = range(0, len(paths) - args.batch + 1, args.batch)
    return {
        "network": "resnet50",
        "size": SIZE,
        "batch": args.batch,
        "dtype": str(embedder.dtype).removeprefix("torch."),
        "image_bytes": round(float(np.mean([path.stat().st_size for path in paths]))),
        "batch_s": [timed(lambda begin=begin: describe(begin)) for begin in begins],  # type: ignore[misc]
    }


def join(args: argparse.Namespace) -> dict[str, Any]:
    from retrieval.progress import SILENT
    from retrieval.shard import Shard
    from retrieval.store.file import lay_out
    from retrieval.store.join import join_stores
    from retrieval.store.layout import Columns
    from retrieval.store.store import StoreInfo, partial_path, resume_store

    rng = np.random.default_rng(0)
    ids = [f"{i:016x}" for i in range(args.rows)]
    labels = tuple(f"landmark_{i:06}" for i in range(N_LANDMARKS))
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "train.h5"
        paths = []
        for i in (1, 2):
            share = Shard(i, 2)
            rows = share.rows(args.rows)
            info = StoreInfo("ab" * 32, {}, {}, "0", "made", "float16", D, share)
            own = [ids[row] for row in rows]
            places = [f"images/{name[-3]}/{name[-2]}/{name[-1]}/{name}.jpg" for name in own]
            landmark = rng.integers(N_LANDMARKS, size=len(own)).astype(np.int32)
            paths.append(share.beside(output))
            lay_out(partial_path(paths[-1]), Columns(own, landmark, labels, places, None, {}), info)
            with resume_store(paths[-1]) as writer:
                for begin in range(0, len(own), 1 << 14):
                    block = rng.standard_normal((min(1 << 14, len(own) - begin), D), np.float32)
                    writer.write(np.arange(begin, begin + len(block)), block.astype(np.float16))
                writer.finish()
        before = anonymous_bytes()
        peak = [before]
        watched = SimpleNamespace(
            begin=lambda *_: peak.append(anonymous_bytes()),
            add=lambda *_: peak.append(anonymous_bytes()),
            end=lambda: None,
            warn=SILENT.warn,
        )
        used = timed(lambda: join_stores(paths, output, overwrite=False, progress=watched))
        return {
            "rows": args.rows,
            "d": D,
            "bytes": output.stat().st_size,
            "cpu_s": used,
            "own_bytes_a_row": round((max(peak) - before) / args.rows),
        }


def anonymous_bytes() -> int:
    """Memory of this process that is not mapped from files."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def search(args: argparse.Namespace) -> dict[str, Any]:
    from vectors import make_world

    from index.search.flat import FlatIndex
    from index.search.ivf import SearchSettings
    from index.search.ivf_builder import build_ivf
    from index.search.plan import IndexPlan, default_lists
    from index.search.scan import nearest_centroid

    world = make_world(N_LANDMARKS, D)
    vectors = np.concatenate([block for block, _ in world.rows(args.rows)]).astype(np.float16)
    queries = world.block(0, args.block, of_queries=True)[0]
    n_lists = default_lists(args.rows)
    found: dict[str, Any] = {"rows": args.rows, "d": D, "kind": "ivf-pq", "lists": n_lists, "block": args.block}
    found |= {"lists_read": LISTS_READ, "candidates": CANDIDATES, "k": K, "block_s": {}}
    rows = FlatIndex.build(vectors, "float16", "cpu", 1)
    for n in SHARDS:
        ivf = build_ivf(rows, IndexPlan("ivf-pq", args.rows, D, "float16", n_lists, n))
        index = ivf.with_settings(SearchSettings(LISTS_READ, CANDIDATES))
        index.search(queries, K)
        found["block_s"][n] = [timed(lambda: index.search(queries, K)) for _ in range(N_BLOCKS)]  # noqa: B023
    found["exact_block_s"] = [timed(lambda: rows.search(queries, K)) for _ in range(3)]
    centroids = vectors[:n_lists].astype(np.float32)
    some = vectors[: 1 << 14].astype(np.float32)
    found["product_flops"] = round(2 * D * n_lists * len(some) / timed(lambda: nearest_centroid(some, centroids)))
    return found


def spark(args: argparse.Namespace) -> dict[str, Any]:
    from pyspark.sql import SparkSession

    from retrieval.progress import SILENT
    from retrieval.spark.cluster import Cluster
    from retrieval.spark.config import SparkJob

    begun = time.perf_counter()
    with Cluster(SparkJob(engine="spark", master="local-cluster[2,1,1024]"), SILENT) as cluster:
        ready_s = time.perf_counter() - begun
        session = SparkSession.getActiveSession()

        def in_python(n: int) -> object:
            return cluster.run("nothing", operator.is_, range(n))  # a function that every process can import

        def on_the_driver(n: int) -> object:
            return session.range(n, numPartitions=n).collect()

        taken_s: dict[str, float] = {}
        for work in (in_python, on_the_driver):
            work(2)
            begun = time.perf_counter()
            work(N_TASKS)
            taken_s[work.__name__] = (time.perf_counter() - begun) / N_TASKS
    return {
        "ready_wall_s": round(ready_s, 2),
        "task_wall_s": round(2 * taken_s["in_python"], 4),
        "driver_wall_s": round(taken_s["on_the_driver"], 5),
    }


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "start": start,
    "embed": embed,
    "join": join,
    "search": search,
    "spark": spark,
}

if __name__ == "__main__":
    main()
