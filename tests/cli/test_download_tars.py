"""`lmr download --tars` from a mirror on loopback."""

import hashlib
import json
import random
from pathlib import Path

import pytest
from hostile_server import serving
from tiny_set import done, listing, misused, refused, run

QUICK = ("--allow-private", "--idle-s", "3", "--back-off-s", "0.02")


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """The first three test archives with md5 files, as Google keeps them."""
    monkeypatch.chdir(tmp_path)
    with serving() as server:
        for number in range(3):
            content = random.Random(number).randbytes(700_000)
            server.files[f"test/images_{number:03d}.tar"] = content
            digest = hashlib.md5(content).hexdigest()
            server.files[f"md5sum/test/md5.images_{number:03d}.txt"] = f"{digest}  images_{number:03d}.tar\n".encode()
        yield server


def fetched(mirror, *arguments: str) -> dict:
    numbers = () if "--numbers" in arguments else ("--numbers", "0-2")
    result = done("download", "--tars", "test", "--mirror", mirror.base, "tars", *numbers, *QUICK, *arguments, "--json")
    return json.loads(result.stdout)


def same(mirror, number: int) -> bool:
    name = f"images_{number:03d}.tar"
    return Path("tars", name).read_bytes() == mirror.files[f"test/{name}"]


def test_archives_are_fetched_checked_and_not_fetched_twice(mirror):
    assert fetched(mirror) == {"images": "tars", "n_archives": 3, "n_done": 3, "n_new": 3, "failed": {}}
    assert all(same(mirror, number) for number in range(3))
    before, n_asked = listing(Path("tars")), mirror.n_asked.total()
    assert fetched(mirror)["n_new"] == 0
    result = done("download", "--tars", "test", "--mirror", mirror.base, "tars", "--numbers", "0-2", *QUICK)
    assert result.stdout == "tars: 3 of 3 tar files are there and checked, nothing to do\n"
    assert (listing(Path("tars")), mirror.n_asked.total()) == (before, n_asked)


def test_a_partial_archive_is_taken_up_where_it_stopped(mirror):
    Path("tars").mkdir()
    whole = mirror.files["test/images_001.tar"]
    Path("tars/images_001.tar.partial").write_bytes(whole[:500_000])
    assert fetched(mirror)["n_done"] == 3
    assert same(mirror, 1)
    assert mirror.headers["test/images_001.tar"]["Range"] == "bytes=500000-"
    assert "Range" not in mirror.headers["test/images_000.tar"]
    assert sorted(path.name for path in Path("tars").iterdir())[-1] == "images_002.tar"


@pytest.mark.parametrize("partial", [b"other bytes", "whole", "longer"])
def test_a_partial_archive_that_is_not_a_part_is_fetched_anew(mirror, partial):
    whole = mirror.files["test/images_000.tar"]
    content = {"whole": whole, "longer": whole + b"x"}.get(partial, partial)
    Path("tars").mkdir()
    Path("tars/images_000.tar.partial").write_bytes(content)
    assert fetched(mirror, "--numbers", "0")["n_done"] == 1
    assert same(mirror, 0)
    assert mirror.n_asked["test/images_000.tar"] == (1 if partial == "whole" else 2)


def test_an_archive_that_is_there_counts_when_its_md5_is_right(mirror):
    Path("tars").mkdir()
    Path("tars/images_000.tar").write_bytes(mirror.files["test/images_000.tar"])
    Path("tars/images_001.tar").write_bytes(b"half")
    assert fetched(mirror, "--numbers", "0,1")["n_done"] == 2
    assert same(mirror, 1)
    assert mirror.n_asked["test/images_000.tar"] == 0


def test_a_wrong_md5_is_an_error_and_the_archive_is_not_kept(mirror):
    wrong = "0" * 32
    mirror.files["md5sum/test/md5.images_001.txt"] = wrong.encode()
    digest = hashlib.md5(mirror.files["test/images_001.tar"]).hexdigest()
    arguments = ("--tars", "test", "--mirror", mirror.base, "tars", "--numbers", "0-2", "--retries", "1", *QUICK)
    assert refused("download", *arguments) == (
        f"1 of 3 tar files could not be fetched, first images_001.tar: md5: is {digest}, the mirror's md5 file says "
        f"{wrong}; run the same command again"
    )
    assert mirror.n_asked["test/images_001.tar"] == 2
    assert sorted(path.name for path in Path("tars").glob("images*")) == ["images_000.tar", "images_002.tar"]


def test_a_missing_archive_is_an_error_that_names_it(mirror):
    mirror.files["test/md5.images_004.txt"] = b"0" * 32
    arguments = ("--tars", "test", "--mirror", mirror.base + "/", "tars", "--numbers", "2-4", *QUICK)
    mirror.files["test/images_004.tar"] = b""
    message = refused("download", *arguments, "--retries", "0")
    assert message == (
        "2 of 3 tar files could not be fetched, first images_003.tar: HTTP 404: Not Found; run the same command again"
    )
    assert same(mirror, 2)


def test_the_parts_do_not_mix_and_a_folder_is_enough(mirror):
    fetched(mirror, "--numbers", "0")
    assert refused("download", "--tars", "index", "tars", "--mirror", mirror.base, *QUICK) == (
        "tars holds the test archives, whose names are those of index too; give another folder"
    )
    assert misused("download", "--tars", "test", "train.csv", "tars") == "--tars takes a folder and no CSV"
    assert misused("download", "--tars", "test", "tars", "--numbers", "20") == (
        "--numbers 20: test has the archives 0 to 19"
    )
    assert misused("download", "--tars", "val") == (
        "Invalid value for '--tars': 'val' is not one of 'train', 'index', 'test'."
    )


def test_a_dry_run_and_overwrite(mirror):
    plan = fetched(mirror, "--dry-run")
    assert plan == {"images": "tars", "n_archives": 3, "n_there": 0}
    assert not Path("tars").exists()
    fetched(mirror)
    assert fetched(mirror, "--overwrite")["n_new"] == 3
    assert mirror.n_asked["test/images_000.tar"] == 2


def test_private_mirrors_are_refused_unless_asked_for(mirror):
    message = refused("download", "--tars", "test", "--mirror", mirror.base, "tars", "--numbers", "0")
    assert message == (
        "1 of 1 tar files could not be fetched, first images_000.tar: private address: 127.0.0.1; --allow-private "
        "(allow_private=True) lets it pass; run the same command again"
    )


def test_a_mirror_that_asks_to_wait_for_long_is_asked_again_soon_which_is_said_once(mirror):
    address = f"{mirror.base}/busy/999999999"
    arguments = ("--tars", "test", "--mirror", address, "tars", "--numbers", "0-2", "--retries", "1", *QUICK)
    result = run("download", *arguments, "--max-wait-s", "0.05")
    assert result.exit_code == 1
    host = mirror.base.removeprefix("http://")
    assert result.stderr.splitlines() == [
        f"{host} asks to wait 999,999,999 s; it is asked again after 0.05 s (--max-wait-s)",
        "Error: 3 of 3 tar files could not be fetched, first images_000.tar: HTTP 429: Too Many Requests; "
        "run the same command again",
    ]
