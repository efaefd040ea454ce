"""A Spark cluster: a session that is started or joined, and tasks of it, each of one item on one executor."""

import contextlib
import importlib
import json
import os
import pickle
import re
import secrets
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

from retrieval.errors import LmrError
from retrieval.progress import Progress
from retrieval.spark.config import SparkJob, own_environment, own_settings, require_spark
from retrieval.spark.task import MARK, MOST_LINES, Place, do_items, find_probe, greet
from retrieval.version import program_version
from retrieval.words import agreeing, named, shortened

T = TypeVar("T")
R = TypeVar("R")

_POLL_S = 0.2
_NO_ANSWER = "An error occurred while calling "  # of Py4J: what Java said follows, where it said anything
_STEADY_S = 1.0  # without a further executor: all that come at once are there
_LAST_LINES = 3  # of the log of a session that did not start
_ERROR = re.compile(r"(?:^|\s)(?:\w+\.)+\w*(?:Exception|Error): (\S.*)|\bERROR [\w$]+: (\S.*)")  # in a line of it


class Cluster:
    """A session of Spark; one that is there already is joined, and goes on at the end.

    n_slots: tasks that run at once. application: its id in Spark.
    """

    n_slots: int
    application: str
    _n_cores: ClassVar[dict[str, int]] = {}  # of the executors of an application, when no further one came

    def __init__(self, job: SparkJob, progress: Progress) -> None:
        self._job, self._progress = job, progress
        self._log: Path | None = None
        self._said: set[str] = set()

    def __enter__(self) -> Self:
        require_spark()
        from pyspark import SparkContext

        self._is_own = SparkContext._active_spark_context is None
        self._session = self._start()
        self._context = self._session.sparkContext
        self.application = self._context.applicationId
        try:
            self.run("starting Spark", greet, [program_version()])
            self.n_slots = self._count_slots()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()
        if self._log is not None and error is None:
            self._log.unlink(missing_ok=True)

    def run(self, what: str, work: Callable[[T, Place], R], items: Sequence[T], unit: str = "tasks") -> list[R]:
        """What `work`, a function of a module, makes of each item in a task of its own, in the order of the items.

        A task that fails is tried again by Spark. Raises LmrError for one that fails as often as Spark lets it, as it
        was raised there, with the executor's host; or that says what became of it. Tasks run in the working folder of
        the driver, where the executor sees it.
        """
        if not items:
            return []
        rows = [(at, pickle.dumps((os.getcwd(), work, item))) for at, item in enumerate(items)]
        table = self._session.createDataFrame(
            self._context.parallelize(rows, len(rows)), "item long, payload binary"
        ).mapInPandas(do_items, "item long, result binary, lines binary")
        group = f"lmr-{secrets.token_hex(8)}"
        found: list[Any] = []
        failed: list[BaseException] = []

        def collect() -> None:
            try:
                self._context.setJobGroup(group, what, True)
                found.extend(table.collect())
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=collect, daemon=True)
        thread.start()
        try:
            self._follow(what, thread, group, len(rows), unit)
        except BaseException as error:
            self._cancel(group, thread)
            if isinstance(error, Exception) and not isinstance(error, LmrError):
                raise self._told(what, error) from error
            raise
        if failed:
            raise self._told(what, failed[0]) from failed[0]
        self._say([pickle.loads(bytes(row["lines"])) for row in found])
        by_item = {row["item"]: row["result"] for row in found}
        return [pickle.loads(bytes(by_item[at])) for at in range(len(rows))]

    def share(self, path: Path, only: Sequence[str] | None = None) -> str:
        """Ships a file or a folder to all executors; the name by which `Place.shared` finds it there.

        only: the files of a folder that are shipped, None = all of it.
        """
        from pyspark import SparkFiles

        whole = path.resolve()
        name = f"{whole.name}-{secrets.token_hex(8)}"  # Spark ships a name once, whatever it stands for
        box = tempfile.mkdtemp(prefix="lmr-", dir=SparkFiles.getRootDirectory())
        archive = f"{box}/{name}.tar"
        with tarfile.open(archive, "w") as tar:
            for inside in [""] if only is None else only:
                tar.add(whole / inside, os.path.join(whole.name, inside).rstrip("/"))
        self._context.addArchive(f"{archive}#{name}")
        return name

    def require_shared(self, folder: Path) -> None:
        """Raises LmrError that names an executor which does not see a folder of the driver, or cannot write there."""
        probe = folder / f".{secrets.token_hex(8)}.probe"
        probe.touch()
        try:
            hosts = self.run("looking for shared folders", find_probe, [str(probe)] * self.n_slots)
        finally:
            probe.unlink(missing_ok=True)
        if wanting := sorted({host for host in hosts if host}):
            raise LmrError(
                f"{folder} is not seen by the {agreeing(len(wanting), 'executor', 'executors')} on {named(wanting)}; "
                "give an output on a file system that this machine and all executors share"
            )

    def _start(self) -> Any:
        from pyspark.sql import SparkSession

        if not self._is_own:
            return SparkSession.builder.getOrCreate()
        descriptor, log = tempfile.mkstemp(prefix="lmr-spark-", suffix=".log")
        self._log = Path(log)
        builder = SparkSession.builder.appName("lmr")
        if self._job.master is not None:
            builder = builder.master(self._job.master)
        for key, value in own_settings(self._job).items():
            builder = builder.config(key, value)
        self._progress.tell(f"starting Spark; its log is {log}")
        try:
            with _output_to(descriptor), _environment(own_environment(self._job)):
                return builder.getOrCreate()
        except Exception as error:
            why = _cause(self._log.read_text(errors="replace")) or str(error)
            raise LmrError(f"Spark does not start: {shortened(why)}; see {log}") from error
        finally:
            os.close(descriptor)

    def _stop(self) -> None:
        """Ends a session that was started here. One whose Java is gone has ended, as an error said."""
        from py4j.protocol import Py4JError

        if self._is_own:
            with contextlib.suppress(OSError, Py4JError):
                self._session.stop()

    def _count_slots(self) -> int:
        """Tasks at once on the executors that are there, after no further one came for a while, now or before."""
        since, n_cores = time.monotonic(), self._context.defaultParallelism
        is_local = self._context.master.startswith("local[") or self._context.master == "local"
        is_steady = is_local or n_cores == self._n_cores.get(self.application)
        while not is_steady and time.monotonic() - since < _STEADY_S:
            time.sleep(_POLL_S)
            if (now := self._context.defaultParallelism) != n_cores:
                since, n_cores = time.monotonic(), now
        self._n_cores[self.application] = n_cores
        return max(1, int(n_cores // float(self._context.getConf().get("spark.task.cpus", "1"))))

    def _follow(self, what: str, thread: threading.Thread, group: str, n: int, unit: str) -> None:
        """Tells how many tasks are done, until the thread that waits for all has ended."""
        tracker, done = self._context.statusTracker(), 0
        self._progress.begin(what, n, unit)
        while thread.is_alive():
            thread.join(_POLL_S)
            infos = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(group)]
            stages = [tracker.getStageInfo(stage) for info in infos if info for stage in info.stageIds]
            now = max((stage.numCompletedTasks for stage in stages if stage), default=done)
            if now > done:
                self._progress.add(now - done)
                done = now
        self._progress.end()

    def _cancel(self, group: str, thread: threading.Thread) -> None:
        """Cancels a job, which may not have begun yet; one whose Java is gone has ended."""
        with contextlib.suppress(Exception):
            while thread.is_alive():
                self._context.cancelJobGroup(group)
                thread.join(_POLL_S)

    def _say(self, of_tasks: Sequence[dict[str, bool]]) -> None:
        """Says what tasks said, each line once."""
        lines = {text: is_warning for lines in of_tasks for text, is_warning in lines.items() if text not in self._said}
        for text, is_warning in list(lines.items())[:MOST_LINES]:
            (self._progress.warn if is_warning else self._progress.tell)(text)
        self._said |= lines.keys()

    def _told(self, what: str, error: BaseException) -> LmrError:
        """What became of a task, as the error that was raised in it, or as one line."""
        text = str(error)
        where = f"; see {self._log}" if self._log is not None else ""
        if MARK in text:
            said = json.JSONDecoder().raw_decode(text.rpartition(MARK)[2])[0]
            host = f"{said['lines'][0]} (on executor {said['host']}, {what})"
            if said["module"] == "":
                return LmrError(f"{host}{where}")
            kind = getattr(importlib.import_module(said["module"]), said["kind"])
            return kind(host, *said["lines"][1:])  # type: ignore[no-any-return]
        if "No module named 'retrieval'" in text:
            return LmrError(f"lmr is not installed in the Python of an executor; install the same on all{where}")
        if _is_java_gone(error):
            return LmrError(
                f"{what}: the Java of Spark's driver has ended; it may need memory (`spark_conf` "
                f"spark.driver.memory=4g); run the command again{where}"
            )
        return LmrError(f"{what}: {shortened(_reason(text))}{where}")


def _is_java_gone(error: BaseException) -> bool:
    """Whether an error says that nobody answers. Py4J tells of an answer that breaks off without an error of Java."""
    kind = type(error).__name__
    broke_off = kind == "Py4JError" and str(error).startswith(_NO_ANSWER) and "Trace:" not in str(error)
    return isinstance(error, OSError) or kind == "Py4JNetworkError" or broke_off


def _cause(log: str) -> str:
    """The last error that a log tells, or its last lines."""
    lines = log.strip().splitlines()
    causes = [found[1] or found[2] for line in lines if (found := _ERROR.search(line))]
    return causes[-1] if causes else " ".join(lines[-_LAST_LINES:])


def _reason(text: str) -> str:
    """The line of what Spark says of a failure that tells what it was, after where it was."""
    lines = (text.partition("most recent failure: ")[2] or text).strip().splitlines()
    end = next((i for i, line in enumerate(lines) if line.startswith(("\tat ", "Driver stacktrace"))), len(lines))
    said = [line.strip() for line in lines[:end] if line.strip()]
    return said[0] if len(said) < 2 else f"{said[0].partition(': ')[0]}: {said[-1]}"


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Variables of the environment, for the block alone."""
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _output_to(descriptor: int) -> Iterator[None]:
    """Programs that are started in the block print to a file, not to the terminal."""
    kept = [os.dup(1), os.dup(2)]
    try:
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        yield
    finally:
        for number, old in zip((1, 2), kept, strict=True):
            os.dup2(old, number)
            os.close(old)
