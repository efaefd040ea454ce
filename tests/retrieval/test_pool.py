"""Tasks in worker processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from retrieval.pool import run_tasks


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
        "from retrieval.pool import run_tasks; from tests.retrieval.test_pool import slow_task\n"
        f"if __name__ == '__main__': list(run_tasks(slow_task, [0, 1], {str(tmp_path)!r}, 2))"
    )
    script = tmp_path / "parent.py"
    script.write_text(program)
    root = str(Path(__file__).parents[2])
    parent = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": root})
    try:
        assert wait_for(
            lambda: all((tmp_path / f"{n}.pid").exists() and (tmp_path / f"{n}.pid").read_text() for n in (0, 1))
        )
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    pids = [int((tmp_path / f"{n}.pid").read_text()) for n in (0, 1)]
    assert wait_for(lambda: not any(map(alive, pids)))
