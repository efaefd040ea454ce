"""Folders whose names are not UTF-8: they are used as others are, but where a table would have to name them."""

import os
import shutil
from pathlib import Path

import pytest
from tiny_set import HERE, NETWORK, done, refused

from retrieval.errors import LmrError
from retrieval.files.json_file import read_json, write_json
from retrieval.files.utf8_path import utf8_path


@pytest.fixture
def place(tiny_set, tmp_path):
    """The tiny set with its model, stores and index, in such a folder."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff"))
    try:
        shutil.copytree(tiny_set, folder)
    except OSError:
        pytest.skip("this file system has names in UTF-8 alone")
    return folder


def test_models_are_trained_exported_and_described_with(place):
    few = ("--epochs", "1", "--epoch-size", "8", "--workers", "0", "--threads", "1", "--device", "cpu")
    train = ("train", place / "train.csv", *NETWORK, "--images", place / "images", "--output", place / "new", *few)
    done(*train)
    assert f"{place.parent}/b\\xff/new is trained already; nothing to do" in done(*train).stderr
    done("ensemble", place / "model", place / "new", "--output", place / "both")
    done("export", place / "model", place / "model.onnx")
    for model in ("both", "model.onnx"):
        done("embed", place / "test.csv", "--model", place / model, "--output", place / f"{model}.h5", *HERE)
        done("info", place / model, "--verify")
    weights = shutil.copy(next((place / "model").glob("weights-*")), place / "weights.safetensors")
    told = refused("embed", place / "test.csv", *NETWORK, "--weights", weights, "--output", place / "w.h5", *HERE)
    assert "does not fit --backbone shufflenet_v2_x0_5" in told  # those of a network and its head: they were read


def test_an_index_is_built_calibrated_measured_and_asked(place):
    index, images = ("--index", place / "built"), ("--images", place / "images")
    built = ("build-index", place / "train.h5", "--model", place / "model", "--output", place / "built")
    done(*built, "--workers", "1")
    done("calibrate", place / "val.csv", *index, *images, *HERE)
    assert read_json(place / "built" / "calibration.json", "")["origin"]["source"] == str(place / "val.h5")
    done("evaluate", place / "val.csv", *index, *images, "--report", place / "report.html", *HERE)
    done("query", place / "images" / "val-dome-0.jpg", *index, "--save", place / "a.html", *HERE)
    done("submit", place / "test.csv", *index, *images, "--output", place / "submission.csv", *HERE)
    done("score", place / "submission.csv", place / "solution.csv")
    done("info", place / "built", "--verify")


@pytest.mark.parametrize("command", ["split", "clean"])
def test_manifests_that_could_not_name_their_images_are_refused_before_the_work(place, command):
    store = ("--store", place / "train.h5") if command == "clean" else ()
    told = refused(command, place / "train.csv", *store, "--images", place / "images", "--output", place / "written")
    assert told == (
        f"{place.parent}/b\\xff/images: the name of a folder in it is not UTF-8, and the manifests that are written "
        "could not name its pictures; rename that folder"
    )
    assert not (place / "written").exists()


def test_a_file_there_is_opened_by_a_path_in_utf_8(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff") / "file"
    path.parent.mkdir()
    with utf8_path(path, is_new=True) as place:
        Path(place).write_text("whole")
    with utf8_path(path) as place:
        assert (place.isascii(), Path(place).read_text()) == (True, "whole")
    assert not Path(place).exists()
    with utf8_path(tmp_path / "é") as place:
        assert place == str(tmp_path / "é")


def test_where_open_files_have_no_path_the_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("retrieval.files.utf8_path._OPEN_FILES", str(tmp_path / "none"))
    path = tmp_path / os.fsdecode(b"\xff")
    with pytest.raises(LmrError) as told, utf8_path(path):
        pass
    assert str(told.value) == f"{path}: a name that is not UTF-8, which cannot be given to what opens it; rename it"


def test_json_keeps_such_names(tmp_path):
    write_json(tmp_path / "a.json", {"path": "b\udcff/é"})
    assert (tmp_path / "a.json").read_bytes() == b'{\n "path": "b\\udcff/\xc3\xa9"\n}\n'
    assert read_json(tmp_path / "a.json", "") == {"path": "b\udcff/é"}
