"""`lmr submit --engine spark`: the submission that one machine writes, whatever becomes of executors, disks and the
driver."""

import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from test_embed_on_spark import ONE, SPARK, kill_driver, processes, wait_for
from test_embed_on_spark import small_disk as small_disk
from tiny_set import done, listing, misused, read_rows, refused, write_csv

from retrieval.spark.cluster import Cluster

TO = ("--output", "s.csv")


@pytest.fixture(scope="module")
def world(finished_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny set with more images to ask, an index in three shards, and the submission and store of one machine."""
    folder = tmp_path_factory.mktemp("world") / "set"
    shutil.copytree(finished_set, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        rows = [row["id"] for row in read_rows(Path("test.csv"))]
        for name in rows:
            shutil.copy(f"images/{name}.jpg", f"images/{name}-2.jpg")
        write_csv(Path("test.csv"), "id", rows + [f"{name}-2" for name in rows])
        Path("images/test-arch-0-2.jpg").unlink()
        done("build-index", "--overwrite", "--shards", "3", "--expand", "2", "--rerank", "100", "--device", "cpu")
        done("calibrate", "val.csv", "--overwrite", *ONE)
        done("submit", "--output", "local.csv", *ONE)
    return folder


@pytest.fixture
def here(cluster: Cluster, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the working folder of commands that join the cluster."""
    shutil.copytree(world, tmp_path / "set")
    monkeypatch.chdir(tmp_path / "set")
    return tmp_path / "set"


@pytest.fixture
def expected(here: Path) -> str:
    """The submission of one machine."""
    return Path("local.csv").read_text()


def found(folder: Path) -> list[Path]:
    """What searches have found, in a staging folder."""
    return sorted((folder / ".s.csv.spark").glob("found-*"))


def test_the_submission_is_that_of_one_machine_and_is_found_finished_by_both(here: Path, expected: str) -> None:
    Path("test.h5").unlink()
    result = done("submit", *TO, "--tasks", "3", *SPARK, *ONE)
    assert Path("s.csv").read_text() == expected
    assert result.stdout.startswith("s.csv: 44 lines, ")
    assert "1 of the blank lines is a picture that is missing or unreadable" in result.stderr
    assert not [name for name in listing(here) if ".spark" in name or name.endswith(".lock")]
    finished = "s.csv: finished already, nothing to do (44 lines)\n"
    assert done("submit", *TO, *SPARK, *ONE).stdout == finished
    assert done("submit", *TO, *ONE).stdout == finished
    told = refused("submit", *TO, "--threshold", "0.25", *SPARK, *ONE)
    assert re.fullmatch(
        r".*/s\.csv was made with another --threshold \(none, now 0\.25\); give --overwrite or another --output"
        r" \(on executor \S+, looking at the index\)",
        told,
    )
    done("submit", *TO, "--threshold", "0.25", "--overwrite", *SPARK, *ONE)
    done("submit", "--output", "local.csv", "--threshold", "0.25", "--overwrite", *ONE)
    assert Path("s.csv").read_text() == Path("local.csv").read_text()


def test_an_executor_that_is_killed_in_the_middle_changes_nothing(here: Path, cluster: Cluster, expected: str) -> None:
    at_kill: list[int] = []

    def kill() -> None:
        wait_for(lambda: len(found(here)) >= 2)
        executors = processes(b"CoarseGrainedExecutorBackend", "cmdline")
        (victim, *_) = sorted(set(executors) & set(processes(cluster.application.encode(), "cmdline")))
        os.kill(victim, signal.SIGKILL)
        at_kill.append(len(found(here)))

    killer = threading.Thread(target=kill)
    killer.start()
    done("submit", *TO, "--tasks", "8", *SPARK, *ONE)
    killer.join()
    assert 2 <= at_kill[0] < 3 * 8 * 3
    assert Path("s.csv").read_text() == expected


def test_a_driver_that_is_killed_goes_on_with_what_was_found_and_makes_what_is_damaged_again(
    here: Path, expected: str
) -> None:
    kill_driver("submit", *TO, "--tasks", "8", *ONE, once=lambda: len(found(here)) >= 3)
    there = found(here)
    times = {path: path.stat().st_mtime_ns for path in there}
    staging = here / ".s.csv.spark"
    last = max(int(path.name.split("-")[1]) for path in there)
    damaged, *others = [path for path in there if not (staging / path.name.replace("found", "known")[:-2]).exists()]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    told = refused("submit", *TO, "--threshold", "0.25", *SPARK, *ONE)
    assert "holds an unfinished submission made with another --threshold; give --overwrite or another" in told

    def watch() -> None:
        wait_for(lambda: len(found(here)) > len(there))
        seen.update({path: path.stat().st_mtime_ns for path in others})

    seen: dict[Path, int] = {}
    watcher = threading.Thread(target=watch)
    watcher.start()
    result = done("submit", *TO, *SPARK, *ONE)
    watcher.join()
    assert f"{damaged} was damaged, and is made again" in result.stderr
    assert seen == {path: times[path] for path in others}
    assert last <= 2
    assert Path("s.csv").read_text() == expected


def test_a_full_disk_of_an_executor_is_one_line_and_what_is_finished_stays(
    here: Path, expected: str, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("120k")
    given = ("submit", "--output", disk / "s.csv", "--store", "test.h5", *SPARK, *ONE)
    message = refused(*given, "--tasks", "4")
    assert re.fullmatch(
        rf"{disk}/\.s\.csv\.spark/\S+ cannot be written: {os.strerror(28)}; choose another place or make room "
        r"\(on executor \S+, (answering|searching)\)",
        message,
    ), message
    before = {path.name for path in (disk / ".s.csv.spark").glob("[af]*")}
    assert before
    subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
    done(*given)
    assert (disk / "s.csv").read_text() == expected


def test_a_share_does_not_go_with_a_cluster() -> None:
    assert misused("submit", "--shard", "1/2", *SPARK) == (
        "--shard does not go with --engine spark, which makes shares by itself; leave one out"
    )
