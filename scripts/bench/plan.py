"""A plan for collections past one machine: costs as formulas, and the course of the job on a cluster, simulated.

    python scripts/bench/plan.py [--pictures 1e7,1e8,1e9] [--executors 1,4,16,64] [--output scripts/bench/plan.json]

The formulas are those of costs.py, the cluster is that of events.py. How far batches and tasks differ, and what a
process, a task and a session cost beside their work, are in the file of --times, which service_times.py measures; a
constant of costs.py or a price can be set otherwise, as --set image_s=0.02. For each number of pictures and of
executors the job is embedding, joining, learning the lists, coding the rows, and merging the index. The knee is the
largest number of executors that saves --worth of the time beside half as many. Then, for the middle number of
pictures: tasks a slot, with stragglers, copies of them, and lost executors. For each number: shards of the index and
blocks of queries; Milvus by index. The same --seed gives the same plan. Prints JSON, which --output keeps for
scripts/images.py to draw.
"""

import argparse
import json
import math
import statistics
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

import costs
import events
from plan_tables import tables

TIMES = Path(__file__).with_name("service_times.json")
LEAST_IMAGES = 128  # of a task: retrieval/spark/config.py
MOST_TASKS = 100_000
TASKS_A_SLOT = (1, 2, 3, 5, 10, 30, 100)
INDEX_SHARDS = (1, 2, 4, 8, 16, 32, 64)
BLOCKS = (128, 1024, 8192)  # queries


@dataclass(frozen=True)
class Settings:
    """The cluster, its faults and the job. Shares and rates of faults are assumptions to be varied."""

    d: int = 512
    cores: int = 16  # of an executor, each a slot
    memory_gb: float = 64.0  # of an executor
    tasks_a_slot: int = 10
    task_hours: float = 0.1  # that a task takes at most: what a straggler delays and a lost executor repeats
    manifest_rows: float = 1e7  # of one manifest at most; several are embedded side by side
    storage_gb_s: float = 10.0  # that the shared storage reads
    stragglers: float = 0.01  # share of attempts
    slower: float = 4.0  # times, an attempt that is one
    failures: float = 0.001  # share of attempts
    losses: float = 0.02  # of an executor in an hour
    replace_s: float = 120.0  # until another machine takes the place of a lost one
    skew: float = 0.2  # of the work of tasks: standard deviation by their mean
    queries: int = 117_703
    tuned_executors: int = 64  # of the sweeps of tasks and of shards
    worth: float = 0.25
    repeats: int = 3  # courses with other luck, of which the median is told
    seed: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", default="1e7,1e8,1e9", help="(default %(default)s)")
    parser.add_argument("--executors", default="4,8,16,32,64,128,256,512", help="(default %(default)s)")
    parser.add_argument("--times", type=Path, default=TIMES, help="what service_times.py measured")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another constant or price")
    parser.add_argument("--tables", action="store_true", help="print those of docs/scale.md instead of JSON")
    parser.add_argument("--output", type=Path, help="file that keeps the JSON")
    for one in fields(Settings):
        name = f"--{one.name.replace('_', '-')}"
        parser.add_argument(name, type=type(one.default), default=one.default, help="(default %(default)s)")
    args = parser.parse_args()
    settings = Settings(**{one.name: getattr(args, one.name) for one in fields(Settings)})
    times = json.loads(args.times.read_text(encoding="utf-8"))
    of, prices = with_changes(from_times(costs.Constants(), times), costs.Prices(), args.set)
    sizes = [float(text) for text in args.pictures.split(",")]
    numbers = [int(text) for text in args.executors.split(",")]
    text = json.dumps(rounded(plan(sizes, numbers, settings, of, prices, times)), indent=1)
    if args.output:
        args.output.write_text(text + "\n", encoding="utf-8")
    print("\n\n".join(tables(json.loads(text))) if args.tables else text)


def from_times(of: costs.Constants, times: dict[str, Any]) -> costs.Constants:
    """The constants that were measured with the distributions."""
    join, search, spark = times["join"], times["search"], times["spark"]
    block_s = {int(n): statistics.median(taken) for n, taken in search["block_s"].items()}
    most = max(block_s)
    shard_s = (block_s[most] - block_s[1]) / (most - 1) / search["block"]
    lists_s = 2 * search["d"] * search["lists"] / search["product_flops"]
    return replace(
        of,
        join_bytes_s=join["bytes"] / join["cpu_s"],
        join_row_bytes=join["own_bytes_a_row"],
        shard_query_s=max(0.0, shard_s - lists_s),
        start_s=spark["ready_wall_s"],
        load_s=statistics.median(times["start"]["cpu_s"]),
        task_s=spark["task_wall_s"],
        dispatch_s=spark["driver_wall_s"],
    )


def with_changes(of: costs.Constants, prices: costs.Prices, changes: list[str]) -> tuple[costs.Constants, costs.Prices]:
    """Constants and prices, with those that were given."""
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals or name not in {one.name for kind in (of, prices) for one in fields(kind)}:
            sys.exit(f"--set {change}: expected a constant or price of scripts/bench/costs.py, as image_s=0.02")
        if hasattr(of, name):
            of = replace(of, **{name: float(value)})
        else:
            prices = replace(prices, **{name: float(value)})
    return of, prices


def plan(
    sizes: list[float],
    numbers: list[int],
    settings: Settings,
    of: costs.Constants,
    prices: costs.Prices,
    times: dict[str, Any],
) -> dict[str, Any]:
    """Everything that is printed."""
    spread = batch_spread(times)
    jobs = {n: {k: job(n, k, settings, of, prices, spread) for k in numbers} for n in sizes}
    middle = sizes[len(sizes) // 2]
    return {
        "settings": {one.name: getattr(settings, one.name) for one in fields(settings)},
        "constants": costs.accounts(of),
        "prices": costs.accounts(prices),
        "jobs": jobs,
        "knees": {n: knee(of_size, settings.worth) for n, of_size in jobs.items()},
        "tasks": {"pictures": middle, "over_ideal": tasks_a_slot(middle, settings, of, spread)},
        "search": {n: search(n, settings, of) for n in sizes},
        "milvus": {
            n: {kind: costs.milvus(n, settings.d, kind, of, prices, costs.Node()) for kind in costs.milvus_kinds(1)}
            for n in sizes
        },
    }


def batch_spread(times: dict[str, Any]) -> tuple[int, float]:
    """Images of a batch, and the coefficient of variation of its seconds."""
    taken = times["embed"]["batch_s"]
    return times["embed"]["batch"], statistics.pstdev(taken) / statistics.fmean(taken)


def task_works(
    work_s: float, n: float, n_tasks: int, spread: tuple[int, float], skew: float, rng: np.random.Generator
) -> np.ndarray:
    """Core seconds of each task: its batches differ as they were measured to, and the tasks by their skew."""
    batch, variation = spread
    of_batches = variation / math.sqrt(max(1.0, n / n_tasks / batch))
    factors = np.maximum(0.05, 1 + of_batches * rng.standard_normal(n_tasks))
    sigma = math.sqrt(math.log1p(skew**2))
    factors *= np.exp(sigma * rng.standard_normal(n_tasks) - sigma**2 / 2)
    return work_s * factors / factors.sum()


def stage(
    step: costs.Step,
    n: float,
    n_tasks: int,
    n_executors: int,
    settings: Settings,
    of: costs.Constants,
    spread: tuple[int, float],
    *,
    starts: bool,
    copies: bool = False,
) -> events.Ran:
    """The middle course of several of the shared part of a step. starts: a session, and processes that load."""
    courses = [
        one_course(step, n, n_tasks, n_executors, replace(settings, seed=seed), of, spread, starts, copies)
        for seed in range(settings.seed, settings.seed + settings.repeats)
    ]
    return sorted(courses, key=lambda ran: ran.makespan_s)[len(courses) // 2]


def one_course(
    step: costs.Step,
    n: float,
    n_tasks: int,
    n_executors: int,
    settings: Settings,
    of: costs.Constants,
    spread: tuple[int, float],
    starts: bool,
    copies: bool,
) -> events.Ran:
    """One course of it, by the luck of its seed."""
    rng = np.random.default_rng([settings.seed, int(n), n_tasks, n_executors])  # of all cases alike
    n_slots = n_executors * settings.cores
    wanted = n_slots * step.bytes_read / step.work_s / (settings.storage_gb_s * costs.GB)  # 1 = all that storage gives
    works = task_works(step.work_s, n, n_tasks, spread, settings.skew, rng) * max(1.0, wanted) + of.task_s
    cluster = events.Cluster(
        n_executors,
        settings.cores,
        of.start_s if starts else 0.0,
        of.load_s + (manifest_s(n, n_executors, settings, of) if starts else 0.0),
        of.dispatch_s,
        settings.replace_s,
        speculation=events.Speculation() if copies else None,
    )
    chances = {"stragglers": settings.stragglers, "slower": settings.slower, "failures": settings.failures}
    luck = events.draw_luck(n_tasks, n_executors, rng, losses_an_hour=settings.losses, **chances)
    return events.run_stage(works, cluster, luck)


def manifest_s(n: float, n_executors: int, settings: Settings, of: costs.Constants) -> float:
    """Seconds in which each process reads its manifest, or those that it has one after another."""
    return max(min(n, settings.manifest_rows), n / n_executors) * of.manifest_row_s


def count_tasks(n: float, wanted: float) -> int:
    """So many tasks, as far as lmr lets them be."""
    return int(max(1, min(wanted, n // LEAST_IMAGES, MOST_TASKS)))


def job(
    n: float,
    n_executors: int,
    settings: Settings,
    of: costs.Constants,
    prices: costs.Prices,
    spread: tuple[int, float],
) -> dict[str, Any]:
    """Hours of each part of embedding and building, dollars, and how much of the cores' time was work that counted."""
    embedding = costs.embed(n, settings.d, of)
    building = costs.build(n, settings.d, of, settings.cores)
    learn_s = costs.learn_s(n, settings.d, of, settings.cores)
    n_slots = n_executors * settings.cores
    wanted = max(settings.tasks_a_slot * n_slots, embedding.work_s / (settings.task_hours * costs.HOUR_S))
    n_tasks = count_tasks(n, wanted)
    embedded = stage(embedding, n, n_tasks, n_executors, settings, of, spread, starts=True)
    n_coding = count_tasks(n, settings.tasks_a_slot * n_slots)
    coded = stage(building, n, n_coding, n_executors, settings, of, spread, starts=False)
    parts = {
        "embed": embedded.makespan_s,
        "join": embedding.serial_s,
        "learn": learn_s,
        "code": coded.makespan_s,
        "merge": building.serial_s - learn_s,
    }
    total_s = sum(parts.values())
    core_h = total_s * n_slots / costs.HOUR_S
    return {
        "tasks": n_tasks,
        "hours": {name: seconds / costs.HOUR_S for name, seconds in parts.items()},
        "total_hours": total_s / costs.HOUR_S,
        "serial_share": (parts["join"] + parts["learn"] + parts["merge"]) / total_s,
        "useful_share": (embedding.work_s + building.work_s) / (total_s * n_slots),
        "lost_executors": embedded.n_lost + coded.n_lost,
        "storage_share": n_slots * embedding.bytes_read / embedding.work_s / (settings.storage_gb_s * costs.GB),
        "dollars": core_h * prices.core_hour + n / 1e6 * prices.million_reads,
        "dollars_other_region": n * of.image_bytes / costs.GB * prices.gb_moved,
        "store_gb": embedding.bytes_kept / costs.GB,
        "index_gb": building.bytes_kept / costs.GB,
        "search_memory_gb": costs.index_bytes(n, settings.d) / costs.GB,
        "join_memory_gb": n * of.join_row_bytes / costs.GB,
        "manifests": math.ceil(n / settings.manifest_rows),
        "one_manifest_hours": n * of.manifest_row_s / costs.HOUR_S,
        "one_manifest_gb": n * of.manifest_row_bytes / costs.GB,
    }


def knee(jobs: dict[int, dict[str, Any]], worth: float) -> dict[str, Any]:
    """The largest number of executors that saves `worth` beside half as many, and what takes longest there."""
    numbers = sorted(jobs)
    saving = [k for k in numbers if k % 2 == 0 and k // 2 in jobs and saved(jobs, k) >= worth]
    best = saving[-1] if saving else numbers[0]
    hours = jobs[best]["hours"]
    return {"executors": best, "total_hours": jobs[best]["total_hours"], "longest": max(hours, key=hours.get)}


def saved(jobs: dict[int, dict[str, Any]], k: int) -> float:
    """The share of the time that k executors save beside half as many."""
    return 1.0 - float(jobs[k]["total_hours"] / jobs[k // 2]["total_hours"])


def tasks_a_slot(
    n: float, settings: Settings, of: costs.Constants, spread: tuple[int, float]
) -> dict[str, dict[int, float]]:
    """Embedding by so many tasks a slot: its time by that of the same work on slots that are never idle."""
    step = costs.embed(n, settings.d, of)
    k = settings.tuned_executors
    well = replace(settings, stragglers=0.0, failures=0.0, losses=0.0)
    cases = {
        "nothing goes wrong": (well, False),
        "stragglers": (replace(well, stragglers=settings.stragglers), False),
        "stragglers, copied": (replace(well, stragglers=settings.stragglers), True),
        "lost executors": (replace(well, losses=settings.losses), False),
    }
    found: dict[str, dict[int, float]] = {name: {} for name in cases}
    for name, (case, copies) in cases.items():
        for number in TASKS_A_SLOT:
            n_tasks = count_tasks(n, number * k * settings.cores)
            ran = stage(step, n, n_tasks, k, case, of, spread, starts=True, copies=copies)
            found[name][number] = ran.makespan_s / (step.work_s / (k * settings.cores))
    return found


def search(n: float, settings: Settings, of: costs.Constants) -> dict[str, Any]:
    """Searching the queries by shards of the index and by blocks: seconds on the cluster, and of a core a query."""
    k = settings.tuned_executors
    seconds: dict[int, dict[int, float]] = {block: {} for block in BLOCKS}
    for block in BLOCKS:
        for n_shards in INDEX_SHARDS:
            n_tasks = math.ceil(settings.queries / block) * n_shards
            one_s = costs.query_s(n, settings.d, of, n_shards) / n_shards * block + of.task_s
            cluster = events.Cluster(k, settings.cores, dispatch_s=of.dispatch_s)
            seconds[block][n_shards] = events.run_stage(
                np.full(n_tasks, one_s), cluster, events.no_luck(n_tasks, k)
            ).makespan_s
    needed = costs.shards_needed(n, settings.d, settings.memory_gb * costs.GB)
    small = costs.shards_needed(n, settings.d, settings.memory_gb * costs.GB, "ivf-pq-small")
    return {
        "query_ms": {s: 1000 * costs.query_s(n, settings.d, of, s) for s in INDEX_SHARDS},
        "exact_query_s": costs.exact_query_s(n, settings.d, of),
        "seconds": seconds,
        "shards_needed": needed,
        "shards_needed_small": small,
        "read_gb_by_each": costs.index_bytes(n, settings.d) / costs.GB,
    }


def rounded(value: Any) -> Any:
    """Numbers to four digits."""
    if isinstance(value, dict):
        return {f"{key:g}" if isinstance(key, float) else key: rounded(one) for key, one in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
