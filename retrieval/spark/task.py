"""A task of a Spark cluster on its executor: where it runs, and what it makes of its item."""

import contextlib
import json
import os
import pickle
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from retrieval.errors import LmrError
from retrieval.images import noise
from retrieval.jobs import ComputingJob
from retrieval.progress import SILENT, Progress, Silent
from retrieval.version import program_version
from retrieval.words import shortened

J = TypeVar("J", bound=ComputingJob)

MARK = "lmr-task-error "  # before what a task says of its error, within what Spark says of it
MOST_LINES = 40  # that one task says, and that are said of one stretch of tasks
_PROBE_S = 0.2


@dataclass(frozen=True, slots=True)
class Place:
    """Where a task runs, by the name of its host.

    n_threads: those that it may compute with. gpus: addresses that Spark gave it. attempt: 0 is the first. progress:
    what it is told or warned of, the driver's is, each line once. files: the folder of what the driver shared.
    """

    host: str
    n_threads: int
    gpus: tuple[str, ...]
    attempt: int
    progress: Progress = field(default=SILENT, compare=False)
    files: Path = Path()

    def shared(self, name: str) -> Path:
        """The file or folder that the driver shared by this name."""
        place = self.files / name
        held = [place / entry for entry in os.listdir(place)] if place.is_dir() else []
        return held[0] if len(held) == 1 else place

    def give(self, job: J) -> J:
        """The job as it computes here, with the GPU and the threads that Spark gave, where the choice is ours."""
        return replace(
            job,
            device=f"cuda:{self.gpus[0]}" if job.device == "auto" and self.gpus else job.device,
            threads=self.n_threads if job.threads is None else job.threads,
            workers=self.n_threads if job.workers is None else job.workers,
            progress=self.progress,
        )


class _Heard(Silent):
    """Keeps the first lines that a task says, each with whether it is a warning."""

    def __init__(self) -> None:
        self.lines: dict[str, bool] = {}

    def tell(self, text: str) -> None:
        """Keeps it."""
        if len(self.lines) < MOST_LINES:
            self.lines.setdefault(text, False)

    def warn(self, text: str) -> None:
        """Keeps it."""
        if len(self.lines) < MOST_LINES:
            self.lines.setdefault(text, True)


def do_items(batches: "Iterator[Any]") -> "Iterator[Any]":
    """The task of an executor: what the function makes of the item, or its error as Spark passes it on."""
    import pandas as pd

    heard = _Heard()
    place = _here(heard)
    for batch in batches:
        for at, payload in zip(batch["item"], batch["payload"], strict=True):
            try:
                folder, work, item = pickle.loads(payload)
                with noise.told_once(heard.warn), contextlib.chdir(folder if os.path.isdir(folder) else "."):
                    result = pickle.dumps(work(item, place))
            except Exception as error:
                raise RuntimeError(MARK + _said(error, place)) from error
            yield pd.DataFrame({"item": [at], "result": [result], "lines": [pickle.dumps(heard.lines)]})


def _said(error: Exception, place: Place) -> str:
    """An error as JSON: one of ours with its type, another one as a line."""
    is_ours = isinstance(error, LmrError)
    lines = error.lines if isinstance(error, LmrError) else [shortened(f"{type(error).__name__}: {error}")]
    kind = type(error)
    return json.dumps(
        {"module": kind.__module__ if is_ours else "", "kind": kind.__name__, "lines": lines, "host": place.host}
    )


def _here(progress: Progress) -> Place:
    """The place of the task that runs."""
    from pyspark import SparkFiles, TaskContext

    return place_of(TaskContext.get(), progress, Path(SparkFiles.getRootDirectory()).absolute())


def place_of(context: Any, progress: Progress, files: Path) -> Place:
    """The place of a task, by what Spark says of it."""
    gpu = context.resources().get("gpu")
    gpus = () if gpu is None else tuple(gpu.addresses)
    return Place(socket.gethostname(), max(1, context.cpus()), gpus, context.attemptNumber(), progress, files)


def greet(version: str, place: Place) -> str:
    """Raises LmrError where the executor runs another lmr than the driver."""
    here = program_version()
    if here != version:
        raise LmrError(f"lmr {here} is installed here, the driver runs {version}; install the same on all executors")
    return place.host


def find_probe(probe: str, place: Place) -> str | None:
    """The host where a file of the driver is not seen, or its folder not writable; None where it is."""
    time.sleep(_PROBE_S)  # so that every executor takes one
    path = Path(probe)
    return None if path.exists() and os.access(path.parent, os.W_OK) else place.host
