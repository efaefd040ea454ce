"""Tasks in worker processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import pytest
from recorder import Recorder

from retrieval import parallel as pool
from retrieval.errors import LmrError
from retrieval.parallel import Workers, run_tasks, work_apart

MANY_BYTES = 1_000_000  # more than a pipe holds
PLACES = (Path(__file__).parents[2], Path(__file__).parent)
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, PLACES))}


def slow_task(number: int, folder: str) -> int:
    (Path(folder) / f"{number}.pid").write_text(str(os.getpid()))
    time.sleep(600)
    return number


def square(number: int, plus: int) -> int:
    return number * number + plus


def alive(pid: int) -> bool:
    """Whether the process runs; a dead one that nobody waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition) -> bool:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_results_come_in_the_order_of_the_tasks_with_and_without_workers():
    assert list(run_tasks(square, [3, 1, 2], 10, 1)) == list(run_tasks(square, [3, 1, 2], 10, 2)) == [19, 11, 14]


class Sent:
    """Notes each time that it comes to a worker."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __setstate__(self, state: dict[str, Path]) -> None:
        self.__dict__ = state
        with self.path.open("a") as file:
            file.write("x")


def plain(number: int, _: Sent) -> int:
    return number


def test_many_tasks_come_back_in_order_and_what_is_fixed_goes_to_each_worker_once(tmp_path):
    assert list(run_tasks(plain, list(range(50)), Sent(tmp_path / "sent"), 2)) == list(range(50))
    assert 1 <= len((tmp_path / "sent").read_text()) <= 2


def test_workers_end_when_their_parent_is_killed(tmp_path):
    program = (
        "from retrieval.parallel import run_tasks; from tests.retrieval.test_pool import slow_task\n"
        f"if __name__ == '__main__': list(run_tasks(slow_task, [0, 1], {str(tmp_path)!r}, 2))"
    )
    script = tmp_path / "parent.py"
    script.write_text(program)
    parent = subprocess.Popen([sys.executable, str(script)], env=ENVIRONMENT)
    try:
        assert wait_for(
            lambda: all((tmp_path / f"{n}.pid").exists() and (tmp_path / f"{n}.pid").read_text() for n in (0, 1))
        )
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    pids = [int((tmp_path / f"{n}.pid").read_text()) for n in (0, 1)]
    assert wait_for(lambda: not any(map(alive, pids)))


# Work apart


@pytest.fixture
def forked() -> Workers:
    """Two processes, which begin at once where the system can fork."""
    return Workers(2, start="fork" if hasattr(os, "fork") else "spawn")


def echo(data: bytes, more: bytes) -> bytes:
    return data + more


def fail(number: int, kind: str) -> int:
    if number < 3:
        return number
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "memory":
        raise MemoryError
    if kind == "disk":
        raise OSError(28, "No space left on device", "there")
    if kind == "told":
        raise LmrError("told")
    raise UnpickledError("of two", "parts")


class UnpickledError(Exception):
    """Cannot be made again from what pickle keeps of it."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} {other}")


def test_tasks_and_results_larger_than_a_pipe_hold_nobody_up(forked: Workers) -> None:
    tasks = [bytes([i]) * MANY_BYTES for i in range(7)]
    assert list(work_apart(echo, tasks, b"x", forked)) == [task + b"x" for task in tasks]


def test_a_fast_worker_goes_on_while_a_slow_one_is_waited_for(forked: Workers) -> None:
    assert list(work_apart(wait_long, [0.2, 0.0, 0.0, 0.0, 0.1, 0.0], None, forked)) == [0.2, 0.0, 0.0, 0.0, 0.1, 0.0]


def wait_long(seconds: float, _: None) -> float:
    time.sleep(seconds)
    return seconds


def test_tasks_without_end_are_begun_only_as_they_are_needed_and_the_workers_end(forked: Workers) -> None:
    asked: list[int] = []

    def tasks() -> Iterator[int]:
        for number in count():
            asked.append(number)
            yield number

    results = work_apart(pid_of, tasks(), None, forked)
    pids = set(islice(results, 5))
    assert 5 <= len(asked) <= 5 + 2 * 2
    results.close()
    assert len(pids) == 2
    assert not any(map(alive, pids))


def pid_of(_: int, __: None) -> int:
    return os.getpid()


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (
            "killed",
            LmrError(
                "a process that works on pictures was killed, most often for want of memory; "
                "run the same command again with fewer `workers`"
            ),
        ),
        (
            "memory",
            LmrError(
                "not enough memory to work on so many pictures at once; run the same command again with fewer `workers`"
            ),
        ),
        ("disk", OSError(28, "No space left on device", "there")),
        ("told", LmrError("told")),
        ("other", RuntimeError("UnpickledError: of two parts")),
    ],
)
def test_what_goes_wrong_in_a_worker_ends_the_work_with_its_reason(
    forked: Workers, kind: str, error: Exception
) -> None:
    results = work_apart(fail, range(6), kind, forked)
    assert list(islice(results, 3)) == [0, 1, 2]
    with pytest.raises(type(error)) as caught:
        next(results)
    assert str(caught.value) == str(error)


@pytest.mark.parametrize("n_started", [0, 1])
def test_where_not_all_processes_can_be_started_fewer_or_none_do_the_same_work(
    forked: Workers, monkeypatch: pytest.MonkeyPatch, n_started: int
) -> None:
    start, warnings, started = pool.start_worker, list[str](), list[int]()

    def few(*arguments: object) -> object:
        if len(started) == n_started:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        started.append(1)
        return start(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pool, "start_worker", few)
    workers = Workers(3, forked.start, progress=Recorder(warnings))
    assert list(work_apart(square, range(5), 1, workers)) == [1, 2, 5, 10, 17]
    assert warnings == [
        f"{n_started} of 3 processes for the pictures can be started here (Resource temporarily unavailable); "
        "the work is slower with them, not different"
    ]


def test_no_process_is_started_when_its_work_could_open_no_file(forked: Workers) -> None:
    """In a process of its own, whose limit is not ours."""
    resource = pytest.importorskip("resource")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (14, 14))

    program = (
        "from retrieval.parallel import Workers, work_apart; from recorder import Recorder\n"
        "from tests.retrieval.test_pool import square\n"
        "heard = Recorder()\n"
        "found = list(work_apart(square, range(3), 0, Workers(2, 'fork', progress=heard)))\n"
        "print(*heard.warnings, found, sep='\\n')"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], env=ENVIRONMENT, preexec_fn=limit, capture_output=True, text=True, check=True
    )
    assert said.stdout.splitlines() == [
        "0 of 2 processes for the pictures can be started here (Too many open files); "
        "the work is slower with them, not different",
        "[0, 1, 4]",
    ]


def test_work_needs_no_semaphore(forked: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """They lie in /dev/shm, which may be full."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", full)
    assert list(work_apart(square, range(5), 1, forked)) == [1, 2, 5, 10, 17]
