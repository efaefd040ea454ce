"""Processes of this program's own, for work that may hang, die or take too much memory."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from retrieval.errors import LmrError, UnreadableError

_HOME = Path(__file__).resolve().parents[1]
_READY = b"ready\n"  # what a process says when it can do jobs
# By which a process is ended from outside, as when a computer is shut down, and not by what it does.
_FROM_OUTSIDE = frozenset(getattr(signal, f"SIG{name}", 0) for name in ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2"))


class EndedError(Exception):
    """A process ended while it worked. signal: that ended it, 0 = none. code: it exited with."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.signal, self.code = max(0, -code), max(0, code)


class Apart:
    """A process that computes function(value) for this one, value after value, and may die of it.

    function: of a module, or a `partial` of one. It may take so much time on processors for a value, and so much memory
    more than it began with, where the system can tell.
    """

    MAX_SECONDS: ClassVar[int] = 60
    MAX_MEMORY: ClassVar[int] = 2 << 30

    def __init__(self, function: Callable[[Any], Any]) -> None:
        try:
            self._process = subprocess.Popen(
                start_words("retrieval.own_process"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=start_environment(),
            )
        except OSError as error:
            raise LmrError(f"a process of its own cannot be started: {error.strerror}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._send(function)
        if self._from.readline() != _READY:
            raise LmrError(f"a process of its own ended at its start with exit code {self._process.wait()}")

    def do(self, value: Any) -> Any:
        """function(value). Raises what that raises, EndedError when the process dies, LmrError when it is ended."""
        try:
            self._send(value)
            is_done, made = pickle.load(self._from)
        except (BrokenPipeError, EOFError, pickle.UnpicklingError) as error:
            ended = EndedError(self._process.wait())
            if ended.signal in _FROM_OUTSIDE and ended.signal:
                raise LmrError(
                    f"a process of its own was ended by signal {ended.signal}; run the same command again"
                ) from error
            raise ended from error
        if is_done:
            return made
        raise made

    def end(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._to, self._from):
            with contextlib.suppress(OSError):  # of what could not be sent
                pipe.close()

    def _send(self, value: Any) -> None:
        pickle.dump(value, self._to, pickle.HIGHEST_PROTOCOL)
        self._to.flush()


def start_words(module: str) -> list[str]:
    """The command that runs one of the program's modules as a script."""
    return [sys.executable, "-P", "-m", module]


def start_environment(**more: str) -> dict[str, str]:
    """The environment for `start_words`: what this process imports, with one thread. more: variables to set beside."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(_HOME), *filter(None, sys.path)]),
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        **more,
    }


def limit_memory(more: int | None) -> None:
    """Lets this process take so many bytes more than it has; None = any number. Only where the system can tell."""
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = hard if more is None else size + more
    if hard not in (resource.RLIM_INFINITY, -1):
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))


def limit_computing(seconds: int) -> None:
    """Lets the system end this process when it has computed for so long; waiting for a disk does not count."""
    try:
        import resource
    except ImportError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + seconds
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard in (resource.RLIM_INFINITY, -1) else min(soft, hard), hard))


def _serve() -> None:
    """The life of such a process: values come in, what is made of them goes out."""
    values, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else may get between the answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to hear
    function = pickle.load(values)
    answers.write(_READY)
    answers.flush()
    while True:
        try:
            value = pickle.load(values)
        except EOFError:
            return
        limit_computing(Apart.MAX_SECONDS)
        limit_memory(Apart.MAX_MEMORY)
        try:
            outcome = True, function(value)
        except MemoryError:
            outcome = False, UnreadableError("not enough memory to decode it")
        except Exception as error:
            outcome = False, error
        finally:
            limit_memory(None)
        answers.write(_pickled(outcome))
        answers.flush()


def _pickled(outcome: tuple[bool, Any]) -> bytes:
    """With an error that can be made again, which may take more than its text."""
    is_done, made = outcome
    if not is_done:
        try:
            pickle.loads(pickle.dumps(made))
        except Exception:
            outcome = False, RuntimeError(f"{type(made).__name__}: {made}")
    return pickle.dumps(outcome, pickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    _serve()
