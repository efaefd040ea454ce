"""Worker processes that decode and resize, so that the network never waits; a picture that kills one is found out."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import TracebackType
from typing import Any, TypeVar

from retrieval.errors import UnreadableError
from retrieval.pool import begin_worker

T = TypeVar("T")


class Decoders:
    """A pool of processes; with 0 workers a thread of this one. At its end what was not begun is dropped."""

    def __init__(self, n_workers: int) -> None:
        self._n_workers = n_workers
        self._pool = _pool(n_workers)
        self._alone = asyncio.Lock()

    def __enter__(self) -> "Decoders":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """function(*arguments) in a worker. Raises what it raises; UnreadableError when it kills the worker.

        A killed worker breaks the whole pool: everything in it is then tried again, one after the other, so that only
        what kills a worker while alone in it is given up.
        """
        pool = self._pool
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)
        except BrokenProcessPool:
            if self._pool is pool:
                self._pool = _pool(self._n_workers)
        async with self._alone:
            with _pool(1) as single:
                try:
                    return await asyncio.get_running_loop().run_in_executor(single, function, *arguments)
                except BrokenProcessPool as error:
                    raise UnreadableError("broken picture: it kills the process that decodes it") from error


def _pool(n_workers: int) -> Executor:
    if not n_workers:
        return ThreadPoolExecutor(1)
    return ProcessPoolExecutor(n_workers, mp_context=get_context("spawn"), initializer=begin_worker)
