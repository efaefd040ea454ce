"""The ledger of a download, the numbers of Google's archives, Retry-After, and workers that are killed."""

import asyncio
import errno
import os
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from recorder import Recorder

from retrieval.download.config import Form
from retrieval.download.google import Archives, parse_numbers
from retrieval.download.ledger import Archive, Entry, Ledger
from retrieval.download.resize import Decoders
from retrieval.errors import LmrError, UnreadableError
from retrieval.images.fetch_rules import FetchRules
from retrieval.images.http import retry_after_s

DONE = Entry("a", "http://x/a", "done", "2024-01-01T00:00:00+00:00", 200, bytes=5, sha256="00", width=1, height=1)
FAILED = Entry("b", "http://x/b", "failed", "2024-01-01T00:00:00+00:00", 404, "HTTP 404", "Not Found", 1)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "download.sqlite"


def test_what_was_put_is_found_again(path):
    with Ledger(path) as ledger:
        ledger.put([DONE, FAILED])
        ledger.put([replace(FAILED, cause="HTTP 410")])
    with Ledger(path) as ledger:
        many = ["a", "b", *(f"no{i}" for i in range(2000))]
        assert ledger.find(many) == {"a": DONE, "b": replace(FAILED, cause="HTTP 410")}


def test_an_entry_is_done_or_has_a_cause():
    with pytest.raises(ValueError, match=r"^an entry is done with its bytes or failed with a cause"):
        replace(DONE, bytes=None)
    with pytest.raises(ValueError, match=r"^an entry is done with its bytes or failed with a cause"):
        replace(FAILED, cause=None)


def test_another_form_is_refused_by_its_options(path):
    with Ledger(path) as ledger:
        ledger.require_form(Form())
        ledger.require_form(Form())
        with pytest.raises(LmrError) as error:
            ledger.require_form(Form(resize=None, quality=10))
    assert str(error.value) == (
        f"{path} keeps pictures with `resize` longer `size` 256 `quality` 85 `layout` flat, asked for was "
        "`keep_original` `layout` flat; give the same options, another folder, or `overwrite`"
    )


def test_size_and_quality_do_not_matter_for_originals(path):
    with Ledger(path) as ledger:
        ledger.require_form(Form(resize=None, size=10))
        ledger.put([DONE])
        ledger.require_form(Form(resize=None, size=20))
        assert list(ledger.find(["a"])) == ["a"]


def test_to_begin_anew_forgets_images_and_distrusts_files(path):
    with Ledger(path) as ledger:
        ledger.put([DONE])
        assert not ledger.only_listed
        ledger.begin_anew(Form(size=9))
        assert ledger.only_listed
        assert ledger.find(["a"]) == {}
        ledger.require_form(Form(size=9))


def test_a_second_run_on_the_same_folder_is_refused(path):
    with Ledger(path), pytest.raises(LmrError) as error:
        Ledger(path)
    assert str(error.value) == f"{path} is in use by another program; close that and run the same command again"


def test_a_file_that_is_no_ledger_is_refused_and_left_alone(path):
    path.write_text("holiday notes " * 100)
    with pytest.raises(LmrError) as error:
        Ledger(path)
    assert str(error.value) == (f"{path} is not a ledger of a download; move it away, or choose another folder")
    assert path.read_text() == "holiday notes " * 100


def test_another_version_is_refused(path):
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 9")
    with pytest.raises(LmrError) as error:
        Ledger(path)
    assert (
        str(error.value)
        == f"{path} has format_version 9, this lmr reads 1; use the lmr that made it, or choose another folder"
    )


def test_archives_are_kept_and_forgotten_by_name(path):
    one, other = (Archive(name, "http://x", "done", "2024-01-01T00:00:00+00:00", bytes=1, md5="0") for name in "ab")
    with Ledger(path) as ledger:
        ledger.put_archive(one)
        ledger.put_archive(other)
        ledger.forget_archives(["a"])
        assert ledger.archives() == {"b": other}


def test_numbers_of_archives():
    assert parse_numbers(None, "test") == list(range(20))
    assert parse_numbers("3,0-2,2", "index") == [0, 1, 2, 3]
    for text, problem in (
        ("x", "expected numbers and ranges, such as 0-9,12"),
        ("1-", "expected numbers and ranges, such as 0-9,12"),
        ("", "expected numbers and ranges, such as 0-9,12"),
        ("500", "train has the archives 0 to 499"),
        ("5-3", "train has the archives 0 to 499"),
    ):
        with pytest.raises(ValueError, match=f"^numbers {text}: {problem}$"):
            parse_numbers(text, "train")


def test_google_has_500_100_and_20_archives(tmp_path):
    for part, n in (("train", 500), ("index", 100), ("test", 20)):
        names = Archives(tmp_path, part, parse_numbers(None, part)).names()
        assert (len(names), names[0], names[-1]) == (n, "images_000.tar", f"images_{n - 1:03d}.tar")
    archives = Archives(tmp_path, "train", [7], "http://mirror/landmark/")
    assert archives.url("images_007.tar") == "http://mirror/landmark/train/images_007.tar"
    assert archives.md5_urls("images_007.tar") == [
        "http://mirror/landmark/md5sum/train/md5.images_007.txt",
        "http://mirror/landmark/train/md5.images_007.txt",
    ]
    with pytest.raises(ValueError, match=r"^test has the archives 0 to 19, got \[20\]$"):
        Archives(tmp_path, "test", [20])


def test_retry_after_is_a_number_or_a_date():
    assert retry_after_s(" 120 ") == 120
    assert retry_after_s("9" * 400) == 999_999_999_999
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 90 < retry_after_s(soon) <= 100
    assert retry_after_s("Fri, 01 Jan 1999 00:00:00 GMT") == 0
    assert [retry_after_s(text) for text in ("", "soon", "-5", "1.5", "nan", "inf", "²", "٣")] == [None] * 8
    assert 2e11 < retry_after_s("Fri, 31 Dec 9999 23:59:59 GMT") < 3e11
    for moment in (
        "Fri, 01 Jan 99999 00:00:00 GMT",
        "Fri, 01 Jan 2027 00:00:00 +99999999999999",
        "1 Jan 1 0:0:0 +2359",
    ):
        assert retry_after_s(moment) in (None, 0.0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"connections": 0}, "connections must be at least 1, not 0"),
        ({"n_retries": -1}, "n_retries must be at least 0, not -1"),
        ({"timeout_s": 0}, "timeout_s must be a positive number, not 0"),
        ({"idle_s": float("nan")}, "idle_s must be a positive number, not nan"),
    ],
)
def test_rules_check_themselves(wrong, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        FetchRules(**wrong)


def test_what_kills_a_worker_is_given_up_and_the_others_are_not():
    async def both():
        with Decoders(1) as decoders:
            works = [decoders.run(os._exit, 3), decoders.run(len, "four")]
            return await asyncio.gather(*works, return_exceptions=True)

    killed, kept = asyncio.run(both())
    assert isinstance(killed, UnreadableError)
    assert str(killed) == "broken picture: it kills the process that decodes it"
    assert kept == 4


def test_decoding_needs_no_semaphores_and_no_shared_memory(monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def several(decoders: Decoders) -> list[int]:
        return await asyncio.gather(*[decoders.run(len, "x" * n) for n in range(9)])

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", full)
    with Decoders(2) as decoders:
        assert asyncio.run(several(decoders)) == list(range(9))


def test_where_no_process_can_be_started_this_one_decodes_and_says_so(monkeypatch):
    def refuse(*_: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr("retrieval.parallel.start_worker", refuse)
    told: list[str] = []
    with Decoders(2, Recorder(told)) as decoders:
        assert asyncio.run(decoders.run(os.getpid)) == os.getpid()
    assert told == [
        "0 of 2 processes for the pictures can be started here (Resource temporarily unavailable); "
        "the work is slower with them, not different"
    ]
