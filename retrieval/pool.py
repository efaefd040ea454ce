"""Work on several processors: tasks in their order, each in a process that was started anew."""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

from retrieval.errors import LmrError

T = TypeVar("T")

_AHEAD = 4  # tasks a worker that are handed out before they are needed

_work: tuple[Callable[..., Any], Any]  # of a worker process: its function and what is fixed


def run_tasks(function: Callable[..., T], tasks: Sequence[Any], fixed: Any, n_workers: int) -> Iterator[T]:
    """function(task, fixed) for each task, in order; with one worker or none in this process.

    function is one of a module, and tasks and fixed can be pickled. Raises LmrError when a process is killed.
    """
    if n_workers <= 1 or len(tasks) <= 1:
        yield from (function(task, fixed) for task in tasks)
        return
    try:
        n, spawn = min(n_workers, len(tasks)), get_context("spawn")
        with ProcessPoolExecutor(n, mp_context=spawn, initializer=_begin, initargs=(function, fixed)) as pool:
            waiting = deque(pool.submit(_run, task) for task in tasks[: _AHEAD * n])
            for task in tasks[_AHEAD * n :]:
                yield waiting.popleft().result()
                waiting.append(pool.submit(_run, task))
            while waiting:
                yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise LmrError(
            "a process that works on pictures was killed, most often for want of memory; "
            "run the same command again with fewer --workers"
        ) from error


def _begin(function: Callable[..., Any], fixed: Any) -> None:
    """What is the same for all tasks comes to a worker once, not with each of them."""
    global _work
    begin_worker()
    _work = function, fixed


def _run(task: Any) -> Any:
    function, fixed = _work
    return function(task, fixed)


def begin_worker() -> None:
    """At the start of a worker: Ctrl-C is for its parent to hear, and it ends when its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
