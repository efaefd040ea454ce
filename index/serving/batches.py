"""Work of many: room for so much of it, a thread that computes in batches what waits, threads for what takes long."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, ParamSpec, TypeVar

from retrieval.errors import LmrError

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

FULL = "too many images are waiting"
ENDING_S = 5.0  # in which another server may have begun
_LATEST = 0.2  # share of the latest seconds in their running mean
_FIRST_S = 1.0  # what something takes, before anything was done


class BusyError(LmrError):
    """Nothing more may wait. retry_s: whole seconds after which it may be tried again."""

    def __init__(self, retry_s: float, why: str = FULL) -> None:
        self.retry_s = math.ceil(max(1.0, retry_s))
        super().__init__(f"{why}; try again in {self.retry_s} s")


def ending() -> BusyError:
    """What those are told that come at the end, or are not answered by then."""
    return BusyError(ENDING_S, "the server is ending")


class Room:
    """Room for so many at once, and how long each of them stays."""

    def __init__(self, n: int) -> None:
        self.n, self.is_open = n, True
        self._n_inside, self._stay_s = 0, _FIRST_S
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return self._n_inside

    def enter(self) -> float:
        """The time at which it was entered. Raises BusyError: one that comes when the latest have left finds room."""
        with self._changed:
            if not self.is_open:
                raise ending()
            if self._n_inside >= self.n:
                raise BusyError(self._stay_s)
            self._n_inside += 1
        return time.monotonic()

    def leave(self, entered: float) -> None:
        """Makes room for another one."""
        with self._changed:
            self._n_inside -= 1
            self._stay_s += _LATEST * (time.monotonic() - entered - self._stay_s)
            self._changed.notify_all()

    def close(self, until: float) -> bool:
        """Lets nobody in any more, and waits until all have left or until a time; whether they have."""
        with self._changed:
            self.is_open = False
            return self._changed.wait_for(lambda: not self._n_inside, max(0.0, until - time.monotonic()))


class Pool:
    """Threads for work that takes long; so much of it may wait."""

    def __init__(self, n_threads: int, n_waiting: int) -> None:
        self._room, self._threads = Room(n_threads + n_waiting), ThreadPoolExecutor(n_threads)

    def submit(self, function: Callable[P, R], *args: P.args, **words: P.kwargs) -> "Future[R]":
        """Calls a function in one of the threads. Raises BusyError."""
        entered = self._room.enter()
        future = self._threads.submit(function, *args, **words)
        future.add_done_callback(lambda _: self._room.leave(entered))
        return future

    def close(self, until: float) -> None:
        """Takes nothing more, and waits until a time for what it has; what has not begun by then is cancelled."""
        self._room.close(until)
        self._threads.shutdown(wait=False, cancel_futures=True)


class Batches(Generic[T]):
    """A thread that computes all that waits at once, up to a number.

    What comes while nothing is computed is taken at once, so that nothing waits for a batch: a batch is what came
    while the one before it was computed. compute: is given one batch after the other, and raises nothing. most: how
    many may go with one. fit: whether two may go together; only what came one after the other does.
    """

    def __init__(
        self, compute: Callable[[list[T]], None], most: Callable[[T], int], fit: Callable[[T, T], bool]
    ) -> None:
        self._compute, self._most, self._fit = compute, most, fit
        self._waiting: deque[T] = deque()
        self._changed = threading.Condition()
        self._is_ending = False
        self._thread = threading.Thread(target=self._run, name="lmr-model", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, item: T) -> bool:
        """Has an item computed; False at the end, when none is any more."""
        with self._changed:
            if not self._is_ending:
                self._waiting.append(item)
                self._changed.notify()
            return not self._is_ending

    def end(self) -> list[T]:
        """Ends the thread after its batch; what waits still."""
        with self._changed:
            self._is_ending = True
            left = list(self._waiting)
            self._waiting.clear()
            self._changed.notify()
        return left

    def _run(self) -> None:
        while batch := self._take():
            self._compute(batch)
            del batch  # an index that was replaced is kept no longer than it answers

    def _take(self) -> list[T]:
        """The next batch; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_ending)
            batch: list[T] = []
            while self._waiting and (not batch or self._goes(batch)):
                batch.append(self._waiting.popleft())
            return batch

    def _goes(self, batch: Sequence[T]) -> bool:
        return len(batch) < self._most(batch[0]) and self._fit(batch[0], self._waiting[0])


def apart(function: Callable[[Sequence[T]], None], items: Sequence[T], fail: Callable[[T, Exception], None]) -> None:
    """Calls a function with items, and where it raises with each half of them: what fails then fails alone."""
    try:
        function(items)
    except Exception as error:
        if len(items) == 1:
            fail(items[0], error)
            return
        half = len(items) // 2
        apart(function, items[:half], fail)
        apart(function, items[half:], fail)
