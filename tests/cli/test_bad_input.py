"""Every bad input of every command: one line that names it, exit code 1, and nothing written, lost or changed."""

import errno
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from tiny_set import (
    HERE,
    NETWORK,
    cut_short,
    done,
    drop_digests,
    flip_byte,
    listing,
    refused,
    run,
    run_apart,
    write_csv,
)

HERE_TRAIN = ("--workers", "0", "--threads", "1", "--device", "cpu")


@pytest.fixture
def unchanged(tiny_set) -> Iterator[Path]:
    """The finished set, which must be the same after the test."""
    before = listing(tiny_set)
    yield tiny_set
    assert listing(tiny_set) == before


MISSING = [
    (["embed", "no.csv"], "no.csv: there is no such file or folder"),
    (["embed", "--model", "no"], "no: there is no model; lmr embed --backbone lite2 needs "
     "no training, and lmr train train.csv makes one"),
    (["embed", "--images", "no"], "--images no: there is no such folder"),
    (["embed", "no.csv", *NETWORK, "--model", "new"], "no.csv: there is no such file or folder"),
    (["embed", *NETWORK, "--model", "new", "--weights", "no.pt"],
     "no.pt: there is no such weights file; check --weights"),
    (["embed", "--config", "no.toml"], "--config no.toml: No such file or directory"),
    (["train", "no.csv", "--output", "new"], "no.csv: there is no such file or folder"),
    (["train", "train.csv", "--negatives", "no.csv", "--output", "new"], "no.csv: there is no such file or folder"),
    (["train", "train.csv", "--val", "no.csv", "--output", "new", *NETWORK, *HERE_TRAIN],
     "no.csv: there is no such file or folder"),
    (["build-index", "no.h5"], "no.h5: there is no such descriptor store; lmr embed makes one"),
    (["build-index", "--background", "no.h5"], "no.h5: there is no such descriptor store; lmr embed makes one"),
    (["build-index", "--model", "no"], "no: there is no model (no model.json); lmr train makes one"),
    (["build-index", "--names", "no.csv"], "no.csv: there is no such file"),
    (["calibrate", "no.csv"], "no.csv: there is no such file or folder"),
    (["calibrate", "no.h5"], "no.h5: there is no such descriptor store; lmr embed makes one"),
    (["calibrate", "val.csv", "--index", "no"], "no: there is no such index folder; lmr build-index makes one"),
    (["calibrate", "val.csv", "--index", "images"],
     "images: not an index folder (no index.json); lmr build-index makes one"),
    (["evaluate", "no.csv"], "no.csv: there is no such file or folder"),
    (["evaluate", "val.csv", "--index", "val.csv"],
     "val.csv: not an index folder (no index.json); lmr build-index makes one"),
    (["query", "no.jpg"], "no.jpg: there is no such file or folder; give pictures, folders or URLs"),
    (["query", "images/test-arch-0.jpg", "no.jpg"],
     "no.jpg: there is no such file or folder; give pictures, folders or URLs"),
    (["query", "images", "--index", "no"], "no: there is no such index folder; lmr build-index makes one"),
    (["submit", "no.csv"], "no.csv: there is no such file or folder"),
    (["submit", "--index", "no"], "no: there is no such index folder; lmr build-index makes one"),
    (["score", "no.csv", "solution.csv"], "no.csv: there is no such file"),
    (["info", "no"], "no: there is no such file or folder"),
    (["demo", "new", "--images", "no"], "--images {here}/no: there is no such folder"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), MISSING, ids=[" ".join(a)[:50] for a, _ in MISSING])
def test_a_missing_file_is_named(unchanged, arguments, message):
    assert refused(*arguments) == message.format(here=unchanged)
    assert not Path("new").exists()


BELOW_A_FILE = [
    (["embed", "--output", "val.csv/x.h5", *HERE],
     "val.csv/x.h5 cannot be written: Not a directory; choose another place or make room"),
    (["embed", *NETWORK, *HERE, "--model", "val.csv/m", "--output", "x.h5"],
     "val.csv/m cannot be written: Not a directory; choose another place or make room"),
    (["train", "train.csv", "--output", "val.csv/m", *NETWORK, *HERE_TRAIN],
     "val.csv/m cannot be written: Not a directory; choose another place or make room"),
    (["build-index", "--output", "val.csv/x"],
     "val.csv/x cannot be written: Not a directory; choose another place or make room"),
    (["evaluate", "solution.csv", "--store", "val.csv/x.h5", *HERE],
     "val.csv/x.h5 cannot be written: Not a directory; choose another place or make room"),
    (["evaluate", "val.csv", "--report", "val.csv/r.html", *HERE],
     "val.csv/r.html cannot be written: Not a directory; choose another place or make room"),
    (["query", "images/test-arch-0.jpg", "--save", "val.csv/s.jpg", *HERE],
     "val.csv/s.jpg cannot be written: Not a directory; choose another place or make room"),
    (["query", "images/test-arch-0.jpg", "--sort-into", "val.csv/s", *HERE],
     "val.csv/s cannot be written: Not a directory; choose another place or make room"),
    (["demo", "val.csv/d"], "val.csv/d cannot be written: Not a directory; choose another place or make room"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), BELOW_A_FILE, ids=[" ".join(a)[:50] for a, _ in BELOW_A_FILE])
def test_a_place_below_a_file_cannot_be_written(unchanged, arguments, message):
    assert refused(*arguments) == message


def test_a_submission_that_cannot_be_written_is_one_line(tiny_set):
    assert refused("submit", "--output", "val.csv/s.csv", *HERE) == (
        "val.csv/s.csv cannot be written: Not a directory; choose another place or make room"
    )
    assert not list(tiny_set.glob("*.partial"))


IN_THE_WAY = [
    (["embed", "--output", "images", *HERE], "images is a folder; give the store another name"),
    (["embed", "--output", "images", "--overwrite", *HERE], "images is a folder; give the store another name"),
    (["submit", "--output", "images", *HERE], "images is a folder; give the file another name"),
    (["submit", "--output", "images", "--overwrite", *HERE], "images is a folder; give the file another name"),
    (["submit", "--output", "images", "--index", "nowhere", *HERE], "images is a folder; give the file another name"),
    (["build-index", "--output", "images", "--overwrite"],
     "images exists and is not an index folder; choose another --output"),
    (["build-index", "--output", "val.csv"], "val.csv exists and is not an index folder; choose another --output"),
    (["build-index", "--whitening-power", "1"],
     "landmarks exists and was built from other descriptors or options; --overwrite replaces it"),
    (["calibrate", "val.csv", "--precision", "0.5", *HERE],
     "landmarks/calibration.json was made from val.h5 with other queries or settings; give --overwrite to replace it"),
    (["train", "train.csv", *NETWORK, *HERE_TRAIN],
     "model holds a model already; give --overwrite or another --output"),
    (["submit", "--output", "val.csv"], "val.csv exists; give --overwrite or another --output"),
    (["evaluate", "val.csv", "--report", "names.csv"], "names.csv exists; give --overwrite or another name"),
    (["query", "images", "--save", "names.csv"], "names.csv exists; give --overwrite or another name"),
    (["embed", *NETWORK, "--dimensions", "8", "--output", "x.h5", *HERE],
     "model holds another model; give --overwrite or another --model"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), IN_THE_WAY, ids=[" ".join(a)[:50] for a, _ in IN_THE_WAY])
def test_what_is_there_is_not_replaced_unasked(unchanged, arguments, message):
    assert refused(*arguments) == message


MANIFESTS = {
    "twice.csv": ("id,landmark_id", ["a,x", "b,x", "a,y"]),
    "bad.csv": ("id,landmark_id", ["a,x", ",y", "c"]),
    "empty.csv": ("id,landmark_id", []),
    "typo.csv": ("id,landmark_it", ["a,x"]),
    "other.csv": ("foo,bar", ["1,2"]),
    "none.csv": ("id,landmark_id", ["val-other-0,", "val-other-1,"]),
}
COMMANDS = [["embed"], ["train", *NETWORK], ["calibrate"], ["evaluate"], ["submit"]]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c[0])
def test_a_bad_manifest_is_named_by_every_command(unchanged, command, tmp_path):
    def said(name: str) -> str:
        result = run(*command, write_csv(tmp_path / name, *MANIFESTS[name]), *HERE)
        assert result.exit_code == 1
        assert result.stdout == ""
        return result.stderr.replace(str(tmp_path) + os.sep, "")

    assert said("twice.csv") == (
        "Error: twice.csv: 1 bad row; correct or remove, nothing of the file was used\n"
        "twice.csv:4: id a is also on line 2\n"
    )
    assert said("bad.csv") == (
        "Error: bad.csv: 2 bad rows; correct or remove, nothing of the file was used\n"
        "bad.csv:3: id is missing\n"
        "bad.csv:4: 1 field, the header has 2\n"
    )
    assert said("empty.csv") == "Error: empty.csv holds a header and no pictures; add a row for each picture\n"
    assert said("typo.csv") == "Error: typo.csv: there is no column 'landmark_it'; did you mean landmark_id?\n"
    assert said("other.csv").startswith("Error: other.csv: no known manifest has the header 'foo,bar'; the nearest is ")
    (tmp_path / "nothing").mkdir()
    assert refused(*command, tmp_path / "nothing", *HERE) == (
        f"{tmp_path / 'nothing'}: no pictures in this folder; give one that holds <landmark>/<picture>"
    )


def test_what_needs_labels_says_so(tiny_set):
    none = write_csv(Path("none.csv"), *MANIFESTS["none.csv"])
    no_column = "test.csv has no landmark_id column"
    assert refused("train", "test.csv", "--output", "m") == f"{no_column}; training needs labels"
    for command in ("calibrate", "evaluate"):
        assert refused(command, "test.csv") == f"{no_column}, so there is nothing to compare answers with"
    assert refused("train", none, "--output", "m") == (
        "training needs pictures of at least 2 landmarks, got 0; add labelled rows"
    )
    assert refused("train", "train.csv", "--val", none, "--output", "m", *NETWORK) == (
        "--val none.csv: no row has a landmark_id; validation needs labelled pictures"
    )
    assert refused("train", "train.csv", "--negatives", "val.csv", "--output", "m") == (
        "val.csv has rows with a landmark_id; negatives are pictures of no known landmark"
    )
    assert (
        refused("calibrate", none, *HERE) == "calibration needs queries with a known landmark; all of these are blank"
    )
    assert refused("evaluate", none, *HERE) == (
        "GAP needs at least one query with a known landmark; all of these queries are blank"
    )
    assert refused("build-index", "none.h5", "--output", "l") == (
        "none.h5: no row has a landmark_id and a descriptor; an index needs labelled pictures"
    )
    assert not Path("m").exists()
    assert not Path("l").exists()


def test_calibration_queries_that_are_in_the_index_are_refused(unchanged):
    assert refused("calibrate", "train.h5", *HERE) == (
        "32 of 44 calibration queries are also in the index: train-arch-0, "
        "train-arch-1, train-arch-2, train-arch-3, train-arch-4 and 27 more; leave them out of one or the other"
    )


@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_a_store_that_is_cut_short_is_named(tiny_set, share):
    for name in ("train.h5", "val.h5"):
        cut_short(Path(name), share)
    before = listing(tiny_set)
    remedy = "copy it again if it is a copy, else make it again with lmr embed --overwrite"
    for arguments in (["build-index"], ["embed", *HERE], ["info", "train.h5"]):
        said = refused(*arguments)
        assert said.startswith("train.h5 is damaged (it is cut short: ")
        assert said.endswith(remedy)
    for arguments in (["calibrate", "val.csv"], ["evaluate", "val.h5"], ["evaluate", "val.csv"]):
        said = refused(*arguments, *HERE)
        assert said.startswith("val.h5 is damaged (it is cut short: ")
        assert said.endswith(remedy)
    assert listing(tiny_set) == before


def test_a_store_of_another_format_version_is_named(tiny_set):
    for name in ("train.h5", "val.h5"):
        drop_digests(Path(name))
        with h5py.File(name, "r+") as file:
            file.attrs["format_version"] = 7
    message = "has format_version 7, this program reads 1; use the lmr that made it, or embed into another file"
    for arguments in (["build-index"], ["embed", *HERE], ["info", "train.h5"]):
        assert refused(*arguments) == f"train.h5 {message}"
    for command in ("calibrate", "evaluate"):
        assert refused(command, "val.csv", *HERE) == f"val.h5 {message}"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_store_with_a_descriptor_that_is_not_finite_is_named(tiny_set, bad):
    done("submit", *HERE)
    for name in ("train.h5", "val.h5", "test.h5"):
        drop_digests(Path(name))
        with h5py.File(name, "r+") as file:
            file["vectors"][3, 5] = bad
    before = listing(tiny_set)
    assert refused("build-index", "--output", "l") == (
        "train.h5: the descriptor of train-other-3 is zero or not finite; embed it again"
    )
    for arguments in (["calibrate", "val.csv"], ["evaluate", "val.csv"], ["evaluate", "val.h5"]):
        assert (
            refused(*arguments, *HERE) == "val.h5: the descriptor of val-other-3 is zero or not finite; embed it again"
        )
    assert refused("submit", "--overwrite", *HERE) == (
        "test.h5: the descriptor of test-other-3 is zero or not finite; embed it again"
    )
    assert listing(tiny_set) == before


FILES = ["index.faiss", "rows.h5", "background.h5", "whiten.h5", "names.json", "model/model.json"]
ASK = ["query", "images/test-arch-0.jpg", *HERE]


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_of_an_index_is_named(tiny_set, name):
    (path,) = Path("landmarks").glob(name)
    content = path.read_bytes()
    flip_byte(path)
    changed = f"{path} was changed or damaged: its sha256 is not that of index.json; "
    verify = ["info", "landmarks", "--verify"]
    for arguments in (ASK, verify, ["calibrate", "val.csv"], ["submit"], ["evaluate", "val.csv"]):
        assert refused(*arguments) == changed + "copy the folder again or run lmr build-index again"
    assert refused("build-index", "--names", "names.csv") == (
        changed + "copy the folder again or run lmr build-index again; --overwrite replaces it"
    )
    path.write_bytes(content[:-1])
    assert refused(*ASK) == (
        f"{path} has {len(content) - 1} bytes, index.json says {len(content)}; "
        "copy the folder again or run lmr build-index again"
    )
    path.unlink()
    assert refused(*ASK) == f"{path} is missing; copy the whole folder or run lmr build-index again"
    assert {p.name for p in Path().iterdir()} >= {"landmarks", "model", "train.h5", "val.h5"}


def test_damaged_weights_of_an_index_are_named_where_they_are_read(tiny_set):
    (path,) = Path("landmarks/model").glob("weights-*")
    flip_byte(path)
    assert refused(*ASK) == f"{path} is damaged: its sha256 is not the one in model.json; restore it or train again"
    changed = f"{path} was changed or damaged: its sha256 is not that of index.json; "
    assert refused("info", "landmarks", "--verify") == changed + "copy the folder again or run lmr build-index again"
    assert refused("build-index", "--names", "names.csv") == (
        changed + "copy the folder again or run lmr build-index again; --overwrite replaces it"
    )
    path.write_bytes(path.read_bytes()[:-1])
    for arguments in (ASK, ["calibrate", "val.csv"], ["submit"], ["evaluate", "val.csv"]):
        assert refused(*arguments).startswith(f"{path} has {path.stat().st_size} bytes, index.json says")
    path.unlink()
    assert refused(*ASK) == f"{path} is missing; copy the whole folder or run lmr build-index again"


def test_a_damaged_index_json_is_named_wherever_the_damage_is(tiny_set):
    path = Path("landmarks/index.json")
    content = path.read_bytes()
    for at in np.linspace(0, len(content) - 2, 40).astype(int):
        for bit in (1, 16, 128):
            damaged = bytearray(content)
            damaged[at] ^= bit
            path.write_bytes(damaged)
            assert refused("info", "landmarks").startswith("landmarks/index.json ")
    path.write_bytes(content)
    done("info", "landmarks")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format_version": 1}', '{"format_version": 2}'])
def test_an_index_json_of_something_else_is_one_line(tiny_set, content):
    Path("landmarks/index.json").write_text(content)
    for arguments in (ASK, ["build-index"], ["info", "landmarks"]):
        assert refused(*arguments).startswith("landmarks/index.json ")
    done("build-index", "--overwrite", "--device", "cpu")


def test_a_damaged_calibration_is_named_and_calibrate_makes_another(tiny_set):
    path = Path("landmarks/calibration.json")
    whole = path.read_text()
    path.write_text(whole.replace('"k": ', '"k": 1'))
    message = "landmarks/calibration.json was changed or damaged: its sha256 differs; run lmr calibrate again"
    for arguments in (ASK, ["info", "landmarks"], ["submit", *HERE]):
        assert refused(*arguments) == message
    done("calibrate", "val.csv", *HERE)
    assert path.read_text() == whole


def test_an_index_of_another_model_is_not_mixed_with_it(tiny_set):
    other = Path("other")
    done("embed", "train.csv", *NETWORK, "--pooling", "avg", *HERE, "--model", other, "--output", "other.h5")
    done("build-index", "other.h5", "--model", other, "--output", "others", "--device", "cpu")
    theirs = json.loads(Path("others/index.json").read_text())["fingerprint"][:8]
    ours = json.loads(Path("landmarks/index.json").read_text())["fingerprint"][:8]
    before = listing(tiny_set)
    weights = [
        json.loads(done("info", name, "--json").stdout)["model"]["weights_sha256"][:8]
        for name in ("other.h5", "train.h5")
    ]
    differs = f"pooling avg is not gem, weights {weights[0]} are not {weights[1]}"
    other_way = f"pooling gem is not avg, weights {weights[1]} are not {weights[0]}"
    assert refused("build-index", "other.h5", "--output", "l") == (
        f"other.h5 does not fit model: {differs}; give the model that made it"
    )
    assert refused("build-index", "train.h5", "other.h5", "--output", "l") == (
        f"other.h5 does not fit train.h5: {differs}; embed with the same model"
    )
    for command in ("calibrate", "evaluate"):
        assert refused(command, "val.h5", "--index", "others", *HERE) == (
            f"val.h5 does not fit others: {other_way}; embed with the same model"
        )
        assert refused(command, "val.csv", "--index", "others", *HERE) == (
            f"val.h5 was made with another model ({ours}, now {theirs}); give --overwrite or another file name"
        )
    assert listing(tiny_set) == before
    shutil.rmtree("others/model")
    shutil.copytree("landmarks/model", "others/model")
    assert refused("query", "images/test-arch-0.jpg", "--index", "others").startswith("others/model/")


def test_a_calibration_of_another_index_is_refused(tiny_set):
    shutil.copytree("landmarks", "others")
    done("build-index", "--output", "others", "--overwrite", "--whitening-power", "0", "--device", "cpu")
    shutil.copy("landmarks/calibration.json", "others")
    assert refused("query", "images/test-arch-0.jpg", "--index", "others") == (
        "others/calibration.json was made for another index; run lmr calibrate again"
    )


def test_damaged_weights_never_reach_an_index(tiny_set):
    (weights,) = Path("model").glob("weights-*")
    flip_byte(weights)
    message = f"{weights} is damaged: its sha256 is not the one in model.json; restore it or train again"
    assert refused("build-index", "--output", "l") == message
    assert refused("embed", "val.csv", "--output", "x.h5", *HERE) == message
    weights.unlink()
    message = f"{weights} is missing; restore it beside model.json or train again"
    assert refused("build-index", "--output", "l") == message
    assert refused("embed", "val.csv", "--output", "x.h5", *HERE) == message
    assert not Path("l").exists()
    assert not Path("x.h5").exists()


def test_a_model_card_that_was_changed_by_hand_is_named(tiny_set):
    card = Path("model/model.json")
    card.write_text(card.read_text().replace('"size": 32', '"size": 48'))
    for arguments in (["embed", *HERE], ["build-index"], ["info", "model"]):
        assert refused(*arguments).startswith("model/model.json was changed by hand: its fingerprint is ")


def test_images_that_cannot_be_read_are_no_model_and_no_calibration(tiny_set):
    write_csv(Path("gone.csv"), "id,landmark_id", ["gone-1,arch", "gone-2,dome"])
    tried = "not found: tried images/gone-1.jpg and 23 other places"
    result = run("train", "gone.csv", "--output", "m", *NETWORK, *HERE_TRAIN)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        f"Error: no batch of epoch 1 held two pictures that can be read ({tried}); check --images"
    )
    assert not Path("m/model.json").exists()
    none = "gone.csv: none of its 2 pictures can be found and read"
    check = "check --images, and give --retry-unreadable once they can be"
    result = run("embed", "gone.csv", *HERE)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[0] == f"unreadable: gone-1: {tried}"
    assert result.stderr.splitlines()[-1] == f"Error: {none}; {check}"
    assert refused("embed", "gone.csv", *HERE) == f"{none}; {check}"
    assert refused("build-index", "gone.h5", "--output", "l") == (
        "gone.h5: no row has a landmark_id and a descriptor; an index needs labelled pictures"
    )
    assert refused("calibrate", "gone.csv", *HERE) == f"{none}; {check}"


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Callable[..., Path]]:
    """A function that makes a file system of so many KB and gives its folder; skips where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def make(kb: int, *options: str) -> Path:
        subprocess.run(["umount", "-l", folder], capture_output=True, check=False)
        size = ",".join([f"size={kb}k", *options])
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], capture_output=True, check=False)
        if made.returncode:
            pytest.skip(f"cannot mount a file system here: {made.stderr.decode().strip()}")
        return folder

    yield make
    subprocess.run(["umount", "-l", folder], capture_output=True, check=False)


FULL = os.strerror(errno.ENOSPC)


def test_a_full_disk_stops_embed_and_the_same_command_goes_on_when_there_is_room(tiny_set, small_disk):
    disk = small_disk(96)
    assert refused("embed", "--output", disk / "x.h5", *HERE) == (
        f"{disk}/x.h5.partial: writing failed: {FULL}; make room and run the same command again"
    )
    assert [path.name for path in disk.iterdir()] == ["x.h5.partial"]
    subprocess.run(["mount", "-o", "remount,size=1m", disk], check=True)
    done("embed", "--output", disk / "x.h5", *HERE)
    assert [path.name for path in disk.iterdir()] == ["x.h5"]
    with h5py.File(disk / "x.h5") as again, h5py.File("train.h5") as whole:
        np.testing.assert_allclose(again["vectors"][:], whole["vectors"][:], atol=2e-3)


@pytest.mark.parametrize("kb", [500, 1408, 1440, 1748, 1780])
def test_a_full_disk_leaves_no_part_of_an_index(tiny_set, small_disk, kb):
    disk = small_disk(kb)
    message = refused("build-index", "--output", disk / "l", "--device", "cpu")
    assert message.startswith(f"{disk}/l")
    assert FULL in message
    assert list(disk.iterdir()) == []


def test_a_full_disk_keeps_the_calibration_that_is_there(tiny_set, small_disk):
    disk = small_disk(4096)
    shutil.copytree("landmarks", disk / "l")
    before = listing(disk / "l")
    room = os.statvfs(disk)
    (disk / "filling").write_bytes(b"x" * (room.f_bavail * room.f_bsize))
    assert refused("calibrate", "val.csv", "--index", disk / "l", "--precision", "0.5", "--overwrite", *HERE) == (
        f"{disk}/l/calibration.json cannot be written: {FULL}; choose another place or make room"
    )
    assert listing(disk / "l") == before


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["query", "images/test-arch-0.jpg", "--save", "{disk}/s.jpg", *HERE], "s.jpg"),
        (["evaluate", "val.csv", "--report", "{disk}/r.html", *HERE], "r-landmarks.csv"),
    ],
    ids=["query", "evaluate"],
)
def test_a_full_disk_leaves_no_part_of_a_image_or_report(tiny_set, small_disk, arguments, name):
    disk = small_disk(4)
    assert refused(*(a.format(disk=disk) for a in arguments)) == (
        f"{disk}/{name} cannot be written: {FULL}; choose another place or make room"
    )
    assert list(disk.iterdir()) == []


def test_a_full_disk_leaves_no_part_of_a_model(images, small_disk):
    disk = small_disk(1000)
    message = (
        rf"{disk}/m/weights-[0-9a-f]{{12}}\.safetensors cannot be written: {FULL}; choose another place or make room"
    )
    assert re.fullmatch(message, refused("embed", *NETWORK, *HERE, "--model", disk / "m"))
    assert not [path for path in disk.rglob("*") if path.is_file()]
    assert not Path("train.h5").exists()


READ_ONLY = os.strerror(errno.EROFS)


def test_a_disk_that_cannot_be_written_is_named_and_can_be_asked(tiny_set, small_disk):
    disk = small_disk(4096)
    shutil.copytree("landmarks", disk / "l")
    before = listing(disk)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    here = "choose another place or make room"
    assert refused("calibrate", "val.csv", "--index", disk / "l", "--overwrite", "--precision", "0.5", *HERE) == (
        f"{disk}/l/calibration.json cannot be written: {READ_ONLY}; {here}"
    )
    assert refused("build-index", "--output", disk / "l", "--overwrite") == (
        f"{disk}/l cannot be written: {READ_ONLY}; {here}"
    )
    assert (
        refused("submit", "--output", disk / "s.csv", *HERE) == f"{disk}/s.csv cannot be written: {READ_ONLY}; {here}"
    )
    assert refused("train", "train.csv", "--output", disk / "m", *NETWORK, *HERE_TRAIN) == (
        f"{disk}/m cannot be written: {READ_ONLY}; {here}"
    )
    assert done("query", "images/test-arch-0.jpg", "--index", disk / "l", *HERE).stdout
    assert listing(disk) == before


def test_a_folder_that_cannot_be_written_takes_no_download(images, small_disk):
    disk = small_disk(4096)
    (disk / "images").mkdir()
    write_csv(Path("urls.csv"), "id,url", ["a,http://127.0.0.1:9/a.jpg"])
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    ledger = f"{disk}/images/download.sqlite"
    message = f"{ledger} cannot be written; choose another folder"
    assert refused("download", "urls.csv", disk / "images") == message


def test_a_limit_on_the_size_of_files_ends_embed_with_one_line(images):
    done("embed", *NETWORK, *HERE)
    Path("train.h5").unlink()
    code, text = run_apart(images, ["embed", *HERE], file_bytes=20_000)
    reason = os.strerror(errno.EFBIG)
    assert text.splitlines()[2:] == [
        f"Error: train.h5.partial: cannot be written: {reason}; choose another place or make room"
    ]
    assert code == 1
    assert not list(images.glob("train.h5*"))
