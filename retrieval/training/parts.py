"""What changes at each step: the network, its loss, and what moves them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from retrieval.arrays import LongArray
from retrieval.device import DTYPES, fast_dtype, place
from retrieval.model import DescriptorModel
from retrieval.training.averaging import average_of
from retrieval.training.config import TrainConfig
from retrieval.training.distillation import Distillation
from retrieval.training.freezing import freeze
from retrieval.training.losses import LandmarkLoss
from retrieval.training.optimizers import make_optimizer

AVERAGED_LOSS = "module.1."  # how the names of the loss begin in the state of an average


@dataclass(frozen=True, slots=True)
class Parts:
    """What changes at each step and is saved with the state.

    average: of the weights of model and loss over the steps. distillation: from a teacher's descriptors.
    """

    model: DescriptorModel
    loss: LandmarkLoss
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: AveragedModel | None = None
    distillation: Distillation | None = None

    @property
    def result(self) -> DescriptorModel:
        """The network that is validated and saved."""
        return self.model if self.average is None else cast(DescriptorModel, self._averaged[0])

    @property
    def result_loss(self) -> LandmarkLoss:
        """The loss whose head belongs to that network."""
        return self.loss if self.average is None else cast(LandmarkLoss, self._averaged[1])

    @property
    def averaged_from(self) -> nn.ModuleList:
        """What the average is of."""
        return nn.ModuleList([self.model, self.loss])

    @property
    def _averaged(self) -> nn.ModuleList:
        assert self.average is not None
        return cast(nn.ModuleList, self.average.module)

    @property
    def losses(self) -> nn.ModuleList:
        """All modules that only training needs."""
        return nn.ModuleList([part for part in (self.loss, self.distillation) if part is not None])

    def by_name(self) -> dict[str, Any]:
        """Each has state_dict and load_state_dict."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: part for name, part in parts.items() if part is not None}


def make_parts(
    model: DescriptorModel, counts: LongArray, config: TrainConfig, device: torch.device, d_teacher: int = 0
) -> Parts:
    """The network on its device, and all that trains it.

    counts: pictures of each class. d_teacher: length of a teacher's descriptors, 0 = there is none.
    """
    loss = LandmarkLoss(config.loss, model.d, counts)
    place(model, device)
    loss.to(device)
    distillation = Distillation(config.distillation, model.d, d_teacher).to(device) if d_teacher else None
    freeze(model, config.freeze)
    trained = loss if distillation is None else nn.ModuleList([loss, distillation])
    optimizer = make_optimizer(model, trained, config)
    loss.attach(optimizer)
    scaler = torch.amp.GradScaler(device.type, enabled=network_dtype(config, device) == torch.float16)
    average = average_of(nn.ModuleList([model, loss]), config.ema) if config.ema else None
    return Parts(model, loss, optimizer, scaler, average, distillation)


def take_over(loss: LandmarkLoss, head: Mapping[str, Tensor]) -> None:
    """Begins with the weights of another loss, if they all fit; what depends on margins and counts stays."""
    own: dict[str, Tensor] = dict(loss.named_parameters())
    if loss.bank is not None:
        own["bank.rows"] = loss.bank.rows
    if all(name in head and head[name].shape == weights.shape for name, weights in own.items()):
        with torch.no_grad():
            for name, weights in own.items():
                weights.copy_(head[name])


def network_dtype(config: TrainConfig, device: torch.device) -> torch.dtype:
    """The number format that the network computes in."""
    return fast_dtype(device) if config.precision == "auto" else DTYPES[config.precision]
