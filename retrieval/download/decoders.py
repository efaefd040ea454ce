"""Worker processes that decode and resize, so that the network never waits; a picture that kills one is found out."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar, cast

from retrieval.errors import LmrError, UnreadableError
from retrieval.pool import KilledError, Worker, Workers, start_worker, start_workers

T = TypeVar("T")

_Task = tuple[Callable[..., Any], tuple[Any, ...]]


class Decoders:
    """Processes that do one task at a time; with 0 workers, or where none can be started, a thread of this one.

    At its end what is not done is dropped. on_warning: told when fewer processes can be started.
    """

    def __init__(self, n_workers: int, on_warning: Callable[[str], None] = lambda _: None) -> None:
        self._how = Workers(n_workers, on_warning=on_warning)
        self._workers = start_workers(_call, None, self._how)
        self._threads = ThreadPoolExecutor(max(1, len(self._workers)))
        self._idle: asyncio.Queue[Worker] = asyncio.Queue()
        for worker in self._workers:
            self._idle.put_nowait(worker)
        self._alone = asyncio.Lock()

    def __enter__(self) -> "Decoders":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.process.kill()  # which ends the wait of the thread that hears it
        self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in self._workers:
            worker.end()

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """function(*arguments) in a worker. Raises what it raises; UnreadableError when it kills the worker.

        The system kills processes for want of memory too: what was in a killed one is tried again, one after the other,
        so that only what kills two is given up.
        """
        if not self._workers:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)
        try:
            return cast(T, await self._do((function, arguments)))
        except KilledError:
            async with self._alone:
                try:
                    return cast(T, await self._do((function, arguments)))
                except KilledError as error:
                    raise UnreadableError("broken picture: it kills the process that decodes it") from error

    async def _do(self, task: _Task) -> Any:
        """What one worker makes of the task. Raises KilledError when it dies of it."""
        worker = await self._idle.get()
        failed, outcome = await asyncio.get_running_loop().run_in_executor(self._threads, worker.do, task)
        self._idle.put_nowait(self._replace(worker) if isinstance(outcome, KilledError) else worker)
        if failed:
            raise outcome
        return outcome

    def _replace(self, dead: Worker) -> Worker:
        dead.end()
        self._workers.remove(dead)
        try:
            worker = start_worker(_call, None, self._how)
        except OSError as error:
            raise LmrError(
                f"a process that decodes pictures cannot be started: {error.strerror}; "
                "run the same command again with fewer --workers"
            ) from error
        self._workers.append(worker)
        return worker


def _call(task: _Task, _: None) -> Any:
    function, arguments = task
    return function(*arguments)
