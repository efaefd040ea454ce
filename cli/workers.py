"""How many pictures are decoded at once."""

from cli.progress import TerminalProgress


def default_workers(asked: int | None) -> int:
    """As `retrieval.parallel.count_workers`, told in the terminal."""
    from retrieval.parallel import count_workers

    return count_workers(asked, TerminalProgress())
