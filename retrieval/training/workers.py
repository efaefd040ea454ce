"""What is said when a process that decodes training pictures dies."""

from collections.abc import Iterator
from contextlib import contextmanager

from retrieval.errors import LmrError

_KILLED = "DataLoader worker (pid"  # how torch's messages of it begin; those of errors within a worker do not


@contextmanager
def explained_workers() -> Iterator[None]:
    """LmrError in place of the loader's error that one of its processes was killed."""
    try:
        yield
    except RuntimeError as error:
        if _KILLED not in str(error):
            raise
        raise LmrError(
            "a process that decodes pictures was killed, most often for want of memory; "
            "run the same command again with fewer --workers"
        ) from error
