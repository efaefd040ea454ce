"""Requests for a network and the preparation of its images: the words of embed, train, export and compare."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from retrieval.errors import LmrError
from retrieval.files.digest import sha256_file
from retrieval.images.spec import MOST_PIXELS, Colors, ImageSpec
from retrieval.jobs import Job, option
from retrieval.models.card import EmbedSettings
from retrieval.models.config import DescriptorPart, ModelConfig, Pooling
from retrieval.models.packaged import EXTRA, LITE2, PACKAGED, PackagedNetwork, require_packaged
from retrieval.progress import SILENT, Progress

if TYPE_CHECKING:
    from retrieval.models.network import DescriptorModel

MAX_SCALE = 8  # of an image's size; a larger one is a slip of the keyboard
_LIBRARIES = ("lmr", "torch", "torchvision", "timm")  # whose versions decide what a network starts from
_CONFIG = ModelConfig()
_SPEC = ImageSpec()


@dataclass(frozen=True, kw_only=True)
class PreparationRequest:
    """Preparation of images; None = as the model says, or by default."""

    size: int | None = option(
        None,
        low=16,
        high=MOST_PIXELS,
        default_text=f"{_SPEC.size}, or the model's",
        help="Side of the square input in pixels.",
    )
    fit: Literal["squash", "crop", "pad"] | None = option(
        None, default_text=f"{_SPEC.fit}, or the model's", help="Resizing to the square input: squash, crop or pad."
    )
    colors: Colors | None = option(
        None,
        default_text=f"{_SPEC.colors}, or the model's",
        help="Convert by the image's colour profile, or take colours as they are stored.",
    )

    def adjusted(self, spec: ImageSpec) -> ImageSpec:
        """The preparation with what was asked for."""
        asked: dict[str, Any] = {"size": self.size, "fit": self.fit, "colors": self.colors}
        return replace(spec, **{name: value for name, value in asked.items() if value is not None})


@dataclass(frozen=True, kw_only=True)
class EmbedRequest(PreparationRequest):
    """Way in which a network that is there embeds images; None = as its card says."""

    flip: bool | None = option(None, default_text="as the model says", help="Average with the mirrored image.")
    scales: str | None = option(
        None,
        metavar="F,F,...",
        default_text="1, or the model's",
        help="Average over sizes, factors of the input size, such as 0.707,1,1.414.",
    )
    descriptor: DescriptorPart | None = option(
        None,
        default_text="neck, or the model's",
        help="Use the neck's output, the pooled features before it, or both.",
    )

    def settings(self) -> EmbedSettings:
        """The EmbedSettings that a model's card takes. Raises LmrError for scales that are none."""
        return EmbedSettings(
            self.size,
            self.fit,
            self.colors,
            self.flip,
            self.descriptor,
            None if self.scales is None else parse_scales(self.scales),
        )


@dataclass(frozen=True, kw_only=True)
class NetworkRequest:
    """A network that is to be made, with the weights that it starts from."""

    backbone: str = option(
        "",
        default_text=f"{LITE2} where the extra {EXTRA} is installed, else {_CONFIG.backbone}",
        help=f"{LITE2}, with weights of its own, any torchvision classification network, timm:NAME, plain-cnn or "
        "plain-mlp.",
    )
    pooling: Pooling = option(_CONFIG.pooling, help="Pooling of the feature map.")
    gem_p: float = option(_CONFIG.gem_p, help="Exponent at which GeM pooling starts.")
    n_dimensions: int = option(
        _CONFIG.n_dimensions, help="Length of a descriptor; 0 = the pooled features, without a neck."
    )
    prelu: bool = option(_CONFIG.prelu, help="End the neck with a PReLU.")
    last_layer: str | None = option(
        _CONFIG.last_layer,
        default_text="before its pooling",
        help="Last layer of a torchvision backbone, such as layer3.",
    )
    backbone_options: tuple[str, ...] = option(
        (),
        name="backbone_option",
        metavar="NAME=VALUE",
        help="Argument of the library's constructor, such as pad_type=same.",
    )
    pretrained: bool = option(False, help="Start from the library's default weights.")
    weights: Path | None = option(None, help="State dict of the backbone: .pt, .pth, .safetensors.")
    mean: str | None = option(
        None,
        metavar="R,G,B",
        default_text="the weights' own",
        help="Per-channel mean, for images scaled to [0, 1].",
    )
    std: str | None = option(
        None, metavar="R,G,B", default_text="the weights' own", help="Per-channel std, for images scaled to [0, 1]."
    )

    @property
    def packaged(self) -> PackagedNetwork | None:
        """The packaged network that it is; None = one whose weights come from elsewhere."""
        return PACKAGED.get(self.named().backbone)

    def named(self, progress: Progress = SILENT) -> Self:
        """The same with a network by name: lite2 where its package is there and no other weights are asked for."""
        if self.backbone:
            return self
        source = PACKAGED[LITE2]
        if self.pretrained or self.weights is not None or not source.is_installed():
            return replace(self, backbone=_CONFIG.backbone)
        progress.warn(
            f"the network is {LITE2}, with the weights of the package {source.package} ({source.licence}); "
            "`backbone` names another"
        )
        return replace(self, backbone=LITE2)

    def config(self) -> ModelConfig:
        """Raises LmrError for what cannot be."""
        options = dict(map(_parse_option, self.backbone_options))
        source = self.packaged
        network = source.network if source else self.named().backbone
        return ModelConfig(network, self.pooling, self.gem_p, self.n_dimensions, self.prelu, options, self.last_layer)

    def require(self) -> None:
        """LmrError for a network that cannot be, as far as that can be told without making it."""
        from retrieval.models.names import require_name

        self._require_one_start()
        if self.packaged is None:
            require_name(self.named().backbone, pretrained=self.pretrained)
        for text in self.backbone_options:
            _parse_option(text)
        for word in ("mean", "std"):
            _parse_channels(word, getattr(self, word))

    def build(self, preparation: PreparationRequest) -> "tuple[DescriptorModel, ImageSpec]":
        """The network, and how images are prepared for it."""
        from retrieval.models.network import build_model

        self._require_one_start()
        config, source = self.config(), self.packaged
        spec = preparation.adjusted(ImageSpec(size=source.size) if source else ImageSpec())
        start: dict[str, Any] = {"packaged": source} if source else {"pretrained": self.pretrained}
        model = build_model(config, weights_path=self.weights, image_size=spec.size, **start)
        mean = _parse_channels("mean", self.mean) or model.mean
        std = _parse_channels("std", self.std) or model.std
        try:
            return model, replace(spec, mean=mean, std=std)
        except ValueError as error:
            word, _, problem = str(error).partition(" ")
            raise LmrError(f"`{word}` {problem}") from error

    def identity(self, **preparation: Any) -> dict[str, Any]:
        """All that a network and its preparation are made from, as JSON has it: the same makes the same network."""
        import importlib.metadata

        libraries = {}
        for name in _LIBRARIES:
            try:
                libraries[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                libraries[name] = ""
        own = (
            "backbone",
            "pooling",
            "gem_p",
            "n_dimensions",
            "prelu",
            "last_layer",
            "backbone_options",
            "pretrained",
            "mean",
            "std",
        )
        return {
            **{name: getattr(self.named(), name) for name in own},
            **preparation,
            "weights": self._weights_digest(),
            "libraries": libraries,
        }

    def _weights_digest(self) -> str | None:
        if source := self.packaged:
            return source.sha256
        return sha256_file(self.weights) if self.weights is not None and self.weights.is_file() else None

    def _require_one_start(self) -> None:
        """LmrError where a network would start from two sets of weights, or a packaged one from none."""
        if self.pretrained and self.weights:
            raise LmrError("`pretrained` and `weights` exclude each other; give one (in a recipe: pretrained=false)")
        if source := self.packaged:
            if self.weights is not None:
                raise LmrError(
                    f"`backbone` {self.backbone} has weights of its own; leave out `weights`, or give `backbone` "
                    f"{source.network} with them"
                )
            require_packaged(self.backbone)


@dataclass(frozen=True, kw_only=True)
class SummaryJob(Job):
    """Summarise the layers of a network."""

    network: NetworkRequest = field(default_factory=NetworkRequest)
    preparation: PreparationRequest = field(default_factory=PreparationRequest)


def parse_scales(text: str) -> tuple[float, ...]:
    """`0.707,1,1.414` as numbers. Raises LmrError."""
    try:
        scales = tuple(float(part) for part in text.split(","))
    except ValueError:
        scales = ()
    if not scales or not all(0 < scale <= MAX_SCALE for scale in scales):
        raise LmrError(
            f"`scales` {text}: expected numbers above 0 up to {MAX_SCALE} with commas, such as 0.707,1,1.414"
        )
    return scales


def _parse_option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise LmrError(f"`backbone_option` {text}: expected NAME=VALUE, such as pad_type=same")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _parse_channels(word: str, text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError as error:
        raise LmrError(f"`{word}` {text}: expected three numbers with commas, such as 0.5,0.5,0.5") from error
    return red, green, blue
