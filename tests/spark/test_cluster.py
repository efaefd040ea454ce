"""A Spark cluster of two executors: what tasks return, and what they say when they fail."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from retrieval.errors import DamageError, LmrError
from retrieval.jobs import ComputingJob
from retrieval.progress import SILENT
from retrieval.spark.cluster import Cluster
from retrieval.spark.config import SparkJob
from retrieval.spark.task import Place, place_of


def double(item: int, place: Place) -> tuple[int, int]:
    return 2 * item, os.getpid()


def fail(item: int, place: Place) -> int:
    if item == 2:
        raise DamageError(f"{item} is damaged", "and more")
    return item


def divide(item: int, place: Place) -> float:
    return 1 / item


def kill_java(job: SparkJob) -> None:
    """Runs tasks, and kills the Java that drives them once they run. Prints what is said of it."""
    with Cluster(job, SILENT) as cluster:
        java = cluster._session.sparkContext._gateway.proc.pid
        threading.Timer(3, os.kill, (java, signal.SIGKILL)).start()
        cluster.run("waiting", wait, [1, 2])


def wait(item: int, place: Place) -> int:
    time.sleep(30)
    return item


def read_shared(name: str, place: Place) -> str:
    return (place.shared(name) / "a.txt").read_text()


def test_results_come_in_the_order_of_the_items_from_two_processes(cluster: Cluster) -> None:
    found = cluster.run("doubling", double, range(8))
    assert [value for value, _ in found] == [0, 2, 4, 6, 8, 10, 12, 14]
    assert len({pid for _, pid in found} - {os.getpid()}) == 2
    assert cluster.n_slots == 2


def test_an_error_of_a_task_is_raised_with_its_type_and_the_host(cluster: Cluster) -> None:
    with pytest.raises(DamageError, match=r"2 is damaged \(on executor .*, failing\)\nand more"):
        cluster.run("failing", fail, range(4))
    with pytest.raises(LmrError, match=r"ZeroDivisionError: division by zero \(on executor .*, dividing\)"):
        cluster.run("dividing", divide, [1, 0])


def test_a_java_that_is_killed_ends_a_command_in_one_line() -> None:
    pytest.importorskip("pyspark", reason="scripts/debian.py java, scripts/run.py spark")
    code = """
import test_cluster as test
try:
    test.kill_java(test.SparkJob(engine="spark", master="local[1]"))
except test.LmrError as error:
    print(error)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("waiting: the Java of Spark's driver has ended; it may need memory"), done.stderr
    assert done.stdout.count("\n") == 1


def test_a_java_that_ends_amid_an_answer_is_told_alike(cluster: Cluster) -> None:
    protocol = pytest.importorskip("py4j.protocol")
    broken = protocol.Py4JError("An error occurred while calling o252.getJobIdsForGroup")
    assert str(cluster._told("waiting", broken)).startswith("waiting: the Java of Spark's driver has ended")
    refused = protocol.Py4JError("An error occurred while calling o2.a. Trace:\npy4j.Py4JException: no method a")
    assert "has ended" not in str(cluster._told("waiting", refused))


def test_a_folder_is_shipped_and_a_folder_of_the_driver_is_looked_for(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.txt").write_text("hello")
    assert cluster.run("reading", read_shared, [cluster.share(tmp_path / "model")] * 4) == ["hello"] * 4
    cluster.require_shared(tmp_path)
    assert os.listdir(tmp_path) == ["model"]


class TwoGpus:
    """What a task knows of itself that was given two GPUs and four cores."""

    addresses = ("2", "3")

    def resources(self) -> dict[str, "TwoGpus"]:
        return {"gpu": self}

    def cpus(self) -> int:
        return 4

    def attemptNumber(self) -> int:  # noqa: N802
        return 1


def test_a_task_computes_on_the_gpu_and_with_the_cores_that_spark_gave_it() -> None:
    place = place_of(TwoGpus(), SILENT, Path())
    assert (place.n_threads, place.gpus, place.attempt) == (4, ("2", "3"), 1)
    given = place.give(ComputingJob())
    assert (given.device, given.threads, given.workers) == ("cuda:2", 4, 4)
    asked = ComputingJob(device="cpu", threads=1, workers=2)
    assert place.give(asked) == asked
    assert Place("host", 1, (), 0).give(ComputingJob()).device == "auto"


@pytest.mark.parametrize(
    ("master", "why"),
    [("nonsense", "Master must either be yarn or start with "), ("local[x]", "Could not parse Master URL: 'local[x]'")],
)
def test_a_master_that_is_none_is_one_line(cluster: Cluster, master: str, why: str) -> None:
    """In a process of its own, where no session runs yet."""
    command = [sys.executable, "-c", "from cli.main import program; program()", "stats", __file__]
    command += ["--engine", "spark", "--master", master]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    *_, last = done.stderr.splitlines()
    assert last.startswith(f"Error: Spark does not start: {why}")
    assert "\\x09" not in last
