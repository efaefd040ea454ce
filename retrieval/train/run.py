"""A training run: where it lives, what it computes on, and who is told of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retrieval.models.network import DescriptorModel
from retrieval.progress import SILENT, Progress
from retrieval.train.distributed import Processes
from retrieval.train.losses import LandmarkLoss


@dataclass(frozen=True, slots=True)
class Step:
    """A step that was taken. step: of its epoch, from 1; epoch: from 0."""

    epoch: int
    step: int
    n_steps: int
    loss: float
    pictures_per_s: float


Validate = Callable[[DescriptorModel, LandmarkLoss], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Run:
    """Where a training run lives, what it computes on, and who is told of it.

    validate: given the network and its loss, both in evaluation mode, returns metrics with a `gap`; the best network is
    kept by it. validation: digest of the images that it asks, without which runs cannot be told apart.
    processes: those that train together; only the first one writes and tells. earlier: the stages before, each the size
    of its images and its history, for the model's card. head: the state of the loss before, whose weights are taken
    over where they have the same shapes.
    """

    folder: Path
    device: torch.device
    n_workers: int = 2
    validate: Validate | None = None
    validation: str | None = None
    on_step: Callable[[Step], None] = lambda _: None
    on_epoch: Callable[[Mapping[str, float]], None] = lambda _: None
    progress: Progress = SILENT
    processes: Processes = field(default_factory=Processes)
    earlier: tuple[Mapping[str, Any], ...] = ()
    head: Mapping[str, Tensor] | None = None
