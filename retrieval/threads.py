"""Number of threads that may compute; no torch."""

from retrieval.errors import LmrError

MOST_THREADS = 1024  # with very many torch crashes for want of their stacks


def require_threads(n_threads: int) -> None:
    """LmrError for a number that cannot be."""
    if n_threads < 1:
        raise LmrError(f"`threads` must be at least 1, got {n_threads}")
    if n_threads > MOST_THREADS:
        raise LmrError(f"`threads` must be at most {MOST_THREADS:,}, got {n_threads}; more than the cores gain nothing")
