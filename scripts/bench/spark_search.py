"""A submission of a challenge's size on a Spark cluster of this machine, beside that of one process.

    python scripts/bench/spark_search.py [--rows 1225030] [--queries 117703] [--shards 4] [--executors 2] [--work DIR]

Descriptors are made as vectors.py makes them; half of the queries show known landmarks, half of them others. The index
is exact and divided into shards. The cluster is Spark's local-cluster of so many executors of --threads cores each;
every block of queries is searched in every shard, and answered and joined as `lmr submit` with `engine` spark does.
One process answers the same queries with the same number of threads in all, or the first --local-queries of each half;
then its time is extrapolated to all of them, which `extrapolated` says. Of the queries that both answered is told how
many lines of the submission are equal as text, in how many another landmark is named, and the largest difference of a
score. `start_s`: of Spark, apart from the rest. `driver_mb`: the most memory of the driver's Python process.
`ratio`: time on the cluster, without its start, over that of one process. Prints JSON.
--work keeps the stores and the index in a folder, and a further run does not make them again.
"""

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from memory import status
from submit import make


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_225_030, help="(default %(default)s)")
    parser.add_argument("--landmarks", type=int, default=14_951, help="(default %(default)s)")
    parser.add_argument("--dimensions", type=int, default=512, help="(default %(default)s)")
    parser.add_argument("--queries", type=int, default=117_703, help="(default %(default)s)")
    parser.add_argument("--local-queries", type=int, default=0, help="of each half; 0 = all (default %(default)s)")
    parser.add_argument("--shards", type=int, default=4, help="of the index (default %(default)s)")
    parser.add_argument("--storage", choices=("float16", "float32"), default="float16", help="(default %(default)s)")
    parser.add_argument("--executors", type=int, default=2, help="(default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="cores of an executor (default %(default)s)")
    parser.add_argument("--memory", type=int, default=1024, help="MB of Java in an executor (default %(default)s)")
    parser.add_argument("--tasks", type=int, help="blocks of queries (default as lmr submit)")
    parser.add_argument("--work", type=Path, help="folder that is kept")
    parser.add_argument("--part", choices=tuple(PARTS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(PARTS[args.part](args)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        args.work = (args.work or Path(scratch)).absolute()
        args.work.mkdir(parents=True, exist_ok=True)
        make(args)
        if not (args.work / "index").exists():
            run("build", args)
        found = {part: run(part, args) for part in ("spark", "local")}
        print(json.dumps(report(args, found), indent=1))


def report(args: argparse.Namespace, found: dict[str, Any]) -> dict[str, Any]:
    """All figures, and what both answered alike."""
    settings = {name: value for name, value in vars(args).items() if name not in ("work", "part")}
    local, spark = found["local"], found["spark"]
    n_local = len(asked(args))
    local["wall_s_of_all"] = round(local["wall_s"] * args.queries / n_local, 1)
    local["extrapolated"] = n_local < args.queries
    machine = {"cores": os.cpu_count(), "system": platform.platform(), "processor": processor()}
    return {
        "machine": machine,
        "settings": settings,
        "spark": spark,
        "local": local,
        "equality": equality(args.work / "spark.csv", args.work / "local.csv"),
        "ratio": round(spark["wall_s"] / local["wall_s_of_all"], 2),
    }


def equality(spark: Path, local: Path) -> dict[str, Any]:
    """The lines of one submission beside those of another, which may have fewer."""
    theirs, ours = cells(spark), cells(local)
    scores = [(float(theirs[name].split()[1]), float(cell.split()[1])) for name, cell in ours.items()]
    return {
        "compared": len(ours),
        "equal_text": sum(theirs[name] == cell for name, cell in ours.items()),
        "other_landmark": sum(theirs[name].split()[0] != cell.split()[0] for name, cell in ours.items()),
        "largest_difference": max(abs(one - other) for one, other in scores),
    }


def cells(path: Path) -> dict[str, str]:
    with path.open(newline="") as file:
        return {row["id"]: row["landmarks"] for row in csv.DictReader(file)}


def run(part: str, args: argparse.Namespace) -> dict[str, Any]:
    """What a part says of itself, in a process of its own."""
    words = [f"--{name.replace('_', '-')}={value}" for name, value in vars(args).items() if value is not None]
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads * (args.executors if part == "local" else 1))}
    command = [sys.executable, __file__, *words, f"--part={part}"]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    said: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return said


def build(args: argparse.Namespace) -> dict[str, Any]:
    from index.folder.build import build_folder
    from index.folder.config import BuildOptions
    from index.folder.inputs import BuildInputs
    from index.search.config import SearchOptions
    from retrieval.store.store import open_descriptors

    inputs = BuildInputs([open_descriptors(args.work / "train.h5")], args.work / "model")
    search = SearchOptions(kind="flat", n_shards=args.shards)
    options = BuildOptions(whitening_power=None, storage=args.storage, search=search)
    build_folder(args.work / "index", inputs, options, overwrite=True, device="cpu")
    return {}


def on_spark(args: argparse.Namespace) -> dict[str, Any]:
    from index.kaggle.submit import SubmitJob
    from index.spark.driver import answer_by_tasks
    from index.spark.planning import Asking, join, plan
    from retrieval.progress import SILENT
    from retrieval.spark.cluster import Cluster

    begun = time.perf_counter()
    (args.work / "test.csv").write_text("id\nq0\n")  # whose images have descriptors
    (args.work / "spark.csv").unlink(missing_ok=True)
    job = SubmitJob(
        args.work / "test.csv",
        index=args.work / "index",
        store=args.work / "queries.h5",
        output=args.work / "spark.csv",
        overwrite=True,
        device="cpu",
        engine="spark",
        master=f"local-cluster[{args.executors},{args.threads},{args.memory}]",
        spark_conf=(f"spark.task.cpus={args.threads}",),
        n_tasks=args.tasks,
        progress=SILENT,
    )
    with Cluster(job, SILENT) as cluster:
        started = time.perf_counter()
        [planned] = cluster.run("planning", plan, [Asking(job, cluster.n_slots)])
        assert planned.work is not None
        answer_by_tasks(cluster, planned.work, SILENT)
        searched = time.perf_counter()
        cluster.run("joining", join, [planned.work])
        ended = time.perf_counter()
    told = planned.work.rounds.plan
    return {
        "start_s": round(started - begun, 1),
        "wall_s": round(ended - started, 1),
        "join_s": round(ended - searched, 1),
        "driver_mb": round(status("VmHWM") / 1000),
        "blocks": told.n_blocks,
        "shards": told.n_shards,
    }


def locally(args: argparse.Namespace) -> dict[str, Any]:
    from index.folder.folder import open_folder
    from index.kaggle.shares import answered_beside, predict_store
    from index.kaggle.submission import submission_lines
    from retrieval.files.atomic import write_text
    from retrieval.progress import SILENT
    from retrieval.store.store import open_descriptors

    n_threads = args.threads * args.executors
    folder = open_folder(args.work / "index", device="cpu", threads=n_threads)
    store = open_descriptors(args.work / "queries.h5").select(asked(args))
    begun = time.perf_counter()
    kept = answered_beside(args.work / "local.csv", {"set of descriptors": store.digest})
    kept.remove()
    predictions = predict_store(folder, store, -np.inf, kept, SILENT)
    write_text(args.work / "local.csv", submission_lines(predictions))
    kept.remove()
    return {"wall_s": round(time.perf_counter() - begun, 1), "threads": n_threads}


def asked(args: argparse.Namespace) -> Any:
    """The queries that one process answers."""
    if not args.local_queries:
        return np.arange(args.queries)
    first = np.arange(args.local_queries)
    return np.concatenate([first, args.queries // 2 + first])


def processor() -> str:
    names = [line.partition(":")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return names[0].strip() if names else platform.processor()


PARTS = {"build": build, "spark": on_spark, "local": locally}

if __name__ == "__main__":
    main()
