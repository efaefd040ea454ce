import pytest
import torch
from tiny_world import tiny_model
from torch import nn

from retrieval.errors import LmrError
from retrieval.models.backbones import ConvolutionalFeatures, TimmFeatures, VisionTransformerFeatures
from retrieval.train.optim import blocks, freeze, train_mode


def torchvision_features(name: str) -> nn.Module:
    """Of a network without memory for its weights, where it can be built so."""
    import torchvision.models as models

    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        network = models.get_model(name, weights=None)
        return VisionTransformerFeatures(network) if name.startswith("vit") else ConvolutionalFeatures(network)


def timm_features(name: str) -> nn.Module:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        return TimmFeatures(timm.create_model(name, num_classes=0))


def trained(module: nn.Module) -> set[str]:
    return {name for name, p in module.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("name", "n", "last"),
    [
        ("resnet18", 5, "layer4"),
        ("vgg16", 13, "28"),
        ("vgg16_bn", 13, "40"),
        ("mobilenet_v3_small", 13, "12"),
        ("efficientnet_b0", 9, "8"),
        ("convnext_tiny", 8, "7"),
        ("swin_t", 8, "7"),
        ("densenet121", 8, "denseblock4"),
        ("regnet_y_400mf", 5, "block4"),
        ("vit_b_16", 13, "encoder_layer_11"),
    ],
)
def test_the_blocks_of_torchvision_networks(name: str, n: int, last: str) -> None:
    found = blocks(torchvision_features(name))
    assert (len(found), found[-1][0]) == (n, last)


@pytest.mark.parametrize(
    ("name", "n", "last"),
    [
        ("resnet18", 5, "layer4"),
        ("tf_efficientnet_lite0", 9, "conv_head"),
        ("convnext_atto", 5, "3"),
        ("vit_tiny_patch16_224", 13, "11"),
        ("swin_tiny_patch4_window7_224", 5, "3"),
    ],
)
def test_the_blocks_of_timm_networks(name: str, n: int, last: str) -> None:
    found = blocks(timm_features(name))
    assert (len(found), found[-1][0]) == (n, last)


def test_keras_first_fifteen_layers_of_vgg16_are_all_but_the_last_three_blocks() -> None:
    """Keras counts the input and the poolings: its layers 15, 16 and 17 are the three convolutions of block 5."""
    names = [name for name, _ in blocks(torchvision_features("vgg16"))]
    assert names[-3:] == ["24", "26", "28"]


def test_freezing_all_but_the_last_block_trains_it_with_its_norm_and_the_head() -> None:
    model = tiny_model()
    freeze(model, "1")
    head = {"gem.p", "neck.0.weight", "neck.1.weight", "neck.1.bias"}
    assert trained(model) == head | {"backbone.3.weight", "backbone.4.weight", "backbone.4.bias"}
    freeze(model, "all")
    assert trained(model) == head - {"gem.p"}
    freeze(model, "2")
    everything = trained(model)
    freeze(model, "none")
    assert everything == trained(model) == {name for name, _ in model.named_parameters()}


def test_weights_that_stand_outside_the_blocks_are_trained_with_the_first() -> None:
    model = tiny_model()
    model.backbone.register_parameter("class_token", nn.Parameter(torch.zeros(1)))
    freeze(model, "1")
    assert "backbone.class_token" not in trained(model)
    freeze(model, "2")
    assert "backbone.class_token" in trained(model)


def test_frozen_batch_norms_keep_their_statistics() -> None:
    model = tiny_model()
    freeze(model, "1")
    train_mode(model)
    frozen, free = model.backbone[1], model.backbone[4]
    before = [norm.running_mean.clone() for norm in (frozen, free)]
    model(torch.randn(2, 3, 16, 16))
    assert torch.equal(before[0], frozen.running_mean)
    assert not torch.equal(before[1], free.running_mean)
    assert model.neck.training


def test_nothing_in_a_frozen_backbone_is_dropped_out() -> None:
    model = tiny_model()
    model.backbone.add_module("drop", nn.Dropout(0.5))
    freeze(model, "all")
    train_mode(model)
    assert not model.backbone.drop.training
    freeze(model, "none")
    train_mode(model)
    assert model.backbone.drop.training


def test_more_blocks_than_there_are_is_one_line_that_names_them() -> None:
    with pytest.raises(LmrError) as caught:
        freeze(tiny_model(), "3")
    assert str(caught.value) == "`freeze` 3: tiny has 2 blocks (0, 3); give no more than these, all or none"
