"""A kill at any file operation, Ctrl-C and a kill at any moment: the same command then ends as if nothing had been."""

import json
import random
import re
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_set import (
    HERE,
    NETWORK,
    another_process,
    done,
    n_file_operations,
    run_and_die,
    run_apart,
    run_there,
    write_csv,
)

from retrieval.store.store import read_store

EMBED = ["embed", *NETWORK, *HERE]
BUILD = ["build-index", "--overwrite", "--storage", "float16", "--device", "cpu"]
TRAIN = [
    *("train", "train.csv", *NETWORK, "--workers", "0", "--threads", "1", "--device", "cpu"),
    *("--epochs", "2", "--batch-size", "4", "--epoch-size", "8"),
]


def copied(folder: Path, name: str) -> Path:
    """A copy beside it."""
    return Path(shutil.copytree(folder, folder.parent / name))


def moments(n: int, how_many: int) -> list[int]:
    """The first and the last file operation, and some between them."""
    rng = random.Random(0)
    return sorted({1, n, *rng.sample(range(2, n), min(how_many, n - 2))})


def test_embed_killed_at_any_write_ends_as_if_it_had_not_been(images, monkeypatch):
    done(*EMBED)
    whole = read_store("train.h5")
    fresh = copied(images, "fresh")
    for path in (fresh / "train.h5", *(fresh / "model").iterdir()):
        path.unlink()
    n = n_file_operations(copied(fresh, "counted"), EMBED)
    for at in moments(n, 3):
        folder = copied(fresh, f"killed-{at}")
        run_and_die(folder, EMBED, at)
        monkeypatch.chdir(folder)
        was_there = Path("train.h5").exists()
        assert done(*EMBED).stdout == (
            "train.h5: finished already, nothing to do (44 pictures)\n"
            if was_there
            else "train.h5: 44 descriptors, 0 unreadable\n"
        )
        again = read_store("train.h5")
        assert again.image_id.tolist() == whole.image_id.tolist()
        assert again.info == whole.info
        # Batches of other sizes are summed in another order, and rounded to float16.
        np.testing.assert_allclose(again.vectors.astype(float), whole.vectors.astype(float), atol=2e-3)
        left = {path.name for path in folder.iterdir()} - {"model", "train.h5"}
        assert left == {"images", "train.csv", "val.csv", "test.csv", "solution.csv", "names.csv"}


def test_build_index_killed_at_any_write_leaves_the_old_index_or_the_new_one(tiny_set, monkeypatch):
    old = json.loads((tiny_set / "landmarks/index.json").read_text())
    n = n_file_operations(copied(tiny_set, "counted"), BUILD)
    new = json.loads((tiny_set.parent / "counted/landmarks/index.json").read_text())
    assert old["files"] != new["files"]
    for at in moments(n, 3):
        folder = copied(tiny_set, f"killed-{at}")
        run_and_die(folder, BUILD, at)
        monkeypatch.chdir(folder)
        facts = json.loads(done("info", "landmarks", "--json").stdout)
        assert facts["inputs_digest"] in (old["inputs_digest"], new["inputs_digest"])
        done("query", "images/test-arch-0.jpg", *HERE)
        done(*BUILD)
        built = json.loads(Path("landmarks/index.json").read_text())
        assert built["inputs_digest"] == new["inputs_digest"]
        # Sizes, not hashes: the linear algebra library may round the whitening differently from run to run.
        assert {n: f["size"] for n, f in built["files"].items()} == {n: f["size"] for n, f in new["files"].items()}
        left = [path.name for path in folder.iterdir() if "landmarks" in path.name]
        assert left == ["landmarks"]


@pytest.mark.parametrize("further", [[], ["--val", "val.csv"]], ids=["saved once", "saved after better epochs"])
def test_train_killed_at_any_write_ends_with_the_same_weights(images, monkeypatch, further):
    arguments = [*TRAIN, *further]
    n = n_file_operations(copied(images, "counted"), arguments)
    model = images.parent / "counted/model"
    whole = {path.name for path in model.glob("weights-*")}
    for at in moments(n, 2):
        folder = copied(images, f"killed-{at}")
        run_and_die(folder, arguments, at)
        monkeypatch.chdir(folder)
        done(*arguments)
        assert {path.name for path in Path("model").glob("weights-*")} == whole
        log = [line.rsplit(",", 1)[0] for line in Path("model/training.csv").read_text().splitlines()]
        assert log == [line.rsplit(",", 1)[0] for line in (model / "training.csv").read_text().splitlines()]


@pytest.mark.parametrize("at", [1, 2])
def test_calibrate_killed_at_any_write_leaves_a_whole_index(tiny_set, at):
    Path("landmarks/calibration.json").rename(tiny_set.parent / "calibration.json")
    run_and_die(tiny_set, ["calibrate", "val.csv", *HERE], at)
    done("query", "images/test-arch-0.jpg", *HERE)
    done("calibrate", "val.csv", *HERE)
    assert Path("landmarks/calibration.json").read_text() == (tiny_set.parent / "calibration.json").read_text()


def test_submit_killed_at_any_write_ends_with_the_same_submission(tiny_set, monkeypatch):
    arguments = ["submit", *HERE]
    n = n_file_operations(copied(tiny_set, "counted"), arguments)
    whole = (tiny_set.parent / "counted/submission.csv").read_text()
    was_there = []
    for at in moments(n, 3):
        folder = copied(tiny_set, f"killed-{at}")
        run_and_die(folder, arguments, at)
        was_there.append((folder / "submission.csv").exists())
        monkeypatch.chdir(folder)
        told = done(*arguments).stdout
        assert ("finished already, nothing to do" in told) == was_there[-1]
        again = Path("submission.csv").read_text()
        assert [line.split()[0] for line in again.splitlines()] == [line.split()[0] for line in whole.splitlines()]
    assert (was_there[0], was_there[-1]) == (False, True)


def test_a_report_killed_at_any_write_ends_with_page_and_table(tiny_set, monkeypatch):
    arguments = ["evaluate", "solution.csv", "--report", "r.html", *HERE]
    done(*arguments[:2], *HERE)  # the queries' descriptors are there
    n = n_file_operations(copied(tiny_set, "counted"), arguments)
    table = (tiny_set.parent / "counted/r-landmarks.csv").read_text()
    was_there = []
    for at in moments(n, 3):
        folder = copied(tiny_set, f"killed-{at}")
        run_and_die(folder, arguments, at)
        was_there.append((folder / "r.html").exists())
        monkeypatch.chdir(folder)
        told = done(*arguments).stderr.splitlines()[-1]
        assert (told == "r.html: finished already, nothing to do") == was_there[-1]
        assert Path("r-landmarks.csv").read_text() == table
        assert Path("r.html").read_text().endswith("</html>")
    assert (was_there[0], was_there[-1]) == (False, True)


@pytest.mark.parametrize("words", [["val.csv", "--shard", "1/2"], ["--leave-one-out", "--shard", "2/2"]])
def test_a_share_of_an_evaluation_killed_at_any_write_ends_as_if_it_had_not_been(tiny_set, monkeypatch, words):
    arguments = ["evaluate", *words, *HERE]
    if words[0] == "val.csv":
        done(*arguments)  # the queries' descriptors are there
        Path("val-1-of-2.outcomes").unlink()
    n = n_file_operations(copied(tiny_set, "counted"), arguments)
    (whole,) = (tiny_set.parent / "counted").glob("*.outcomes")
    was_there = []
    for at in moments(n, 3):
        folder = copied(tiny_set, f"killed-{at}")
        run_and_die(folder, arguments, at)
        was_there.append((folder / whole.name).exists())
        monkeypatch.chdir(folder)
        assert ("finished already, nothing to do" in done(*arguments).stdout) == was_there[-1]
        assert Path(whole.name).read_bytes() == whole.read_bytes()
        assert not list(folder.glob(".*answered"))
    assert (was_there[0], was_there[-1]) == (False, True)


def test_embed_killed_at_a_random_moment_is_resumed(images):
    rows = [f"train-arch-{i % 8},arch" for i in range(8)]
    for i in range(200):
        shutil.copy("images/train-dome-1.jpg", f"images/copy-{i}.jpg")
        rows.append(f"copy-{i},dome")
    write_csv(Path("many.csv"), "id,landmark_id", rows)
    arguments = ["embed", "many.csv", *NETWORK, *HERE]
    rng = random.Random(time.time_ns())
    with another_process(run_there, str(images), [str(a) for a in arguments], {}) as process:
        while process.is_alive() and not Path("many.h5.partial").exists():
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
    assert done(*arguments).stdout in (
        "many.h5: 208 descriptors, 0 unreadable\n",
        "many.h5: finished already, nothing to do (208 pictures)\n",
    )
    vectors = read_store("many.h5").vectors.astype(float)
    np.testing.assert_allclose(vectors[8:], np.broadcast_to(vectors[8], (200, vectors.shape[1])), atol=2e-3)


@pytest.mark.parametrize(
    ("option", "after"),
    [([], "goes on from what is saved"), (["--overwrite"], "begins anew")],
    ids=["plain", "overwrite"],
)
def test_ctrl_c_is_one_line_and_the_same_command_goes_on(images, option, after):
    arguments = [*EMBED, *option]
    n = n_file_operations(copied(images, "counted"), arguments)
    code, text = run_apart(images, arguments, at=n - 5, signal=int(signal.SIGINT))
    overview = "train.csv: 44 images of 4 landmarks, 12 without\n"
    text = re.sub(r"computing in .*; decoding with .*\n", "", text)
    assert (code, text) == (1, f"{overview}Error: interrupted; the same command {after}\n")
    state = json.loads(done("info", "train.h5.partial", "--json").stdout)
    assert state["done"] in (16, 32)  # whole batches
    assert state["done"] + state["to do"] == 44
    assert done(*arguments).stdout == "train.h5: 44 descriptors, 0 unreadable\n"


def content_of(path: Path) -> object:
    """The bytes of a file; of SQLite, which counts how often it was opened to write, what it holds."""
    if path.suffix != ".sqlite":
        return path.read_bytes()
    with sqlite3.connect(path) as connection:
        return list(connection.iterdump())


def test_joins_killed_at_any_write_end_as_if_they_had_not_been(tiny_set, monkeypatch):
    for i in (1, 2):
        share = ("--shard", f"{i}/2", *HERE)
        done("embed", *share)
        done("submit", *share)
        done("stats", "train.csv", "--images", "images", "--shard", f"{i}/2", "--workers", "1")
    for stem, ending, output in (
        ("train", "h5", "joined.h5"),
        ("submission", "json", "joined.csv"),
        ("picture-facts", "sqlite", "joined.sqlite"),
    ):
        words = ["join", f"{stem}-1-of-2.{ending}", f"{stem}-2-of-2.{ending}", "--output", output]
        whole = copied(tiny_set, f"whole-{stem}")
        n = n_file_operations(whole, words)
        for at in moments(n, 2):
            folder = copied(tiny_set, f"killed-{stem}-{at}")
            run_and_die(folder, words, at)
            monkeypatch.chdir(folder)
            done(*words)
            assert content_of(folder / output) == content_of(whole / output), (output, at)
            assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}
        monkeypatch.chdir(tiny_set)
