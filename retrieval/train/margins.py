"""ArcFace and CosFace with a margin for each class, of the class's size or of the image."""

import math
from typing import Any

import numpy as np
import torch
from pytorch_metric_learning.losses import CosFaceLoss, SubCenterArcFaceLoss
from torch import Tensor

from retrieval.arrays import FloatArray, LongArray
from retrieval.train.config import LossConfig

COSINE_LIMIT = 1.0 - 1e-6  # acos has an infinite gradient at +-1
DYNAMIC_MARGINS_RAD = (0.05, 0.5)  # 3rd place, Google Landmark Recognition 2020 (Ha et al., arXiv:2010.05350)
LENGTH_SPREAD = 0.333  # AdaFace's h: q reaches +-1 at 1 / h standard deviations
LENGTH_RATE = 0.01  # of AdaFace's moving mean and standard deviation
LENGTH_EPSILON = 1e-3  # added to the standard deviation, as AdaFace does


def class_margins(counts: LongArray, config: LossConfig) -> FloatArray:
    """(n_classes,) float64 margins in radians from the number of training images of each class.

    By count and dynamic: m_c = low + (high - low) (t_c - min t) / (max t - min t), t_c = n_c^(-1/4); a class without
    images counts as one with a single image. Equal counts give the lower bound, dynamic ones the upper.
    """
    if config.margin in ("fixed", "adaptive"):
        return np.full(len(counts), config.margin_rad)
    is_dynamic = config.margin == "dynamic"
    low, high = DYNAMIC_MARGINS_RAD if is_dynamic else (config.margin_rad, config.margin_rare_rad)
    rarity = np.maximum(counts, 1).astype(np.float64) ** -0.25
    least, most = rarity.min(), rarity.max()
    share = (rarity - least) / (most - least) if most > least else np.full_like(rarity, float(is_dynamic))
    return np.asarray(low + (high - low) * share)


class _ClassMargins:
    """A loss of the library that reads `margin`, with one for each class in the buffer `margins`."""

    margins: Tensor
    chosen: Tensor | None = None  # the classes whose directions are in W, where those are not all

    def compute_loss(self, embeddings: Tensor, labels: Tensor, *further: Any) -> Any:
        """Loss of the library, with the margins of this batch's classes."""
        self.margin = self.margins[labels if self.chosen is None else self.chosen[labels]]
        return super().compute_loss(embeddings, labels, *further)  # type: ignore[misc]


class ClassCosFace(_ClassMargins, CosFaceLoss):  # type: ignore[misc]
    """CosFace (Wang et al. 2018, eq. 4) with one margin for each class. margins: (n_classes,) cosines."""

    def __init__(self, num_classes: int, embedding_size: int, *, margins: Tensor, scale: float) -> None:
        super().__init__(num_classes, embedding_size, scale=scale)
        self.register_buffer("margins", margins)


class ClampedArcFace(_ClassMargins, SubCenterArcFaceLoss):  # type: ignore[misc]
    """ArcFace (Deng et al. 2019, eq. 3) with one margin for each class and a finite gradient everywhere.

    margins_deg: (n_classes,) degrees, as the library counts them. n_centres: directions of each class, of which the
    nearest counts (Deng et al., Sub-center ArcFace, 2020).
    """

    def __init__(
        self, num_classes: int, embedding_size: int, *, margins_deg: Tensor, scale: float, n_centres: int = 1
    ) -> None:
        sizes = {"num_classes": num_classes, "embedding_size": embedding_size}
        super().__init__(margin=0.0, scale=scale, sub_centers=n_centres, **sizes)
        self.register_buffer("margins", torch.deg2rad(margins_deg))

    def get_cosine(self, embeddings: Tensor) -> Tensor:
        """Cosines of the library, without a maximum over one centre."""
        if self.sub_centers == 1:
            return torch.as_tensor(self.distance(embeddings, self.W.t()))
        return torch.as_tensor(super().get_cosine(embeddings))

    def modify_cosine_of_target_classes(self, cosine_of_target_classes: Tensor) -> Tensor:
        """cos(theta + m), continued so that it keeps falling beyond theta = pi - m."""
        margin = self.margin
        angles = _angles(cosine_of_target_classes)
        beyond = cosine_of_target_classes - margin * torch.sin(margin)
        return torch.where(angles <= math.pi - margin, torch.cos(angles + margin), beyond)


class AdaptiveArcFace(ClampedArcFace):
    """ArcFace whose margin adapts to each image by the length of its features, a measure of its quality.

    With q in [-1, 1], how far that length is from the usual one, the cosine becomes cos(theta - m q) - m (q + 1):
    ArcFace's cos(theta + m) for a poor image, CosFace's cos(theta) - m for a usual one, and for a good one a form
    that weighs hard images more (Kim et al., AdaFace, CVPR 2022, section 3). Embeddings are not unit vectors.
    """

    length_mean: Tensor
    length_std: Tensor
    quality: Tensor  # (b,) in [-1, 1], of this batch

    def __init__(self, num_classes: int, embedding_size: int, **further: Any) -> None:
        super().__init__(num_classes, embedding_size, **further)
        self.register_buffer("length_mean", torch.tensor(math.nan))
        self.register_buffer("length_std", torch.tensor(math.nan))

    def compute_loss(self, embeddings: Tensor, labels: Tensor, *further: Any) -> Any:
        """Loss of ArcFace, for the quality of this batch's images."""
        lengths = embeddings.detach().norm(dim=1)
        self._follow(lengths)
        self.quality = ((lengths - self.length_mean) * LENGTH_SPREAD / (self.length_std + LENGTH_EPSILON)).clamp(-1, 1)
        return super().compute_loss(embeddings, labels, *further)

    def modify_cosine_of_target_classes(self, cosine_of_target_classes: Tensor) -> Tensor:
        """cos(theta - m q) - m (q + 1), the angle kept in [0, pi]."""
        shifted = _angles(cosine_of_target_classes) - self.margin * self.quality
        margined: Tensor = torch.cos(shifted.clamp(0, math.pi)) - self.margin * (self.quality + 1)
        return margined

    def _follow(self, lengths: Tensor) -> None:
        """Moving mean and standard deviation, which begin with those of the first batch."""
        for known, seen in (
            (self.length_mean, lengths.mean()),
            (self.length_std, lengths.std(correction=0)),
        ):
            known.copy_(torch.where(known.isnan(), seen, known.lerp(seen, LENGTH_RATE)))


def _angles(cosines: Tensor) -> Tensor:
    return torch.acos(cosines.clamp(-COSINE_LIMIT, COSINE_LIMIT))
