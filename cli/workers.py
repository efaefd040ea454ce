"""How many pictures are decoded at once."""

import os

from cli.options import warn

MOST_A_CORE = 16  # where files come slowly, over a network, several may be waited for at once; more only take memory


def default_workers(asked: int | None) -> int:
    """As many as asked for, else one for each core this process may use, shared among those of torchrun.

    Never more than MOST_A_CORE for each core, which is said.
    """
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if asked is None:
        return max(1, n_cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    most = MOST_A_CORE * n_cores
    if asked > most:
        warn(f"--workers {asked}: {most} are used, {MOST_A_CORE} for each of {n_cores} cores; more only take memory")
    return min(asked, most)
