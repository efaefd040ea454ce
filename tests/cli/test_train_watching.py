"""What `lmr train` tells: the layers, figures for TensorBoard, a page in the model folder."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tiny_set import NETWORK, done, listing, refused

from retrieval.extras import install_hint

TRAIN = ("train", "train.csv", *NETWORK, "--workers", "0", "--threads", "1", "--device", "cpu", "--batch-size", "4")
SMALL = ("--epochs", "2", "--epoch-size", "8")


def test_a_summary_is_printed_and_nothing_trained(images):
    files = listing(images)
    lines = done(*TRAIN, "--summary", "--dimensions", "8").stdout.splitlines()
    assert lines[0].split() == ["layer", "kind", "gives", "parameters"]
    assert lines[1].split()[:3] == ["backbone.conv1.0", "Conv2d", "24"]
    assert lines[-3].split() == ["neck.0", "Linear", "8", "8,192"]
    assert lines[-1].endswith(" of them trained")
    assert listing(images) == files


def test_a_model_has_a_page_that_says_what_it_is(images):
    done(*TRAIN, *SMALL, "--val", "val.csv")
    page = Path("model/README.md").read_text()
    assert "# A model of lmr: shufflenet_v2_x0_5\n" in page
    assert "Started from: random numbers.\nLicence of those weights: none, they are random.\n" in page
    assert "\nepochs = 2\n" in page
    assert '\n[loss]\nname = "arcface"\n' in page
    header = next(line for line in page.splitlines() if line.startswith("| epoch "))
    assert header.startswith("| epoch | loss | rate | gap | top1 | seconds |")
    assert Path("model/last/README.md").is_file()


def test_a_page_names_the_file_that_the_weights_come_from(images):
    import torch
    import torchvision

    torch.save(torchvision.models.shufflenet_v2_x0_5().state_dict(), "given.pt")
    done("embed", *NETWORK, "--weights", "given.pt", "--workers", "0", "--threads", "1", "--device", "cpu")
    page = Path("model/README.md").read_text()
    assert "Started from: the file given.pt.\nLicence of those weights: not in the file; ask whoever" in page
    assert "## Training\n\nNone by lmr.\n" in page


def test_each_epoch_is_written_for_tensorboard(images, monkeypatch):
    written: list[tuple[object, ...]] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            written.append((folder, purge_step))

        def add_scalar(self, *what: object) -> None:
            written.append(what)

        def close(self) -> None:
            written.append(("closed",))

    fake = ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    done(*TRAIN, *SMALL, "--tensorboard")
    names = ("loss", "rate", "seconds")
    folder = str(Path("model/tensorboard"))
    assert [what[::2] if len(what) == 3 else what for what in written] == [
        line for epoch in (1, 2) for line in ((folder, epoch), *((name, epoch) for name in names), ("closed",))
    ]


def test_without_its_package_tensorboard_is_refused_before_training(images, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    message = refused(*TRAIN, *SMALL, "--tensorboard")
    assert message.startswith("--tensorboard needs tensorboard (")
    assert message.endswith(f"); {install_hint('tensorboard')}")
    assert not Path("model").exists()


@pytest.mark.parametrize("name", ["plain-mlp", "plain-cnn"])
def test_the_plain_networks_train(images, name):
    words = ("train", "train.csv", "--backbone", name, "--size", "16", "--workers", "0", "--threads", "1")
    done(*words, "--device", "cpu", "--batch-size", "4", "--epochs", "1", "--epoch-size", "8", "--pooling", "avg")
    facts = json.loads(done("info", "model", "--json").stdout)
    assert facts["config"]["backbone"] == name
    assert [row["epoch"] for row in facts["made_by"]["log"]] == [1]
