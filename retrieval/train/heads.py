"""Classifier heads: what gives a score for each landmark, in training and after it."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrieval.train.config import LossConfig


class LinearHead(nn.Module):
    """Softmax classifier with biases on features that are not unit vectors, perhaps with a hidden layer.

    Trained alone on frozen features it is the "top model" of transfer learning. Its dropout is before the last layer.
    """

    def __init__(self, d: int, n_classes: int, config: LossConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if config.head_hidden:
            layers += [nn.Linear(d, config.head_hidden), nn.ReLU()]
        layers += [nn.Dropout(config.dropout), nn.Linear(config.head_hidden or d, n_classes)]
        self.layers = nn.Sequential(*layers)
        self.label_smoothing = config.label_smoothing

    def forward(self, features: Tensor) -> Tensor:
        """(b, d) -> (b, n_classes) logits."""
        logits: Tensor = self.layers(features)
        return logits

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy; labels (b,) int64 classes."""
        return F.cross_entropy(self(features), labels, label_smoothing=self.label_smoothing)

    def spread(self, features: Tensor) -> Tensor:
        """Mean cross-entropy against all classes alike, for features of none of them.

        Dhamija et al., Reducing Network Agnostophobia, 2018 (entropic open-set loss).
        """
        return -F.log_softmax(self(features), dim=1).mean()


class CosineHead(nn.Module):
    """Logits of class directions: scale times the cosine to the nearest direction of each class.

    directions: (n_classes, n_centres, d), of any length.
    """

    scale: Tensor
    directions: Tensor

    def __init__(self, directions: Tensor, scale: float) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("directions", directions.detach())

    def forward(self, features: Tensor) -> Tensor:
        """(b, d) of any length -> (b, n_classes)."""
        directions = F.normalize(self.directions, dim=2)
        cosines = F.normalize(features, dim=1) @ directions.flatten(0, 1).T
        return self.scale * cosines.reshape(len(features), *directions.shape[:2]).amax(dim=2)
