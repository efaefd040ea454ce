"""Stopwatch: the seconds that the stages of a job take, over all of its threads."""

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol


class Stopwatch(Protocol):
    """Is told of the stages of a job."""

    def at(self, stage: str) -> AbstractContextManager[None]:
        """A block that is this stage's."""


class Off:
    """Measures nothing."""

    def at(self, stage: str) -> AbstractContextManager[None]:
        """A block as it is."""
        return _NOTHING


_NOTHING = nullcontext()
OFF = Off()


class Running:
    """Adds up the seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def at(self, stage: str) -> Iterator[None]:
        """A block whose seconds are this stage's."""
        began = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - began
            with self._lock:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + took
