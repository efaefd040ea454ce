"""Which network `lmr demo` trains, and compares with."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_set import HERE, done, refused

from cli.demo.config import DemoJob
from cli.demo.run import Outcome, _with_whole_paths
from retrieval.jobs import build
from retrieval.models.checkpoint import read_card
from retrieval.models.packaged import LITE2, PACKAGED
from retrieval.progress import SILENT


@pytest.mark.parametrize(
    ("change", "last_layer"),
    [
        ({}, "layer3"),
        ({"size": 127}, "layer3"),
        ({"size": 128}, None),
        ({"pretrained": True}, None),
        ({"weights": Path("w.pt")}, None),
        ({"backbone": "mobilenet_v3_small"}, None),
        ({"last_layer": "layer4"}, "layer4"),
    ],
)
def test_a_small_network_from_scratch_ends_at_layer3(change, last_layer):
    assert build(DemoJob, change).settled().network.last_layer == last_layer


@pytest.mark.skipif(not PACKAGED[LITE2].is_installed(), reason="the extra weights is not installed")
def test_ones_own_images_are_for_the_installed_network_unless_another_is_asked_for():
    own = {"images": "own", "progress": SILENT}
    assert settled(own) == (LITE2, 224, 10, "5", False)
    assert settled({**own, "backbone": LITE2, "size": 96, "epochs": 2}) == (LITE2, 96, 2, "5", False)
    assert settled({**own, "pretrained": True}) == ("resnet18", 64, 26, "none", False)
    assert settled({**own, "backbone": "resnet18"}) == ("resnet18", 64, 26, "none", True)
    assert settled({}) == ("resnet18", 64, 26, "none", True)


def settled(change):
    training = build(DemoJob, change).settled()
    config, network = training.config, training.network
    return network.backbone, training.size, config.epochs, config.freeze, network.is_from_scratch


def make_own(n):
    """Images of three landmarks in the folder `own`."""
    rng = np.random.default_rng(0)
    for label in range(3):
        Path("own", str(label)).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((64, 64)).save(
                f"own/{label}/{label}-{i}.png"
            )


@pytest.mark.skipif(not PACKAGED[LITE2].is_installed(), reason="the extra weights is not installed")
def test_of_a_network_with_weights_the_one_that_is_better_on_val_answers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_own(5)
    demo = ("demo", "d", "--images", "own", "--size", "32", "--epochs", "1", "--json", *HERE)
    Path("d").mkdir()
    Path("d/train.h5").write_bytes(b"mine")
    told = "train.h5: there already, and not of this demo; give --overwrite or another folder"
    assert refused(*demo) == told
    assert [path.name for path in Path("d").iterdir()] == ["train.h5"]
    Path("d/train.h5").unlink()
    monkeypatch.setattr("cli.demo.choice._val_gap", lambda index: float(index.parent.name == "trained"))
    assert json.loads(done(*demo).stdout)["is_trained"]
    first = done("info", "d/landmarks", "--json").stdout
    assert read_card(Path("d/model")) == read_card(Path("d/trained/model"))
    monkeypatch.setattr("cli.demo.choice._val_gap", lambda index: 0.5)
    assert not json.loads(done(*demo, "--overwrite").stdout)["is_trained"]
    assert read_card(Path("d/model")) == read_card(Path("d/untrained/model"))
    assert done("info", "d/landmarks", "--json").stdout != first
    done("evaluate", "d/test_solution.csv", "--index", "d/landmarks", *HERE)
    Path("d/untrained/landmarks").rename("gone")
    assert not json.loads(done(*demo).stdout)["is_trained"]


def test_weights_are_found_from_the_folder_where_they_were_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = _with_whole_paths(build(DemoJob, {"weights": Path("w.pt"), "images": Path("own")}))
    assert (job.network.weights, job.images) == (tmp_path / "w.pt", tmp_path / "own")


def test_overwriting_makes_the_untrained_network_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_own(8)
    demo = ("demo", "d", "--images", "own", "--backbone", "shufflenet_v2_x0_5", "--dimensions", "0", "--epochs", "1")
    done(*demo, "--size", "32", *HERE)
    done(*demo, "--size", "48", "--overwrite", *HERE)
    cards = [read_card(Path("d", folder)) for folder in ("model", "untrained/model")]
    assert [card.image_spec.size for card in cards] == [48, 48]


def test_what_it_made_is_served_in_the_end_on_any_free_port(tmp_path, monkeypatch):
    served = []
    monkeypatch.chdir(tmp_path)
    Path("d").mkdir()
    outcome = Outcome(0.9, 0.8, 0.1, True, Path("report.html"), Path("sheet.jpg"), Path("submission.csv"))
    monkeypatch.setattr("cli.demo.command.run_demo", lambda _: outcome)
    monkeypatch.setattr("cli.demo.command.serve", lambda job: served.append((job, Path.cwd())))
    assert done("demo", "d").stdout.startswith("GAP 0.900")
    assert served == []
    assert done("demo", "d", "--device", "cpu", "--serve").stdout.startswith("GAP 0.900")
    ((job, folder),) = served
    assert (folder, job.index, job.web.port, job.device) == (tmp_path / "d", Path("landmarks"), 0, "cpu")
    assert Path.cwd() == tmp_path
