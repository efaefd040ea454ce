"""A cluster that is none: tasks of commands, one after the other in this process."""

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from retrieval.spark.task import Place


class OneByOne:
    """A cluster that does its tasks here. before: called with what is to be run, before it is."""

    n_slots = 2

    def __init__(self, before: Callable[[str], None] = lambda _: None) -> None:
        self.before = before

    def run(self, what: str, work: Callable[[Any, Place], Any], items: Sequence[Any], unit: str = "tasks") -> list[Any]:
        """As of `Cluster`."""
        self.before(what)
        return [work(pickle.loads(pickle.dumps(item)), Place("here", 1, (), 0)) for item in items]

    def share(self, path: Path, only: Sequence[str] | None = None) -> str:
        """As of `Cluster`: it is here already."""
        return str(path.absolute())

    def require_shared(self, folder: Path) -> None:
        """As of `Cluster`: it is."""
