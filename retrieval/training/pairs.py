"""Losses of pictures against each other, from pytorch-metric-learning, all over cosines."""

import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import ContrastiveLoss, MultiSimilarityLoss, TripletMarginLoss
from pytorch_metric_learning.miners import MultiSimilarityMiner, TripletMarginMiner
from torch import Tensor, nn

from retrieval.training.config import LossConfig

MULTI_SIMILARITY = {"alpha": 2.0, "beta": 50.0, "base": 0.5}  # Wang et al. 2019 and their code
MINER_EPSILON = 0.1  # Wang et al. 2019


class PairLoss(nn.Module):
    """Contrastive, triplet or multi-similarity loss over the pairs or triplets that a miner finds.

    A batch needs several pictures of a landmark. Where the miner finds nothing the loss is zero, with a gradient.
    """

    def __init__(self, config: LossConfig) -> None:
        super().__init__()
        self.keeps_unknown = config.negative_weight > 0
        self.loss = _make_loss(config)
        self.miner = _make_miner(config)

    def forward(self, descriptors: Tensor, labels: Tensor) -> Tensor:
        """descriptors (b, d), labels (b,) int64 -> scalar.

        A non-landmark (label < 0) is unlike every other picture: it gets a label of its own, or is left out.
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
