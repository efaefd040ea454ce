"""Manifests, tables of images and tars at URLs, here fsspec's file systems in memory and on disk."""

import shutil
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_set import HERE, done, refused, write_csv

from retrieval.data.manifest import read_manifest
from retrieval.errors import LmrError
from retrieval.files import urls
from retrieval.images.given import read_image
from retrieval.store.store import read_store

IDS = sorted(f"train-{label}-{i}" for label in ("arch", "dome") for i in range(4))


@pytest.fixture
def bucket(tiny_set, tmp_path, monkeypatch):
    """memory://bucket with the images in images/, train.csv and test.csv; none of them on disk."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    system = fsspec.filesystem("memory")
    system.store.clear()
    for path in (*Path("images").iterdir(), Path("train.csv"), Path("test.csv")):
        system.pipe_file(f"/bucket/{path}", path.read_bytes())
    shutil.move("images", tmp_path / "images")
    Path("train.csv").unlink()
    Path("test.csv").unlink()
    yield system
    system.store.clear()


def table_of(images: Path, ids: list[str]) -> pa.Table:
    return pa.table(
        {
            "image_id": ids,
            "landmark_id": [name.split("-")[1] for name in ids],
            "image": [(images / f"{name}.jpg").read_bytes() for name in ids],
        }
    )


def write_parts(folder: Path, images: Path, n_parts: int = 3) -> None:
    """A table as Spark writes it."""
    folder.mkdir()
    for i in range(n_parts):
        part = table_of(images, IDS[i * len(IDS) // n_parts : (i + 1) * len(IDS) // n_parts])
        pq.write_table(part, folder / f"part-0000{i}-aa.snappy.parquet", row_group_size=2)
    (folder / "_SUCCESS").touch()
    (folder / ".part-00000-aa.snappy.parquet.crc").touch()


def upload(system, folder: Path, to: str) -> None:
    for path in sorted(folder.iterdir()):
        system.pipe_file(f"{to}/{path.name}", path.read_bytes())


def resets(*_: object, **__: object) -> None:
    raise OSError("connection reset")


def test_a_table_at_a_url_takes_the_images_beside_it_and_its_store_lies_where_the_program_runs(bucket):
    assert done("embed", "memory://bucket/train.csv", "--overwrite", *HERE).stdout.startswith("train.h5: 44 desc")
    store = read_store("train.h5")
    assert store.path[0] == "memory://bucket/images/train-other-0.jpg"
    assert done("embed", "memory://bucket/train.csv", *HERE).stdout.startswith("train.h5: finished already")


def test_statistics_and_a_submission_of_tables_at_urls_are_those_of_the_same_files(bucket, tmp_path):
    shutil.copytree(tmp_path / "images", "images")
    Path("train.csv").write_bytes(bucket.cat_file("/bucket/train.csv"))
    Path("test.csv").write_bytes(bucket.cat_file("/bucket/test.csv"))
    here = done("stats", "train.csv", "--images", "images", "--json").stdout
    done("submit", "test.csv", "--output", "here.csv", *HERE)
    Path("test.h5").unlink()
    Path("picture-facts.sqlite").unlink()
    far = done("stats", "memory://bucket/train.csv", "--images", "memory://bucket/images", "--json").stdout
    assert far.replace("memory://bucket/", "") == here
    done("submit", "memory://bucket/test.csv", "--output", "far.csv", *HERE)
    assert Path("far.csv").read_bytes() == Path("here.csv").read_bytes()


def test_a_table_is_fetched_once_and_again_when_it_changed(bucket, monkeypatch):
    fetched = []
    replacing = urls.replacing
    monkeypatch.setattr(urls, "replacing", lambda path: fetched.append(path) or replacing(path))
    first = read_manifest("memory://bucket/train.csv")
    assert len(read_manifest("memory://bucket/train.csv")) == len(first)
    assert len(fetched) == 1
    bucket.pipe_file("/bucket/train.csv", b"id,landmark_id\na,x\n")
    assert read_manifest("memory://bucket/train.csv").image_id.tolist() == ["a"]
    (copy,) = [path for path in urls.cache_folder("fetched").iterdir() if path.suffix != ".json"]
    copy.write_bytes(b"id,landmark_id\nb,x\n")  # damaged, and no longer of its digest
    assert read_manifest("memory://bucket/train.csv").image_id.tolist() == ["a"]


def test_part_files_of_a_folder_are_one_table_here_and_at_a_url(bucket, tmp_path):
    write_parts(Path("photos.parquet"), tmp_path / "images")
    upload(bucket, Path("photos.parquet"), "/bucket/photos.parquet")
    pq.write_table(table_of(tmp_path / "images", IDS), "whole.parquet")
    done("embed", "whole.parquet", *HERE)
    done("embed", "photos.parquet", *HERE)
    done("embed", "memory://bucket/photos.parquet", "--output", "far.h5", *HERE)
    whole, parts, far = (read_store(name) for name in ("whole.h5", "photos.h5", "far.h5"))
    for store in (parts, far):
        assert store.image_id.tolist() == whole.image_id.tolist() == IDS
        assert np.array_equal(store.vectors, whole.vectors)
    assert done("embed", "photos.parquet", *HERE).stdout.startswith("photos.h5: finished already")


def test_what_was_measured_of_images_in_a_table_is_kept_and_shares_are_joined(bucket, tmp_path):
    write_parts(Path("photos.parquet"), tmp_path / "images")
    upload(bucket, Path("photos.parquet"), "/bucket/photos.parquet")
    table = "memory://bucket/photos.parquet"
    told = done("stats", table, "--json", "--facts", "whole.sqlite").stdout
    for i in (1, 2):
        done("stats", table, "--facts", "far.sqlite", "--shard", f"{i}/2")
    done("join", "far-1-of-2.sqlite", "far-2-of-2.sqlite", "--output", "far.sqlite")
    for part in Path("photos.parquet").glob("*.parquet"):  # the facts are kept, so that no image is read
        at = f"/bucket/photos.parquet/{part.name}"
        bucket.store[at] = bucket.store[at]
    again = done("stats", table, "--json", "--facts", "far.sqlite")
    assert again.stdout == told
    assert read_facts("far.sqlite") == len(IDS)


def read_facts(name: str) -> int:
    import sqlite3

    return sqlite3.connect(name).execute("SELECT count(*) FROM facts").fetchone()[0]


def test_a_row_group_is_read_and_not_the_file(bucket, monkeypatch):
    rng = np.random.default_rng(0)
    images = [rng.bytes(1 << 20) for _ in range(8)]
    pq.write_table(pa.table({"image_id": IDS, "image": images}), "large.parquet", row_group_size=2)
    bucket.pipe_file("/bucket/large.parquet", Path("large.parquet").read_bytes())
    monkeypatch.setattr(urls, "_READ_AHEAD_BYTES", 1 << 12)
    asked = []
    read = urls.read_range
    monkeypatch.setattr(urls, "read_range", lambda url, a, b: asked.append(b - a) or read(url, a, b))
    manifest = read_manifest("memory://bucket/large.parquet")
    assert sum(asked) < 3 << 20  # the head, the foot, and the first values, which tell that they are images
    asked.clear()
    assert manifest.content.read(5) == images[5]
    assert 2 << 20 < sum(asked) < 3 << 20


def test_tars_at_a_url_are_read_in_place(bucket, tmp_path):
    for number, label in enumerate(("arch", "dome")):
        with tarfile.open(f"{number}.tar", "w") as tar:
            for i in range(4):
                tar.add(tmp_path / "images" / f"train-{label}-{i}.jpg", f"{label}/train-{label}-{i}.jpg")
        bucket.pipe_file(f"/bucket/tars/{number}.tar", Path(f"{number}.tar").read_bytes())
    write_csv(Path("t.csv"), "id,landmark_id", [f"{name},{name.split('-')[1]}" for name in IDS])
    done("embed", "t.csv", "--images", "memory://bucket/tars", *HERE)
    done("embed", "t.csv", "--images", ".", "--output", "here.h5", *HERE)
    store = read_store("t.h5")
    assert store.path[0] == "memory://bucket/tars/0.tar/arch/train-arch-0.jpg"
    assert np.array_equal(store.vectors, read_store("here.h5").vectors)
    assert read_image(store.path[0]) == (tmp_path / "images" / "train-arch-0.jpg").read_bytes()
    one = done("embed", "t.csv", "--images", "memory://bucket/tars/0.tar", "--output", "one.h5", *HERE)
    assert one.stdout == "one.h5: 4 descriptors, 4 unreadable\n"
    assert not list(Path().glob("**/.lmr-tars.sqlite*")) or Path(".lmr-tars.sqlite").exists()
    assert "/bucket/tars/.lmr-tars.sqlite" not in bucket.store


def test_paths_of_a_table_may_be_urls_of_other_places(bucket):
    rows = ["a,arch,memory://bucket/images/train-arch-0.jpg", "b,dome,memory://bucket/images/none.jpg"]
    write_csv(Path("p.csv"), "id,landmark_id,path", rows)
    assert done("embed", "p.csv", *HERE).stdout == "p.h5: 1 descriptor, 1 unreadable\n"


def test_tables_at_urls_that_cannot_be_used_are_one_line(bucket, monkeypatch):
    assert refused("embed", "memory://bucket/none.csv", "--output", "x.h5", *HERE) == (
        "memory://bucket/none.csv: there is no such file or folder"
    )
    assert refused("submit", "memory://bucket/none.csv", "--output", "x.csv", *HERE) == (
        "memory://bucket/none.csv: there is no such file or folder"
    )
    assert refused("embed", "memory://bucket/images", "--output", "x.h5", *HERE) == (
        "memory://bucket/images: a folder, and not one of Parquet's part files; give a table of the images, CSV or "
        "Parquet, and this folder as --images"
    )
    assert refused("embed", "memory://bucket/images/train-arch-0.jpg", "--output", "x.h5", *HERE) == (
        "memory://bucket/images/train-arch-0.jpg: a picture; give a table of the images, CSV or Parquet, and their "
        "folder as --images"
    )
    bucket.pipe_file("/bucket/bad.csv", b"")
    assert refused("embed", "memory://bucket/bad.csv", "--output", "x.h5", *HERE) == (
        "memory://bucket/bad.csv is empty; a manifest begins with a header such as id,landmark_id"
    )
    monkeypatch.setattr(type(bucket), "cat_file", resets)
    monkeypatch.setattr(urls, "WAITS_S", (0, 0))
    assert refused("embed", "memory://bucket/train.csv", "--output", "x.h5", *HERE) == (
        "memory://bucket/train.csv cannot be read: connection reset; check the address and your access"
    )


@pytest.mark.parametrize(
    "url",
    [
        "ftp://me:pass%2Fword@host/train.csv",
        "s3://KEY:SEC/RET@bucket/train.csv",
        "memory://bucket/train.csv?X-Amz-Signature=word",
    ],
)
def test_an_address_with_a_password_is_refused_and_its_secret_is_not_said(tiny_set, url):
    said = refused("embed", url, "--output", "x.h5", *HERE)
    assert "this address holds a password or key" in said
    assert not any(secret in said for secret in ("word@", "pass%", "KEY", "RET", "=word"))


def test_reasons_of_file_systems_are_said_without_what_lets_somebody_in():
    error = OSError("403 from https://me:word@host/x?sig=abc, refused")
    assert urls.reason_of(error) == "403 from https://host/x refused"


def test_an_unfinished_table_and_one_of_other_columns_are_refused(tmp_path, bucket):
    write_parts(Path("t.parquet"), tmp_path / "images")
    Path("t.parquet/_temporary").mkdir()
    with pytest.raises(LmrError) as caught:
        read_manifest("t.parquet")
    assert str(caught.value) == ("t.parquet is not finished, it holds _temporary; wait until it is, or remove that")
    Path("t.parquet/_temporary").rmdir()
    pq.write_table(pa.table({"id": ["x"]}), "t.parquet/part-9.parquet")
    with pytest.raises(LmrError) as caught:
        read_manifest("t.parquet")
    assert str(caught.value) == (
        "t.parquet/part-9.parquet has the columns id, t.parquet/part-00000-aa.snappy.parquet has "
        "image_id, landmark_id, image; give the part files of one table"
    )


def test_a_table_at_a_url_that_cannot_be_read_any_more_stops_the_run(bucket, tmp_path, monkeypatch):
    write_parts(Path("photos.parquet"), tmp_path / "images", 1)
    upload(bucket, Path("photos.parquet"), "/bucket/photos.parquet")
    monkeypatch.setattr(urls, "WAITS_S", (0, 0))
    manifest = read_manifest("memory://bucket/photos.parquet")
    assert manifest.content.read(0)
    monkeypatch.setattr(type(bucket), "cat_file", resets)
    with pytest.raises(LmrError, match=r"part-0.*: connection reset; .*; once it can be, the same command goes on"):
        manifest.content.read(7)


def test_a_table_on_disk_by_its_url(tiny_set, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    done("embed", f"file://{tiny_set}/train.csv", "--output", "x.h5", *HERE)
    assert np.array_equal(read_store("x.h5").vectors, read_store("train.h5").vectors)
