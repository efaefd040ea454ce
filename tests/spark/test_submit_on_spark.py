"""`lmr submit --engine spark`: the submission that one machine writes, whatever becomes of executors, disks and the
driver."""

import shutil
from pathlib import Path

import pytest
from tiny_set import done, listing, misused, read_rows, refused, write_csv

from retrieval.extras import missing

pytestmark = pytest.mark.skipif(bool(missing("pyspark")), reason="pyspark is not installed")

SPARK = ("--engine", "spark", "--master", "local-cluster[2,1,1024]")
ONE = ("--threads", "1", "--workers", "1", "--device", "cpu")
STAGED = Path(".s.csv.spark")


@pytest.fixture
def here(finished_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tiny set with more images to ask, as the working folder."""
    folder = tmp_path / "set"
    shutil.copytree(finished_set, folder)
    monkeypatch.chdir(folder)
    rows = [row["id"] for row in read_rows(Path("test.csv"))]
    for name in rows:
        shutil.copy(f"images/{name}.jpg", f"images/{name}-2.jpg")
    write_csv(Path("test.csv"), "id", rows + [f"{name}-2" for name in rows])
    Path("images/test-arch-0-2.jpg").unlink()
    return folder


def test_the_submission_is_that_of_one_machine_and_is_found_finished_by_both(here: Path) -> None:
    done("build-index", "--overwrite", "--shards", "3", "--expand", "2", "--rerank", "100", "--device", "cpu")
    done("calibrate", "val.csv", *ONE, "--overwrite")
    done("submit", "--output", "local.csv", *ONE)
    Path("test.h5").unlink()
    result = done("submit", "--output", "s.csv", "--tasks", "3", *SPARK, *ONE)
    assert Path("s.csv").read_text() == Path("local.csv").read_text()
    assert result.stdout.startswith("s.csv: 44 lines, ")
    assert "1 of the blank lines is a picture that is missing or unreadable" in result.stderr
    assert not [name for name in listing(here) if "spark" in name or name.endswith(".lock")]
    finished = "s.csv: finished already, nothing to do (44 lines)\n"
    assert done("submit", "--output", "s.csv", *SPARK, *ONE).stdout == finished
    assert done("submit", "--output", "s.csv", *ONE).stdout == finished
    told = refused("submit", "--output", "s.csv", "--threshold", "0.25", *SPARK, *ONE)
    assert "was made with another --threshold (none, now 0.25); give --overwrite or another --output" in told


def test_a_share_and_a_cluster_do_not_go_together(here: Path) -> None:
    assert misused("submit", "--shard", "1/2", *SPARK) == (
        "--shard and --engine spark do not go together; a cluster divides the images by itself"
    )
