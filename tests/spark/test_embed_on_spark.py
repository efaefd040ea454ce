"""`lmr embed --engine spark`: the store that one machine makes, whatever becomes of executors, disks and the driver."""

import shutil
from pathlib import Path

import pytest
from tiny_set import done, listing

from retrieval.extras import missing

pytestmark = pytest.mark.skipif(bool(missing("pyspark")), reason="pyspark is not installed")

SPARK = ("--engine", "spark", "--master", "local-cluster[2,1,1024]")
ONE = ("--threads", "1", "--workers", "1", "--device", "cpu")


@pytest.fixture
def here(finished_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tiny set, as the working folder."""
    shutil.copytree(finished_set, tmp_path / "set")
    monkeypatch.chdir(tmp_path / "set")
    return tmp_path / "set"


def test_the_store_is_that_of_one_machine_and_pictures_that_fail_are_rows_of_a_table(here: Path) -> None:
    Path("images/train-arch-0.jpg").unlink()
    done("embed", "--output", "local.h5", *ONE)
    result = done("embed", "--output", "spark.h5", "--tasks", "3", *SPARK, *ONE)
    print(result.stderr)
    assert result.stdout == "spark.h5: 43 descriptors, 1 unreadable, listed in spark.unreadable.csv\n"
    assert Path("spark.h5").read_bytes() == Path("local.h5").read_bytes()
    assert Path("spark.unreadable.csv").read_text().splitlines() == [
        "image_id,path,reason",
        "train-arch-0,,not found: tried images/train-arch-0.jpg and 23 other places",
    ]
    assert not [name for name in listing(here) if "spark/" in name or name.endswith(".lock")]
