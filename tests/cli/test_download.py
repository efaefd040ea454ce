"""`lmr download` against a server on loopback that misbehaves."""

import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from hostile_server import bomb, photo, serving, vast
from PIL import Image
from tiny_set import done, listing, misused, n_file_operations, read_rows, refused, run, run_and_die, write_csv

QUICK = ("--allow-private", "--workers", "0", "--timeout-s", "5", "--idle-s", "3", "--back-off-s", "0.02")
SMALL = ("--max-bytes", "2000000", "--max-pixels", "1000000")


@pytest.fixture(scope="module")
def shared_server():
    _ = bomb(), vast()  # made before anybody waits for them
    with serving() as server:
        yield server


@pytest.fixture
def server(shared_server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shared_server.n_asked.clear()
    shared_server.asked_at_s.clear()
    shared_server.headers.clear()
    shared_server.files.clear()
    shared_server.at_once, shared_server.latency_s = 0, 0.0
    return shared_server


def manifest(server, *paths: str, name: str = "train.csv", **rows: str) -> Path:
    """A row p0, p1, ... for each path of the server, and further rows id=url."""
    lines = [f"p{i},{server.url(path)}" for i, path in enumerate(paths)]
    return write_csv(Path(name), "id,url", lines + [f"{image_id},{url}" for image_id, url in rows.items()])


def summary(*arguments: object) -> dict:
    return json.loads(done("download", *arguments, *QUICK, "--json").stdout)


def ledger(images: str = "images") -> dict[str, dict]:
    with closing(sqlite3.connect(Path(images) / "download.sqlite")) as connection:
        connection.row_factory = sqlite3.Row
        return {row["image_id"]: dict(row) for row in connection.execute("SELECT * FROM pictures")}


def causes(images: str = "images") -> dict[str, str]:
    return {row["image_id"]: row["cause"] for row in read_rows(Path(images) / "failed.csv")}


def test_images_are_fetched_resized_and_written_down(server):
    manifest(server, "photo/1", "png/2")
    content = summary("train.csv")
    size = sum(path.stat().st_size for path in Path("images").glob("*.jpg"))
    assert content.pop("seconds") > 0
    assert content == {
        "images": "images",
        "n_rows": 2,
        "n_done": 2,
        "n_missing": 0,
        "n_excluded": 0,
        "bytes": size,
        "causes": {},
        "hosts": {"127.0.0.1": {"n_done": 2, "n_missing": 0, "n_bytes": size}},
        "failed": None,
        "n_new": 2,
        "hosts_left": {},
    }
    with Image.open("images/p1.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (256, 192))
    entry = ledger()["p0"]
    assert (entry["status"], entry["http_code"], entry["n_tries"]) == ("done", 200, 1)
    assert (entry["width"], entry["height"], entry["original_width"], entry["original_height"]) == (256, 192, 320, 240)
    assert entry["original_bytes"] == len(photo(1))
    assert sorted(path.name for path in Path("images").iterdir()) == ["download.sqlite", "p0.jpg", "p1.jpg"]


def test_the_same_command_again_has_nothing_to_do(server):
    manifest(server, "photo/1", "status/404")
    first = done("download", "train.csv", *QUICK)
    assert first.stdout.splitlines()[1:] == [
        *("not there, by cause:", "          1  HTTP 404", "not there, by host:", "          1  127.0.0.1"),
        "images/failed.csv lists them; --retry-failed tries them again",
    ]
    before = listing(Path("images"))
    second = done("download", "train.csv", *QUICK)
    assert second.stdout.splitlines()[0] == "images: 1 of 2 pictures is there, 0.01 MB, nothing to do"
    assert second.stdout.splitlines()[1:] == first.stdout.splitlines()[1:]
    assert server.n_asked == {"photo/1": 1, "status/404": 1}
    assert listing(Path("images")) == before


HOSTILE = {
    "endless/": "too many bytes",
    "silence/": "stalled",
    "drip/": "timeout",
    "truncated/": "cut short",
    "half/": "broken picture",
    "reset/": "cut short",
    "nonsense/": "not http",
    "page/": "a web page",
    "text/": "not a picture",
    "empty/": "not a picture",
    "bomb/": "too many bytes",
    "brotli/": "content encoding",
    "vast/": "too many pixels",
    "loop/": "too many redirects",
    "to/ftp://127.0.0.1/x": "bad url",
    "to/http://[broken": "bad url",
    "status/404": "HTTP 404",
    "status/500": "HTTP 500",
    "status/204": "HTTP 204",
    "status/304": "HTTP 304",
    "padded/": "content encoding",
    "latin/": "HTTP 404",
}
HARMLESS = ("photo/1", "mislabelled/2", "packed/3", "to//photo/4", "flaky/503/1/5", "png/6")


def test_every_row_of_a_hostile_server_is_accounted_for(server):
    others = {
        "../evil": server.url("photo/7"),
        "no-url": "None",
        "no-http": "file:///etc/passwd",
        "no-host": "http://no-such-host.invalid/x.jpg",
        "refused": "http://127.0.0.1:1/x.jpg",
        "x" * 300: server.url("photo/8"),
    }
    manifest(server, *HOSTILE, *HARMLESS, **others)
    limits = ("--timeout-s", "2", "--idle-s", "1", "--retries", "1", "--per-host", "40", *SMALL)
    content = json.loads(done("download", "train.csv", *QUICK, *limits, "--json").stdout)
    expected = {f"p{i}": cause for i, cause in enumerate(HOSTILE.values())}
    expected |= {"../evil": "bad id", "no-url": "no url", "no-http": "bad url", "no-host": "no such host"}
    expected |= {"refused": "no answer", "x" * 300: "bad id"}
    found = causes()
    if found["p5"] == "connection reset":  # when the reset is seen before the first bytes are
        found["p5"] = "cut short"
    assert found == expected
    assert (content["n_rows"], content["n_done"], content["n_missing"]) == (34, 6, 28)
    assert sum(content["causes"].values()) == 28
    assert {path.name for path in Path("images").glob("**/*.jpg")} == {f"p{i}.jpg" for i in range(22, 28)}
    assert {path.name for path in Path().iterdir()} == {"images", "train.csv"}
    assert {path.name for path in Path("images").iterdir() if path.suffix != ".jpg"} == {
        "download.sqlite",
        "failed.csv",
    }
    assert {i for i, entry in ledger().items() if entry["n_tries"] == 2} >= {"p1", "p2", "p3", "p17", "refused"}


def test_a_folder_in_the_place_of_a_image_stops_no_other(server):
    manifest(server, "photo/1", "photo/2")
    Path("images/p0.jpg").mkdir(parents=True)
    assert summary("train.csv")["n_done"] == 1
    assert causes() == {"p0": "bad id"}
    assert ledger()["p0"]["detail"] == "no file can have this name: Is a directory"


def test_a_host_is_one_host_whoever_asks_it(server):
    write_csv(Path("train.csv"), "id,url", [f"p{i},http://user{i}:word@127.0.0.1:1/x.jpg" for i in range(6)])
    result = run("download", "train.csv", *QUICK, "--per-host", "1", "--retries", "0")
    assert result.stderr.splitlines()[0] == (
        "127.0.0.1:1 was left for a later run: no answer 5 times in a row; the same command tries it again"
    )


def test_failed_csv_can_be_fed_back(server):
    manifest(server, "photo/1", "flaky/404/1/2")
    done("download", "train.csv", *QUICK)
    result = done("download", "images/failed.csv", "images", "--retry-failed", *QUICK)
    assert "1 of 1 picture is there" in result.stdout
    assert result.stderr == ""
    assert not Path("images/failed.csv").exists()
    assert summary("train.csv")["n_done"] == 2


def test_retry_after_is_honoured_for_the_whole_host(server):
    manifest(server, "wait/1/1", *(f"photo/{i}" for i in range(2, 6)))
    assert summary("train.csv", "--per-host", "1")["n_done"] == 5
    first, second = server.asked_at_s["wait/1/1"]
    assert second - first >= 1
    assert all(server.asked_at_s[f"photo/{i}"][0] - first >= 1 for i in range(2, 6))


def test_a_host_that_goes_on_asking_for_too_long_is_left_for_a_later_run(server):
    manifest(server, "busy/9999", "busy/9998", "busy/9997", "photo/2")
    result = run("download", "train.csv", *QUICK, "--per-host", "1", "--max-wait-s", "0.05", "--json")
    host = server.base.removeprefix("http://")
    reason = "it asked 3 times in a row to wait, the last time 9,997 s"
    assert result.exit_code == 1
    assert result.stderr.splitlines()[:2] == [
        f"{host} asks to wait 9,999 s; it is asked again after 0.05 s (--max-wait-s)",
        f"{host} was left for a later run: {reason}; the same command tries it again",
    ]
    content = json.loads(result.stdout)
    assert (content["causes"], content["hosts_left"]) == ({"not tried": 4}, {host: reason})
    assert sum(server.n_asked.values()) == 3
    manifest(server, "photo/1", "photo/2")
    assert summary("train.csv")["n_done"] == 2


@pytest.mark.parametrize("seconds", ["999999999", "9" * 400])
def test_one_image_that_asks_to_wait_for_ever_holds_up_no_other(server, seconds):
    manifest(server, f"busy/{seconds}", *(f"photo/{i}" for i in range(5)))
    result = done("download", "train.csv", *QUICK, "--per-host", "1", "--max-wait-s", "0.05", "--retries", "1")
    assert result.stderr.count("asks to wait") == 1
    assert result.stdout.startswith("images: 5 of 6 pictures are there")
    assert causes() == {"p0": "HTTP 429"}


@pytest.mark.parametrize("seconds", ["-5", "nan", "soon", "1e9"])
def test_a_rest_that_cannot_be_is_none(server, seconds):
    manifest(server, f"wait/{seconds}/1", "photo/2")
    result = done("download", "train.csv", *QUICK)
    assert (result.stderr, result.stdout.split(";")[0][:34]) == ("", "images: 2 of 2 pictures are there,")


def test_no_more_images_at_once_than_asked_for(server):
    server.latency_s = 0.03
    manifest(server, *(f"photo/{i}" for i in range(12)))
    assert summary("train.csv", "--per-host", "3")["n_done"] == 12
    assert 2 <= server.at_once <= 3


def test_private_addresses_are_refused_unless_asked_for(server):
    manifest(
        server, "photo/1", by_name=server.url("photo/2").replace("127.0.0.1", "localhost"), odd="http://2130706433/"
    )
    message = refused("download", "train.csv", "--workers", "0")
    assert message == (
        "none of the 3 pictures could be fetched, most often: private address; images/failed.csv lists them; "
        "--retry-failed tries them again; 2 are at private addresses, which --allow-private lets pass"
    )
    assert causes() == {"p0": "private address", "by_name": "private address", "odd": "bad url"}
    assert server.n_asked == {}
    assert summary("train.csv")["n_done"] == 2  # --allow-private, which lets pass what was refused


def test_a_redirect_to_a_private_address_is_refused(server, monkeypatch):
    from retrieval.images import addresses

    is_public = addresses.is_public
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.1" or is_public(address))
    manifest(server, "photo/1", "to/http://10.0.0.1/x.jpg", "to/http://[::1]/x.jpg")
    done("download", "train.csv", "--workers", "0")
    assert causes() == {"p1": "private address", "p2": "private address"}
    assert ledger()["p1"]["detail"] == "10.0.0.1; --allow-private (allow_private=True) lets it pass"


def test_a_certificate_that_nobody_vouches_for_is_refused(server, tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*request, *names], check=True, capture_output=True)
    with serving((certificate, key)) as secure:
        manifest(server, "photo/1", https=secure.url("photo/2"), plain=server.url("photo/3").replace("http:", "https:"))
        done("download", "train.csv", *QUICK)
    assert causes() == {"https": "tls", "plain": "tls"}
    assert "self-signed certificate" in ledger()["https"]["detail"]


def test_servers_are_told_who_asks_and_that_nothing_be_packed(server):
    manifest(server, "photo/1")
    done("download", "train.csv", *QUICK, "--user-agent", "landmarks/1 (me@example.org)")
    headers = server.headers["photo/1"]
    assert (headers["User-Agent"], headers["Accept-Encoding"]) == ("landmarks/1 (me@example.org)", "identity")


@pytest.fixture
def commons(server, monkeypatch):
    """Base of the pictures of a server that is Wikimedia's, as far as names go."""
    look_up = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *arguments, **how: look_up("127.0.0.1", *arguments, **how))
    return server.base.replace("127.0.0.1", "upload.wikimedia.org") + "/wikipedia/commons/"


NAMED = ("--user-agent", "landmarks/1 (me@example.org)")


def test_pictures_of_wikimedia_come_as_the_next_thumbnail_that_is_made(server, commons):
    rows = {
        "wide": f"{commons}a/ab/4000x3000.jpg",
        "thumbnail": f"{commons}thumb/a/ab/2000x1500.jpg/800px-2000x1500.jpg",
        "small": f"{commons}a/ab/300x200.jpg",
        "broken": f"{commons}a/ab/broken_640x480.jpg",
        "gone": f"{commons}a/ab/gone.jpg",
        "elsewhere": server.url("wikipedia/commons/a/ab/800x600.jpg"),
    }
    manifest(server, **rows)
    content = summary("train.csv", *NAMED)
    assert (content["n_done"], content["causes"]) == (5, {"HTTP 404": 1})
    assert server.n_asked == {
        "wikipedia/commons/thumb/a/ab/4000x3000.jpg/330px-4000x3000.jpg": 1,
        "wikipedia/commons/thumb/a/ab/2000x1500.jpg/330px-2000x1500.jpg": 1,
        "wikipedia/commons/thumb/a/ab/300x200.jpg/330px-300x200.jpg": 1,
        "wikipedia/commons/a/ab/300x200.jpg": 1,
        "wikipedia/commons/thumb/a/ab/broken_640x480.jpg/330px-broken_640x480.jpg": 4,
        "wikipedia/commons/a/ab/broken_640x480.jpg": 1,
        "wikipedia/commons/thumb/a/ab/gone.jpg/330px-gone.jpg": 1,
        "wikipedia/commons/a/ab/gone.jpg": 1,
        "wikipedia/commons/a/ab/800x600.jpg": 1,
    }
    entry = ledger()["wide"]
    assert (entry["url"], entry["width"], entry["original_width"]) == (rows["wide"], 256, 330)
    assert [ledger()[name]["n_tries"] for name in ("wide", "small", "broken", "gone")] == [1, 2, 5, 2]
    assert summary("train.csv", *NAMED)["n_new"] == 0


def test_a_thumbnail_of_wikimedia_that_is_too_low_is_asked_for_larger(server, commons):
    wide, wider = f"{commons}a/ab/3000x900.jpg", f"{commons}a/ab/920x250.jpg"
    manifest(server, wide=wide, wider=wider, upright=f"{commons}a/ab/900x1200.jpg")
    assert summary("train.csv", "--resize", "shorter", "--size", "200", *NAMED)["n_done"] == 3
    asked = [path.rpartition("/")[2] for path in server.n_asked]
    assert sorted(asked) == [
        *("330px-3000x900.jpg", "330px-900x1200.jpg", "330px-920x250.jpg"),
        *("920x250.jpg", "960px-3000x900.jpg", "960px-920x250.jpg"),
    ]
    sizes = {name: (entry["width"], entry["height"]) for name, entry in ledger().items()}
    assert sizes == {"wide": (667, 200), "wider": (736, 200), "upright": (200, 267)}
    assert [ledger()[name]["n_tries"] for name in ("wide", "wider", "upright")] == [2, 3, 1]


def test_wikimedia_is_asked_for_few_pictures_at_once_and_told_whom_to_turn_to(server, commons):
    server.latency_s = 0.05
    manifest(server, **{f"p{i}": f"{commons}a/ab/{800 + i}x600.jpg" for i in range(6)})
    result = done("download", "train.csv", *QUICK, *NAMED)
    assert (server.at_once, result.stderr) == (2, "")
    message = refused("download", "train.csv", "others", *QUICK)
    assert message.startswith("none of the 6 pictures could be fetched, most often: HTTP 403; ")
    assert sum(server.n_asked.values()) == 12  # a refusal of who asks is none of a thumbnail


def test_who_tells_wikimedia_no_contact_is_told_so(server, commons):
    manifest(server, one=f"{commons}a/ab/800x600.jpg", other=f"{commons}a/ab/900x600.jpg")
    result = run("download", "train.csv", *QUICK)
    assert result.stderr.splitlines()[0] == (
        "upload.wikimedia.org asks for a contact in the User-Agent, and serves those who give none slowly or not at "
        'all: give --user-agent "lmr/0.1 (you@example.org)"'
    )
    assert result.stderr.count("upload.wikimedia.org asks") == 1


def test_what_a_server_excludes_is_left_and_counted_until_it_is_asked_for(server):
    paths = ("photo/1", "tagged/noai/2", "tagged/lmr:%20noimageai/3", "tagged/nofollow/4", "status/404")
    manifest(server, *paths)
    result = done("download", "train.csv", *QUICK)
    excluded = "2 are excluded by their servers' X-Robots-Tag, which --ignore-robots-tag lets pass"
    assert result.stdout.splitlines()[-1] == (
        f"images/failed.csv lists them; --retry-failed tries them again; {excluded}"
    )
    assert causes() == {"p1": "X-Robots-Tag", "p2": "X-Robots-Tag", "p4": "HTTP 404"}
    found = ledger()
    assert [found[i]["status"] for i in ("p0", "p1", "p2", "p3", "p4")] == [
        *("done", "excluded", "excluded", "done", "failed"),
    ]
    assert [(found[i]["detail"], found[i]["http_code"]) for i in ("p1", "p2")] == [("noai", 200), ("noimageai", 200)]
    n_asked = dict(server.n_asked)
    plan = json.loads(done("download", "train.csv", "--dry-run", "--json").stdout)
    assert (plan["n_excluded_before"], plan["n_failed_before"], plan["n_to_fetch"]) == (2, 1, 0)
    content = summary("train.csv")
    assert (content["n_excluded"], content["causes"], content["n_new"]) == (2, {"X-Robots-Tag": 2, "HTTP 404": 1}, 0)
    assert server.n_asked == n_asked
    plan = json.loads(done("download", "train.csv", "--dry-run", "--json", "--ignore-robots-tag").stdout)
    assert (plan["n_excluded_before"], plan["n_failed_before"], plan["n_to_fetch"]) == (0, 1, 2)
    content = summary("train.csv", "--ignore-robots-tag")
    assert (content["n_excluded"], content["n_new"], content["n_done"]) == (0, 2, 4)
    assert causes() == {"p4": "HTTP 404"}
    assert summary("train.csv")["n_done"] == 4


def test_a_server_that_excludes_everything_is_an_error_that_says_what_to_do(server):
    manifest(server, "tagged/noindex/2")
    assert refused("download", "train.csv", *QUICK) == (
        "the only picture could not be fetched, most often: X-Robots-Tag; images/failed.csv lists "
        "them; --retry-failed tries them again; 1 are excluded by their servers' X-Robots-Tag, "
        "which --ignore-robots-tag lets pass"
    )


def test_files_count_only_when_they_are_whole(server):
    manifest(server, *(f"photo/{i}" for i in range(5)))
    Path("images").mkdir()
    Path("images/p0.jpg").write_bytes(photo(0))
    Path("images/p1.jpg").write_bytes(photo(1)[:-2000])
    content = summary("train.csv")
    assert (content["n_done"], content["n_new"]) == (5, 5)
    assert Path("images/p0.jpg").read_bytes() == photo(0)
    assert (ledger()["p0"]["http_code"], ledger()["p0"]["width"], ledger()["p0"]["n_tries"]) == (None, 320, 0)
    assert (ledger()["p0"]["original_width"], ledger()["p1"]["original_width"]) == (None, 320)
    Path("images/p2.jpg").write_bytes(Path("images/p2.jpg").read_bytes()[:-1])
    Path("images/p3.jpg").unlink()
    assert summary("train.csv")["n_new"] == 2
    assert server.n_asked == {"photo/1": 1, "photo/2": 2, "photo/3": 2, "photo/4": 1}


def test_another_form_or_another_url_is_refused_by_name(server):
    manifest(server, "photo/1")
    done("download", "train.csv", *QUICK)
    before = listing(Path("images"))
    assert refused("download", "train.csv", "--size", "64", *QUICK) == (
        "images/download.sqlite keeps pictures with --resize longer --size 256 --quality 85 --layout flat, asked for "
        "was --resize longer --size 64 --quality 85 --layout flat; give the same options, another folder, or "
        "--overwrite"
    )
    manifest(server, "photo/2", name="other.csv")
    assert refused("download", "other.csv", *QUICK) == (
        f"images holds 1 of these pictures from other URLs, p0 from {server.url('photo/1')}, other.csv has "
        f"{server.url('photo/2')}; give another folder, or --overwrite"
    )
    assert listing(Path("images")) == before
    assert summary("other.csv", "--size", "64", "--overwrite")["n_new"] == 1
    with Image.open("images/p0.jpg") as image:
        assert image.size == (64, 48)


def test_a_corrected_url_is_tried_without_being_asked(server):
    manifest(server, "status/404", "photo/1")
    done("download", "train.csv", *QUICK)
    manifest(server, "photo/0", "photo/1")
    assert summary("train.csv")["n_done"] == 2


def test_originals_are_kept_as_they_come_in_googles_layout(server):
    manifest(server, abcd=server.url("photo/1"))
    summary("train.csv", "pictures", "--keep-original", "--layout", "google")
    assert Path("pictures/a/b/c/abcd.jpg").read_bytes() == photo(1)


def test_long_bodies_go_through_a_file(server, monkeypatch):
    monkeypatch.setattr("retrieval.images.http_body.SPILL_BYTES", 1000)
    manifest(server, "photo/1", "half/", "truncated/")
    assert summary("train.csv", "--keep-original", "--retries", "0")["n_done"] == 1
    assert Path("images/p0.jpg").read_bytes() == photo(1)
    assert not Path("images/.lmr-partial").exists()


def test_a_dry_run_writes_and_asks_nothing(server):
    manifest(server, "photo/1", "photo/2", **{"../x": "", "none": ""})
    assert done("download", "train.csv", "--dry-run").stdout == (
        "images: 2 of 4 pictures would be fetched; 0 are there, 0 files would be checked, 0 failed before, "
        "0 are excluded by X-Robots-Tag, 1 have no url, 1 a bad id\nto fetch, by host:\n          2  127.0.0.1\n"
    )
    assert not Path("images").exists()
    done("download", "train.csv", *QUICK)
    n_asked = dict(server.n_asked)
    before = listing(Path())
    assert json.loads(done("download", "train.csv", "--dry-run", "--json").stdout) == {
        "images": "images",
        "n_rows": 4,
        "n_there": 2,
        "n_failed_before": 2,
        "n_excluded_before": 0,
        "n_to_fetch": 0,
        "n_to_verify": 0,
        "n_without_url": 0,
        "n_bad_id": 0,
        "hosts": {},
    }
    assert json.loads(done("download", "train.csv", "--dry-run", "--overwrite", "--json").stdout)["n_to_fetch"] == 2
    assert refused("download", "train.csv", "--dry-run", "--size", "64").startswith(
        "images/download.sqlite keeps pictures with --resize longer --size 256 --quality 85 --layout flat, asked for "
    )
    assert listing(Path()) == before
    assert server.n_asked == n_asked


def test_workers_change_nothing(server):
    manifest(server, "photo/1", "half/", "photo/2")
    done("download", "train.csv", "here", *QUICK)
    done("download", "train.csv", "apart", *QUICK, "--workers", "1")
    files = [{n: h for n, h in listing(Path(f)).items() if "sqlite" not in n} for f in ("here", "apart")]
    assert files[0] == files[1]
    assert [{**entry, "time": ""} for entry in ledger("here").values()] == [
        {**entry, "time": ""} for entry in ledger("apart").values()
    ]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_stop_at_any_moment_loses_nothing_finished(server, number):
    n = 60
    server.latency_s = 0.02
    manifest(server, *(f"photo/{i}" for i in range(n)))
    program = [sys.executable, "-c", "from cli.main import main; main()", "download", "train.csv", *QUICK]
    process = subprocess.Popen(
        [*program, "--per-host", "2"],
        cwd=os.getcwd(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell in the background has it ignored
    )
    until_s = time.monotonic() + 60
    while len(list(Path("images").glob("*.jpg"))) < 5 and time.monotonic() < until_s:
        time.sleep(0.005)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    there = {path.stem: path.read_bytes() for path in Path("images").glob("*.jpg")}
    assert 5 <= len(there) < n
    if number == signal.SIGINT:
        assert (process.returncode, stdout) == (1, "")
        assert stderr == (
            "train.csv: 60 images, no labels\nError: interrupted; the same command goes on from what is saved\n"
        )
        assert len(ledger()) >= 5
    asked = dict(server.n_asked)
    assert summary("train.csv")["n_done"] == n
    assert all(server.n_asked[f"photo/{i[1:]}"] == asked[f"photo/{i[1:]}"] for i in there)
    assert all(Path(f"images/{i}.jpg").read_bytes() == data for i, data in there.items())
    assert not Path("images/.lmr-partial").exists()
    assert {(entry["http_code"], entry["n_tries"], entry["original_width"]) for entry in ledger().values()} == {
        (200, 1, 320)
    }


def test_a_kill_at_any_file_operation_loses_no_column_of_the_ledger(server, tmp_path, monkeypatch):
    arguments = ["download", "train.csv", *QUICK]
    folders = [tmp_path / name for name in ("whole", "counted", "killed")]
    for folder in folders:
        folder.mkdir()
        monkeypatch.chdir(folder)
        manifest(server, "photo/1", "png/2", "photo/3", "status/404")
    whole, counted, killed = folders
    monkeypatch.chdir(whole)
    done(*arguments)
    expected = [{**entry, "time": ""} for entry in ledger().values()]
    n = n_file_operations(counted, arguments)
    for at in sorted({1, n, *random.Random(0).sample(range(2, n), 7)}):
        monkeypatch.chdir(killed)
        shutil.rmtree("images", ignore_errors=True)
        run_and_die(killed, arguments, at)
        listed = ledger() if Path("images/download.sqlite").exists() else {}
        assert {path.stem for path in Path("images").glob("*.jpg")} <= set(listed)
        done(*arguments)
        assert [{**entry, "time": ""} for entry in ledger().values()] == expected
        assert {path.name for path in Path("images").iterdir()} == {path.name for path in (whole / "images").iterdir()}


def test_an_old_file_of_the_same_size_is_not_taken_for_a_image_whose_name_a_kill_prevented(server, monkeypatch):
    from retrieval.download import ledger as saving

    manifest(server, "photo/1")
    done("download", "train.csv", *QUICK)
    content = Path("images/p0.jpg").read_bytes()
    Path("images/p0.jpg").write_bytes(content[:-1] + b"?")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(saving, "_rename", killed)
        assert run("download", "train.csv", "--overwrite", *QUICK).exit_code == 1
    assert (ledger()["p0"]["status"], Path("images/p0.jpg").exists()) == ("done", False)
    assert summary("train.csv")["n_new"] == 1
    assert Path("images/p0.jpg").read_bytes() == content


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(server, monkeypatch):
    from retrieval.download import ledger as saving

    manifest(server, "photo/1", "photo/2")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(saving, "_rename", full)
        assert refused("download", "train.csv", *QUICK) == (
            "images cannot be written: No space left on device; make room or choose another folder, "
            "and run the same command again"
        )
    assert summary("train.csv")["n_done"] == 2


def test_bad_input_is_one_line_and_leaves_nothing(server):
    manifest(server, "photo/1")
    write_csv(Path("labels.csv"), "id,landmark_id", ["a,x"])
    write_csv(Path("twice.csv"), "id,url", ["a,http://x/1", "a,http://x/2"])
    write_csv(Path("wrong.csv"), "id,urll", ["a,http://x/1"])
    Path("wrong.toml").write_text("per-hosts = 3\n")
    assert refused("download", "no.csv") == "no.csv: there is no such file or folder"
    assert refused("download", "labels.csv") == (
        "labels.csv has no url column; give a csv file with the columns id,url"
    )
    assert run("download", "twice.csv").stderr == (
        "Error: twice.csv: 1 bad row; correct or remove, nothing of the file was used\n"
        "twice.csv:3: id a is also on line 2\n"
    )
    assert refused("download", "wrong.csv") == "wrong.csv: there is no column 'urll'; did you mean url?"
    assert refused("download", "train.csv", "train.csv/x", *QUICK) == (
        "train.csv/x cannot be written: Not a directory; choose another place or make room"
    )
    assert refused("download", "train.csv", "--config", "wrong.toml") == (
        "--config wrong.toml: per-hosts is not an option of download; did you mean per-host?"
    )
    assert misused("download", "train.csv", "--quality", "101") == ("--quality must be from 1 to 100, not 101")
    assert misused("download", "train.csv", "--size", "0") == "--size must be at least 1, not 0"
    assert misused("download", "train.csv", "--connections", "0") == "--connections must be at least 1, not 0"
    assert misused("download", "train.csv", "--retries", "-1") == "--retries must be at least 0, not -1"
    assert misused("download", "train.csv", "--idle-s", "nan") == "--idle-s must be a positive number, not nan"
    assert misused("download", "train.csv", "--max-bytes", "0") == "--max-bytes must be at least 1, not 0"
    assert misused("download").startswith("Missing argument 'CSV'")
    assert misused("download", "train.csv", "--retry").startswith("No such option '--retry'.")
    assert not Path("images").exists()


def test_the_api_downloads_by_the_words_of_the_command(server):
    import lmr
    from retrieval.errors import LmrError

    manifest(server, "photo/1", "no")
    words = {"allow_private": True, "workers": 0, "retries": 0}
    plan = lmr.download("train.csv", dry_run=True, **words)
    assert (plan.n_to_fetch, Path("images").exists()) == (2, False)
    report = lmr.download("train.csv", size=8, **words)
    assert (report.tally.n_done, report.n_new, report.causes) == (1, 1, {"HTTP 404": 1})
    with Image.open("images/p0.jpg") as image:
        assert max(image.size) == 8
    with pytest.raises(LmrError, match=r"^`size` must be at least 1, not 0$"):
        lmr.download("train.csv", size=0)
    with pytest.raises(TypeError, match=r"^per_hosts is no word of DownloadJob; did you mean per_host\?$"):
        lmr.download("train.csv", per_hosts=1)
