"""A picture that crashes a decoder on an executor: Spark repeats the share, which names it and does all the others."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from quick_java import QUICK_DRIVER, QUICK_EXECUTOR
from tiny_set import listing

from retrieval.extras import missing
from retrieval.store.store import read_store

pytestmark = pytest.mark.skipif(bool(missing("pyspark")), reason="pyspark is not installed")

ROOT = Path(__file__).parents[2]
CRASHING = ("train-arch-2", "train-arch-3", "train-dome-5")
# A fake decoder of every process that is started: for certain sizes it ends that, as a fault in native code does.
DECODER = """
import signal
from PIL import JpegImagePlugin
load = JpegImagePlugin.JpegImageFile.load
def crashing(image):
    if image.size == (37, 40):
        signal.raise_signal(signal.SIGSEGV)
    return load(image)
JpegImagePlugin.JpegImageFile.load = crashing
"""


@pytest.fixture
def here(finished_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tiny set, with pictures that crash the decoder of the executors."""
    shutil.copytree(finished_set, tmp_path / "set")
    monkeypatch.chdir(tmp_path / "set")
    for name in CRASHING:
        path = Path("images") / f"{name}.jpg"
        Image.open(path).resize((37, 40)).save(path)
    return tmp_path / "set"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a cluster of its own, whose processes have the decoder that crashes."""
    (tmp_path / "decoder").mkdir()
    (tmp_path / "decoder" / "sitecustomize.py").write_text(DECODER)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "decoder"), str(ROOT)])}


def test_pictures_that_crash_the_decoder_are_rows_of_a_table_and_nothing_else_is_lost(
    here: Path, environment: dict[str, str]
) -> None:
    words = ("embed", "--output", "spark.h5", "--engine", "spark", "--master", "local-cluster[2,1,1024]")
    words += ("--spark-conf", QUICK_DRIVER, "--spark-conf", QUICK_EXECUTOR)
    words += ("--tasks", "2", "--threads", "1", "--workers", "1", "--device", "cpu")
    command = [sys.executable, "-c", "from cli.main import program; program()", *words]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout == "spark.h5: 41 descriptors, 3 unreadable, listed in spark.unreadable.csv\n"
    with Path("spark.unreadable.csv").open(newline="") as file:
        found = {row["image_id"]: row["reason"] for row in csv.DictReader(file)}
    assert found == dict.fromkeys(CRASHING, "its decoder crashed (signal 11)")
    made, before = read_store(Path("spark.h5")), read_store(Path("train.h5"))
    sound = ~np.isin(before.image_id.tolist(), CRASHING)
    assert (made.state == np.where(sound, 1, 2)).all()
    assert np.allclose(made.vectors[:][sound], before.vectors[:][sound], atol=1e-3)
    assert not [name for name in listing(here) if "spark/" in name or name.endswith(".decoding")]
