"""The network that turns images into descriptors: backbone, pooling, neck."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrieval.errors import LmrError
from retrieval.files.utf8_path import utf8_path
from retrieval.images.spec import ImageSpec
from retrieval.models.adapter import Adapter
from retrieval.models.backbones import Backbone, build_backbone
from retrieval.models.config import DescriptorPart, ModelConfig
from retrieval.models.device import memory_format
from retrieval.models.packaged import PackagedNetwork

GEM_EPSILON = 1e-6  # smallest activation, so that x ** p has a gradient (Radenovic et al. 2018, eq. 3)


class GeM(nn.Module):
    """Generalised mean over places, (b, c, h, w) -> (b, c), in float32 with a trainable exponent.

    Radenovic, Tolias, Chum: Fine-tuning CNN image retrieval with no human annotation, 2018, eq. 3.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(float(p)))

    def forward(self, features: Tensor) -> Tensor:
        """The maximum is taken out first, so that no power overflows."""
        with torch.autocast(features.device.type, enabled=False):
            x = features.float().clamp(min=GEM_EPSILON)
            top = x.amax(dim=(2, 3), keepdim=True)
            mean = (x / top).pow(self.p.float()).mean(dim=(2, 3))
            return top.flatten(1) * mean.pow(1.0 / self.p.float())


class DescriptorModel(nn.Module):
    """Images (b, 3, h, w), normalised as the ImageSpec says -> unit descriptors (b, d) in float32."""

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone.features
        self.n_prefix_tokens = backbone.n_prefix_tokens
        self.image_size = backbone.image_size
        self.heads = backbone.heads
        self.mean, self.std = backbone.mean, backbone.std
        self.started_from: Mapping[str, str] = {}
        self.gem = GeM(config.gem_p) if config.pooling == "gem" else None
        self.neck: nn.Module = nn.Identity()
        self.n_features = backbone.n_features
        self.d = config.n_dimensions or backbone.n_features
        if config.n_dimensions:
            layers: list[nn.Module] = [
                nn.Linear(backbone.n_features, self.d, bias=False),
                nn.BatchNorm1d(self.d),
            ]
            self.neck = nn.Sequential(*layers, *([nn.PReLU()] if config.prelu else []))
        self.adapter = None if config.adapter is None else Adapter(config.adapter)

    def forward(self, images: Tensor, part: DescriptorPart = "neck") -> Tensor:
        """Unit descriptors (b, n) of one view of each image, float32, before `adapted`.

        part: what the neck gives; the pooled features before it, which keep more of what training on few landmarks
        makes the neck forget (Bordes et al., Guillotine Regularization, TMLR 2023); or both, one after the other.
        """
        return self.described(self.pooled(images), part)

    def described(self, pooled: Tensor, part: DescriptorPart = "neck") -> Tensor:
        """Unit descriptors (b, n) of pooled features (b, n_features), float32, before `adapted`."""
        with torch.autocast(pooled.device.type, enabled=False):
            if part == "pooled":
                return F.normalize(pooled, dim=1)
            descriptors = F.normalize(self.neck(pooled), dim=1)
            if part == "both":
                descriptors = F.normalize(torch.cat([descriptors, F.normalize(pooled, dim=1)], dim=1), dim=1)
            return descriptors

    def adapted(self, descriptors: Tensor) -> Tensor:
        """Unit descriptors (b, length(part)) of those of all views of an image, unit descriptors (b, n), float32."""
        if self.adapter is None:
            return descriptors
        with torch.autocast(descriptors.device.type, enabled=False):
            return F.normalize(self.adapter(descriptors), dim=1)

    def raw(self, images: Tensor) -> Tensor:
        """Output of the neck before it is divided by its length, (b, d), float32."""
        pooled = self.pooled(images)
        with torch.autocast(pooled.device.type, enabled=False):
            return cast(Tensor, self.neck(pooled))

    def pooled(self, images: Tensor) -> Tensor:
        """Input of the neck: the pooled features (b, n_features) in float32, of any length."""
        return self.pool(self.backbone(images))

    def pool(self, features: Tensor) -> Tensor:
        """Features of the backbone, a map or tokens as a `Backbone` gives them, to (b, n_features) in float32."""
        if self.config.pooling == "cls":
            return features[:, 0].float()
        features = self.as_map(features)
        if self.gem is not None:
            return cast(Tensor, self.gem(features)).float()
        return (features.amax(dim=(2, 3)) if self.config.pooling == "max" else features.mean(dim=(2, 3))).float()

    def as_map(self, features: Tensor) -> Tensor:
        """(b, c, h, w) of a map, or of the tokens (b, n, c) that belong to the places of a square."""
        if features.ndim == 4:
            return features
        tokens = features[:, self.n_prefix_tokens :].transpose(1, 2)
        side = math.isqrt(tokens.shape[2])
        return tokens.reshape(*tokens.shape[:2], *((side, side) if side**2 == tokens.shape[2] else (-1, 1)))

    def length(self, part: DescriptorPart) -> int:
        """Numbers in a descriptor.

        LmrError for another part than the neck where there is none: it is the same; and than the adapter takes.
        """
        if self.config.adapter is not None:
            self.config.adapter.require(part)
            return self.config.adapter.n_dimensions
        if part != "neck" and not self.config.n_dimensions:
            raise LmrError(
                f"`descriptor` {part}: this network has no neck, its descriptors are the pooled features; "
                "leave it out, or make the network with `n_dimensions`"
            )
        return {"neck": self.d, "pooled": self.n_features, "both": self.d + self.n_features}[part]

    def require_size(self, size: int) -> None:
        """LmrError when the network takes only images of another size (transformers with learned positions)."""
        if self.image_size not in (None, size):
            raise LmrError(
                f"{self.config.backbone} takes pictures of {self.image_size} pixels here, not of {size}; "
                f"give `size` {self.image_size}, or train at the size you want"
            )


def build_model(
    config: ModelConfig,
    *,
    pretrained: bool = False,
    weights_path: Path | None = None,
    packaged: PackagedNetwork | None = None,
    image_size: int = 224,
) -> DescriptorModel:
    """A network with the library's weights, weights from a file or a package, or random ones (of torch's generator).

    packaged: the package whose weights it gets. LmrError: what build_backbone and load_backbone_weights raise; cls
    pooling of a network without a class token; pretrained weights for images of another size.
    """
    backbone = build_backbone(
        config.backbone,
        config.backbone_options,
        last_layer=config.last_layer,
        pretrained=pretrained,
        image_size=image_size,
    )
    if config.pooling == "cls" and not backbone.n_prefix_tokens:
        raise LmrError(f"`pooling` cls: {config.backbone} has no class token; use gem, avg or max")
    model = DescriptorModel(config, backbone)
    model.require_size(image_size)
    if packaged is not None:
        load_packaged_weights(model, packaged)
        return model
    if weights_path is not None:
        load_backbone_weights(model, weights_path)
    model.started_from = _started_from(config.backbone, backbone.licence if pretrained else None, weights_path)
    return model


def to_input(images: Tensor, spec: ImageSpec, device: torch.device) -> Tensor:
    """uint8 (b, 3, h, w) on any device -> normalised float32 on `device`, in its fast memory format."""
    x = images.to(device, non_blocking=True).contiguous(memory_format=memory_format(device)).float()
    mean = torch.tensor(spec.mean, device=device).view(1, 3, 1, 1) * 255
    std = torch.tensor(spec.std, device=device).view(1, 3, 1, 1) * 255
    return x.sub_(mean).div_(std)


def mean_descriptor(describe: Callable[[Tensor], Tensor], views: Sequence[Tensor], *, flip: bool) -> Tensor:
    """Unit mean of the descriptors (b, d) of several views of the same images, (b, 3, h, w) each.

    flip: the mirror image of each view is one too.
    """
    parts = [describe(turned) for view in views for turned in ((view, view.flip(3)) if flip else (view,))]
    return parts[0] if len(parts) == 1 else F.normalize(torch.stack(parts).sum(dim=0), dim=1)


def load_backbone_weights(model: DescriptorModel, path: Path) -> None:
    """Loads a state dict (torch or safetensors file) of the backbone's library into the backbone, strictly.

    Weights of classifier heads are ignored by name, nothing else. LmrError lists the names that are missing, not
    known or of another shape, or names one whose values cannot be weights.
    """
    _load_strictly(model, read_state_dict(path), path)


def load_packaged_weights(model: DescriptorModel, source: PackagedNetwork) -> None:
    """Loads the weights of a packaged network into the backbone, strictly, with the normalisation that they expect.

    LmrError: their file is missing or of another content.
    """
    path = source.path()
    _load_strictly(model, source.renamed(read_state_dict(path)), path)
    model.mean, model.std = source.mean, source.std
    model.started_from = {"weights": source.origin(), "licence": source.licence}


def _load_strictly(model: DescriptorModel, given: Mapping[str, Tensor], path: Path) -> None:
    """path: of the weights, for messages."""
    target: nn.Module = getattr(model.backbone, "network", model.backbone)
    own = target.state_dict()
    heads = tuple(f"{head}." for head in model.heads)
    state = {name: value for name, value in given.items() if name in own or not name.startswith(heads)}
    problems = [f"{name} is missing" for name in own if name not in state and not name.endswith("num_batches_tracked")]
    problems += [f"{name} is not known" for name in state if name not in own]
    problems += [
        f"{name} is {_shape(state[name])}, expected {_shape(own[name])}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise LmrError(
            f"{path} does not fit `backbone` {model.config.backbone}: {'; '.join(problems[:5])}{more}; "
            "name the network that the weights belong to"
        )
    broken = {name: fault for name in own if name in state and (fault := _fault(state[name]))}
    if broken:
        name, fault = next(iter(broken.items()))
        more = f", as {len(broken) - 1} others" if len(broken) > 1 else ""
        raise LmrError(f"{path}: {name} {fault}{more}; give weights that are whole")
    target.load_state_dict(own | state)


def _fault(tensor: Tensor) -> str:
    """Why these cannot be weights; blank where they can."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
        return "is no plain tensor of real numbers"
    return "" if bool(torch.isfinite(tensor).all()) else "holds values that are not finite"


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a safetensors file or a torch file (weights only: no code in it is run)."""
    if not path.is_file():
        raise LmrError(f"{path}: there is no such weights file; check `weights`")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            with utf8_path(path) as place:
                return load_file(place)
        given = torch.load(path, map_location="cpu", weights_only=True)
    except (PermissionError, MemoryError, LmrError):
        raise
    except Exception as error:
        raise LmrError(f"{path} is not a weights file: {_why_not_weights(path, error)}") from error
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(given, dict) and isinstance(given.get(key), dict):
            given = given[key]
    if not _is_state_dict(given):
        raise LmrError(f"{path} holds no state dict (tensors by name); save model.state_dict() with torch.save")
    return {name.removeprefix("module."): value for name, value in given.items()}


def _why_not_weights(path: Path, error: Exception) -> str:
    """For people; what torch says of such a file is of its own insides."""
    if path.suffix == ".safetensors":
        return (str(error) or type(error).__name__).splitlines()[0][:120]
    return "torch.save did not write it, it is cut short, or it holds more than tensors (no code in it is run)"


def _started_from(name: str, licence: str | None, weights_path: Path | None) -> Mapping[str, str]:
    """Origin of the backbone's weights and their terms, for people. licence: of the library's weights."""
    if weights_path is not None:
        return {"weights": f"the file {weights_path.name}", "licence": "not in the file; ask whoever published it"}
    if licence is not None:
        return {"weights": f"the library's default weights of {name}", "licence": licence}
    return {"weights": "random numbers", "licence": "none, they are random"}


def _is_state_dict(given: object) -> bool:
    return isinstance(given, dict) and all(isinstance(n, str) and isinstance(t, Tensor) for n, t in given.items())


def _shape(tensor: Tensor) -> str:
    return "x".join(str(n) for n in tensor.shape) or "a scalar"
