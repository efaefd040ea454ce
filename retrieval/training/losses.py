"""Losses over landmarks, from pytorch-metric-learning, with its traps closed; and the loss of non-landmarks.

All of it runs in float32, also when the network runs under autocast.
"""

import math
from typing import Any

import numpy as np
import torch
from pytorch_metric_learning.losses import ArcFaceLoss, NormalizedSoftmaxLoss
from torch import Tensor, nn
from torch.nn import functional as F

from retrieval.arrays import FloatArray, LongArray
from retrieval.training.config import LossConfig

COSINE_LIMIT = 1.0 - 1e-6  # acos has an infinite gradient at +-1


def class_margins(counts: LongArray, config: LossConfig) -> FloatArray:
    """(n_classes,) float64 margins in radians from the number of training pictures of each class."""
    rarity = np.maximum(counts, 1).astype(np.float64) ** -0.25
    low, high = rarity.min(), rarity.max()
    share = (rarity - low) / (high - low) if high > low else np.zeros_like(rarity)
    return np.asarray(config.margin_rad + (config.margin_rare_rad - config.margin_rad) * share)


class LandmarkLoss(nn.Module):
    """Loss of a batch of unit descriptors against trainable class directions.

    Landmark pictures (label >= 0) enter the classification loss; non-landmarks (label < 0) never do: the library
    would take -1 for the last class. They enter `softplus(scale * (best cosine - negative_cosine))` instead.
    """

    def __init__(self, config: LossConfig, d: int, counts: LongArray) -> None:
        super().__init__()
        self.config = config
        n_classes = len(counts)
        if config.name == "arcface":
            margins = torch.tensor(np.degrees(class_margins(counts, config)), dtype=torch.float32)
            self.classifier: Any = ClampedArcFace(n_classes, d, margins_deg=margins, scale=config.scale)
        else:
            self.classifier = NormalizedSoftmaxLoss(n_classes, d, temperature=1.0 / config.scale)
        nn.init.normal_(self.classifier.W, std=0.01)

    def forward(self, descriptors: Tensor, labels: Tensor) -> Tensor:
        """descriptors (b, d), labels (b,) int64, negative = non-landmark -> scalar float32.

        ValueError when a label lies outside the classes.
        """
        n_classes = self.classifier.W.shape[1]
        if labels.numel() and int(labels.max()) >= n_classes:
            raise ValueError(f"label {int(labels.max())} is outside the {n_classes} classes")
        with torch.autocast(descriptors.device.type, enabled=False):
            descriptors = descriptors.float()
            known = labels >= 0
            loss = descriptors.sum() * 0.0
            if known.any():
                share = known.float().mean()
                loss = loss + share * self.classifier(descriptors[known], labels[known])
            if self.config.negative_weight and not known.all():
                share = (~known).float().mean()
                loss = loss + self.config.negative_weight * share * self._negatives(descriptors[~known])
            return loss

    def cosines(self, descriptors: Tensor) -> Tensor:
        """(b, d) unit descriptors -> (b, n_classes) cosines to the class directions."""
        return descriptors.float() @ F.normalize(self.classifier.W.float(), dim=0)

    def _negatives(self, descriptors: Tensor) -> Tensor:
        best = self.cosines(descriptors).amax(dim=1)
        return F.softplus(self.config.scale * (best - self.config.negative_cosine)).mean()


class ClampedArcFace(ArcFaceLoss):  # type: ignore[misc]
    """ArcFace (Deng et al. 2019, eq. 3) with one margin for each class and a finite gradient everywhere.

    margins_deg: (n_classes,) degrees, as the library counts them.
    """

    def __init__(self, num_classes: int, embedding_size: int, *, margins_deg: Tensor, scale: float) -> None:
        super().__init__(num_classes=num_classes, embedding_size=embedding_size, margin=0.0, scale=scale)
        self.register_buffer("margins_rad", torch.deg2rad(margins_deg))

    def compute_loss(self, embeddings: Tensor, labels: Tensor, *further: Any) -> Any:
        """As the library's, with the margins of this batch's classes."""
        self.margin = self.margins_rad[labels]
        return super().compute_loss(embeddings, labels, *further)

    def modify_cosine_of_target_classes(self, cosine_of_target_classes: Tensor) -> Tensor:
        """cos(theta + m), continued so that it keeps falling beyond theta = pi - m."""
        margin = self.margin
        angles = torch.acos(cosine_of_target_classes.clamp(-COSINE_LIMIT, COSINE_LIMIT))
        beyond = cosine_of_target_classes - margin * torch.sin(margin)
        return torch.where(angles <= math.pi - margin, torch.cos(angles + margin), beyond)
