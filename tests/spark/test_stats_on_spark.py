"""`lmr stats` on a Spark cluster of two executors: equal to the same command on this machine."""

import json
import sqlite3
from pathlib import Path

import pytest
from made_table import write_table
from recorder import Recorder

import lmr
from retrieval.data.facts_shares import is_marked
from retrieval.errors import LmrError, WordsError
from retrieval.progress import SILENT
from retrieval.shard import Shard
from retrieval.spark.cluster import Cluster
from retrieval.spark.staging import Staging

ON_SPARK = {"engine": "spark", "master": "local-cluster[2,1,1024]"}


@pytest.fixture
def table(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photos.parquet, of part files with an image of bytes in each row, in the working folder."""
    monkeypatch.chdir(tmp_path)
    return write_table(Path("photos.parquet"))


def told(**words: object) -> dict[str, object]:
    return json.loads(json.dumps(lmr.stats("photos.parquet", **words).to_json()))  # type: ignore[arg-type]


def rows_of(path: str, table: str = "facts") -> list[tuple[object, ...]]:
    with sqlite3.connect(path) as connection:
        return sorted(connection.execute(f"SELECT * FROM {table}"))


def test_statistics_are_equal_to_those_of_this_machine_and_what_was_measured_is_kept(table: Path) -> None:
    here = told(facts="here.sqlite")
    assert told(facts="there.sqlite", tasks=4, **ON_SPARK) == here
    assert rows_of("there.sqlite") == rows_of("here.sqlite")
    ((shard, digest),) = rows_of("there.sqlite", "share")
    assert shard == "1/1"
    assert is_marked(Path("there.sqlite"), Shard(1, 1), str(digest))
    assert not Path(".there.sqlite.spark").exists()


def test_descriptors_are_compared_and_clustered_by_shares_too(table: Path) -> None:
    lmr.embed("photos.parquet", backbone="shufflenet_v2_x0_5", size=32, threads=1, workers=1, device="cpu")
    words = {"store": "photos.h5", "clusters": 3}
    here = told(facts="here.sqlite", **words)
    assert told(facts="there.sqlite", **words, **ON_SPARK) == here
    assert rows_of("there.sqlite", "piece") == rows_of("here.sqlite", "piece")


def test_finished_shares_are_taken_as_they_are_and_damaged_ones_done_again(table: Path) -> None:
    here = told(facts="here.sqlite")
    told(facts="first.sqlite", **ON_SPARK)
    ((_, digest),) = rows_of("first.sqlite", "share")
    for i in range(1, 4):
        lmr.measure("photos.parquet", facts="there.sqlite", shard=f"{i}/3")
    with Staging(Path("there.sqlite"), wait=False, progress=SILENT) as staging:
        staging.settle({"data": str(digest)}, lambda: 3, asked=None, overwrite=False)
    one, two, three = (Path(f"there-{i}-of-3.sqlite") for i in range(1, 4))
    with sqlite3.connect(one) as connection:  # known by what no measuring would find
        connection.execute("UPDATE facts SET state = state || ' taken'")
    two.write_bytes(two.read_bytes()[:5000])
    one.rename(staging.folder / one.name)
    two.rename(staging.folder / two.name)
    three.unlink()
    told_there = told(facts="there.sqlite", map_pictures=0, **ON_SPARK)
    assert told_there["measured"] == here["measured"]


def test_a_second_run_finds_all_of_it_done(table: Path) -> None:
    begun: list[int] = []
    first = told(progress=Recorder(begun=begun), tasks=3, **ON_SPARK)
    assert 3 in begun  # its shares
    begun.clear()
    assert told(progress=Recorder(begun=begun), tasks=3, **ON_SPARK) == first
    assert 3 not in begun


def test_what_cannot_be_done_is_one_line(table: Path) -> None:
    Path("t.csv").write_text("id,landmark_id\na,x\n")
    with pytest.raises(LmrError, match=r"t.csv holds no pictures to measure; give `images` \(on executor .*\)"):
        lmr.stats("t.csv", **ON_SPARK)  # type: ignore[arg-type]
    with pytest.raises(WordsError, match="`master` needs `engine` spark"):
        lmr.stats("t.csv", master="local[2]")
