"""`lmr index`: what its commands print, and that a kill leaves an index with which the same command ends well."""

import json
import random
import shutil
from pathlib import Path

import pytest
from tiny_set import HERE, done, flip_byte, n_file_operations, refused, run_and_die, write_csv

import lmr


def test_images_go_and_come_back(tiny_set):
    assert done("index", "remove", "train-arch-0", "train-dome-1").stdout == (
        "landmarks: 2 removed: 30 images of 4 landmarks now\n"
    )
    assert done("index", "remove", "train-arch-0", "train-dome-1").stdout == (
        "landmarks: nothing to do: 30 images of 4 landmarks now\n"
    )
    told = done("index", "add", "train.h5")
    assert told.stdout == "landmarks: 2 added: 32 images of 4 landmarks now\n"
    assert told.stderr == ""  # what has no landmark is in the background already
    assert done("index", "add", "train.h5").stdout == "landmarks: nothing to do: 32 images of 4 landmarks now\n"
    facts = json.loads(done("index", "info", "--json").stdout)
    assert [(one["kind"], one["added"], one["removed"]) for one in facts["last_changes"]] == [
        ("remove", 0, 2),
        ("add", 2, 0),
    ]
    assert (facts["images"], facts["calibrated_on"]) == (32, "val.h5")
    assert "2 added  train.h5" in done("index", "info").stdout


def test_images_without_a_landmark_are_left_out_and_named(tiny_set):
    write_csv(Path("street.csv"), "id,landmark_id", ["test-other-0,", "train-other-1,"])
    done("embed", "street.csv", *HERE)
    shutil.copytree("landmarks", "copy")
    told = done("index", "add", "street.h5", "--index", "copy")
    assert told.stdout == "copy: nothing to do: 32 images of 4 landmarks now\n"
    assert told.stderr == (
        "1 image without a landmark was left out; lmr index add street.h5 --index copy with --background puts them "
        "into the background\n"
    )
    told = done("index", "add", "street.h5", "--index", "copy", "--background")
    assert (told.stdout, told.stderr) == ("copy: 1 of the background: 32 images of 4 landmarks now\n", "")


def test_a_changed_index_answers_and_says_that_it_has_changed(tiny_set):
    done("index", "remove", "train-arch-0", "train-dome-1")
    told = done("query", "images/test-arch-0.jpg", "--json", *HERE)
    (answer,) = json.loads(told.stdout)
    assert answer["landmark_id"] == "arch"
    assert "train-arch-0" not in {one["image_id"] for one in answer["neighbours"]}
    warning = (
        "warning: landmarks: 7% of its rows changed since it was calibrated; lmr calibrate makes its confidences right "
        "again"
    )
    assert warning in told.stderr.splitlines()
    assert warning in done("submit", *HERE).stderr.splitlines()
    assert warning in done("evaluate", "solution.csv", *HERE).stderr.splitlines()
    done("calibrate", "val.csv", "--overwrite", *HERE)
    assert "warning" not in done("query", "images/test-arch-0.jpg", *HERE).stderr


def test_landmarks_are_renamed_and_merged(tiny_set):
    write_csv(Path("labels.csv"), "landmark_id,new_landmark_id", ["arch,gate", "dome,gate"])
    assert done("index", "relabel", "labels.csv").stdout == ("landmarks: 16 relabelled: 32 images of 3 landmarks now\n")
    assert "nothing to do" in done("index", "relabel", "labels.csv").stdout
    (answer,) = json.loads(done("query", "images/test-arch-0.jpg", "--json", *HERE).stdout)
    assert (answer["landmark_id"], answer["name"]) == ("gate", "Old Dome")


def test_two_names_that_change_places_do_so_once(tiny_set):
    write_csv(Path("labels.csv"), "landmark_id,new_landmark_id", ["arch,dome", "dome,arch"])
    assert "16 relabelled" in done("index", "relabel", "labels.csv").stdout
    assert "nothing to do" in done("index", "relabel", "labels.csv").stdout
    done("index", "export", "rows.csv")
    assert "train-arch-0,dome," in Path("rows.csv").read_text()


def test_an_index_is_read_whole_and_listed(tiny_set):
    told = done("index", "verify").stdout
    assert told.startswith("landmarks: whole: ")
    assert told.endswith(" 32 images of 4 landmarks, 0 changes; 100.0% of 32 rows find themselves\n")
    assert done("index", "export", "rows.csv").stdout == "rows.csv: 32 images\n"
    assert done("index", "export", "rows.csv").stdout == "rows.csv: written already, nothing to do: 32 images\n"
    flip_byte(Path("landmarks/rows.h5"))
    assert refused("index", "verify").startswith("landmarks/rows.h5 was changed or damaged: ")


def test_what_cannot_be_is_one_line(tiny_set):
    assert refused("index", "remove", "--", "-5") == (
        "-5: landmarks has no such image, nothing was removed; lmr index export lists those that it has"
    )
    done("embed", "train.csv", "--output", "flipped.h5", "--flip", *HERE)
    assert refused("index", "add", "flipped.h5").startswith("flipped.h5 does not fit landmarks: ")
    write_csv(Path("labels.csv"), "a,b", ["1,2"])
    assert refused("index", "relabel", "labels.csv") == (
        "labels.csv has the columns a,b; lmr index relabel takes landmark_id,new_landmark_id or image_id,landmark_id"
    )
    write_csv(Path("labels.csv"), "landmark_id,new_landmark_id", ["mosque,gate"])
    assert refused("index", "relabel", "labels.csv") == (
        "labels.csv: mosque: landmarks has no such landmark; correct the landmark_id"
    )
    assert refused("index", "merge", "landmarks") == ("landmarks is the index itself; give another folder")


CHANGES = {
    "add": ["index", "add", "train.h5", "--workers", "1", "--background"],
    "remove": ["index", "remove", "train-arch-1", "train-other-3", "--workers", "1"],
    "relabel": ["index", "relabel", "labels.csv", "--workers", "1"],
    "merge": ["index", "merge", "other", "--workers", "1"],
    "compact": ["index", "compact", "--workers", "1"],
}
PLAIN = ("--overwrite", "--whitening-power", "0", "--device", "cpu")


def prepare(kind: str) -> None:
    """An index that the change has something to do with."""
    write_csv(Path("labels.csv"), "landmark_id,new_landmark_id", ["arch,gate"])
    if kind == "merge":
        done("build-index", *PLAIN)
        done("build-index", "val.h5", "--output", "other", *PLAIN)
    if kind == "compact":
        done("build-index", "--kind", "ivf-sq8", "--lists", "2", "--recall", "0.5", *PLAIN)
    done("index", "remove", "train-arch-0", "train-other-0")


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_killed_at_any_write_ends_as_if_it_had_not_been(tiny_set, monkeypatch, kind):
    arguments = CHANGES[kind]
    prepare(kind)
    n = n_file_operations(Path(shutil.copytree(tiny_set, tiny_set.parent / "counted")), arguments)
    new = json.loads((tiny_set.parent / "counted/landmarks/index.json").read_text())
    old = json.loads(Path("landmarks/index.json").read_text())
    for at in sorted({1, n, *random.Random(0).sample(range(2, n), 2)}):
        folder = Path(shutil.copytree(tiny_set, tiny_set.parent / f"killed-{at}"))
        run_and_die(folder, arguments, at)
        monkeypatch.chdir(folder)
        left = json.loads(Path("landmarks/index.json").read_text())["inputs_digest"]
        assert left in (old["inputs_digest"], new["inputs_digest"])
        done("index", "verify")
        done(*arguments)
        done("index", "verify")
        now = json.loads(Path("landmarks/index.json").read_text())
        assert now["inputs_digest"] == new["inputs_digest"]
        assert [path.name for path in folder.iterdir() if "landmarks" in path.name] == ["landmarks"]


def test_thumbnails_stay_with_their_images(tiny_set):
    before = lmr.open_index("landmarks").folder
    shown = {name: before.thumbnails.read(row) for row, name in enumerate(before.rows.image_id)}
    done("index", "remove", "train-arch-0", "train-dome-1")
    done("index", "add", "train.h5")
    done("index", "compact", "--kind", "ivf-sq8", "--recall", "0.5")
    after = lmr.open_index("landmarks").folder
    assert after.rows.image_id.tolist() != before.rows.image_id.tolist()
    assert {name: after.thumbnails.read(row) for row, name in enumerate(after.rows.image_id)} == shown
    assert all(shown.values())
    assert after.info.thumbnails == before.info.thumbnails


@pytest.mark.parametrize("kind", ["flat", "ivf-sq8"])
def test_every_command_takes_an_index_in_shards(tiny_set, kind):
    words = ("--kind", kind, "--overwrite", "--recalibrate", "--thumbnails", "0")
    words += () if kind == "flat" else ("--lists", "2", "--recall", "0.5", "--storage", "float32")
    done("build-index", *words, *HERE)
    done("submit", "--output", "one.csv", *HERE)
    done("build-index", *words, "--shards", "3", *HERE)
    names = [] if kind == "flat" else [f"search-{i}-of-3.faiss" for i in (1, 2, 3)]
    assert sorted(path.name for path in Path("landmarks").glob("search*")) == names
    done("submit", "--output", "shards.csv", *HERE)
    if kind == "flat":
        assert Path("shards.csv").read_bytes() == Path("one.csv").read_bytes()
    (answer,) = json.loads(done("query", "images/test-arch-0.jpg", "--json", *HERE).stdout)
    assert answer["neighbours"][0]["image_id"].startswith("train-arch")
    done("evaluate", "solution.csv", *HERE)
    done("calibrate", "val.h5", *HERE)
    shutil.copytree("landmarks", "other")
    done("index", "remove", "train-arch-0", "train-dome-1")
    assert done("index", "add", "train.h5").stdout.startswith("landmarks: 2 added: 32 images of 4 landmarks now\n")
    done("index", "remove", "train-bridge-0")
    assert done("index", "merge", "other").stdout.startswith("landmarks: 1 added: 32 images of 4 landmarks now\n")
    write_csv(Path("labels.csv"), "landmark_id,new_landmark_id", ["arch,gate"])
    done("index", "relabel", "labels.csv")
    facts = json.loads(done("index", "info", "--json").stdout)
    assert facts["shards"] == 3
    done("index", "compact", "--shards", "2")
    assert lmr.open_index("landmarks").folder.info.n_shards == 2
    done("index", "verify")
    done("index", "export", "rows.csv")
    done("info", "landmarks", "--verify")
