"""Inputs of commands on a Spark cluster: tables of bytes, tars and URLs give what they give on one machine."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_embed_on_spark import ONE, SPARK
from test_embed_on_spark import here as here
from tiny_set import done

IDS = sorted(f"train-{label}-{i}" for label in ("arch", "dome") for i in range(4))


def as_table(folder: Path) -> list[str]:
    """A table of bytes in part files, as Spark writes it."""
    Path("photos.parquet").mkdir()
    for i in range(2):
        ids = IDS[i::2]
        data = [Path(f"images/{name}.jpg").read_bytes() for name in ids]
        part = pa.table({"image_id": ids, "landmark_id": [name.split("-")[1] for name in ids], "image": data})
        pq.write_table(part, f"photos.parquet/part-0000{i}-aa.snappy.parquet", row_group_size=2)
    Path("photos.parquet/_SUCCESS").touch()
    shutil.rmtree("images")
    return ["photos.parquet"]


def as_tars(folder: Path) -> list[str]:
    """Images in a folder of tars."""
    Path("tars").mkdir()
    for label in ("arch", "bridge", "castle", "dome", "other"):
        names = sorted(path.name for path in Path("images").glob(f"train-{label}-*"))
        subprocess.run(["tar", "-C", "images", "-cf", str(Path(f"tars/{label}.tar").absolute()), *names], check=True)
    shutil.rmtree("images")
    return ["train.csv", "--images", "tars"]


def as_table_at_url(folder: Path) -> list[str]:
    """That table, at a URL."""
    return [f"file://{folder}/{as_table(folder)[0]}"]


def as_csv_at_url(folder: Path) -> list[str]:
    """A manifest and its images at URLs."""
    Path("far").mkdir()
    shutil.move("images", "far/images")
    shutil.move("train.csv", "far/train.csv")
    return [f"file://{folder}/far/train.csv", "--images", f"file://{folder}/far/images"]


@pytest.mark.parametrize("kind", [as_table, as_tars, as_table_at_url, as_csv_at_url])
def test_images_in_tables_tars_and_at_urls_are_embedded_and_measured_as_on_one_machine(
    here: Path, kind: Callable[[Path], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = kind(here)
    local = done("embed", *words, "--output", "local.h5", *ONE).stdout
    told = done("embed", *words, "--output", "spark.h5", "--tasks", "3", *SPARK, *ONE).stdout
    assert told.replace("spark.h5", "local.h5") == local
    assert Path("spark.h5").read_bytes() == Path("local.h5").read_bytes()
    measured = [
        done("stats", *words, "--facts", f"{engine}.sqlite", "--json", "--engine", engine, "--workers", "1").stdout
        for engine in ("local", "spark")
    ]
    assert measured[0] == measured[1]
