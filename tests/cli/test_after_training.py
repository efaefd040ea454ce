"""What is done with descriptors after training: ensembles, scales, learnt whitening, neighbours that lend."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_set import HERE, done, misused, refused

from retrieval.store.store import read_store

REFINED = ("--augment", "2", "--expand", "3", "--expand-alpha", "2", "--rerank", "100")


def info(path):
    return json.loads(done("info", path, "--json").stdout)


def test_an_ensemble_is_taken_by_every_command_like_a_model(tiny_set):
    said = done("ensemble", "model", "model", "--weight", "3", "--weight", "1", "--output", "both").stdout
    assert said == "both: 2 models (0.75 shufflenet_v2_x0_5, 0.25 shufflenet_v2_x0_5)\n"
    assert done("ensemble", "model", "model", "--weight", "6", "--weight", "2", "--output", "both").stdout == (
        "both: unchanged, nothing to do\n"
    )
    done("embed", "--model", "both", "--output", "both.h5", *HERE)
    one, both = read_store("train.h5"), read_store("both.h5")
    parts = np.sqrt(0.75), np.sqrt(0.25)
    assert both.vectors == pytest.approx(np.concatenate([part * one.vectors for part in parts], axis=1), abs=1e-3)
    name_one, name_both = one.info.fingerprint[:8], both.info.fingerprint[:8]
    assert refused("build-index", "both.h5", "--output", "b") == (
        f"both.h5 does not fit model: model {name_both} is not {name_one}; give the model that made it"
    )
    assert refused("build-index", "train.h5", "--model", "both", "--output", "b") == (
        f"train.h5 does not fit both: model {name_one} is not {name_both}; give the model that made it"
    )
    done("build-index", "both.h5", "--model", "both", "--output", "b", "--device", "cpu")
    assert refused("calibrate", "val.csv", "--index", "b", "--store", "val.h5", *HERE).startswith(
        "val.h5 was made with "
    )
    done("submit", "--index", "b", "--store", "t.h5", *HERE)
    (answer,) = json.loads(done("query", "images/test-arch-0.jpg", "--index", "b", "--json", *HERE).stdout)
    assert answer["landmarks"]
    assert info("b")["fingerprint"] == info("both")["fingerprint"] == info("both.h5")["fingerprint"]
    assert [member["weight"] for member in info("both")["members"]] == [0.75, 0.25]


@pytest.mark.parametrize(("arguments", "message"), [
    (["model"], "an ensemble has two models or more and a weight for each, got 1 and 1"),
    (["model", "model", "--weight", "1"], "--weight is given 1 time for 2 models; give one for each or none"),
    (["model", "model", "--weight", "1", "--weight", "-1"],
     "--weight -1: weights are positive numbers; leave a model out instead"),
    (["model", "images"], "images: there is no model (no model.json); lmr train makes one"),
])  # fmt: skip
def test_an_ensemble_that_cannot_be_is_one_line(tiny_set, arguments, message):
    assert refused("ensemble", *arguments, "--output", "both") == message
    assert not Path("both").exists()


def test_scales_are_part_of_the_descriptors_and_travel_with_the_index(tiny_set):
    done("embed", "--scales", "1,0.75", "--flip", "--output", "s.h5", *HERE)
    assert info("s.h5")["model"]["scales"] == [0.75, 1.0]
    assert info("s.h5")["fingerprint"] != info("train.h5")["fingerprint"]
    assert refused("embed", "--scales", "1,2", "--flip", "--output", "s.h5", *HERE) == (
        "s.h5 was made with another scales ([0.75, 1.0], now [1.0, 2.0]); give --overwrite or another file name"
    )
    done("build-index", "s.h5", "--output", "s", "--device", "cpu")
    assert info("s/model")["scales"] == [0.75, 1.0]
    image = "images/train-arch-0.jpg"
    (answer,) = json.loads(done("query", image, "--index", "s", "--json", *HERE).stdout)
    assert answer["in_index"] == "train-arch-0"


@pytest.mark.parametrize("scales", ["", "0", "1,-1", "1;2", "nan", "9"])
def test_scales_that_cannot_be_are_one_line(tiny_set, scales):
    assert refused("embed", "--scales", scales, "--output", "s.h5", *HERE) == (
        f"--scales {scales}: expected numbers above 0 up to 8 with commas, such as 0.707,1,1.414"
    )


def test_an_index_that_refines_answers_without_further_options(tiny_set):
    done("build-index", "--whitening", "supervised", *REFINED, "--output", "r", "--device", "cpu")
    options = info("r")["options"]
    assert (options["whitening"], options["refinement"]["n_expand"], options["refinement"]["expand_alpha"]) == (
        "supervised",
        3,
        2.0,
    )
    assert "augmented.faiss" in info("r")["files"]
    at_r = ("--index", "r", *HERE)
    done("calibrate", "val.csv", *at_r)
    content = json.loads(done("evaluate", "val.csv", "--json", *at_r).stdout)
    assert content["top1"] > 0.5
    (answer,) = json.loads(done("query", "images/train-arch-0.jpg", "--json", *at_r).stdout)
    assert answer["in_index"] == "train-arch-0"
    assert refused("evaluate", "--leave-one-out", *at_r).startswith("r was built with --augment, --expand or --rerank")
    assert refused("build-index", "--output", "r", "--device", "cpu") == (
        "r exists and was built from other descriptors or options; --overwrite replaces it"
    )


def test_refinements_that_cannot_be_are_refused(tiny_set):
    for n in ("5", "10001"):
        assert refused("build-index", "--rerank", n, "--output", "r") == (
            f"--rerank must be 0 (off) or 100 to 10,000, got {n}"
        )
    assert misused("build-index", "--whitening", "zca") == (
        "Invalid value for '--whitening': 'zca' is not one of 'pca', 'supervised'."
    )
