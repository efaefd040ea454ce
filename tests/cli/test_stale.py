"""Weights, size, flip or manifest changed after a stage was done: the next run of each stage refuses, and says what."""

import json
import shutil
from pathlib import Path

import pytest
from tiny_set import HERE, NETWORK, done, flip_byte, listing, refused

TRAIN = ("train", "train.csv", *NETWORK, "--workers", "0", "--threads", "1", "--device", "cpu", "--batch-size", "4")
SMALL = ("--epochs", "1", "--epoch-size", "8")
STORES = ("train.h5", "new.h5")


def fingerprint(path: str) -> str:
    """The first characters of it, as messages show it."""
    return str(json.loads(done("info", path, "--json").stdout)["fingerprint"])[:8]


@pytest.fixture
def before(tiny_set):
    """The fingerprint of the finished set, with a submission and its store."""
    done("submit", *HERE)
    return fingerprint("model")


def test_other_weights_are_refused_by_every_stage(tiny_set, before):
    shutil.rmtree("model")
    done("embed", "train.csv", *NETWORK, "--pooling", "max", *HERE, "--output", "new.h5")
    after = fingerprint("model")
    weights = {name: json.loads(done("info", name, "--json").stdout)["model"]["weights_sha256"][:8] for name in STORES}
    files = listing(tiny_set)
    changed = f"was made with another model ({before}, now {after}); give --overwrite or another file name"
    assert refused("embed", *HERE) == f"train.h5 {changed}"
    assert refused("build-index") == (
        f"train.h5 does not fit model: pooling gem is not max, weights {weights['train.h5']} are not "
        f"{weights['new.h5']}; give the model that made it"
    )
    assert refused("build-index", "new.h5") == (
        "landmarks exists and was built from other descriptors or options; --overwrite replaces it"
    )
    assert listing(tiny_set) == files
    done("build-index", "new.h5", "--overwrite", "--device", "cpu")
    files = listing(tiny_set)
    for command in ("calibrate", "evaluate"):
        assert refused(command, "val.csv", *HERE) == f"val.h5 {changed}"
        assert refused(command, "val.h5", *HERE) == (
            f"val.h5 does not fit landmarks: pooling gem is not max, weights {weights['train.h5']} are not "
            f"{weights['new.h5']}; embed with the same model"
        )
    assert refused("submit", "--output", "new.csv", *HERE) == f"test.h5 {changed}"
    assert listing(tiny_set) == files
    done("calibrate", "val.csv", "--overwrite", *HERE)
    done("submit", "--overwrite", *HERE)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--size", "48"], "size (32, now 48)"),
        (["--flip"], "flip (False, now True)"),
        (["--fit", "crop"], "fit (squash, now crop)"),
        (["--dtype", "float32"], "dtype (float16, now float32)"),
        (["--descriptor", "pooled"], "descriptor (neck, now pooled)"),
    ],
    ids=["size", "flip", "fit", "dtype", "descriptor"],
)
def test_another_preparation_is_refused_by_name(tiny_set, options, what):
    files = listing(tiny_set)
    assert refused("embed", *options, *HERE) == (
        f"train.h5 was made with another {what}; give --overwrite or another file name"
    )
    Path("train.h5").rename("train.h5.partial")
    assert refused("embed", *options, *HERE) == (
        f"train.h5.partial was made with another {what}; give --overwrite or another file name"
    )
    Path("train.h5.partial").rename("train.h5")
    assert listing(tiny_set) == files


def test_an_index_is_not_rebuilt_from_another_preparation_unasked(tiny_set):
    done("embed", "--flip", "--output", "flipped.h5", *HERE)
    files = listing(tiny_set)
    assert refused("build-index", "flipped.h5", "--names", "names.csv") == (
        "landmarks exists and was built from other descriptors or options; --overwrite replaces it"
    )
    assert listing(tiny_set) == files
    done("build-index", "flipped.h5", "--overwrite", "--device", "cpu")
    assert fingerprint("landmarks") == fingerprint("flipped.h5") != fingerprint("model")
    assert refused("calibrate", "val.csv", *HERE) == (
        "val.h5 was made with another flip (False, now True); give --overwrite or another file name"
    )


@pytest.mark.parametrize(
    ("command", "manifest", "store"),
    [
        (["embed"], "train.csv", "train.h5"),
        (["calibrate", "val.csv"], "val.csv", "val.h5"),
        (["evaluate", "val.csv"], "val.csv", "val.h5"),
        (["submit", "--output", "new.csv"], "test.csv", "test.h5"),
    ],
    ids=["embed", "calibrate", "evaluate", "submit"],
)
def test_another_manifest_is_refused_by_name(tiny_set, before, command, manifest, store):
    lines = Path(manifest).read_text().splitlines()
    Path(manifest).write_text("\n".join([*lines[:-2], lines[-1], lines[-2]]) + "\n")
    files = listing(tiny_set)
    message = refused(*command, *HERE)
    assert message.startswith(f"{store} was made with another manifest (")
    assert message.endswith("); give --overwrite or another file name")
    assert listing(tiny_set) == files


def test_other_training_data_or_settings_are_refused_by_name(images):
    done(*TRAIN, *SMALL)
    files = listing(images)
    again = done(*TRAIN, *SMALL)
    assert again.stderr.splitlines()[0] == "model is trained already; nothing to do"
    assert {name: files[name] for name in files if not name.endswith(".png")} == {
        name: digest for name, digest in listing(images).items() if not name.endswith(".png")
    }
    files = listing(images)
    tail = "; go on with that one, or give --overwrite"
    assert refused(*TRAIN, *SMALL, "--seed", "1") == (
        f"model holds a run with another training configuration (seed was 0, is 1){tail}"
    )
    assert refused(*TRAIN, *SMALL, "--size", "48") == (
        f"model holds a run with another picture preparation (size was 32, is 48){tail}"
    )
    assert refused(*TRAIN, *SMALL, "--pooling", "avg") == (
        f"model holds a run with another model (pooling was gem, is avg){tail}"
    )
    lines = Path("train.csv").read_text().splitlines()
    Path("train.csv").write_text("\n".join(lines[:-1]) + "\n")
    assert refused(*TRAIN, *SMALL) == f"model holds a run with another data{tail}"
    Path("train.csv").write_text("\n".join(lines) + "\n")
    assert listing(images) == files
    assert done(*TRAIN, *SMALL, "--seed", "1", "--overwrite").stderr.count("epoch 1") == 1


@pytest.mark.parametrize("what", ["is missing", "was changed since it was written"])
def test_a_finished_training_whose_classifier_is_not_whole_is_told(images, what):
    done(*TRAIN, *SMALL)
    path = Path("model/classifier.safetensors")
    if what == "is missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert refused(*TRAIN, *SMALL) == (
        f"model is trained already, but {path} {what}; restore it, or --overwrite trains anew"
    )


@pytest.mark.parametrize("name", ["README.md", "training.csv", "training.png", "classifier.safetensors"])
def test_a_model_replaces_no_file_of_somebody_else(images, name):
    Path(name).write_text("mine")
    message = f"{name} exists and is of no model; give another folder, or --overwrite"
    assert refused(*TRAIN, *SMALL, "--output", ".") == message
    assert refused("embed", "train.csv", *NETWORK, "--model", ".", *HERE) == message
    assert Path(name).read_text() == "mine"
    assert not Path("training.pt").exists()
    assert not Path("model.json").exists()


def test_an_overwriting_run_that_cannot_begin_keeps_the_run_that_is_there(images):
    done(*TRAIN, *SMALL)
    files = listing(images)
    assert refused(*TRAIN, *SMALL, "--overwrite", "--val", "no.csv") == "no.csv: there is no such file or folder"
    assert refused(*TRAIN, *SMALL, "--overwrite", "--device", "cuda:9").startswith("--device cuda:9: ")
    assert refused("embed", "no.csv", *NETWORK, "--overwrite") == "no.csv: there is no such file or folder"
    assert listing(images) == files


def test_a_finished_training_that_lost_its_weights_is_not_called_finished(images):
    arguments = [*TRAIN, *SMALL]
    done(*arguments)
    assert "model is trained already; nothing to do" in done(*arguments).stderr
    (weights,) = Path("model").glob("weights-*")
    flip_byte(weights)
    assert refused(*arguments) == (
        f"model is trained already, but is not whole: {weights} is damaged: its sha256 is not the one in model.json; "
        "restore it or train again; --overwrite trains anew"
    )
    done(*arguments, "--overwrite")
    assert "model is trained already; nothing to do" in done(*arguments).stderr
