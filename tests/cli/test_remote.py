"""`--images URL`: images of an object store, here fsspec's file systems in memory and on disk."""

import re
import shutil
from pathlib import Path
from typing import ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from tiny_set import HERE, done, refused, write_csv

from retrieval.errors import LmrError
from retrieval.files import urls
from retrieval.files.urls import remote_url
from retrieval.images.remote import RemoteImages, read_remote
from retrieval.store.store import read_store


@pytest.fixture
def bucket(tiny_set):
    """The images in memory://bucket/images, and none on disk."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    for path in Path("images").iterdir():
        system.pipe_file(f"/bucket/images/{path.name}", path.read_bytes())
    shutil.rmtree("images")
    yield system
    system.store.clear()


def test_images_of_a_url_give_the_descriptors_of_the_same_files(bucket):
    words = ("embed", "--images", "memory://bucket/images", "--output", "x.h5", *HERE)
    assert done(*words).stdout == "x.h5: 44 descriptors, 0 unreadable\n"
    store = read_store("x.h5")
    assert np.array_equal(store.vectors, read_store("train.h5").vectors)
    assert store.path[0] == "memory://bucket/images/train-other-0.jpg"
    assert done(*words).stdout == "x.h5: finished already, nothing to do (44 pictures)\n"


def test_an_image_that_was_replaced_gone_or_is_broken_is_told(bucket):
    words = ("embed", "--images", "memory://bucket/images/", "--output", "x.h5", *HERE)
    bucket.pipe_file("/bucket/images/train-dome-3.jpg", b"no picture")
    bucket.rm("/bucket/images/train-arch-0.jpg")
    result = done(*words)
    assert result.stdout == "x.h5: 42 descriptors, 2 unreadable\n"
    assert "unreadable: train-dome-3: not a picture in a known format\n" in result.stderr
    assert "unreadable: train-arch-0: not found: tried /bucket/images/train-arch-0.jpg and " in result.stderr
    bucket.pipe_file("/bucket/images/train-arch-1.jpg", bucket.cat_file("/bucket/images/train-dome-1.jpg"))
    again = done(*words)
    assert "1 of 44 pictures replaced since they were embedded, embedded again: train-arch-1" in again.stderr


def test_a_path_column_may_hold_paths_or_urls_below_the_folder(bucket):
    rows = ["a,arch,images/train-arch-0.jpg", "d,dome,memory://bucket/images/train-dome-0.jpg", "o,,elsewhere.jpg"]
    write_csv(Path("p.csv"), "id,landmark_id,path", rows)
    assert done("embed", "p.csv", "--images", "memory://bucket", *HERE).stdout == "p.h5: 2 descriptors, 1 unreadable\n"


def test_shares_and_thumbnails_take_images_from_a_url(bucket):
    for i in (1, 2):
        done("embed", "--images", "memory://bucket/images", "--output", "x.h5", "--shard", f"{i}/2", *HERE)
    done("join", "x-1-of-2.h5", "x-2-of-2.h5", "--output", "x.h5")
    done("build-index", "x.h5", "--output", "remote", "--device", "cpu", "--workers", "1")
    assert (Path("remote") / "index.json").exists()


def test_a_folder_on_disk_by_its_url(tiny_set):
    url = f"file://{tiny_set}/images"
    assert done("embed", "--images", url, "--output", "x.h5", *HERE).stdout == "x.h5: 44 descriptors, 0 unreadable\n"
    assert np.array_equal(read_store("x.h5").vectors, read_store("train.h5").vectors)


def test_addresses_that_cannot_be_used_are_one_line(bucket, monkeypatch):
    assert refused("embed", "--images", "memory://nothing", "--output", "x.h5", *HERE) == (
        "--images memory://nothing: there is no file below it; check the address"
    )
    assert refused("embed", "--images", "nosuch://x", "--output", "x.h5", *HERE) == (
        "nosuch:// is no file system that fsspec knows; give a folder or a URL such as s3://, gs://, hf:// or az://"
    )
    assert refused("embed", "--images", "https://example.com/x", "--output", "x.h5", *HERE) == (
        "--images https://example.com/x: the web is not read in place; give the folder that lmr download makes"
    )

    def lacking(_: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.filesystem", lacking)
    assert refused("embed", "--images", "s3://bucket/x", "--output", "x.h5", *HERE) == (
        "s3:// needs a library beside fsspec: Install s3fs to access S3; install it, then run this again"
    )
    assert not Path("x.h5").exists()


def test_without_fsspec_the_extra_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(LmrError, match=r"gs:// needs fsspec; pip install .*\[remote\]"):
        RemoteImages("gs://bucket/x")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("s3://b/x", "s3://b/x"),
        ("s3:/b/x", "s3://b/x"),  # as a path has it
        ("S3://b/x", "s3://b/x"),
        ("file:///tmp/x", "file:///tmp/x"),
        ("file:/tmp/x", "file:///tmp/x"),
        ("memory://b", "memory://b"),
        ("http://host/x", None),
        ("https:/host/x", None),
        ("C:/photos/x", None),
        ("photos/x.jpg", None),
        ("/photos/s3://x", None),
        ("", None),
    ],
)
def test_urls_are_told_from_paths(text, url):
    assert remote_url(text) == url


def test_a_file_over_the_limit_is_not_read(bucket):
    from retrieval.errors import UnreadableError
    from retrieval.images.limits import Limits

    with pytest.raises(UnreadableError, match="over the limit of 10"):
        read_remote("memory://bucket/images/train-arch-0.jpg", Limits(max_bytes=10))


class Counting(MemoryFileSystem):
    """A file system in memory that notes what it is asked for, and fails as often as is said by the name of a file."""

    protocol = "counting"
    asked: ClassVar[list[str]] = []
    failures: ClassVar[dict[str, int]] = {}
    is_down = False

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("counting://", "memory://"))

    def cat_file(self, path, *rest, **named):
        """Fails where it is to fail."""
        name = Path(path).name
        self.asked.append(f"cat {name}")
        left = self.failures.get(name, 0)
        self.failures[name] = max(0, left - 1)
        if self.is_down or left:
            raise ConnectionError("connection reset by peer")
        return super().cat_file(path, *rest, **named)

    def info(self, path, **named):
        """Cannot be asked either when all is down."""
        self.asked.append(f"info {Path(path).name}")
        if self.is_down:
            raise ConnectionError("connection refused")
        return super().info(path, **named)


@pytest.fixture
def counting(bucket, monkeypatch):
    """The same images by counting://, which is asked three times without waiting."""
    fsspec.register_implementation("counting", Counting, clobber=True)
    urls._file_system.cache_clear()
    monkeypatch.setattr(urls, "WAITS_S", (0, 0))
    monkeypatch.setattr(Counting, "asked", [])
    monkeypatch.setattr(Counting, "failures", {})
    return Counting


def test_an_image_is_asked_for_once_and_nothing_else_of_it(counting):
    images = RemoteImages("counting://bucket/images")
    counting.asked.clear()
    images.read("counting://bucket/images/train-arch-0.jpg")
    assert counting.asked == ["cat train-arch-0.jpg"]


def test_a_connection_that_fails_twice_is_tried_again(counting):
    counting.failures.update({"train-arch-0.jpg": 2})
    words = ("embed", "--images", "counting://bucket/images", "--output", "x.h5", *HERE)
    assert done(*words).stdout == "x.h5: 44 descriptors, 0 unreadable\n"
    assert np.array_equal(read_store("x.h5").vectors, read_store("train.h5").vectors)


def test_an_image_that_cannot_be_read_again_and_again_is_unreadable(counting):
    counting.failures.update({"train-arch-0.jpg": 9})
    result = done("embed", "--images", "counting://bucket/images", "--output", "x.h5", *HERE)
    assert result.stdout == "x.h5: 43 descriptors, 1 unreadable\n"
    assert "unreadable: train-arch-0: connection reset by peer\n" in result.stderr
    assert counting.asked.count("cat train-arch-0.jpg") == 3


def test_a_file_system_that_cannot_be_reached_any_more_stops_the_run_which_then_goes_on(counting, monkeypatch):
    words = ("embed", "--images", "counting://bucket/images", "--output", "x.h5", "--workers", "1", *HERE[:2])
    listed = RemoteImages.__init__

    def lists_and_goes_down(self, url):
        listed(self, url)
        counting.is_down = True

    with monkeypatch.context() as patch:
        patch.setattr(RemoteImages, "__init__", lists_and_goes_down)
        patch.setattr(counting, "is_down", False)
        said = refused(*words)
        assert re.fullmatch(
            r"counting://bucket/images/train-\w+-\d\.jpg cannot be read: connection refused; "
            "once it can be, the same command goes on",
            said,
        )
    assert not Path("x.h5").exists()
    assert done(*words).stdout == "x.h5: 44 descriptors, 0 unreadable\n"
    assert np.array_equal(read_store("x.h5").vectors, read_store("train.h5").vectors)


def test_a_listing_is_made_anew(bucket, monkeypatch):
    asked = []
    monkeypatch.setattr(type(bucket), "invalidate_cache", lambda *_: asked.append("anew"))
    RemoteImages("memory://bucket/images")
    assert set(asked) == {"anew"}


def test_a_file_is_no_folder_of_images(bucket):
    bucket.pipe_file("/bucket/images.zip", b"x")
    with pytest.raises(LmrError) as caught:
        RemoteImages("memory://bucket/images.zip")
    assert str(caught.value) == (
        "`images` memory://bucket/images.zip: a file and no tar; give the folder of the images, or a tar of them"
    )


def test_a_file_system_that_needs_more_than_an_address_is_one_line(monkeypatch):
    def lacking(_: str, **named: object) -> None:
        raise TypeError("missing 1 required positional argument: 'host'")

    monkeypatch.setattr("fsspec.filesystem", lacking)
    with pytest.raises(LmrError) as caught:
        RemoteImages("ftp://host/x")
    assert str(caught.value) == (
        "ftp:// cannot be opened by an address alone (missing 1 required positional argument: 'host'); "
        "give a folder or a URL such as s3://, gs://, hf:// or az://"
    )
