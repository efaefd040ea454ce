"""A Spark cluster of two executors, which the commands of all tests here join."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from quick_java import QUICK_DRIVER, QUICK_EXECUTOR

from retrieval.errors import LmrError
from retrieval.progress import SILENT
from retrieval.spark.cluster import Cluster
from retrieval.spark.config import SparkJob, require_spark

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Executors that can import the modules of tests here, too."""
    try:
        require_spark()
    except LmrError as error:
        pytest.skip(f"{error}: scripts/debian.py java, scripts/run.py spark")
    cache = f"spark.executorEnv.XDG_CACHE_HOME={tmp_path_factory.mktemp('cache')}"
    conf = (f"spark.executorEnv.PYTHONPATH={HERE}", cache, "spark.log.level=ERROR", QUICK_DRIVER, QUICK_EXECUTOR)
    cluster = Cluster(SparkJob(engine="spark", master="local-cluster[2,1,1024]", spark_conf=conf), SILENT)
    with ExitStack() as running:
        with (tmp_path_factory.getbasetemp().parent / "spark.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # clusters that start in the same second have the same name
            running.enter_context(cluster)
        yield cluster
    shutil.rmtree(_spark_home() / "work" / cluster.application, ignore_errors=True)


def _spark_home() -> Path:
    import pyspark

    return Path(os.environ.get("SPARK_HOME") or Path(pyspark.__file__).parent)
