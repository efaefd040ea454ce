"""`lmr train`: what it leaves behind, what it refuses, and that it learns."""

import csv
import json
from pathlib import Path

import pytest
from tiny_set import NETWORK, done, listing, misused, refused, run, write_csv

from retrieval.train.state import save_state

TRAIN = ("train", "train.csv", *NETWORK, "--workers", "0", "--threads", "1", "--device", "cpu", "--batch-size", "4")
SMALL = ("--epochs", "2", "--epoch-size", "8")


def log() -> list[dict[str, str]]:
    """training.csv."""
    with Path("model/training.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_training_leaves_a_model_its_log_and_curves(images):
    result = done(*TRAIN, *SMALL, "--val", "val.csv")
    assert result.stdout.startswith("model: trained 2 epochs in ")
    assert [line.split()[:2] for line in result.stderr.splitlines()] == [["epoch", "1"], ["epoch", "2"]]
    assert list(log()[0]) == ["epoch", "loss", "rate", "gap", "top1", "seconds"]
    assert {path.name for path in Path("model").iterdir()} == {
        *("model.json", "README.md", "classifier.safetensors", "training.csv", "training.pt", "training.png", "last"),
        "trained.json",
        *(path.name for path in Path("model").glob("weights-*.safetensors")),
    }
    facts = json.loads(done("info", "model", "--json").stdout)
    assert facts["image_spec"]["size"] == 32
    assert facts["made_by"]["training"]["epochs"] == 2
    best = max(log(), key=lambda row: float(row["gap"]))
    assert any(f"{float(row['gap']):g}" == best["gap"] for row in facts["made_by"]["log"])


def test_a_linear_head_is_validated_by_its_own_answers(images):
    import torch

    from retrieval.data.image_source import ImageSource
    from retrieval.data.manifest import read_manifest
    from retrieval.train.classifier import open_classifier

    done(*TRAIN, "--epochs", "1", "--loss", "linear", "--head-rate", "1e-9", "--val", "val.csv")
    val = read_manifest(Path("val.csv"))
    source, everything = ImageSource(val, Path("images")), range(len(val))
    opened = open_classifier(Path("model"), device=torch.device("cpu"), n_workers=1)
    found = opened.classify(source, everything, k=1)
    right = sum(
        (found.labels[label],) == tuple(val.landmarks[c] for c in val.truths(row))
        for row, (label,) in zip(found.row.tolist(), found.label.tolist(), strict=True)
    )
    assert float(log()[0]["top1"]) == pytest.approx(right / 16)
    assert right < 12  # the features of these images tell them apart, an untrained head does not


def test_validation_on_other_landmarks_is_only_done_when_told(images):
    rows = [line.split(",")[0] for line in Path("val.csv").read_text().splitlines()[1:]]
    write_csv(Path("other.csv"), "id,landmark_id", [f"{image_id},elsewhere" for image_id in rows])
    said = refused(*TRAIN, *SMALL, "--val", "other.csv")
    assert said == (
        "the only landmark of --val other.csv (elsewhere) is not among the 4 of the training data "
        "(arch, bridge, castle, …); give files that belong together, or give --allow-disjoint if that is meant"
    )
    done(*TRAIN, *SMALL, "--val", "other.csv", "--allow-disjoint")
    assert {float(row["top1"]) for row in log()} == {0.0}


def test_the_same_training_twice_gives_the_same_weights(images):
    names = []
    for output in ("a", "b"):
        done(*TRAIN, *SMALL, "--output", output)
        names.append({path.name for path in Path(output).glob("weights-*")})
    assert names[0] == names[1]
    done(*TRAIN, *SMALL, "--output", "c", "--seed", "1")
    assert {path.name for path in Path("c").glob("weights-*")} != names[0]


def test_a_run_stopped_just_after_its_first_model_goes_on(images, monkeypatch):
    done(*TRAIN, *SMALL, "--output", "whole")

    def stop(*arguments):
        if arguments[-1].epoch:
            raise KeyboardInterrupt
        save_state(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("retrieval.train.loop.save_state", stop)
        assert run(*TRAIN, *SMALL).exit_code
    assert Path("model/model.json").exists()
    done(*TRAIN, *SMALL)
    weights = [{path.name for path in Path(folder).glob("weights-*")} for folder in ("whole", "model")]
    assert weights[0] == weights[1]


def test_a_hundred_steps_on_the_same_images_more_than_halve_the_loss(images):
    """All images in each step, unaltered, and a backbone that stays: nothing is left to chance."""
    still = ("--freeze", "all", "--plain-pictures", "--loss", "softmax", "--negative-weight", "0", "--balance", "0")
    done(*TRAIN, *still, "--negative-share", "0", "--batch-size", "64", "--epochs", "100", "--head-rate", "0.02")
    losses = [float(row["loss"]) for row in log()]
    assert len(losses) == 100
    assert losses[-1] < losses[0] / 2


def test_softmax_needs_no_negatives(images):
    result = done(*TRAIN, *SMALL, "--loss", "softmax", "--negative-weight", "0")
    assert result.stdout.startswith("model: trained 2 epochs")


def test_a_teacher_cannot_tell_images_of_one_id_apart(images):
    write_csv(Path("others.csv"), "id", ["train-arch-0"])
    words = ["--negatives", "others.csv", "--teacher", "teacher.h5"]
    assert refused("train", "train.csv", *words, *SMALL) == (
        "others.csv: train-arch-0 is in train.csv too; --teacher finds pictures by their ids, "
        "so give one of them another"
    )


def test_unreadable_images_are_counted_and_left_out(images):
    Path("images/train-arch-0.jpg").write_bytes(b"nothing")
    result = done(*TRAIN, "--epochs", "1", "--balance", "0", "--negative-weight", "0")
    assert "not a picture in a known format" in result.stderr
    assert result.stderr.splitlines()[-1] == "1 of 44 pictures is unreadable and has no descriptor"


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
        (["--dimensions", "-8"], "--dimensions must be 0 (no neck) to 65,536, got -8"),
        (
            ["--freeze", "99"],
            "--freeze 99: shufflenet_v2_x0_5 has 5 blocks (conv1, stage2, stage3, stage4, conv5); give "
            "no more than these, all or none",
        ),
        (
            ["--miner", "multi-similarity"],
            "--miner goes with --loss contrastive or triplet or multi-similarity, not with arcface",
        ),
        (["--distill-cosine", "1"], "--distill-cosine goes with --teacher, a store of descriptors to imitate"),
        (["--patience", "2"], "--patience 2 needs --val, the pictures that tell a better epoch"),
        (["--pooling", "cls"], "--pooling cls: shufflenet_v2_x0_5 has no class token; use gem, avg or max"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_value_that_cannot_be_is_one_line_and_leaves_nothing(images, options, message):
    files = listing(images)
    assert refused(*TRAIN, *options) == message
    assert listing(images) == files
    assert not Path("model").exists()


STAGES = """
epochs = 1
epoch-size = 8
[[stage]]
freeze = "all"
plain-pictures = true
loss = "softmax"
[[stage]]
freeze = 2
data = "part.csv"
size = 40
optimizer = "sgd"
"""


def test_a_config_may_train_in_stages(images):
    lines = Path("train.csv").read_text().splitlines()
    Path("part.csv").write_text("\n".join(line for line in lines if not line.endswith("-7,arch")) + "\n")
    Path("c.toml").write_text(STAGES)
    result = done(*TRAIN, "--config", "c.toml")
    assert result.stdout.startswith("model: trained 1 epoch in ")
    first, last = (json.loads(done("info", folder, "--json").stdout) for folder in ("model/stage-1", "model"))
    assert [facts["image_spec"]["size"] for facts in (first, last)] == [32, 40]
    used = [facts["made_by"]["training"] for facts in (first, last)]
    assert [one["freeze"] for one in used] == ["all", "2"]
    assert [one["loss"]["name"] for one in used] == ["softmax", "arcface"]
    assert [one["optimizer"] for one in used] == ["adamw", "sgd"]
    assert used[0]["epochs"] == used[1]["epochs"] == 1
    assert first["made_by"]["data"] != last["made_by"]["data"]
    files = listing(images)
    assert "nothing to do" in done(*TRAIN, "--config", "c.toml").stderr
    assert listing(images) == files
    Path("c.toml").write_text(STAGES.replace('"softmax"', '"arcface"'))
    assert refused(*TRAIN, "--config", "c.toml") == (
        "model/stage-1 holds a run with another training configuration (loss name was softmax, is arcface); go on with "
        "that one, or give --overwrite"
    )
    done(*TRAIN, "--config", "c.toml", "--overwrite")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[stage]]\n[[stage]]\nepohcs = 3", "stage 2: epohcs is not an option of a stage; did you mean epochs?"),
        ("[[stage]]\nfreeze = []\nepochs = [1]", "stage 1: freeze takes one value, got []"),
        ("[stage]\nepochs = 3", "stage is a list of tables; begin each with [[stage]]"),
        ("stage = 3", "stage is a list of tables; begin each with [[stage]]"),
    ],
)
def test_a_stage_that_cannot_be_is_one_line_that_names_it(images, text, message):
    Path("c.toml").write_text(text)
    assert refused(*TRAIN, "--config", "c.toml") == f"--config c.toml: {message}"
    assert not Path("model").exists()


def test_what_a_stage_gives_in_vain_is_refused_and_what_stands_above_all_is_not(images):
    Path("c.toml").write_text('margin-rad = 0.2\nepochs = 1\n[[stage]]\nloss = "softmax"\nmargin-cos = 0.1\n')
    expected = "--margin-cos goes with --loss cosface, not with softmax"
    assert refused(*TRAIN, *SMALL, "--config", "c.toml") == expected
    Path("c.toml").write_text('margin-rad = 0.2\nepochs = 1\n[[stage]]\nloss = "softmax"\n')
    done(*TRAIN, "--config", "c.toml")
    Path("c.toml").write_text('margin-rad = 0.2\nloss = "softmax"\n')
    assert refused(*TRAIN, "--config", "c.toml") == "--margin-rad goes with --loss arcface, not with softmax"


def test_overwriting_describes_the_images_of_a_frozen_backbone_anew(images):
    frozen = (*TRAIN, *SMALL, "--freeze", "all", "--plain-pictures")
    done(*frozen)
    (features,) = Path("model").glob("features-*.npy")
    before = features.read_bytes()
    Path("images/train-arch-0.jpg").write_bytes(Path("images/train-dome-0.jpg").read_bytes())
    done(*frozen, "--overwrite")
    assert features.read_bytes() != before


def test_the_network_is_the_same_in_all_stages(images):
    Path("c.toml").write_text('[[stage]]\nbackbone = "resnet18"\n')
    assert refused(*TRAIN, "--config", "c.toml").startswith(
        "--config c.toml: stage 1: backbone is not an option of a stage; did you mean backbone-rate?"
    )
    Path("c.toml").write_text('[[stage]]\nepochs = "three"\n')
    assert misused(*TRAIN, "--config", "c.toml").endswith("'three' is not a valid integer.")


def test_a_search_for_the_rate_draws_it_and_trains_nothing(images):
    result = done(*TRAIN, "--loss", "softmax", "--find-rate", "rates.png")
    assert result.stdout.startswith("rates.png, rates.csv: --backbone-rate ")
    assert Path("rates.png").read_bytes().startswith(b"\x89PNG")
    with Path("rates.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["backbone_rate", "head_rate", "loss"]
    assert float(rows[0]["head_rate"]) == pytest.approx(2e-6)
    assert len(rows) > 20
    assert not Path("model").exists()
    assert "rates.csv" in done(*TRAIN, "--loss", "softmax", "--find-rate", "rates.png").stdout


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("train.png", "--find-rate train.png: its table would replace train.csv; give another name"),
        ("rates.csv", "--find-rate rates.csv: it is drawn as a PNG; give a name that ends in .png"),
    ],
)
def test_a_search_for_the_rate_replaces_nothing_else(images, image, message):
    before = listing(images)
    assert refused(*TRAIN, "--find-rate", image) == message
    assert listing(images) == before


def test_one_landmark_is_not_enough(images):
    write_csv(Path("one.csv"), "id,landmark_id", ["train-arch-0,arch", "train-arch-1,arch"])
    assert refused("train", "one.csv") == "training needs pictures of at least 2 landmarks, got 1; add labelled rows"


def test_a_manifest_must_be_given(images):
    assert misused("train") == "Missing argument 'MANIFEST'."


def test_the_epoch_whose_weights_are_kept_is_said_with_its_figures(images, monkeypatch):
    figures = iter([{"gap": 0.5, "top1": 0.6}, {"gap": 0.75, "top1": 0.7}, {"gap": 0.25, "top1": 0.8}])
    validation = (lambda *_: next(figures)), "digest"
    monkeypatch.setattr("index.evaluate.validation.make_validation", lambda *_: validation)
    said = done(*TRAIN, "--epochs", "3", "--epoch-size", "8", "--val", "val.csv").stdout.strip()
    assert said.endswith(", gap 0.250, top1 0.800; the model is that of epoch 2, gap 0.750, top1 0.700")
    assert json.loads(Path("model/model.json").read_text())["made_by"]["epoch"] == 2
    assert json.loads(Path("model/last/model.json").read_text())["made_by"]["epoch"] == 3
    assert "The weights are those after epoch 2.\n" in Path("model/README.md").read_text()
    assert "The weights are those after epoch 3.\n" in Path("model/last/README.md").read_text()


def test_a_finished_training_is_known_by_what_was_asked_for(images):
    first = done(*TRAIN, *SMALL)
    again = done(*TRAIN, *SMALL)
    assert again.stderr == "model is trained already; nothing to do\n"
    assert again.stdout == first.stdout
    assert refused(*TRAIN, *SMALL, "--seed", "1").startswith("model holds a run with another ")
    write_csv(Path("train.csv"), "id,landmark_id", Path("train.csv").read_text().splitlines()[2:])
    assert refused(*TRAIN, *SMALL).startswith("model holds a run with another data; go on with that one")


def test_a_finished_training_whose_record_is_gone_or_of_other_files_is_found_all_the_same(images):
    done(*TRAIN, *SMALL)
    record = Path("model/trained.json")
    whole = record.read_bytes()
    for content in (None, b"{}", whole.replace(b"request", b"requested")):
        record.unlink()
        if content is not None:
            record.write_bytes(content)
        assert done(*TRAIN, *SMALL).stderr == "model is trained already; nothing to do\n"
        assert record.read_bytes() == whole


def test_a_training_begun_anew_forgets_that_the_old_one_was_finished(images, monkeypatch):
    done(*TRAIN, *SMALL)

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("retrieval.train.loop.save_state", stop)
        assert run(*TRAIN, *SMALL, "--overwrite").exit_code
    assert not Path("model/trained.json").exists()


def test_images_that_are_trained_and_validated_on_are_told(tiny_set):
    said = done(*TRAIN, "--epochs", "1", "--epoch-size", "8", "--val", "train.csv", "--output", "other").stderr
    line = (
        "--val train.csv: 44 images with the id of a training image, such as train-other-0; where these are the same, "
    )
    assert f"{line}GAP and top-1 say too much\n" in said
