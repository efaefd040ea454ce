"""A cluster that does the tasks of one stage, event by event: stragglers, lost executors, failures, second copies.

What plan.py simulates with. The driver hands tasks to free slots in their order, one after another, each of which takes
it a moment; a slot does one attempt at a time. What an executor that is lost was doing begins again elsewhere, what it
had finished is kept, and another one starts in its place. A task that fails is given out again at once, at most
`max_failures` times. Where speculation is asked, Spark's rule holds: once a share of the tasks is done, one that runs
for longer than so many times the median of those gets a copy on another executor, and the first to end counts.
Nothing is drawn here: what goes wrong is in a Luck, which `draw_luck` draws.
"""

import bisect
import heapq
import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

READY, ENDED, LOST, CHECK = range(4)
N_ATTEMPTS = 8  # for which luck is drawn; later attempts have that of the earlier ones again
N_LIVES = 64  # of an executor, for which luck is drawn


class StageError(Exception):
    """A task failed as often as it may, no executor is left, or one is lost again and again."""


@dataclass(frozen=True)
class Speculation:
    """Second copies of slow tasks; Spark's own defaults. quantile: share of tasks that is done first."""

    quantile: float = 0.9
    multiplier: float = 3.0


@dataclass(frozen=True)
class Cluster:
    """Executors of so many slots each, and what they take beside the work; seconds.

    start_s: until an executor takes tasks; load_s: first task of a slot, whose process imports and loads the network;
    dispatch_s: the driver's for each attempt; replace_s: until another executor starts for a lost one (inf: none does).
    """

    n_executors: int
    n_slots: int = 1
    start_s: float = 0.0
    load_s: float = 0.0
    dispatch_s: float = 0.0
    replace_s: float = float("inf")
    max_failures: int = 4
    speculation: Speculation | None = None


@dataclass(frozen=True)
class Luck:
    """What goes wrong. slow: (n_tasks, n_attempts), factors of the work; fails: the same shape, the share of the work
    after which an attempt fails, above 1 = it does not; lifetimes: (n_executors, n_lives), seconds from ready to lost;
    speed: (n_executors,).
    """

    slow: np.ndarray
    fails: np.ndarray
    lifetimes: np.ndarray
    speed: np.ndarray


@dataclass(frozen=True)
class Ran:
    """What a stage came to. All but the first and the counts are seconds of slots, and add up to slot_s."""

    makespan_s: float
    useful_s: float  # attempts that counted
    lost_s: float  # attempts of lost executors
    failed_s: float
    copied_s: float  # attempts that another one of the same task overtook
    idle_s: float
    slot_s: float  # of all slots while their executors lived
    n_attempts: int
    n_lost: int  # executors
    n_copies: int
    ends_s: np.ndarray = field(repr=False)  # (n_tasks,) when each was done


def no_luck(n_tasks: int, n_executors: int) -> Luck:
    """Nothing goes wrong."""
    ones = np.ones((n_tasks, N_ATTEMPTS))
    return Luck(ones, 2 * ones, np.full((n_executors, N_LIVES), np.inf), np.ones(n_executors))


def draw_luck(
    n_tasks: int,
    n_executors: int,
    rng: np.random.Generator,
    *,
    stragglers: float = 0.0,
    slower: float = 4.0,
    failures: float = 0.0,
    losses_an_hour: float = 0.0,
    spread: float = 0.0,
) -> Luck:
    """Luck by chance: a share of attempts `slower` times as slow, a share that fails at any point, losses of an
    executor in an hour, and executors whose speeds have the coefficient of variation `spread`."""
    slow = np.where(rng.random((n_tasks, N_ATTEMPTS)) < stragglers, slower, 1.0)
    fails = np.where(rng.random((n_tasks, N_ATTEMPTS)) < failures, rng.random((n_tasks, N_ATTEMPTS)), 2.0)
    lifetimes = rng.exponential(1.0, (n_executors, N_LIVES))
    lifetimes = lifetimes * 3600 / losses_an_hour if losses_an_hour else np.full_like(lifetimes, np.inf)
    speed = np.exp(rng.normal(0.0, spread, n_executors)) if spread else np.ones(n_executors)
    return Luck(slow, fails, lifetimes, speed)


def run_stage(work_s: Sequence[float] | np.ndarray, cluster: Cluster, luck: Luck) -> Ran:
    """One stage. work_s: of each task, by an executor of speed 1. Raises StageError."""
    return _Stage(np.asarray(work_s, dtype=float), cluster, luck).run()


@dataclass(eq=False)
class _Attempt:
    task: int
    executor: int
    begun_s: float
    ends_s: float
    fails: bool
    is_copy: bool
    is_over: bool = False


class _Stage:
    def __init__(self, work_s: np.ndarray, cluster: Cluster, luck: Luck) -> None:
        self.work_s, self.cluster, self.luck = work_s, cluster, luck
        self.events: list[tuple[float, int, int, int | _Attempt]] = []
        self.order = itertools.count()
        self.waiting = deque(range(len(work_s)))
        self.free: deque[tuple[int, int]] = deque()  # (executor, its life) of each free slot
        self.n_warm = [0] * cluster.n_executors  # idle processes that have loaded the network
        self.lives, self.is_up = [0] * cluster.n_executors, [False] * cluster.n_executors
        self.up_since_s = [0.0] * cluster.n_executors
        self.running: dict[int, list[_Attempt]] = {}  # of each task; the oldest first, as the driver hands them out
        self.uncopied: dict[int, _Attempt] = {}  # those of them without a copy
        self.tried, self.failed = np.zeros(len(work_s), int), np.zeros(len(work_s), int)
        self.ends_s = np.full(len(work_s), np.inf)
        self.took_s: list[float] = []  # of tasks that are done, sorted, where copies are made
        self.spent = dict.fromkeys(("useful", "lost", "failed", "copied", "slot"), 0.0)
        self.driver_free_s, self.now_s, self.next_check_s = 0.0, 0.0, np.inf
        self.n_lost = self.n_copies = self.n_attempts = self.n_done = 0

    def run(self) -> Ran:
        for executor in range(self.cluster.n_executors):
            self._push(self.cluster.start_s, READY, executor)
        while self.n_done < len(self.work_s):
            if not self.events:
                raise StageError(f"no executor is left, with {self.n_done} of {len(self.work_s)} tasks done")
            self.now_s, _, kind, what = heapq.heappop(self.events)
            if isinstance(what, _Attempt):
                self._ended(what)
            elif kind == READY:
                self._ready(what)
            elif kind == LOST:
                self._lost(what)
            else:
                self.next_check_s = np.inf
            self._hand_out()
        return self._result()

    def _push(self, at_s: float, kind: int, what: "int | _Attempt") -> None:
        if at_s < np.inf:
            heapq.heappush(self.events, (at_s, next(self.order), kind, what))

    def _ready(self, executor: int) -> None:
        self.is_up[executor], self.up_since_s[executor] = True, self.now_s
        self.n_warm[executor] = 0
        self.free.extend([(executor, self.lives[executor])] * self.cluster.n_slots)
        lifetime = self.luck.lifetimes[executor, self.lives[executor]]
        self._push(self.now_s + float(lifetime), LOST, executor)

    def _lost(self, executor: int) -> None:
        """Ends what it was doing and has another one start in its place."""
        self.n_lost += 1
        self._count_up(executor)
        self.is_up[executor] = False
        self.lives[executor] += 1
        if self.lives[executor] == N_LIVES:
            raise StageError(f"executor {executor} was lost {N_LIVES} times; give the work in smaller tasks")
        self.free = deque(slot for slot in self.free if slot[0] != executor)
        for attempt in [one for many in self.running.values() for one in many if one.executor == executor]:
            self._stop(attempt, "lost")
            if not self.running.get(attempt.task):
                self.waiting.appendleft(attempt.task)
        self._push(self.now_s + self.cluster.replace_s + self.cluster.start_s, READY, executor)

    def _ended(self, attempt: _Attempt) -> None:
        if attempt.is_over:  # lost, or overtaken, before
            return
        task = attempt.task
        self._stop(attempt, "failed" if attempt.fails else "useful")
        self.n_warm[attempt.executor] += 1
        self.free.append((attempt.executor, self.lives[attempt.executor]))
        if attempt.fails:
            self.failed[task] += 1
            if self.failed[task] >= self.cluster.max_failures:
                raise StageError(f"task {task} failed {self.failed[task]} times")
            if not self.running.get(task):
                self.waiting.appendleft(task)
            return
        self.n_done += 1
        self.ends_s[task] = self.now_s
        if self.cluster.speculation:
            bisect.insort(self.took_s, self.now_s - attempt.begun_s)
        for other in list(self.running.get(task, ())):
            self._stop(other, "copied")
            self.free.append((other.executor, self.lives[other.executor]))

    def _stop(self, attempt: _Attempt, how: str) -> None:
        """Takes an attempt from those that run, and counts its seconds; what the driver had not handed out has none."""
        attempt.is_over = True
        self.spent[how] += max(0.0, self.now_s - attempt.begun_s)
        self.running[attempt.task].remove(attempt)
        self.uncopied.pop(attempt.task, None)

    def _hand_out(self) -> None:
        while self.free and self.waiting:
            self._begin(self.waiting.popleft(), self.free.popleft()[0], is_copy=False)
        if self.free and self.cluster.speculation and self.n_done < len(self.work_s):
            self._copy(self.cluster.speculation)

    def _copy(self, rule: Speculation) -> None:
        """Copies of what runs for too long, as far as slots of other executors are free."""
        if self.n_done < max(1, np.floor(rule.quantile * len(self.work_s))):
            return
        middle = self.took_s[(self.n_done - 1) // 2 : self.n_done // 2 + 1]
        most_s = rule.multiplier * sum(middle) / len(middle)
        for task, attempt in list(self.uncopied.items()):
            if self.now_s < attempt.begun_s + most_s:
                if attempt.begun_s + most_s < self.next_check_s:
                    self.next_check_s = attempt.begun_s + most_s
                    self._push(self.next_check_s, CHECK, -1)
                return
            slot = next((slot for slot in self.free if slot[0] != attempt.executor), None)
            if slot is not None:
                self.free.remove(slot)
                self._begin(task, slot[0], is_copy=True)

    def _begin(self, task: int, executor: int, *, is_copy: bool) -> None:
        self.driver_free_s = max(self.now_s, self.driver_free_s) + self.cluster.dispatch_s
        attempt_number = self.tried[task] % N_ATTEMPTS
        self.tried[task] += 1
        self.n_attempts += 1
        self.n_copies += is_copy
        takes_s = float(self.work_s[task] * self.luck.slow[task, attempt_number] / self.luck.speed[executor])
        share = float(self.luck.fails[task, attempt_number])
        if self.n_warm[executor]:
            self.n_warm[executor] -= 1
        else:
            takes_s += self.cluster.load_s
        begun_s = self.driver_free_s
        fails = share <= 1
        attempt = _Attempt(task, executor, begun_s, begun_s + takes_s * (share if fails else 1), fails, is_copy)
        self.running.setdefault(task, []).append(attempt)
        if is_copy:
            self.uncopied.pop(task, None)
        else:
            self.uncopied[task] = attempt
        self._push(attempt.ends_s, ENDED, attempt)

    def _count_up(self, executor: int) -> None:
        self.spent["slot"] += (self.now_s - self.up_since_s[executor]) * self.cluster.n_slots

    def _result(self) -> Ran:
        for executor in range(self.cluster.n_executors):
            if self.is_up[executor]:
                self._count_up(executor)
        spent = self.spent
        busy_s = spent["useful"] + spent["lost"] + spent["failed"] + spent["copied"]
        return Ran(
            makespan_s=self.now_s,
            useful_s=spent["useful"],
            lost_s=spent["lost"],
            failed_s=spent["failed"],
            copied_s=spent["copied"],
            idle_s=spent["slot"] - busy_s,
            slot_s=spent["slot"],
            n_attempts=self.n_attempts,
            n_lost=self.n_lost,
            n_copies=self.n_copies,
            ends_s=self.ends_s,
        )
