"""Work on several processors: tasks in their order, each in a process of its own.

Tasks and results go through pipes. Shared memory and semaphores live in /dev/shm, of which a container may have next to
none, and a result that finds no room there is lost without a word.
"""

import math
import os
import pickle
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from retrieval.errors import LmrError
from retrieval.images import noise
from retrieval.progress import SILENT, Progress

if TYPE_CHECKING:
    from retrieval.texts import Texts

A = TypeVar("A")
T = TypeVar("T")

_Outcome = tuple[bool, Any]  # whether it is an error; the error or the result
CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of a period, and the period
MOST_A_CORE = 16  # where files come slowly, over a network, several may be waited for at once; more only take memory
_AHEAD = 2  # tasks a worker that are begun before their results are needed
_SPARE_FILES = 16  # that the work itself may open, here and in a worker
_PARENT_EVERY_S = 1.0  # how often a worker looks whether its parent is still there
_KILLED = (
    "a process that works on pictures was killed, most often for want of memory; "
    "run the same command again with fewer `workers`"
)
_NO_MEMORY = "not enough memory to work on so many pictures at once; run the same command again with fewer `workers`"


class KilledError(LmrError):
    """A worker process has ended that should not have."""


@dataclass(frozen=True, slots=True)
class Workers:
    """Number of processes that work, and how they begin.

    start: as multiprocessing calls it, None = what is usual on the system. begin: a function of a module, called first
    in each of them. progress: warned when fewer can be started.
    """

    n: int
    start: str | None = "spawn"
    begin: Callable[[], None] | None = None
    progress: Progress = SILENT


def run_tasks(
    function: Callable[..., T], tasks: "Sequence[Any] | Texts", fixed: Any, n_workers: int, *, n_worth: int = 1
) -> Iterator[T]:
    """function(task, fixed) for each task, in order; with one worker or none in this process.

    function is one of a module, and tasks and fixed can be pickled. n_worth: tasks that are worth a worker's start, of
    whom there are fewer where these do not suffice for all. Raises what `work_apart` raises.
    """
    n = min(n_workers, len(tasks) // n_worth)
    if n <= 1:
        yield from (function(task, fixed) for task in tasks)
    else:
        yield from work_apart(function, tasks, fixed, Workers(n))


def run_in_threads(function: Callable[[A], T], tasks: Iterable[A], n_threads: int) -> Iterator[T]:
    """function(task) for each task, in order, by threads; a few are begun before their results are needed."""
    if n_threads <= 1:
        yield from map(function, tasks)
        return
    begun: deque[Future[T]] = deque()
    with ThreadPoolExecutor(n_threads) as pool:
        try:
            for task in tasks:
                begun.append(pool.submit(function, task))
                if len(begun) > n_threads:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()


def work_apart(
    function: Callable[..., T], tasks: Iterable[Any], fixed: Any, workers: Workers
) -> Generator[T, None, None]:
    """function(task, fixed) for each task, in order, by worker processes; tasks may have no end.

    Where not all can be started fewer work, and where none can this process does. Raises what the function raises, and
    LmrError when a process is killed or memory runs out.
    """
    yield from work_with(start_workers(function, fixed, workers), function, tasks, fixed)


def work_with(
    started: "Sequence[Worker]", function: Callable[..., T], tasks: Iterable[Any], fixed: Any
) -> Generator[T, None, None]:
    """Does as `work_apart`, by workers started for this function, which end with it; by this process without."""
    try:
        if started:
            yield from _results(started, iter(tasks))
        else:
            yield from (function(task, fixed) for task in tasks)
    except MemoryError as error:
        raise LmrError(_NO_MEMORY) from error
    finally:
        for worker in started:
            worker.end()


def begin_worker() -> None:
    """Begins a worker: Ctrl-C is for its parent to hear, and it ends when its parent is gone."""
    noise.catch_in_worker()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(RuntimeError):  # where no thread can be started it ends when it has something to say
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that does tasks, and the pipe to it."""

    process: BaseProcess
    connection: Connection

    def give(self, task: Any) -> None:
        """KilledError when it is dead."""
        try:
            self.connection.send(task)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise KilledError(_KILLED) from error

    def take(self) -> _Outcome:
        """Outcome of its task."""
        try:
            outcome: _Outcome = pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            return True, KilledError(_KILLED)
        return outcome

    def do(self, task: Any) -> _Outcome:
        """Gives it a task and waits for what comes of it."""
        try:
            self.give(task)
        except KilledError as error:
            return True, error
        return self.take()

    def end(self) -> None:
        """Ends the process, whatever it does."""
        self.connection.close()
        self.process.kill()
        self.process.join()
        self.process.close()


def _results(workers: Sequence[Worker], tasks: Iterator[Any]) -> Iterator[Any]:
    """Results in the order of the tasks; a worker has one task at a time, so that neither side waits to be read."""
    idle = list(workers)
    busy: dict[Connection, tuple[Worker, int]] = {}
    done: dict[int, _Outcome] = {}
    n_given = n_taken = 0
    while True:
        for task in islice(tasks, min(len(idle), n_taken + _AHEAD * len(workers) - n_given)):
            worker = idle.pop()
            worker.give(task)
            busy[worker.connection] = worker, n_given
            n_given += 1
        is_there = n_taken in done
        if is_there:
            failed, result = done.pop(n_taken)
            if failed:
                raise result
            yield result
            n_taken += 1
        elif not busy:
            return
        for connection in wait(list(busy), 0 if is_there else None):
            worker, number = busy.pop(cast(Connection, connection))
            done[number] = worker.take()
            idle += [] if done[number][0] else [worker]  # which may be dead


def start_workers(function: Callable[..., Any], fixed: Any, workers: Workers) -> list[Worker]:
    """Starts as many as can be started, which may be none."""
    started: list[Worker] = []
    try:
        for _ in range(workers.n):
            _require_spare_files()
            started.append(start_worker(function, fixed, workers))
    except OSError as error:
        workers.progress.warn(
            f"{len(started)} of {workers.n} processes for the pictures can be started here ({error.strerror}); "
            "the work is slower with them, not different"
        )
    return started


def start_worker(function: Callable[..., Any], fixed: Any, workers: Workers) -> Worker:
    """One more process. Raises OSError when it cannot be started."""
    context: Any = get_context(workers.start)
    ours, theirs = context.Pipe()
    try:
        process = context.Process(target=_work, args=(theirs, function, fixed, workers.begin), daemon=True)
        process.start()
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return Worker(process, ours)


def _require_spare_files() -> None:
    """OSError when only few more files may be open."""
    spare: list[int] = []
    try:
        for _ in range(_SPARE_FILES):
            spare.append(os.open(os.devnull, os.O_RDONLY))
    finally:
        for file in spare:
            os.close(file)


def _work(connection: Connection, function: Callable[..., Any], fixed: Any, begin: Callable[[], None] | None) -> None:
    """The life of a worker."""
    begin_worker()
    if begin is not None:
        begin()
    with suppress(EOFError, OSError):  # nobody is there to be told
        while True:
            connection.send_bytes(_outcome(function, connection.recv(), fixed))


def _outcome(function: Callable[..., Any], task: Any, fixed: Any) -> bytes:
    """A result or an error, and which of them it is."""
    try:
        return pickle.dumps((False, function(task, fixed)), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        error.add_note(traceback.format_exc())
        with suppress(Exception):
            said = pickle.dumps((True, error))
            pickle.loads(said)  # an error may take more than its text to be made again
            return said
        return pickle.dumps((True, RuntimeError(f"{type(error).__name__}: {error}")))


def _end_with_parent(number: int) -> None:
    """Its pipes do not tell: a process that was forked later holds their other ends too."""
    parent = parent_process()
    while os.getppid() == number and (parent is None or parent.is_alive()):
        time.sleep(_PARENT_EVERY_S)
    os._exit(1)


def n_processes() -> int:
    """Number of processes that torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """True for the process that writes and reports."""
    return int(os.environ.get("RANK", "0")) == 0


def count_cores() -> int:
    """Cores that this process may use: of those that it may run on as many as its container is given time for."""
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return n_cores if (quota := _quota()) is None else max(1, min(n_cores, quota))


def threads_within_quota() -> int | None:
    """Threads that compute where a container is given less time than it has cores; None where all cores can be used."""
    n_cores = count_cores()
    return n_cores if _quota() == n_cores else None


def _quota() -> int | None:
    """Whole cores for which this process's control group (Linux) is given time; None where it is not bounded."""
    try:
        quota, period = CPU_MAX.read_text(encoding="ascii").split()
        return max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):  # not Linux, or `max`
        return None


def count_workers(asked: int | None, progress: Progress) -> int:
    """Number of images decoded at once: as many as asked for, else one for each core, shared among torchrun's.

    Never more than MOST_A_CORE for each core, of which `progress` is warned.
    """
    n_cores = count_cores()
    if asked is None:
        return max(1, n_cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    most: int = MOST_A_CORE * n_cores
    if asked > most:
        progress.warn(
            f"`workers` {asked}: {most} are used, {MOST_A_CORE} for each of {n_cores} cores; more only take memory"
        )
    return min(asked, most)
