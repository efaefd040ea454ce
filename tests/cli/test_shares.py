"""`--shard I/N` and `lmr join`: shares side by side, joined to what one run makes, byte for byte."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_set import HERE, cut_short, done, listing, misused, read_rows, refused, write_csv

from retrieval.own_columns import select_columns
from retrieval.progress import SILENT
from retrieval.shard import Shard
from retrieval.store.join import renew_columns
from retrieval.store.store import read_store, read_store_info
from retrieval.texts import Texts


def embedded(n: int, *words: object) -> list[str]:
    """The stores of n shares of train.csv."""
    for i in range(n, 0, -1):
        done("embed", "--output", "shared.h5", "--shard", f"{i}/{n}", *words, *HERE)
    return [f"shared-{i:0{len(str(n))}}-of-{n}.h5" for i in range(1, n + 1)]


def enlarged(name: str, times: int) -> None:
    """More rows of a manifest: copies of its images by other names."""
    rows = read_rows(Path(name))
    for row in list(rows):
        for k in range(1, times):
            shutil.copy(f"images/{row['id']}.jpg", f"images/{row['id']}-{k}.jpg")
            rows.append({**row, "id": f"{row['id']}-{k}"})
    write_csv(Path(name), ",".join(rows[0]), [",".join(row.values()) for row in rows])


@pytest.mark.parametrize("n", [1, 2, 5])
def test_joined_stores_are_the_store_of_one_run(tiny_set, n):
    enlarged("train.csv", 2)
    cut_short(Path("images/train-dome-3.jpg"))
    Path("images/train-arch-0.jpg").unlink()
    done("embed", "--overwrite", *HERE)
    parts = embedded(n)
    assert done("join", *parts, "--output", "joined.h5").stdout == (
        f"joined.h5: 88 images of {n} share{'s' if n > 1 else ''}\n"
    )
    assert Path("joined.h5").read_bytes() == Path("train.h5").read_bytes()
    assert done("join", *parts[::-1], "--output", "joined.h5").stdout == (
        "joined.h5: finished already, nothing to do (88 images)\n"
    )
    assert done("embed", "--output", "joined.h5", *HERE).stdout == (
        "joined.h5: finished already, nothing to do (88 pictures)\n"
    )
    assert [len(read_store_info(part)[1]) for part in parts] == [len(Shard(i + 1, n).rows(88)) for i in range(n)]


def test_more_stores_are_joined_than_files_may_be_open(tiny_set):
    resource = pytest.importorskip("resource", reason="this system limits no files")
    parts, (soft, hard) = embedded(15), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) + 10, hard))
    try:
        assert done("join", *parts, "--output", "joined.h5").stdout == "joined.h5: 44 images of 15 shares\n"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(read_store("joined.h5")) == 44


def test_a_share_has_a_name_of_its_own_beside_the_manifest(tiny_set):
    assert done("embed", "--shard", "2/3", *HERE).stdout == "train-2-of-3.h5: 15 descriptors, 0 unreadable\n"
    assert done("embed", "--shard", "2/3", *HERE).stdout == (
        "train-2-of-3.h5: finished already, nothing to do (15 pictures)\n"
    )
    assert done("embed", "--shard", "03/12", "--output", "x.h5", *HERE).stdout.startswith("x-03-of-12.h5: ")
    assert json.loads(done("info", "train-2-of-3.h5", "--json", "--verify").stdout)["shard"] == "2/3"


def test_a_share_is_refused_where_a_whole_is_asked_for(tiny_set):
    embedded(2)
    told = (
        "shared-1-of-2.h5 holds share 1/2 of the rows alone; join all 2 shares with lmr join, and give what that makes"
    )
    assert refused("build-index", "shared-1-of-2.h5", "--output", "x", "--device", "cpu") == told
    assert refused("evaluate", "shared-1-of-2.h5", *HERE) == told
    assert refused("stats", "train.csv", "--store", "shared-1-of-2.h5", "--report", "s.html") == told
    shutil.copy("shared-1-of-2.h5", "val.h5")
    assert "another model" in refused("evaluate", "val.csv", *HERE) or "val.h5" in refused("evaluate", "val.csv", *HERE)
    shutil.copy("shared-1-of-2.h5", "again.h5")
    assert refused("embed", "--output", "again.h5", *HERE) == (
        "again.h5 was made with another shard (1/2, now all rows); give --overwrite or another file name"
    )


@pytest.mark.parametrize("text", ["0/4", "5/4", "a/b", "1", "1/0", "-1/4", "1/4/2", ""])
def test_what_is_no_share_is_said_with_the_right_form(tiny_set, text):
    assert refused("embed", f"--shard={text}") == (
        f"--shard {text}: expected I/N, share I of N counted from 1, such as 1/4 to 4/4"
    )


def test_more_shares_than_rows_are_refused(tiny_set):
    write_csv(Path("few.csv"), "id,landmark_id", ["train-arch-0,arch", "train-arch-1,arch"])
    assert refused("embed", "few.csv", "--shard", "3/3", *HERE) == (
        "--shard 3/3: few.csv has 2 images, fewer than shares; give at most 2 shares"
    )


def test_missing_double_and_foreign_shares_are_refused(tiny_set):
    parts = embedded(3)
    before = listing(tiny_set)
    assert refused("join", *parts[:2], "--output", "j.h5") == (
        "share 3/3 is missing; give its file too, or make it first by the same command with --shard 3/3"
    )
    assert refused("join", parts[2], "--output", "j.h5") == (
        "shares 1/3, 2/3 are missing of 3; give their files too, or make them first by the same command with these as "
        "--shard"
    )
    shutil.copy(parts[0], "copy.h5")
    assert refused("join", *parts, "copy.h5", "--output", "j.h5") == (
        "shared-1-of-3.h5 and copy.h5 are both share 1/3; give each share once"
    )
    assert refused("join", *parts, "train.h5", "--output", "j.h5") == (
        "train.h5 is no share, it holds all rows; give what was made with --shard"
    )
    done("embed", "--output", "x.h5", "--shard", "1/2", *HERE)
    assert refused("join", parts[0], "x-1-of-2.h5", "--output", "j.h5") == (
        "x-1-of-2.h5 is share 1/2, shared-1-of-3.h5 is share 1/3; give the shares of one run"
    )
    done("embed", "--output", "f.h5", "--shard", "1/3", "--flip", *HERE)
    told = refused("join", "f-1-of-3.h5", *parts[1:], "--output", "j.h5")
    assert told.startswith("shared-2-of-3.h5 was made with another flip (False, now True) than f-1-of-3.h5; ")
    write_csv(Path("other.csv"), "id,landmark_id", ["train-arch-0,arch", "train-arch-1,arch", "train-dome-1,dome"])
    done("embed", "other.csv", "--shard", "3/3", *HERE)
    assert "another manifest" in refused("join", *parts[:2], "other-3-of-3.h5", "--output", "j.h5")
    assert refused("join", *parts, "--output", parts[0]).endswith("is a part and the output; give another --output")
    assert refused("join", *parts, "train.csv", "--output", "j.h5").startswith("train.csv was not made with --shard")
    assert not Path("j.h5").exists()
    assert before.items() <= listing(tiny_set).items()
    assert "PARTS" in misused("join", "--output", "j.h5") or "parts" in misused("join", "--output", "j.h5")


def test_a_join_does_not_replace_another_store_unasked(tiny_set):
    done("embed", "--overwrite", *HERE)
    parts = embedded(2)
    shutil.copy("val.h5", "j.h5")
    assert "give --overwrite or another --output" in refused("join", *parts, "--output", "j.h5")
    done("join", *parts, "--output", "j.h5", "--overwrite")
    assert Path("j.h5").read_bytes() == Path("train.h5").read_bytes()


def test_a_join_that_was_stopped_goes_on(tiny_set, monkeypatch):
    done("embed", "--overwrite", *HERE)
    parts = embedded(2)
    from retrieval.store.writer import StoreWriter

    written = StoreWriter.write

    def stopping(self, rows, vectors, facts=None):
        written(self, rows, vectors, facts)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "write", stopping)
        assert "interrupted" in refused("join", *parts, "--output", "j.h5")
    assert Path("j.h5.partial").exists()
    assert "is unfinished" in refused("build-index", "j.h5", "--output", "x", "--device", "cpu")
    done("join", *parts, "--output", "j.h5")
    assert Path("j.h5").read_bytes() == Path("train.h5").read_bytes()
    assert not Path("j.h5.partial").exists()


def test_own_columns_of_the_shares_that_changed_are_those_of_the_whole(tiny_set):
    shares, whole = embedded(2), {"lat": Texts.of(map(str, range(44)))}
    done("join", *shares, "--output", "joined.h5")
    for share, rows in zip(shares, np.split(np.arange(44), [len(read_store_info(shares[0])[1])]), strict=True):
        renew_columns(Path(share), select_columns(whole, rows), SILENT)
    done("join", *shares, "--output", "joined.h5")
    assert read_store("joined.h5").columns["lat"] == whole["lat"]


def test_an_unfinished_share_is_not_joined(tiny_set):
    parts = embedded(2)
    Path(parts[0]).rename(parts[0] + ".partial")
    assert refused("join", *parts, "--output", "j.h5") == (
        f"{parts[0]} is unfinished ({parts[0]}.partial is there); run the same lmr embed again"
    )


@pytest.mark.parametrize("calibrated", [True, False])
def test_joined_submissions_are_the_submission_of_one_run(tiny_set, calibrated):
    enlarged("test.csv", 16)
    Path("images/test-arch-1-2.jpg").unlink()
    if not calibrated:
        Path("landmarks/calibration.json").unlink()
    done("submit", *HERE)
    for i, n in ((2, 224), (1, 128)):
        told = done("submit", "--output", "s.csv", "--store", "t.h5", "--shard", f"{i}/2", *HERE).stdout
        assert told.startswith(f"s-{i}-of-2.json: {n} lines, ")
    parts = ["s-1-of-2.json", "s-2-of-2.json"]
    assert done("join", *parts, "--output", "s.csv").stdout == "s.csv: 352 lines of 2 shares\n"
    assert Path("s.csv").read_bytes() == Path("submission.csv").read_bytes()
    assert done("join", *parts, "--output", "s.csv").stdout == "s.csv: finished already, nothing to do (352 lines)\n"
    done("join", "t-1-of-2.h5", "t-2-of-2.h5", "--output", "t.h5")
    assert Path("t.h5").read_bytes() == Path("test.h5").read_bytes()
    whole = ("submit", "--output", "s.csv", "--store", "t.h5")
    assert done(*whole, *HERE).stdout == "s.csv: finished already, nothing to do (352 lines)\n"
    assert refused(*whole, "--threshold", "0.3", *HERE).startswith("s.csv was made with another ") or not calibrated
    done(*whole, "--overwrite", *HERE)
    assert done(*whole, *HERE).stdout == "s.csv: finished already, nothing to do (352 lines)\n"
    told = "submission.csv: finished already, nothing to do (352 lines)\n"
    assert done("join", *parts, "--output", "submission.csv").stdout == told
    done("submit", *HERE)
    again = done("submit", "--output", "s.csv", "--store", "t.h5", "--shard", "1/2", *HERE)
    assert "finished already" in again.stdout


def test_shares_of_different_submissions_are_not_joined(tiny_set):
    for i, threshold in ((1, "0.1"), (2, "0.2")):
        done("submit", "--shard", f"{i}/2", "--threshold", threshold, *HERE)
    parts = ["submission-1-of-2.json", "submission-2-of-2.json"]
    assert refused("join", *parts, "--output", "s.csv") == (
        "submission-2-of-2.json was made with another --threshold than submission-1-of-2.json; make it again"
    )
    done("submit", "--shard", "2/2", "--threshold", "0.1", "--overwrite", *HERE)
    assert "share 2/2 is missing" in refused("join", parts[0], "--output", "s.csv")
    data = Path(parts[1]).read_text()
    Path(parts[1]).write_text(data.replace("dome", "arch", 1))
    assert "was changed or damaged" in refused("join", *parts, "--output", "s.csv")
    assert "lmr join" in refused("score", parts[0], "solution.csv")


def figures(*words: object) -> dict:
    """The document of evaluate, without when it was measured."""
    content: dict = json.loads(done("evaluate", *words, "--json", *HERE).stdout)
    del content["measured"]
    return content


@pytest.mark.parametrize("n", [2, 3])
def test_an_evaluation_by_shares_is_that_of_one_run(tiny_set, monkeypatch, n):
    Path("val.h5").unlink()  # its paths are those of another folder
    enlarged("val.csv", 3)
    Path("images/val-dome-0-1.jpg").unlink()
    write_report = ("evaluate", "val.csv", "--report")
    done(*write_report, "whole.html", *HERE)
    whole, store = figures("val.csv"), Path("val.h5").read_bytes()
    Path("val.h5").unlink()
    parts = [f"val-{i}-of-{n}" for i in range(1, n + 1)]
    for i, part in enumerate(parts, start=1):
        told = done("evaluate", "val.csv", "--shard", f"{i}/{n}", *HERE).stdout
        assert told == f"{part}.outcomes: written ({len(Shard(i, n).rows(66))} queries)\n"
        assert "finished already, nothing to do" in done("evaluate", "val.csv", "--shard", f"{i}/{n}", *HERE).stdout
    done("join", *(f"{part}.h5" for part in parts), "--output", "val.h5")
    outcomes = [f"{part}.outcomes" for part in parts]
    assert done("join", *outcomes, "--output", "val.outcomes").stdout == f"val.outcomes: 66 queries of {n} shares\n"
    assert "nothing to do (66 queries)" in done("join", *outcomes[::-1], "--output", "val.outcomes").stdout
    assert Path("val.h5").read_bytes() == store
    with monkeypatch.context() as patch:
        patch.setattr("index.evaluate.outcome._outcome", lambda *_: 1 / 0)  # no query is asked again
        assert figures("val.csv") == whole
        done(*write_report, "joined.html", *HERE)
    for name in ("{}.html", "{}-landmarks.csv"):
        pages = [Path(name.format(of)).read_text().replace(of, "") for of in ("whole", "joined")]
        assert re.sub(r"20\d\d-\d\d-\d\dT[0-9:+]+", "", pages[0]) == re.sub(r"20\d\d-\d\d-\d\dT[0-9:+]+", "", pages[1])
    again = done(*write_report, "whole.html", *HERE).stderr.splitlines()[-1]
    assert again == "whole.html: finished already, nothing to do"
    assert not list(tiny_set.glob(".*answered"))


def test_leaving_one_out_by_shares_is_that_of_one_run(tiny_set):
    whole = figures("--leave-one-out")
    for i in (1, 2):
        told = done("evaluate", "--leave-one-out", "--shard", f"{i}/2", *HERE).stdout
        assert told.startswith(f"landmarks-{i}-of-2.outcomes: written (")
    parts = ["landmarks-1-of-2.outcomes", "landmarks-2-of-2.outcomes"]
    done("join", *parts, "--output", "landmarks.outcomes")
    assert figures("--leave-one-out") == whole


def test_more_shares_than_queries_are_refused_whatever_holds_them(tiny_set):
    asked = {"val.csv": ("val.csv",), "val.h5": ("val.h5",), "landmarks": ("--leave-one-out",)}
    for source, words in asked.items():
        n = 44 if source == "landmarks" else 22
        assert refused("evaluate", *words, "--shard", "1/50", *HERE) == (
            f"--shard 1/50: {source} has {n} images, fewer than shares; give at most {n} shares"
        )
    assert not list(tiny_set.glob("*.outcomes"))


def test_outcomes_of_another_index_or_of_other_queries_are_not_used(tiny_set):
    for i in (1, 2):
        done("evaluate", "val.csv", "--shard", f"{i}/2", *HERE)
    parts = ["val-1-of-2.outcomes", "val-2-of-2.outcomes"]
    done("join", *parts, "--output", "val.outcomes")
    told = json.loads(done("info", "val.outcomes", "--json", "--verify").stdout)
    assert (told["queries"], told["joined shares"], told["verified"]) == (22, 2, "every block is as it was written")
    assert json.loads(done("info", parts[1], "--json").stdout)["shard"] == "2/2"
    done("calibrate", "val.csv", "--precision", "0.5", "--overwrite", *HERE)
    told = done("evaluate", "val.csv", *HERE).stderr
    assert "val.outcomes is not of these queries and this index as they are: all are asked again" in told
    assert refused("evaluate", "val.csv", "--shard", "1/2", *HERE) == (
        "val-1-of-2.outcomes was made with another calibration; give --overwrite or another name"
    )
    done("evaluate", "val.csv", "--shard", "1/2", "--overwrite", *HERE)
    assert refused("join", *parts, "--output", "j.outcomes") == (
        "val-2-of-2.outcomes was made with another calibration than val-1-of-2.outcomes; make it again"
    )
    assert refused("join", parts[0], "--output", "j.outcomes").startswith("share 2/2 is missing")
    assert refused("join", parts[0], "val.outcomes", "--output", "j.outcomes").startswith("val.outcomes is no share")
    done("evaluate", "val.csv", "--shard", "2/2", "--overwrite", *HERE)
    data = Path(parts[1]).read_bytes()
    Path(parts[1]).write_bytes(data[:-1])
    assert "was changed or is cut short" in refused("join", *parts, "--output", "j.outcomes")
    assert "was changed or is cut short" in refused("info", parts[1], "--verify")
    assert not Path("j.outcomes").exists()
    Path(parts[1]).write_bytes(b"lmr outcomes 1\n{")
    assert "is damaged" in refused("join", *parts, "--output", "j.outcomes")


def test_a_share_of_an_evaluation_needs_queries_and_makes_no_report(tiny_set):
    share = ("evaluate", "--shard", "1/2")
    assert misused(*share, "val.csv", "--report", "r.html").startswith("--report needs all queries")
    assert misused(*share) == "give QUERIES or --leave-one-out, one of them"
    done(*share, "val.h5", *HERE)
    assert Path("val-1-of-2.outcomes").exists()


def test_images_are_measured_by_shares_and_told_of_together(tiny_set):
    cut_short(Path("images/train-dome-3.jpg"))
    words = ("stats", "train.csv", "--images", "images", "--test", "test.csv", "--workers", "1")
    whole = done(*words, "--json", "--facts", "whole.sqlite").stdout
    for i, said in ((1, "27 images measured, 0"), (2, "38 images measured, 1")):
        assert done(*words, "--shard", f"{i}/2").stdout == f"picture-facts-{i}-of-2.sqlite: {said} unreadable\n"
    parts = ["picture-facts-1-of-2.sqlite", "picture-facts-2-of-2.sqlite"]
    assert done("join", *parts, "--output", "picture-facts.sqlite").stdout == (
        "picture-facts.sqlite: 65 measured images of 2 shares\n"
    )
    assert "nothing to do" in done("join", *parts, "--output", "picture-facts.sqlite").stdout
    Path("images/train-arch-0.jpg").touch()  # measured anew, all others are taken from the file
    joined = done(*words, "--json").stdout
    assert json.loads(joined) == json.loads(whole)
    assert "share 2/2 is missing" in refused("join", parts[0], "--output", "j.sqlite")
    assert refused("join", "whole.sqlite", "--output", "j.sqlite") == (
        "whole.sqlite is no finished share; run the lmr stats with --shard that makes it again"
    )
    assert refused("join", parts[0], "train.h5", "--output", "j.sqlite").startswith("train.h5 and ")
    assert misused(*words, "--shard", "1/2", "--report", "r.html").startswith("--report and tables need all images")


def test_descriptors_are_compared_by_shares_and_told_of_together(tiny_set, monkeypatch):
    monkeypatch.setattr("retrieval.store.near_duplicates._QUERIES_AT_ONCE", 7)
    monkeypatch.setattr("index.stats.clusters.BLOCK_ROWS", 9)
    words = ("stats", "train.csv", "--store", "train.h5", "--clusters", "3", "--near-similarity", "0.9")
    whole = json.loads(done(*words, "--json").stdout)
    assert whole["alike"]["groups"]
    done(*words, "--clusters-csv", "whole.csv", "--json")
    for i in (1, 2, 3):
        told = done(*words, "--shard", f"{i}/3").stdout
        assert told == f"picture-facts-{i}-of-3.sqlite: 0 images measured, 0 unreadable\n"
    parts = [f"picture-facts-{i}-of-3.sqlite" for i in (1, 2, 3)]
    done("join", *parts, "--output", "picture-facts.sqlite")
    assert "nothing to do" in done("join", *parts[::-1], "--output", "picture-facts.sqlite").stdout
    with monkeypatch.context() as patch:
        patch.setattr("retrieval.store.near_duplicates._compare", lambda *_: 1 / 0)
        patch.setattr("index.stats.clusters._centroids", lambda *_: 1 / 0)
        assert json.loads(done(*words, "--json").stdout) == whole
        done(*words, "--clusters-csv", "joined.csv", "--json")
        assert Path("joined.csv").read_bytes() == Path("whole.csv").read_bytes()
        with pytest.raises(ZeroDivisionError):  # pairs of another similarity are others
            done(*words, "--near-similarity", "0.95", "--json")
    done(*words, "--near-similarity", "0.8", "--shard", "3/3")
    assert "another manifest" in refused("join", *parts, "--output", "j.sqlite")


def test_comparing_that_was_stopped_goes_on(tiny_set, monkeypatch):
    monkeypatch.setattr("retrieval.store.near_duplicates._QUERIES_AT_ONCE", 7)
    from retrieval.store import near_duplicates

    words = ("stats", "train.csv", "--images", "images", "--store", "train.h5", "--near-similarity", "0.9", "--json")
    whole = done(*words, "--facts", "whole.sqlite").stdout
    compare, n_asked = near_duplicates._compare, []

    def stopping(*of):
        n_asked.append(len(of[3]))
        if len(n_asked) == 4:
            raise KeyboardInterrupt
        return compare(*of)

    monkeypatch.setattr(near_duplicates, "_compare", stopping)
    assert "interrupted" in refused(*words)
    assert done(*words).stdout == whole
    assert len(n_asked) == 4 + (7 - 3)
    assert done(*words).stdout == whole
    assert len(n_asked) == 8


def test_shares_that_make_the_model_at_once_make_one(images):
    from tiny_set import NETWORK

    for i in (1, 2):
        done("embed", *NETWORK, "--shard", f"{i}/2", *HERE)
    done("embed", *NETWORK, *HERE)
    done("join", "train-1-of-2.h5", "train-2-of-2.h5", "--output", "j.h5")
    assert read_store("j.h5").digest == read_store("train.h5").digest
