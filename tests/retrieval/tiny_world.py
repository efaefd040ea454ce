"""Tiny seeded images and an 8-dimension network, for the tests of this room."""

import hashlib
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from retrieval.errors import UnreadableError
from retrieval.images.spec import ImageSpec
from retrieval.models.backbones import IMAGENET_MEAN, IMAGENET_STD, Backbone
from retrieval.models.config import ModelConfig
from retrieval.models.network import DescriptorModel

SIZE = 16
SPEC = ImageSpec(size=SIZE)
LABELS = ("arch", "bridge", "castle")
CPU = torch.device("cpu")


def jpeg(label: int, seed: int, side: int = 24) -> bytes:
    """An image that is told from those of other labels by its colours; label -1 is grey noise."""
    rng = np.random.default_rng([label + 1, seed])
    ground = np.zeros(3) + 128 if label < 0 else np.eye(3)[label % 3] * 200 + 20
    pixels = np.clip(ground + rng.normal(0, 25, (side, side, 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def tiny_model(seed: int = 0, *, n_dimensions: int = 8, pooling: str = "gem", prelu: bool = False) -> DescriptorModel:
    """A network of two convolutions."""
    torch.manual_seed(seed)
    features = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
    )
    backbone = Backbone(features, 8, 0, ("fc",), IMAGENET_MEAN, IMAGENET_STD)
    config = ModelConfig("tiny", pooling=pooling, n_dimensions=n_dimensions, prelu=prelu)  # type: ignore[arg-type]
    model = DescriptorModel(config, backbone)
    with torch.no_grad():  # running statistics of their own, so that folding them is seen
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return model.eval()


class Images:
    """A source in memory: encoded images, None = unreadable."""

    def __init__(self, encoded: list[bytes | None]) -> None:
        self.encoded = encoded

    def read(self, i: int) -> bytes:
        """Encoded image i."""
        data = self.encoded[i]
        if data is None:
            raise UnreadableError(f"picture {i} is gone")
        return data


def digest_of(folder: Path) -> str:
    """Of the weights in a model folder."""
    (path,) = folder.glob("weights-*.safetensors")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """The weights in a model folder."""
    (path,) = folder.glob("weights-*.safetensors")
    return load_file(path)
