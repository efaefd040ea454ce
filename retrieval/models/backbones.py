"""Backbones by name: any torchvision classification network, any timm network as `timm:<name>`, and two plain ones.

A backbone turns (b, 3, h, w) into features: a map (b, c, h', w') or, for transformers, tokens (b, n, c) of which
the first `n_prefix_tokens` belong to no place in the image (the class token among them).
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from retrieval.errors import LmrError
from retrieval.models.device import explained
from retrieval.models.libraries import timm_with, torchvision_maker
from retrieval.models.names import TIMM, module_of, require_name

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's weights

TORCHVISION_LICENCE = "none of their own; torchvision says that terms may follow from the data they were trained on"
_WITHOUT_A_MAP = (TIMM, "vit", "swin", "plain-")  # networks whose layers give no (b, c, h, w), or hide them
_HEADS = ("fc", "classifier", "heads", "head", "AuxLogits", "aux1", "aux2")


@dataclass(frozen=True, slots=True)
class Backbone:
    """A network without its classifier.

    heads: name prefixes of the weights that a state dict of the whole network holds besides: of its classifier and of
    layers after the last one.
    mean, std: per channel, of images in [0, 1], that the library's own weights expect.
    image_size: side in pixels of the only images that it takes; None = any.
    licence: what the library says of the terms of its own weights.
    """

    features: nn.Module
    n_features: int
    n_prefix_tokens: int
    heads: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_size: int | None = None
    licence: str = TORCHVISION_LICENCE


def build_backbone(
    name: str,
    options: Mapping[str, Any],
    *,
    last_layer: str | None = None,
    pretrained: bool = False,
    image_size: int = 224,
) -> Backbone:
    """The named network, with random weights or (`pretrained`) the library's default ones.

    options: keyword arguments of the library's constructor. last_layer: where to end, None = before the pooling.
    LmrError: an unknown name, option or layer, timm missing, weights that cannot be fetched.
    """
    if last_layer is not None and name.startswith(_WITHOUT_A_MAP):
        raise LmrError(f"`last_layer` {last_layer}: only for convolutional networks of torchvision, not {name}")
    require_name(name, pretrained=pretrained)
    try:
        if name in PLAIN:
            return _plain_backbone(name, dict(options))
        if not name.startswith(TIMM):
            return _torchvision_backbone(name, dict(options), last_layer, pretrained, image_size)
        return _timm_backbone(name, dict(options), pretrained, image_size)
    except (TypeError, ValueError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise LmrError(f"`backbone` {name}: {reason}; check `backbone_option` {json.dumps(dict(options))}") from error
    except OSError as error:
        reason = str(error).split("\n")[0]
        raise LmrError(
            f"`backbone` {name}: its pretrained weights cannot be fetched ({reason}); "
            "download them once and give `weights` FILE"
        ) from error


class ConvolutionalFeatures(nn.Module):
    """The feature map before the global pooling of a torchvision network, whatever its family.

    Families with `features` end there; the others are run child by child until their pooling or classifier.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        for name, child in network.named_children():
            if name in ("avgpool", "fc", "classifier", "flatten", "dropout"):
                break
            if name not in _HEADS:
                self.add_module(name, child)
        self._transform = getattr(network, "_transform_input", None)
        self._is_densenet = type(network).__name__ == "DenseNet"

    def end_at(self, layer: str) -> list[str]:
        """Removes what comes after the layer of this dotted name; the names of what was removed.

        LmrError when there is no such layer, or it is not one of a row of layers.
        """
        row: nn.Module = self
        removed = []
        names = layer.split(".")
        for depth, name in enumerate(names):
            within = [child for child, _ in row.named_children()]
            above = ".".join(names[:depth]) or "the network"
            if not isinstance(row, nn.Sequential | nn.ModuleList | ConvolutionalFeatures):
                raise LmrError(f"`last_layer` {layer}: {above} is not a row of layers; end at it or before it")
            if name not in within:
                raise LmrError(
                    f"`last_layer` {layer}: there is no such layer; those of {above} are {', '.join(within)}"
                )
            for gone in within[within.index(name) + 1 :]:
                delattr(row, gone)
                removed.append(".".join([*names[:depth], gone]))
            row = getattr(row, name)
        self._is_densenet = self._is_densenet and not removed
        return removed

    def forward(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) -> (b, c, h', w')."""
        x = self._transform(images) if self._transform else images
        for child in self.children():
            for layer in child if isinstance(child, nn.ModuleList) else (child,):
                x = layer(x)
        return torch.relu(x) if self._is_densenet else x


class PlainMLP(nn.Sequential):
    """A multilayer perceptron on the pixels of an image that is made grid x grid: (b, 3, h, w) -> (b, width, 1, 1).

    n_layers: hidden layers, each with a ReLU and dropout.
    """

    def __init__(self, *, grid: int = 32, width: int = 512, n_layers: int = 2, dropout: float = 0.2) -> None:
        layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(grid), nn.Flatten()]
        n_inputs = 3 * grid * grid
        for _ in range(n_layers):
            layers += [nn.Linear(n_inputs, width), nn.ReLU(), nn.Dropout(dropout)]
            n_inputs = width
        super().__init__(*layers, nn.Unflatten(1, (n_inputs, 1, 1)))
        self.n_features = n_inputs


class PlainCNN(nn.Sequential):
    """Blocks of a 3 x 3 convolution, ReLU and pooling by two: (b, 3, h, w) -> (b, last width, h', w').

    pool: `max` or `avg`. widths: channels of each block.
    """

    def __init__(self, *, pool: str = "max", widths: Sequence[int] = (32, 64, 128)) -> None:
        if pool not in ("max", "avg"):
            raise ValueError(f"pool is max or avg, got {pool}")
        pooling = nn.MaxPool2d if pool == "max" else nn.AvgPool2d
        blocks = [
            nn.Sequential(nn.Conv2d(n_inputs, width, 3, padding=1), nn.ReLU(), pooling(2))
            for n_inputs, width in itertools.pairwise((3, *widths))
        ]
        super().__init__(*blocks)
        self.n_features = (3, *widths)[-1]


PLAIN: Mapping[str, type[PlainMLP] | type[PlainCNN]] = {"plain-mlp": PlainMLP, "plain-cnn": PlainCNN}


class VisionTransformerFeatures(nn.Module):
    """Tokens (b, 1 + h' * w', c) of torchvision's VisionTransformer, the class token first."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.conv_proj, self.encoder, self.class_token = (
            network.conv_proj,
            network.encoder,
            network.class_token,
        )

    def forward(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) -> (b, 1 + h' * w', c)."""
        patches = self.conv_proj(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(images.shape[0], -1, -1), patches], dim=1)
        return cast(Tensor, self.encoder(tokens))


class TimmFeatures(nn.Module):
    """Features of a timm network, channels first where they are a map."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) -> (b, c, h', w') or (b, n, c)."""
        features = cast(Tensor, self.network.forward_features(images))
        if features.ndim == 4 and features.shape[1] != self.network.num_features:
            return features.permute(0, 3, 1, 2)
        return features


def _plain_backbone(name: str, options: dict[str, Any]) -> Backbone:
    network = PLAIN[name](**options)
    return Backbone(network, network.n_features, 0, _HEADS, IMAGENET_MEAN, IMAGENET_STD)


def _torchvision_backbone(
    name: str, options: dict[str, Any], last_layer: str | None, pretrained: bool, image_size: int
) -> Backbone:
    if not pretrained:
        options = _random_network_options(name, image_size) | options
    network = _build_network(name, pretrained, options)
    normalisation = (IMAGENET_MEAN, IMAGENET_STD)
    if name.startswith("vit"):
        tokens = VisionTransformerFeatures(network)
        return Backbone(tokens, network.hidden_dim, 1, _HEADS, *normalisation, image_size=network.image_size)
    features = ConvolutionalFeatures(network)
    removed = features.end_at(last_layer) if last_layer is not None else []
    # MaxViT keeps no record of its size; its weights are for 224 pixels.
    only_size = options.get("input_size", (224, 224))[0] if name.startswith("maxvit") else None
    n_features = _channels(features, only_size or image_size)
    return Backbone(features, n_features, 0, (*_HEADS, *removed), *normalisation, image_size=only_size)


def _build_network(name: str, pretrained: bool, options: dict[str, Any]) -> Any:
    """OSError: a download that arrived damaged (torch calls it a RuntimeError)."""
    make = torchvision_maker(module_of(name), name)
    try:
        return make(weights="DEFAULT" if pretrained else None, **options)
    except RuntimeError as error:
        raise (OSError if pretrained else ValueError)(str(error)) from error


def _random_network_options(name: str, image_size: int) -> dict[str, Any]:
    """Arguments that the constructors of some families need when they start from random weights."""
    if name.startswith(("googlenet", "inception")):
        return {"init_weights": True, "aux_logits": False}
    if name.startswith("vit"):
        return {"image_size": image_size}
    return {"input_size": (image_size, image_size)} if name.startswith("maxvit") else {}


def _timm_backbone(name: str, options: dict[str, Any], pretrained: bool, image_size: int) -> Backbone:
    timm = timm_with(module_of(name))
    name = name.removeprefix(TIMM)
    known = timm.get_pretrained_cfg(name)
    if known is not None and known.fixed_input_size and image_size != known.input_size[-1]:
        options = {"img_size": image_size} | options
    try:
        network: Any = timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
    except RuntimeError as error:
        raise (OSError if pretrained else ValueError)(str(error)) from error
    configuration = network.pretrained_cfg
    own_size = options.get("img_size", configuration.get("input_size", (3, image_size))[-1])
    heads = configuration.get("classifier") or ()
    return Backbone(
        TimmFeatures(network),
        network.num_features,
        getattr(network, "num_prefix_tokens", 0),
        tuple({heads} if isinstance(heads, str) else set(heads)),
        tuple(configuration.get("mean", IMAGENET_MEAN)),
        tuple(configuration.get("std", IMAGENET_STD)),
        image_size=own_size if configuration.get("fixed_input_size") else None,
        licence=configuration.get("license") or "timm names none",
    )


def _channels(features: nn.Module, image_size: int) -> int:
    """Channels of the feature map, by running one empty image through."""
    training = features.training
    features.eval()
    with torch.inference_mode(), explained(torch.device("cpu"), 1, image_size, "lower `size`"):
        n_features = features(torch.zeros(1, 3, image_size, image_size)).shape[1]
    features.train(training)
    return int(n_features)
