"""Options that say which network to build, with which weights, on pictures prepared how."""

import importlib.metadata
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from cli.options import PATH, pick_values, value_options
from retrieval.errors import LmrError
from retrieval.files.digest import sha256_file
from retrieval.images.codecs.color import Colors
from retrieval.images.preprocess import MOST_PIXELS, ImageSpec
from retrieval.models.card import Description
from retrieval.models.config import DescriptorPart, ModelConfig

if TYPE_CHECKING:
    from retrieval.models.network import DescriptorModel

F = TypeVar("F", bound=Callable[..., Any])

_LIBRARIES = ("lmr", "torch", "torchvision", "timm")  # whose versions decide what a network starts from
_PREPARATION = ("size", "fit", "colors", "mean", "std", "descriptor", "scales", "flip")

MAX_SCALE = 8  # of a picture's size; a larger one is a slip of the keyboard

_MODEL_HELP = {
    "pooling": "How the feature map becomes one vector.",
    "gem_p": "Exponent at which GeM pooling starts.",
    "n_dimensions": "Length of a descriptor; 0 = the pooled features, without a neck.",
    "prelu": "End the neck with a PReLU.",
    "last_layer": "Where a network of torchvision ends, such as layer3. [default: before its pooling]",
}


def network_options(command: F) -> F:
    """The network, its weights and its normalisation."""
    return network_options_from(ModelConfig())(command)


def network_options_from(defaults: ModelConfig) -> Callable[[F], F]:
    """The same, for a command that has defaults of its own."""

    def decorate(command: F) -> F:
        for option in _network_options(defaults):
            command = option(command)
        return command

    return decorate


def picture_options(command: F) -> F:
    """How pictures are prepared."""
    default = ImageSpec()
    for option in (
        click.option(
            "--colors",
            type=click.Choice(get_args(Colors)),
            default=None,
            help=f"By a picture's colour profile, or as they are stored. [default: {default.colors}, or the model's]",
        ),
        click.option(
            "--fit",
            type=click.Choice(["squash", "crop", "pad"]),
            default=None,
            help=f"How a picture becomes square. [default: {default.fit}, or the model's]",
        ),
        click.option(
            "--size",
            type=click.IntRange(16, MOST_PIXELS),
            default=None,
            help=f"Side of the square input, pixels. [default: {default.size}, or the model's]",
        ),
    ):
        command = option(command)
    return command


def description_options(command: F) -> F:
    """How a network describes prepared pictures."""
    for option in (
        click.option(
            "--descriptor",
            type=click.Choice(get_args(DescriptorPart)),
            default=None,
            help="What the neck gives, the pooled features before it, or both. [default: neck, or the model's]",
        ),
        click.option(
            "--scales",
            metavar="F,F,...",
            default=None,
            help="Average over sizes, factors of --size, such as 0.707,1,1.414. [default: 1, or the model's]",
        ),
        click.option("--flip", is_flag=True, default=None, help="Average with the mirrored picture."),
    ):
        command = option(command)
    return command


def description_of(values: Mapping[str, Any]) -> Description:
    """What the options of `picture_options` and `description_options` say."""
    names = ("size", "fit", "colors", "flip", "descriptor")
    return Description(scales=_parse_scales(values["scales"]), **{name: values[name] for name in names})


def require_network(values: Mapping[str, Any]) -> None:
    """LmrError for options of a network that cannot be, as far as that can be told without making it."""
    from retrieval.models.names import require_name

    require_one_start(values)
    require_name(values["backbone"], pretrained=values["pretrained"])
    for text in values["backbone_options"]:
        _parse_option(text)
    for option in ("mean", "std"):
        _parse_channels(f"--{option}", values[option])


def network_request(values: Mapping[str, Any]) -> dict[str, Any]:
    """All that a network and its preparation are made from, as JSON has it: the same request makes the same network."""
    names = ("pretrained", "backbone_options", *_PREPARATION, *(item.name for item in fields(ModelConfig)))
    weights: Path | None = values["weights"]
    libraries = {}
    for name in _LIBRARIES:
        try:
            libraries[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            libraries[name] = ""
    return {
        **{name: values[name] for name in names if name in values},
        "weights": sha256_file(weights) if weights is not None and weights.is_file() else None,
        "libraries": libraries,
    }


def build_network(values: Mapping[str, Any]) -> "tuple[DescriptorModel, ImageSpec]":
    """The network and preparation that the options ask for."""
    from retrieval.models.network import build_model

    require_one_start(values)
    options = dict(_parse_option(text) for text in values["backbone_options"])
    config = pick_values(
        ModelConfig, {k: v for k, v in values.items() if k != "backbone_options"}, backbone_options=options
    )
    spec = adjust_spec(ImageSpec(), values)
    weights: Path | None = values["weights"]
    model = build_model(config, pretrained=values["pretrained"], weights_path=weights, image_size=spec.size)
    mean = _parse_channels("--mean", values["mean"]) or model.mean
    std = _parse_channels("--std", values["std"]) or model.std
    try:
        return model, replace(spec, mean=mean, std=std)
    except ValueError as error:
        raise LmrError(f"--{error}") from error  # its text begins with the field's name, which is the option's


def require_one_start(values: Mapping[str, Any]) -> None:
    """LmrError where a network would start from two sets of weights."""
    if values["pretrained"] and values["weights"]:
        raise LmrError("--pretrained and --weights exclude each other; give one (in a recipe: pretrained=false)")


def adjust_spec(spec: ImageSpec, values: Mapping[str, Any]) -> ImageSpec:
    """The preparation with the size, fit and colours that were asked for, where they were."""
    asked = {name: values.get(name) for name in ("size", "fit", "colors")}
    return replace(spec, **{name: value for name, value in asked.items() if value is not None})


def _network_options(defaults: ModelConfig) -> Sequence[Callable[[F], F]]:
    """Last option first, as decorators are applied."""
    return (
        click.option("--std", metavar="R,G,B", default=None, help="Of pictures in [0, 1]. [default: the weights' own]"),
        click.option(
            "--mean", metavar="R,G,B", default=None, help="Of pictures in [0, 1]. [default: the weights' own]"
        ),
        click.option("--weights", type=PATH, default=None, help="State dict of the backbone: .pt, .pth, .safetensors."),
        click.option("--pretrained", is_flag=True, help="Start from the library's default weights."),
        click.option(
            "--backbone-option",
            "backbone_options",
            multiple=True,
            metavar="NAME=VALUE",
            help="Argument of the library's constructor, such as pad_type=same.",
        ),
        value_options(defaults, _MODEL_HELP),
        value_options(
            defaults, {"backbone": "Any torchvision classification network, timm:NAME, plain-cnn or plain-mlp."}
        ),
    )


def _parse_option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise LmrError(f"--backbone-option {text}: expected NAME=VALUE, such as pad_type=same")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _parse_scales(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        scales = tuple(float(part) for part in text.split(","))
    except ValueError:
        scales = ()
    if not scales or not all(0 < scale <= MAX_SCALE for scale in scales):
        raise LmrError(
            f"--scales {text}: expected numbers above 0 up to {MAX_SCALE} with commas, such as 0.707,1,1.414"
        )
    return scales


def _parse_channels(option: str, text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError as error:
        raise LmrError(f"{option} {text}: expected three numbers with commas, such as 0.5,0.5,0.5") from error
    return red, green, blue
