import urllib.error
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrieval.embed.torch_embedder import TorchEmbedder
from retrieval.errors import LmrError
from retrieval.extras import install_hint
from retrieval.images.spec import ImageSpec
from retrieval.models.backbones import build_backbone
from retrieval.models.config import ModelConfig
from retrieval.models.network import build_model, load_backbone_weights

torchvision_models = pytest.importorskip("torchvision.models")


def image(size: int) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def message(call: Callable[[], object]) -> str:
    with pytest.raises(LmrError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def flat(network: nn.Module, x: Tensor) -> Tensor:
    """What every family but a few does with its feature map."""
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


FAMILIES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "resnet18": lambda net, x: net.fc(flat(net, x)),  # type: ignore[operator]
    "mobilenet_v3_small": lambda net, x: net.classifier(flat(net, x)),  # type: ignore[operator]
    "shufflenet_v2_x0_5": lambda net, x: net.fc(flat(net, x)),  # type: ignore[operator]
    "mnasnet0_5": lambda net, x: net.classifier(flat(net, x)),  # type: ignore[operator]
    "squeezenet1_1": lambda net, x: net.classifier(x).flatten(1),  # type: ignore[operator]
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_features_with_the_original_classifier_are_the_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = torchvision_models.get_model(name).eval()
    monkeypatch.setattr(torchvision_models.get_model_builder(name).__module__ + "." + name, lambda **_: network)
    backbone = build_backbone(name, {}, image_size=32)
    with torch.inference_mode():
        features = backbone.features(image(64))
        assert features.shape[1] == backbone.n_features
        assert torch.allclose(FAMILIES[name](network, features), network(image(64)), atol=1e-5)


def test_a_vision_transformer_gives_its_class_token_first() -> None:
    torch.manual_seed(0)
    network = torchvision_models.VisionTransformer(image_size=32, **SMALL).eval()
    from retrieval.models.backbones import VisionTransformerFeatures

    with torch.inference_mode():
        nn.init.normal_(network.heads.head.weight)
        tokens = VisionTransformerFeatures(network)(image(32))
        assert tokens.shape == (2, 5, 8)
        assert torch.allclose(network.heads(tokens[:, 0]), network(image(32)), atol=1e-6)


def test_weights_of_the_whole_network_fit_the_backbone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torchvision_models.get_model("shufflenet_v2_x0_5")
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    model = build_model(ModelConfig("shufflenet_v2_x0_5", n_dimensions=8), weights_path=path, image_size=32)
    own = model.backbone.state_dict()
    assert all(torch.equal(own[name], value) for name, value in network.state_dict().items() if name in own)
    assert set(network.state_dict()) - set(own) == {"fc.weight", "fc.bias"}
    other = build_model(ModelConfig("mobilenet_v3_small", n_dimensions=8), image_size=32)
    assert "and " in message(lambda: load_backbone_weights(other, path))


def test_a_network_can_end_earlier() -> None:
    torch.manual_seed(0)
    whole = build_backbone("resnet18", {}, image_size=32).features.eval()
    torch.manual_seed(0)
    cut = build_backbone("resnet18", {}, last_layer="layer3", image_size=32)
    assert cut.n_features == 256
    assert not any(name.startswith("layer4") for name in cut.features.state_dict())
    with torch.inference_mode():
        x = image(32)
        for name, child in whole.named_children():
            if name != "layer4":
                x = child(x)
        assert torch.equal(cut.features.eval()(image(32)), x)
    inner = build_backbone("mobilenet_v3_small", {}, last_layer="features.3", image_size=32)
    assert list(dict(inner.features.features.named_children())) == ["0", "1", "2", "3"]  # type: ignore[union-attr, arg-type]
    assert inner.n_features == 24


def test_whole_weights_fit_a_network_that_ends_earlier(tmp_path: Path) -> None:
    network = torchvision_models.get_model("resnet18")
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    for layer in ("layer2", "layer2.0"):
        config = ModelConfig("resnet18", n_dimensions=8, last_layer=layer)
        own = build_model(config, weights_path=path, image_size=32).backbone.state_dict()
        assert all(torch.equal(network.state_dict()[name], value) for name, value in own.items())


@pytest.mark.parametrize(
    ("name", "layer", "text"),
    [
        ("resnet18", "layer5", "there is no such layer; those of the network are conv1, bn1, relu, maxpool, layer1, "
         "layer2, layer3, layer4"),
        ("resnet18", "layer3.2", "there is no such layer; those of layer3 are 0, 1"),
        ("resnet18", "layer3.0.conv1", "layer3.0 is not a row of layers; end at it or before it"),
        ("resnet18", "", "there is no such layer; those of the network are conv1, bn1, relu, maxpool, layer1, layer2, "
         "layer3, layer4"),
        ("swin_t", "features.3", "only for convolutional networks of torchvision, not swin_t"),
        ("timm:resnet18", "layer3", "only for convolutional networks of torchvision, not timm:resnet18"),
    ],
)  # fmt: skip
def test_a_last_layer_that_cannot_be_is_one_line(name: str, layer: str, text: str) -> None:
    assert message(lambda: build_backbone(name, {}, last_layer=layer)) == f"`last_layer` {layer}: {text}"


def test_pretrained_weights_come_from_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    wanted = torchvision_models.get_model("shufflenet_v2_x0_5").state_dict()
    asked: list[str] = []

    def fetch(url: str, *_: object, **__: object) -> dict[str, Tensor]:
        asked.append(url)
        return wanted

    monkeypatch.setattr(
        torchvision_models.shufflenetv2.WeightsEnum, "get_state_dict", lambda self, *a, **k: fetch(self.url)
    )
    backbone = build_backbone("shufflenet_v2_x0_5", {}, pretrained=True, image_size=32)
    assert len(asked) == 1
    assert "shufflenet" in asked[0]
    assert torch.equal(backbone.features.state_dict()["conv1.0.weight"], wanted["conv1.0.weight"])
    assert backbone.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (urllib.error.URLError("no route"), "<urlopen error no route>"),
        (
            RuntimeError('invalid hash value (expected "1", got "2")\nat x'),
            'invalid hash value (expected "1", got "2")',
        ),
    ],
)
def test_weights_that_cannot_be_fetched_are_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def fail(*_: object, **__: object) -> object:
        raise error

    monkeypatch.setattr("torchvision.models.resnet.resnet18", fail)
    assert message(lambda: build_backbone("resnet18", {}, pretrained=True)) == (
        f"`backbone` resnet18: its pretrained weights cannot be fetched ({reason}); "
        "download them once and give `weights` FILE"
    )


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    text = message(lambda: build_backbone("resnet5O", {}))
    assert text.startswith("`backbone` resnet5O: torchvision has no such network; did you mean resnet50, ")
    assert message(lambda: build_backbone("qqqqqqqq", {})) == "`backbone` qqqqqqqq: torchvision has no such network"


def test_detection_networks_are_no_backbones() -> None:
    assert "torchvision has no such network" in message(lambda: build_backbone("fasterrcnn_resnet50_fpn", {}))


def test_an_unknown_option_is_one_line() -> None:
    text = message(lambda: build_backbone("shufflenet_v2_x0_5", {"widht": 2}, image_size=32))
    assert text.startswith("`backbone` shufflenet_v2_x0_5: ")
    assert "unexpected keyword argument 'widht'" in text
    assert text.endswith('; check `backbone_option` {"widht": 2}')


def test_an_option_reaches_the_constructor() -> None:
    backbone = build_backbone("mobilenet_v3_small", {"width_mult": 0.5}, image_size=32)
    assert backbone.n_features == 288


def test_images_that_are_too_small_for_a_network_are_one_line() -> None:
    assert message(lambda: build_backbone("squeezenet1_1", {}, image_size=16)) == (
        "pictures of 16 pixels are too small for this network; give a larger `size`"
    )


SMALL = {"hidden_dim": 8, "mlp_dim": 8, "num_heads": 2, "num_layers": 1, "patch_size": 16}


class TestOfOneSize:
    """A transformer with learned positions takes images of one size."""

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def vit_b_16(weights: object, **options: object) -> nn.Module:
            network: nn.Module = torchvision_models.VisionTransformer(**(SMALL | {"image_size": 32} | options))
            return network

        monkeypatch.setattr("torchvision.models.vision_transformer.vit_b_16", vit_b_16)

    def test_random_weights_are_made_for_the_size_asked_for(self) -> None:
        model = build_model(ModelConfig("vit_b_16", pooling="cls", n_dimensions=0), image_size=48)
        assert model(image(48)).shape == (2, 8)

    def test_pretrained_weights_are_refused_at_another_size(self) -> None:
        config = ModelConfig("vit_b_16", pooling="cls", n_dimensions=0)
        assert message(lambda: build_model(config, pretrained=True, image_size=48)) == (
            "vit_b_16 takes pictures of 32 pixels here, not of 48; give `size` 32, or train at the size you want"
        )

    def test_embedding_at_another_size_is_refused(self) -> None:
        model = build_model(ModelConfig("vit_b_16", pooling="cls", n_dimensions=0), image_size=48)
        assert message(lambda: TorchEmbedder(model, ImageSpec(size=32), torch.device("cpu"))) == (
            "vit_b_16 takes pictures of 48 pixels here, not of 32; give `size` 48, or train at the size you want"
        )

    def test_a_size_that_patches_do_not_fill_is_one_line(self) -> None:
        config = ModelConfig("vit_b_16", pooling="cls", n_dimensions=0)
        text = message(lambda: build_model(config, image_size=40))
        assert text.startswith("`backbone` vit_b_16: Input shape indivisible by patch size!")

    def test_it_can_be_embedded(self) -> None:
        model = build_model(ModelConfig("vit_b_16", pooling="cls", n_dimensions=0), image_size=32)
        images = (image(32).permute(0, 2, 3, 1) * 255).byte().numpy()
        assert TorchEmbedder(model, ImageSpec(size=32), torch.device("cpu")).embed_batch(images).shape == (2, 8)


def test_timm_networks_are_built_and_take_their_own_weights(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="the extra timm is not installed")
    options = {"img_size": 32, "depth": 1, "embed_dim": 8, "num_heads": 2}
    config = ModelConfig("timm:vit_tiny_patch16_224", pooling="cls", n_dimensions=0, backbone_options=options)
    model = build_model(config, image_size=32)
    network = timm.create_model("vit_tiny_patch16_224", pretrained=False, **options)
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    load_backbone_weights(model, path)
    with torch.inference_mode():
        expected = F.normalize(network.eval().forward_features(image(32))[:, 0])
        assert torch.allclose(model.eval()(image(32)), expected, atol=1e-6)
    assert model.n_prefix_tokens == 1
    assert "timm:vit_tiny_patch16_224 takes pictures of 32 pixels here, not of 48" in message(
        lambda: build_model(config, image_size=48)
    )


def test_a_misspelt_timm_network_is_answered_with_the_nearest() -> None:
    pytest.importorskip("timm", reason="the extra timm is not installed")
    text = message(lambda: build_backbone("timm:efficientnet_lit0", {}))
    assert text.startswith("`backbone` timm:efficientnet_lit0: timm has no such network; did you mean ")
    assert "efficientnet_lite0" in text


def test_without_timm_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    assert message(lambda: build_backbone("timm:resnet18", {})) == (
        f"`backbone` timm:resnet18: needs timm; {install_hint('timm')}"
    )


@pytest.mark.parametrize("pool", ["max", "avg"])
def test_the_plain_convolutions_halve_the_image_in_each_block(pool: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone("plain-cnn", {"pool": pool, "widths": [4, 6]})
    x = image(16)
    features = backbone.features(x)
    assert features.shape == (2, 6, 4, 4)
    assert backbone.n_features == 6
    first = torch.relu(backbone.features[0][0](x))  # type: ignore[index]
    pooled = F.max_pool2d(first, 2) if pool == "max" else F.avg_pool2d(first, 2)
    second = torch.relu(backbone.features[1][0](pooled))  # type: ignore[index]
    assert torch.equal(features, F.max_pool2d(second, 2) if pool == "max" else F.avg_pool2d(second, 2))


def test_the_plain_perceptron_sees_the_pixels_of_any_size_as_a_grid() -> None:
    backbone = build_backbone("plain-mlp", {"grid": 4, "width": 5, "n_layers": 1})
    backbone.features.eval()
    x = image(8)
    by_hand = torch.relu(backbone.features[2](F.avg_pool2d(x, 2).flatten(1)))  # type: ignore[index]
    assert torch.allclose(backbone.features(x), by_hand[:, :, None, None], atol=1e-6)
    assert backbone.features(image(32)).shape == (2, 5, 1, 1)


def test_a_network_without_published_weights_is_refused_and_a_plain_one_names_its_options() -> None:
    for name in ("plain-cnn", "timm:coatnet_0_224"):
        assert message(lambda name=name: build_backbone(name, {}, pretrained=True)) == (
            f"`backbone` {name}: there are no pretrained weights of it; leave out `pretrained` "
            "(in a recipe: pretrained=false)"
        )
    assert message(lambda: build_backbone("plain-cnn", {"pool": "median"})) == (
        '`backbone` plain-cnn: pool is max or avg, got median; check `backbone_option` {"pool": "median"}'
    )
    assert message(lambda: build_backbone("plain-cn", {})) == (
        "`backbone` plain-cn: torchvision has no such network; did you mean plain-cnn, plain-mlp?"
    )
