"""What Spark costs beside the local engine on the same cores, and what the driver holds as rows grow.

    python scripts/bench/spark.py --images 20000 --runs 3 [--parts overhead] [--work DIR] [--output FILE]
    python scripts/bench/spark.py --parts memory --rows 100000,1000000,10000000 --commands build-index,submit

overhead: `lmr embed` of --images rendered pictures by --backbone from random weights, once by the local engine with two
threads and once by two executors of one core; a process of each, in turns, medians of --runs, by the clock and in
processor time of all processes, which other work on the machine changes less. `start` and `local_start` are the same
commands over 256 of the pictures: what Java, sessions, torch and the network take before there is work.
ratio_beyond_start compares the engines without them; ratio_beyond_session takes only a session that does nothing from
Spark's time, and nothing from the local engine's.
The stores are compared byte for byte.

memory: the same commands over made descriptors of 64 numbers in --rows rows, on two executors: the largest resident set
of the driver's process of Python and, apart, of its JVM (which holds the master and workers of a local cluster too),
looked at in steps. flat_ratio is the largest by the smallest. `embed` describes one tiny picture again and again, and
`submit` answers 10,000 queries, from their store, by an index that is built here where --commands lacks build-index.

Needs pyspark and Java (scripts/run.py spark makes an environment that has them). Prints JSON.
"""

import argparse
import filecmp
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

MASTER = "local-cluster[2,1,1024]"
ON_SPARK = ("--engine", "spark", "--master", MASTER)
SIDES = (128, 96)  # pixels of a picture
N_LANDMARKS, D = 1_000, 64
NETWORK = ("--images", ".", "--model", "small", "--backbone", "plain-cnn", "--size", 32, "--dimensions", D)
N_QUERIES = 10_000
SAMPLED_S = 0.1
PARTS = ("overhead", "memory")
N_FEW = 256  # pictures of a run that does little but start: two tasks
SESSION = f"""
from retrieval.progress import SILENT
from retrieval.spark.cluster import Cluster
from retrieval.spark.config import SparkJob
with Cluster(SparkJob(engine="spark", master="{MASTER}"), SILENT):
    pass
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="overhead", help=f"of {', '.join(PARTS)} (default %(default)s)")
    parser.add_argument("--images", type=int, default=20_000, help="(default %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="(default %(default)s)")
    parser.add_argument("--backbone", default="mobilenet_v2", help="(default %(default)s)")
    parser.add_argument("--size", type=int, default=96, help="pixels that the network sees (default %(default)s)")
    parser.add_argument("--tasks", type=int, help="(default as lmr chooses)")
    parser.add_argument("--rows", default="10000,100000", help="numbers of rows (default %(default)s)")
    parser.add_argument("--commands", default="embed,build-index,submit", help="(default %(default)s)")
    parser.add_argument("--work", type=Path, help="folder for what is made, a temporary one in it")
    parser.add_argument("--output", type=Path, help="file that keeps the JSON")
    args = parser.parse_args()
    report: dict[str, Any] = {"master": MASTER, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    with tempfile.TemporaryDirectory(dir=args.work) as scratch:
        work = Path(scratch)
        for part in args.parts.split(","):
            report[part] = overhead(args, work) if part == "overhead" else memory(args, work)
    text = json.dumps(report, indent=1)
    if args.output:
        args.output.write_text(text + "\n", encoding="utf-8")
    print(text)


def run(work: Path, *words: object) -> dict[str, float]:
    """What one command of lmr took, in a process of its own."""
    return watched(work, "from cli.main import program; program()", *words)


def watched(work: Path, code: str, *words: object) -> dict[str, float]:
    """What a process of Python took: seconds, those of the processor with its descendants', and what it and its JVM
    held at most, in MB."""
    begun, cpu_s = time.perf_counter(), {}
    held = {"python_mb": 0.0, "jvm_mb": 0.0}
    child = subprocess.Popen([sys.executable, "-c", code, *map(str, words)], cwd=work, stdout=sys.stderr)
    while child.poll() is None:
        family = [child.pid, *descendants(child.pid)]
        cpu_s |= {process: seconds for process in family if (seconds := processor_s(process))}
        jvm = next((process for process in family if name_of(process) == "java"), None)
        for name, process in (("python_mb", child.pid), ("jvm_mb", jvm)):
            held[name] = max(held[name], peak_mb(process))
        time.sleep(SAMPLED_S)
    if child.returncode:
        sys.exit(f"{' '.join(map(str, words)) or code} failed")
    wall_s = time.perf_counter() - begun
    taken = {"wall_s": wall_s, "cpu_s": sum(cpu_s.values()), **held}
    print(*words[:1], taken, file=sys.stderr)
    return {name: round(value, 2) for name, value in taken.items()}


def of_process(process: int | None, file: str) -> str:
    """A file of /proc on a process; blank where it has ended."""
    try:
        return Path(f"/proc/{process}/{file}").read_text(encoding="utf-8")
    except OSError:
        return ""


def name_of(process: int) -> str:
    """The program of a process."""
    return of_process(process, "comm").strip()


def peak_mb(process: int | None) -> float:
    """The largest resident set of a process so far."""
    lines = of_process(process, "status").splitlines()
    return next((int(line.split()[1]) * 1.024 / 1000 for line in lines if line.startswith("VmHWM")), 0.0)


def processor_s(process: int) -> float:
    """Processor time of a process so far, of its threads alone."""
    fields = of_process(process, "stat").rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def descendants(process: int) -> list[int]:
    """Processes that a process started, and those that they did, the nearest first."""
    found = [process]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*"):
            found += map(int, of_process(one, f"task/{task.name}/children").split())
    return found[1:]


def overhead(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """The local engine and Spark in turns over the same pictures."""
    draw(work / "images", args.images)
    draw(work / "few", N_FEW)
    network = ("--backbone", args.backbone, "--size", args.size, "--dimensions", 0, "--device", "cpu", "--overwrite")
    tasks = ("--tasks", args.tasks) if args.tasks else ()
    local = (*network, "--threads", 2, "--workers", 2)
    spark = (*network, "--threads", 1, "--workers", 1, *tasks, *ON_SPARK)
    taken: dict[str, list[dict[str, float]]] = {}
    for _ in range(args.runs):
        for name, words in (
            ("local", ("images", *local, "--output", "local.h5")),
            ("spark", ("images", *spark, "--output", "spark.h5")),
            ("local_start", ("few", *local, "--output", "few.h5")),
            ("start", ("few", *spark, "--output", "few.h5")),
        ):
            taken.setdefault(name, []).append(run(work, "embed", *words))
        taken.setdefault("session", []).append(watched(Path(__file__).parents[2], SESSION))
    report: dict[str, Any] = {"images": args.images, "backbone": args.backbone, "size": args.size, "runs": taken}
    for clock in ("wall_s", "cpu_s"):
        median = {name: statistics.median(one[clock] for one in runs) for name, runs in taken.items()}
        report[clock] = {
            **median,
            "ratio": round(median["spark"] / median["local"], 3),
            "ratio_beyond_session": round((median["spark"] - median["session"]) / median["local"], 3),
            "ratio_beyond_start": round(
                (median["spark"] - median["start"]) / (median["local"] - median["local_start"]), 3
            ),
        }
    return {**report, "same_bytes": filecmp.cmp(work / "local.h5", work / "spark.h5", shallow=False)}


def draw(folder: Path, n: int) -> None:
    """n small pictures of coarse noise by landmark."""
    rng = np.random.default_rng(0)
    for i in range(n):
        path = folder / f"landmark_{i % N_LANDMARKS:06}" / f"{i:08}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(256, size=(6, 8, 3), dtype=np.uint8)).resize(SIDES).save(path)


def memory(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """The driver's memory in each command, by the number of rows."""
    found: dict[str, Any] = {command: {} for command in args.commands.split(",")}
    for n in (int(text) for text in args.rows.split(",")):
        with tempfile.TemporaryDirectory(dir=work) as scratch:
            place = Path(scratch)
            if {"build-index", "submit"} & found.keys():
                make_stores(place, n)
            for command, sizes in found.items():
                if command == "submit" and not (place / "index").exists():
                    run(place, *words_of("build-index", place, n))
                sizes[n] = run(place, *words_of(command, place, n), *ON_SPARK)
    for sizes in found.values():
        of_sizes = {name: [one[name] for one in sizes.values()] for name in ("python_mb", "jvm_mb")}
        sizes |= {f"flat_ratio_{name}": round(max(held) / min(held), 3) for name, held in of_sizes.items()}
    return found


def words_of(command: str, place: Path, n: int) -> tuple[object, ...]:
    """The words of a command over n rows."""
    if command == "embed":
        write_manifest(place, "one.csv", n)
        return ("embed", "one.csv", *NETWORK)
    if command == "build-index":
        return (
            "build-index",
            "train.h5",
            "--model",
            "small",
            "--output",
            "index",
            "--whitening-power",
            0,
            "--thumbnails",
            0,
        )
    return ("submit", "test.csv", "--images", ".", "--store", "test.h5", "--index", "index")


def write_manifest(place: Path, name: str, n: int) -> None:
    """A table of n rows that all have the same picture."""
    Image.new("RGB", (8, 8), "grey").save(place / "one.png")
    rows = "".join(f"{i:016x},one.png,landmark_{i % N_LANDMARKS:06}\n" for i in range(n))
    (place / name).write_text("id,path,landmark_id\n" + rows, encoding="utf-8")


def make_stores(place: Path, n: int) -> None:
    """test.h5 of the queries, by a network that is made for them, and train.h5 of n made rows of the same one."""
    from memory import write_store
    from vectors import make_world

    from retrieval.embed.fill import info_of
    from retrieval.models.card import parse_card

    write_manifest(place, "test.csv", N_QUERIES)
    run(place, "embed", "test.csv", "--output", "test.h5", *NETWORK)
    card = parse_card(json.loads((place / "small" / "model.json").read_text(encoding="utf-8")), "small")
    world, info = make_world(N_LANDMARKS, D), info_of(card, "made", "float16", D)
    given = SimpleNamespace(work=place, landmarks=N_LANDMARKS, dimensions=D)
    blocks = (block for block, _ in world.rows(n))
    write_store(given, "train.h5", world.landmarks(n), blocks, prefix="r", info=info)


if __name__ == "__main__":
    main()
