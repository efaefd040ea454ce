"""Losses over landmarks, from pytorch-metric-learning, with its traps closed; and the loss of non-landmarks.

All of it runs in float32, also when the network runs under autocast.
"""

from typing import Any, Literal

import numpy as np
import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import (
    ContrastiveLoss,
    MultiSimilarityLoss,
    NormalizedSoftmaxLoss,
    ProxyAnchorLoss,
    TripletMarginLoss,
)
from pytorch_metric_learning.miners import MultiSimilarityMiner, TripletMarginMiner
from torch import Tensor, nn
from torch.nn import functional as F

from retrieval.arrays import LongArray
from retrieval.train.config import DistillationConfig
from retrieval.train.heads import (
    AdaptiveArcFace,
    ClampedArcFace,
    ClassBank,
    ClassCosFace,
    CosineHead,
    LinearHead,
    class_margins,
)
from retrieval.train.loss_config import PAIR_LOSSES, LossConfig

PROXY_ANCHOR = {"margin": 0.1, "alpha": 32.0}  # Kim et al. 2020, section 4
MULTI_SIMILARITY = {"alpha": 2.0, "beta": 50.0, "base": 0.5}  # Wang et al. 2019 and their code
MINER_EPSILON = 0.1  # Wang et al. 2019


class LandmarkLoss(nn.Module):
    """Loss of a batch of descriptors against trainable class directions, a linear head, or each other.

    Landmark images (label >= 0) enter the classification loss; non-landmarks (label < 0) never do: the library
    would take -1 for the last class. They enter `softplus(scale * (best cosine - negative_cosine))` instead; with a
    linear head, the cross-entropy against all classes alike; or they are a class of their own, the last one.

    wants: `unit` descriptors, or `raw` ones, whose length means something.
    """

    def __init__(self, config: LossConfig, d: int, counts: LongArray) -> None:
        super().__init__()
        self.config = config
        self.n_classes = len(counts)
        self.n_outputs = self.n_classes + (config.background == "class")
        raw = config.name == "linear" or config.margin == "adaptive"
        self.wants: Literal["unit", "raw"] = "raw" if raw else "unit"
        self.classifier: Any = _make_classifier(config, d, counts)
        self.bank: ClassBank | None = None
        if config.class_share < 1:
            rows = self.classifier.W.detach().T.reshape(-1, config.n_centres * d)
            self.bank = ClassBank(rows, config.class_share)
            del self.classifier.W

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Tells the optimizer of this loss's parameters of what it cannot see: classes that are sampled."""
        if self.bank is not None:
            self.bank.attach(optimizer)

    def forward(self, descriptors: Tensor, labels: Tensor) -> Tensor:
        """descriptors (b, d), labels (b,) int64, negative = non-landmark -> scalar float32.

        ValueError when a label lies outside the classes.
        """
        if labels.numel() and int(labels.max()) >= self.n_classes:
            raise ValueError(f"label {int(labels.max())} is outside the {self.n_classes} classes")
        with torch.autocast(descriptors.device.type, enabled=False):
            descriptors = descriptors.float()
            if isinstance(self.classifier, PairLoss):
                return torch.as_tensor(self.classifier(descriptors, labels))
            known = labels >= 0
            targets = labels
            if self.config.background == "class":
                targets = torch.where(known, labels, self.n_classes)
            if self.bank is not None:
                targets = self._take_classes(self.bank, targets)
            loss = descriptors.sum() * 0.0
            if known.any():
                share = known.float().mean()
                loss = loss + share * self._classification(descriptors[known], targets[known])
            if self.config.negative_weight and not known.all():
                share = (~known).float().mean()
                unknown = self._negatives(descriptors[~known], targets[~known])
                loss = loss + self.config.negative_weight * share * unknown
            return loss

    def cosines(self, descriptors: Tensor) -> Tensor:
        """(b, d) unit descriptors -> (b, n) cosines to the classes: all, or those that this step has taken."""
        w = self.classifier.proxies.T if self.config.name == "proxy-anchor" else self.classifier.W
        cosines = descriptors.float() @ F.normalize(w.float(), dim=0)
        if self.config.n_centres == 1:
            return cosines
        return cosines.reshape(len(cosines), -1, self.config.n_centres).amax(dim=2)

    def head(self) -> nn.Module | None:
        """Features (b, d) -> logits (b, n_classes), one more with a background class; None where there is none."""
        if isinstance(self.classifier, PairLoss):
            return None
        if isinstance(self.classifier, LinearHead):
            return self.classifier
        if self.config.name == "proxy-anchor":
            return CosineHead(self.classifier.proxies.unsqueeze(1), PROXY_ANCHOR["alpha"])
        rows = self.classifier.W.T if self.bank is None else self.bank.rows
        return CosineHead(rows.reshape(self.n_outputs, self.config.n_centres, -1), self.config.scale)

    def _classification(self, descriptors: Tensor, targets: Tensor) -> Tensor:
        if isinstance(self.classifier, LinearHead):
            return self.classifier.loss(descriptors, targets)
        return torch.as_tensor(self.classifier(descriptors, targets))

    def _negatives(self, descriptors: Tensor, targets: Tensor) -> Tensor:
        """The loss of non-landmarks."""
        if self.config.background == "class":
            return self._classification(descriptors, targets)
        if isinstance(self.classifier, LinearHead):
            return self.classifier.spread(descriptors)
        units = F.normalize(descriptors, dim=1) if self.wants == "raw" else descriptors
        best = self.cosines(units).amax(dim=1)
        return F.softplus(self.config.scale * (best - self.config.negative_cosine)).mean()

    def _take_classes(self, bank: ClassBank, targets: Tensor) -> Tensor:
        """Gives the library's loss the directions of a sample of classes, and the labels within it."""
        rows = bank.take(targets[targets >= 0])
        self.classifier.W = rows.reshape(len(rows) * self.config.n_centres, -1).T
        self.classifier.num_classes = len(rows)
        self.classifier.chosen = bank.chosen
        return bank.position(targets)


def _make_classifier(config: LossConfig, d: int, counts: LongArray) -> Any:
    """The library's loss for a configuration, its directions drawn anew."""
    if config.name in PAIR_LOSSES:
        return PairLoss(config)
    n_outputs = len(counts) + (config.background == "class")
    if config.name == "linear":
        return LinearHead(d, n_outputs, config)
    if config.name == "proxy-anchor":
        return ProxyAnchorLoss(n_outputs, d, **PROXY_ANCHOR)
    if config.name == "arcface":
        margins = np.pad(class_margins(counts, config), (0, n_outputs - len(counts)))  # none for the background
        kind = AdaptiveArcFace if config.margin == "adaptive" else ClampedArcFace
        degrees = torch.tensor(np.degrees(margins), dtype=torch.float32)
        classifier = kind(n_outputs, d, margins_deg=degrees, scale=config.scale, n_centres=config.n_centres)
    elif config.name == "cosface":
        cosines = torch.full((n_outputs,), config.margin_cos)
        cosines[len(counts) :] = 0  # none for the background
        classifier = ClassCosFace(n_outputs, d, margins=cosines, scale=config.scale)
    else:
        classifier = NormalizedSoftmaxLoss(n_outputs, d, temperature=1.0 / config.scale)
    classifier.cross_entropy = nn.CrossEntropyLoss(reduction="none", label_smoothing=config.label_smoothing)
    nn.init.normal_(classifier.W, std=0.01)
    return classifier


class PairLoss(nn.Module):
    """Contrastive, triplet or multi-similarity loss over the pairs or triplets that a miner finds.

    A batch needs several images of a landmark. Where the miner finds nothing the loss is zero, with a gradient.
    """

    def __init__(self, config: LossConfig) -> None:
        super().__init__()
        self.keeps_unknown = config.negative_weight > 0
        self.loss = _make_loss(config)
        self.miner = _make_miner(config)

    def forward(self, descriptors: Tensor, labels: Tensor) -> Tensor:
        """descriptors (b, d), labels (b,) int64 -> scalar.

        A non-landmark (label < 0) is unlike every other image: it gets a label of its own, or is left out.
        """
        known = labels >= 0
        alone = -1 - torch.arange(len(labels), device=labels.device)
        labels = torch.where(known, labels, alone)
        if not self.keeps_unknown:
            descriptors, labels = descriptors[known], labels[known]
        mined = None if self.miner is None else self.miner(descriptors, labels)
        return torch.as_tensor(self.loss(descriptors, labels, mined))


def _make_loss(config: LossConfig) -> nn.Module:
    cosine = CosineSimilarity()
    if config.name == "contrastive":
        loss: nn.Module = ContrastiveLoss(pos_margin=1.0, neg_margin=config.contrastive_cosine, distance=cosine)
    elif config.name == "triplet":
        loss = TripletMarginLoss(margin=config.triplet_margin, distance=cosine)
    else:
        loss = MultiSimilarityLoss(**MULTI_SIMILARITY, distance=cosine)
    return loss


def _make_miner(config: LossConfig) -> nn.Module | None:
    if config.miner == "none":
        return None
    if config.miner == "multi-similarity":
        miner: nn.Module = MultiSimilarityMiner(epsilon=MINER_EPSILON)
    else:
        miner = TripletMarginMiner(
            margin=config.triplet_margin, type_of_triplets=config.miner, distance=CosineSimilarity()
        )
    return miner


class Distillation(nn.Module):
    """Loss of a batch of unit descriptors against those of a teacher; its parameters are trained with the network.

    d, d_teacher: lengths of the descriptors. They may differ: cosines of pairs need no common space, and for the
    cosine to the teacher itself a linear map leads from one to the other.
    """

    def __init__(self, config: DistillationConfig, d: int, d_teacher: int) -> None:
        super().__init__()
        self.config = config
        self.project: nn.Linear | None = None
        if config.distill_cosine:
            self.project = nn.Linear(d, d_teacher, bias=False)
            nn.init.orthogonal_(self.project.weight)

    def forward(self, descriptors: Tensor, targets: Tensor, known: Tensor) -> Tensor:
        """descriptors (b, d), targets (b, d_teacher) of unit length, known (b,) bool -> scalar float32.

        Rows without a target do not count; without any the loss is 0, with gradients of 0.
        """
        with torch.autocast(descriptors.device.type, enabled=False):
            descriptors, targets = descriptors.float()[known], targets.float()[known]
            loss = descriptors.sum() * 0.0
            if self.project is not None:
                loss = loss + self.project.weight.sum() * 0.0
                if len(descriptors):
                    imitated = F.normalize(self.project(descriptors), dim=1)
                    loss = loss + self.config.distill_cosine * (1 - (imitated * targets).sum(dim=1)).mean()
            if self.config.distill_relations and len(descriptors) > 1:
                loss = loss + self.config.distill_relations * relation_loss(descriptors, targets)
            return loss


def relation_loss(descriptors: Tensor, targets: Tensor) -> Tensor:
    """Mean squared difference of the cosines of all pairs of different images, (b, d) and (b, d_teacher) -> scalar.

    Relational distillation (Park et al. 2019) with the similarity that retrieval ranks by. b >= 2.
    """
    n = len(descriptors)
    difference = descriptors @ descriptors.T - targets @ targets.T
    off_diagonal = difference[~torch.eye(n, dtype=torch.bool, device=difference.device)]
    return off_diagonal.square().mean()
