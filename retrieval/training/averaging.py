"""The running average of the weights of a network and its head."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def average_of(modules: nn.ModuleList, keep: float) -> AveragedModel:
    """An average that keeps the share `keep` of itself in a step; batch-norm statistics are averaged with the weights.

    Less in the first steps, (1 + n) / (10 + n) in the n-th, or it would hold on to weights that have learned nothing.
    """
    average = AveragedModel(modules, multi_avg_fn=_towards(keep), use_buffers=True)
    average.requires_grad_(False)
    average.eval()
    return average


def _towards(keep: float) -> Callable[[Any, Any, Any], None]:
    @torch.no_grad()
    def move(averages: list[Tensor], current: list[Tensor], n_steps: Tensor) -> None:
        if averages[0].is_floating_point():
            share = min(keep, (1 + int(n_steps)) / (10 + int(n_steps)))
            torch._foreach_lerp_(averages, current, 1 - share)
        else:  # counters
            torch._foreach_copy_(averages, current)

    return move
