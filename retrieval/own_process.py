"""Processes of this program's own, for work that may hang, die or take too much memory."""

import os
import sys
from pathlib import Path

_HOME = Path(__file__).resolve().parents[1]


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
