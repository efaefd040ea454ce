"""`lmr train` with balance and augmentation: what is trained on, and that it goes on exactly where it stopped."""

import csv
from pathlib import Path

import pytest
from tiny_set import NETWORK, done, refused, run, write_csv

from retrieval.train.config import BalanceConfig
from retrieval.train.data import read_training_data
from retrieval.train.state import save_state

TRAIN = ("train", "train.csv", *NETWORK, "--workers", "0", "--threads", "1", "--device", "cpu", "--epochs", "2")
EVERYTHING = (
    *("--cap", "6", "--member", "1", "--floor", "5", "--per-landmark", "2", "--batch-size", "6", "--loss", "softmax"),
    *("--rotation", "20", "--shift", "0.1", "--zoom", "0.2", "--blur", "0.5", "--jpeg", "0.5", "--erasing", "0.5"),
    *("--cutmix", "0.5"),
)


def weights(folder: str) -> set[str]:
    """Names of the weight files, which hold a digest."""
    return {path.name for path in Path(folder).glob("weights-*")}


def test_a_stopped_run_with_everything_on_goes_on_to_the_same_weights(images, monkeypatch):
    done(*TRAIN, *EVERYTHING, "--output", "whole")
    done(*TRAIN, *EVERYTHING, "--output", "other", "--member", "2")
    saved = []

    def stop(*arguments):
        save_state(*arguments)
        saved.append(arguments[-1].step)
        if len(saved) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("retrieval.train.loop.STATE_EVERY_S", 0.0)
        patch.setattr("retrieval.train.loop.save_state", stop)
        assert run(*TRAIN, *EVERYTHING).exit_code
    assert saved == [0, 1, 2, 3]
    done(*TRAIN, *EVERYTHING)
    assert weights("model") == weights("whole") != weights("other")


def test_a_minimum_takes_rare_landmarks_out_as_split_does(images):
    with Path("train.csv").open(newline="") as file:
        rows = [f"{row['id']},{row['landmark_id']}" for row in csv.DictReader(file)]
    few = [row for row in rows if not row.endswith("castle") or row.startswith("train-castle-3,")]
    write_csv(Path("few.csv"), "id,landmark_id", few)
    whole = read_training_data(Path("few.csv"), None, None)
    turned = read_training_data(Path("few.csv"), None, None, BalanceConfig(min_per_landmark=2))
    dropped = read_training_data(Path("few.csv"), None, None, BalanceConfig(min_per_landmark=2, rare="drop"))
    assert whole.labels == ("arch", "bridge", "castle", "dome")
    assert turned.labels == dropped.labels == ("arch", "bridge", "dome")
    assert [int((data.landmark < 0).sum()) for data in (whole, turned, dropped)] == [12, 13, 12]
    assert "train-castle-3" in turned.image_id
    assert "train-castle-3" not in dropped.image_id
    for row in range(len(dropped.landmark)):
        where = whole.image_id.index(dropped.image_id[row])
        assert dropped.source.read(row) == whole.source.read(where)
    assert len({whole.digest, turned.digest, dropped.digest}) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cap", "2", "--floor", "3"], "--floor 3 lies above --cap 2; lower it"),
        (["--member", "1"], "--member 1 chooses among the subsets that --cap leaves; give --cap too"),
        (["--min-per-landmark", "9"], "train.csv: no landmark has 9 pictures; lower --min-per-landmark"),
        (["--cutmix", "0.5"], "--cutmix mixes the labels of --loss softmax or linear, got --loss arcface"),
        (["--rotation", "-4"], "--rotation is in degrees, 0 to 180, got -4.0"),
        (
            ["--per-landmark", "13"],
            "--per-landmark 13: a batch of 32 has room for 24 landmark pictures, which is not 2 landmarks; lower it or "
            "raise --batch-size",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(images, options, message):
    assert refused(*TRAIN, *options) == message
    assert not Path("model").exists()
