"""`lmr train`: what it leaves behind, what it refuses, and that it learns."""

import csv
import json
from pathlib import Path

import pytest
from tiny_set import NETWORK, done, listing, misused, refused, run, write_csv

from retrieval.training.state import save_state

TRAIN = ("train", "train.csv", *NETWORK, "--workers", "0", "--threads", "1", "--device", "cpu", "--batch-size", "4")
SMALL = ("--epochs", "2", "--epoch-size", "8")


def log() -> list[dict[str, str]]:
    """training.csv."""
    with Path("model/training.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_training_leaves_a_model_its_log_and_curves(pictures):
    result = done(*TRAIN, *SMALL, "--val", "val.csv")
    assert result.stdout.startswith("model: trained 2 epochs in ")
    assert [line.split()[:2] for line in result.stderr.splitlines()] == [["epoch", "1"], ["epoch", "2"]]
    assert list(log()[0]) == ["epoch", "loss", "rate", "gap", "top1", "seconds"]
    assert {path.name for path in Path("model").iterdir()} == {
        *("model.json", "README.md", "training.csv", "training.pt", "training.png", "last"),
        *(path.name for path in Path("model").glob("weights-*.safetensors")),
    }
    facts = json.loads(done("info", "model", "--json").stdout)
    assert facts["image_spec"]["size"] == 32
    assert facts["made_by"]["training"]["epochs"] == 2
    best = max(log(), key=lambda row: float(row["gap"]))
    assert any(f"{float(row['gap']):g}" == best["gap"] for row in facts["made_by"]["log"])


def test_the_same_training_twice_gives_the_same_weights(pictures):
    names = []
    for output in ("a", "b"):
        done(*TRAIN, *SMALL, "--output", output)
        names.append({path.name for path in Path(output).glob("weights-*")})
    assert names[0] == names[1]
    done(*TRAIN, *SMALL, "--output", "c", "--seed", "1")
    assert {path.name for path in Path("c").glob("weights-*")} != names[0]


def test_a_run_stopped_just_after_its_first_model_goes_on(pictures, monkeypatch):
    done(*TRAIN, *SMALL, "--output", "whole")

    def stop(*arguments):
        if arguments[-1].epoch:
            raise KeyboardInterrupt
        save_state(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("retrieval.training.loop.save_state", stop)
        assert run(*TRAIN, *SMALL).exit_code
    assert Path("model/model.json").exists()
    done(*TRAIN, *SMALL)
    weights = [{path.name for path in Path(folder).glob("weights-*")} for folder in ("whole", "model")]
    assert weights[0] == weights[1]


def test_training_longer_lowers_the_loss(pictures):
    done(*TRAIN, "--epochs", "4", "--head-rate", "0.01", "--backbone-rate", "0.002")
    losses = [float(row["loss"]) for row in log()]
    assert losses[-1] < losses[0]


def test_softmax_needs_no_negatives(pictures):
    result = done(*TRAIN, *SMALL, "--loss", "softmax", "--negative-weight", "0")
    assert result.stdout.startswith("model: trained 2 epochs")


def test_unreadable_pictures_are_counted_and_left_out(pictures):
    Path("images/train-arch-0.jpg").write_bytes(b"nothing")
    result = done(*TRAIN, "--epochs", "1", "--balance", "0", "--negative-weight", "0")
    assert "not a picture in a known format" in result.stderr
    assert result.stderr.splitlines()[-1] == "1 of 44 pictures are unreadable and have no descriptor"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", "0"], "--epochs is too small; training needs at least 1 epoch and batches of 2"),
        (["--batch-size", "1"], "--batch-size is too small; training needs at least 1 epoch and batches of 2"),
        (["--warmup", "nan"], "--warmup is a share of the steps, 0 to 1, got nan"),
        (["--margin-rad", "30"], "--margin-rad is in radians, 0 to pi/2, got 30.0"),
        (["--backbone-rate", "nan"], "--backbone-rate must be 0 or more, got nan"),
        (["--negative-share", "1"], "--negative-share must lie in [0, 1), got 1.0"),
        (["--min-area", "0"], "--min-area must lie in (0, 1], got 0.0"),
        (["--seed", "-1"], "--seed must be 0 or more, got -1"),
        (["--scale", "0"], "--scale must be positive, got 0.0"),
        (["--dimensions", "-8"], "--dimensions must be 0 (no neck) or more, got -8"),
        (["--pooling", "cls"], "--pooling cls: shufflenet_v2_x0_5 has no class token; use gem, avg or max"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_value_that_cannot_be_is_one_line_and_leaves_nothing(pictures, options, message):
    files = listing(pictures)
    assert refused(*TRAIN, *options) == message
    assert listing(pictures) == files
    assert not Path("model").exists()


def test_one_landmark_is_not_enough(pictures):
    write_csv(Path("one.csv"), "id,landmark_id", ["train-arch-0,arch", "train-arch-1,arch"])
    assert refused("train", "one.csv") == "training needs pictures of at least 2 landmarks, got 1; add labelled rows"


def test_a_manifest_must_be_given(pictures):
    assert misused("train") == "Missing argument 'MANIFEST'."
