"""Distillation: a small network learns to give the descriptors of a teacher, or their cosines."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrieval.train.config import DistillationConfig


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
    """Mean squared difference of the cosines of all pairs of different pictures, (b, d) and (b, d_teacher) -> scalar.

    Relational distillation (Park et al. 2019) with the similarity that retrieval ranks by. b >= 2.
    """
    n = len(descriptors)
    difference = descriptors @ descriptors.T - targets @ targets.T
    off_diagonal = difference[~torch.eye(n, dtype=torch.bool, device=difference.device)]
    return off_diagonal.square().mean()
