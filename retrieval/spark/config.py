"""What a job says of the Spark cluster that it runs on; no pyspark."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from retrieval.errors import LmrError, WordsError
from retrieval.extras import install_hint, missing
from retrieval.jobs import Job, option

LEAST_JAVA = 17
JAVA_PACKAGE = "openjdk-17-jre-headless"  # of Debian
MOST_TASKS = 100_000
_FLAT_ROWS = 128  # a task has at least so many images or rows, where their number is left to us
_PER_SLOT = 10  # tasks for each slot, so that a slow one is not waited for long: docs/scale.md
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class SparkJob(Job):
    """A job that can be done on a Spark cluster: where its `engine` is `spark`."""

    engine: str = option("local", help="Where to compute: local (this machine) or spark (a cluster).")
    master: str | None = option(
        None,
        metavar="URL",
        default_text="as Spark is configured, or local[*]",
        help="With `engine` spark: master of the cluster, such as spark://HOST:7077, yarn or k8s://HOST.",
    )
    n_tasks: int | None = option(
        None,
        low=1,
        high=MOST_TASKS,
        default_text=f"{_PER_SLOT} for each slot of the cluster",
        help="With `engine` spark: tasks that the work is divided into; a lost one is done again.",
    )
    spark_conf: tuple[str, ...] = option(
        (), metavar="KEY=VALUE", help="With `engine` spark: a setting of Spark; may be given several times."
    )

    def __post_init__(self) -> None:
        """Raises WordsError for words of Spark without it, LmrError for a setting or master that is none."""
        super().__post_init__()
        for word, value in (("master", self.master), ("tasks", self.n_tasks), ("spark_conf", self.spark_conf or None)):
            if value is not None and not self.on_spark:
                raise WordsError(f"`{word}` needs `engine` spark")
        if self.master is not None and self.master.startswith("sc:"):
            raise LmrError(
                f"`master` {self.master}: Spark Connect does not ship files; give the cluster's own, such as "
                "spark://HOST:7077"
            )
        _ = self.settings

    @property
    def on_spark(self) -> bool:
        """True for a job that a cluster does."""
        return self.engine == "spark"

    @property
    def settings(self) -> dict[str, str]:
        """The settings of Spark that were given."""
        found = {}
        for text in self.spark_conf:
            key, equals, value = text.partition("=")
            if not equals or not key.strip().startswith("spark."):
                raise LmrError(f"`spark_conf` {text}: expected spark.KEY=VALUE, such as spark.executor.memory=8g")
            found[key.strip()] = value.strip()
        return found

    def count_tasks(self, n_rows: int, n_slots: int) -> int:
        """How many tasks do the work on so many images or rows."""
        if self.n_tasks is not None:
            return max(1, min(self.n_tasks, n_rows))
        return max(1, min(_PER_SLOT * n_slots, n_rows // _FLAT_ROWS, MOST_TASKS))


def require_spark() -> None:
    """Raises LmrError where pyspark, what it needs, or Java is missing; none of them is started."""
    lacks = missing("pyspark", "pandas", "pyarrow")
    how = [install_hint("spark")] if lacks else []
    if not _has_java():
        lacks.append(f"Java {LEAST_JAVA} or newer")
        how.append(f"apt-get install {JAVA_PACKAGE}")
    if lacks:
        raise LmrError(f"`engine` spark needs {' and '.join(lacks)}: {'; '.join(how)}; `engine` local needs neither")


def _has_java() -> bool:
    """True where Spark finds a Java that it can use, or a program of Java has started this one."""
    if "PYSPARK_GATEWAY_PORT" in os.environ:
        return True
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=home and str(Path(home) / "bin"))
    return java is not None and _is_new(java)


@cache
def _is_new(java: str) -> bool:
    """True for a Java of a version that Spark can use, or of one that it does not say."""
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(?:1\.)?(\d+)', said)
    return version is None or int(version[1]) >= LEAST_JAVA


def own_settings(job: SparkJob) -> dict[str, str]:
    """The settings of a session that is started for a job: ours, where the job says nothing else."""
    settings = {"spark.ui.enabled": "false", "spark.python.worker.reuse": "true", "spark.speculation": "false"}
    if job.master is not None and job.master.startswith("local"):
        settings |= {"spark.driver.host": _LOOPBACK, "spark.driver.bindAddress": _LOOPBACK}
    return settings | job.settings


def own_environment(job: SparkJob) -> dict[str, str]:
    """Variables of the environment that a session is started in, where it does not say otherwise."""
    wanted = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
    if job.master is not None and job.master.startswith("local"):
        wanted["SPARK_LOCAL_IP"] = _LOOPBACK
    return {name: value for name, value in wanted.items() if name not in os.environ}
