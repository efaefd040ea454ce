"""`lmr embed --engine spark`: the store that one machine makes, whatever becomes of executors, disks and the driver."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from quick_java import QUICK_DRIVER
from tiny_set import NETWORK, done, listing, misused, refused

from retrieval.spark.cluster import Cluster

SPARK = ("--engine", "spark")
ONE = ("--threads", "1", "--workers", "1", "--device", "cpu")
WAIT_S = 300


@pytest.fixture
def here(cluster: Cluster, finished_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tiny set, as the working folder of commands that join the cluster."""
    shutil.copytree(finished_set, tmp_path / "set")
    monkeypatch.chdir(tmp_path / "set")
    return tmp_path / "set"


@pytest.fixture
def expected(here: Path) -> bytes:
    """The store of one machine, of the files that are there: it tells them from others."""
    done("embed", "--output", "local.h5", *ONE)
    return Path("local.h5").read_bytes()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A function that makes a file system of a size, and gives its folder; skips where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def make(size: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        made = subprocess.run(command, capture_output=True, check=False)
        if made.returncode:
            pytest.skip(f"cannot mount a file system here: {made.stderr.decode().strip()}")
        return folder

    yield make
    subprocess.run(["umount", "-l", folder], capture_output=True, check=False)


def finished(folder: Path) -> list[Path]:
    """The shares in a staging folder that are finished."""
    return sorted(folder.glob("*-of-*.h5"))


def wait_for(what: Callable[[], bool]) -> None:
    until = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < until, "nothing came of it"
        time.sleep(0.02)


def kill_driver(*words: str, once: Callable[[], bool]) -> None:
    """Kills a command that has a session of its own in the middle, and waits until what it started has ended too."""
    sign = uuid.uuid4().hex
    on = (*SPARK, "--master", "local[2]", "--spark-conf", QUICK_DRIVER)
    command = [sys.executable, "-c", "from cli.main import program; program()", *words, *on]
    environment = {**os.environ, "LMR_TEST_SIGN": sign, "PYTHONPATH": str(Path(__file__).parents[2])}
    driver = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    wait_for(lambda: once() or driver.poll() is not None)
    assert driver.poll() is None, "it ended before"
    driver.kill()
    driver.wait()
    wait_for(lambda: not processes(sign.encode(), "environ"))


def processes(sign: bytes, file: str) -> list[int]:
    """Processes of which a file of /proc holds a sign."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if sign in (place / file).read_bytes():
                found.append(int(place.name))
        except OSError:
            continue
    return found


def test_the_store_is_that_of_one_machine_and_pictures_that_fail_are_rows_of_a_table(here: Path) -> None:
    Path("images/train-arch-0.jpg").unlink()
    done("embed", "--output", "local.h5", "--local", "rootsift", *ONE)
    result = done("embed", "--output", "spark.h5", "--tasks", "3", "--local", "rootsift", *SPARK, *ONE)
    first, second = result.stdout.splitlines()
    assert first == "spark.h5: 43 descriptors, 1 unreadable, listed in spark.unreadable.csv"
    assert second.startswith("spark.local.h5: ")
    assert Path("spark.h5").read_bytes() == Path("local.h5").read_bytes()
    assert Path("spark.local.h5").read_bytes() == Path("local.local.h5").read_bytes()
    assert Path("spark.unreadable.csv").read_text().splitlines() == [
        "image_id,path,reason",
        "train-arch-0,,not found: tried images/train-arch-0.jpg and 23 other places",
    ]
    files = listing(here)
    assert not [name for name in files if ".spark" in str(name) or str(name).endswith(".lock")]
    again = done("embed", "--output", "spark.h5", "--local", "rootsift", *SPARK, *ONE)
    assert again.stdout.startswith("spark.h5: finished already, nothing to do (44 pictures)")
    assert listing(here) == files


def test_a_network_is_made_once_and_another_store_in_the_place_is_refused_or_replaced(here: Path) -> None:
    done("embed", "--model", "m", "--output", "local.h5", *NETWORK, *ONE)
    done("embed", "--model", "n", "--output", "spark.h5", "--tasks", "2", *NETWORK, *SPARK, *ONE)
    assert Path("spark.h5").read_bytes() == Path("local.h5").read_bytes()
    message = refused("embed", "--output", "spark.h5", "--flip", *SPARK, *ONE)
    assert message == "spark.h5 was made with another flip (False, now True); give --overwrite or another file name"
    message = refused("embed", "val.csv", "--output", "spark.h5", "--model", "n", *SPARK, *ONE)
    assert re.fullmatch(
        r"spark.h5 was made with another manifest \(.*\); give --overwrite or another file name", message
    )
    assert Path("spark.h5").read_bytes() == Path("local.h5").read_bytes()
    done("embed", "--output", "spark.h5", "--flip", "--overwrite", *SPARK, *ONE)
    done("embed", "--output", "local.h5", "--flip", "--overwrite", *ONE)
    assert Path("spark.h5").read_bytes() == Path("local.h5").read_bytes()


def test_an_executor_that_is_killed_in_the_middle_changes_nothing(
    here: Path, cluster: Cluster, expected: bytes
) -> None:
    at_kill: list[int] = []

    def kill() -> None:
        wait_for(lambda: len(finished(here / ".spark.h5.spark")) >= 2)
        executors = processes(b"CoarseGrainedExecutorBackend", "cmdline")
        (victim, *_) = sorted(set(executors) & set(processes(cluster.application.encode(), "cmdline")))
        os.kill(victim, signal.SIGKILL)
        at_kill.append(len(finished(here / ".spark.h5.spark")))

    killer = threading.Thread(target=kill)
    killer.start()
    result = done("embed", "--output", "spark.h5", "--tasks", "22", *SPARK, *ONE)
    killer.join()
    assert 2 <= at_kill[0] < 22
    assert result.stdout == "spark.h5: 44 descriptors, 0 unreadable\n"
    assert Path("spark.h5").read_bytes() == expected


def test_a_driver_that_is_killed_goes_on_with_what_was_finished_and_makes_a_corrupt_share_again(
    here: Path, expected: bytes
) -> None:
    staging = here / ".spark.h5.spark"
    words = ("embed", "--output", "spark.h5", "--tasks", "22", *ONE)
    kill_driver(*words, once=lambda: len(finished(staging)) >= 3)
    there = finished(staging)
    assert 3 <= len(there) < 22
    corrupt, *others = there
    data = bytearray(corrupt.read_bytes())
    data[-1] ^= 1
    corrupt.write_bytes(bytes(data))
    ids = [line.split(",")[0] for line in Path("train.csv").read_text().splitlines()[1:]]
    for path in others:  # which nobody reads again
        share = int(path.name.split("-")[1]) - 1
        for image_id in ids[2 * share : 2 * share + 2]:
            Path(f"images/{image_id}.jpg").unlink()
    message = refused("embed", "--output", "spark.h5", "--tasks", "21", *SPARK, *ONE)
    assert message == (
        ".spark.h5.spark was begun with --tasks 22, now 21; leave --tasks out, or give --overwrite, which begins anew"
    )
    result = done("embed", "--output", "spark.h5", *SPARK, *ONE)
    assert f".spark.h5.spark/{corrupt.name} is damaged" in result.stderr
    assert f"{len(others)} of 22 shares were finished before" in result.stderr
    assert result.stdout == "spark.h5: 44 descriptors, 0 unreadable\n"
    assert Path("spark.h5").read_bytes() == expected


def test_a_full_disk_of_an_executor_is_named_and_what_is_finished_stays(
    here: Path, expected: bytes, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("96k")
    message = refused("embed", "--output", disk / "x.h5", "--tasks", "4", *SPARK, *ONE)
    found = re.fullmatch(
        rf"{disk}/\.x\.h5\.spark/x-\d-of-4\.h5\.partial: .*{os.strerror(28)}; .* \(on executor \S+, embedding\)",
        message,
    )
    assert found, message
    n = len(finished(disk / ".x.h5.spark"))
    assert n >= 1
    subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
    result = done("embed", "--output", disk / "x.h5", *SPARK, *ONE)
    before = re.search(r"(\d) of 4 shares were finished before", result.stderr)
    assert before, result.stderr
    assert int(before[1]) >= n  # what ran when the first one failed may have ended well
    assert (disk / "x.h5").read_bytes() == expected


def test_words_of_spark_go_with_it_alone() -> None:
    assert misused("embed", "--master", "local[2]") == "--master needs --engine spark"
    assert misused("embed", "--tasks", "3", "--engine", "torch") == "--tasks needs --engine spark"
    assert misused("embed", "--shard", "1/2", *SPARK) == (
        "--shard does not go with --engine spark, which makes shares by itself; leave one out"
    )
    assert refused("embed", "--spark-conf", "memory=1g", *SPARK) == (
        "--spark-conf memory=1g: expected spark.KEY=VALUE, such as spark.executor.memory=8g"
    )
