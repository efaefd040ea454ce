"""Training runs: their folder, what they compute on, and who is told of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retrieval.errors import LmrError
from retrieval.extras import install_hint
from retrieval.images.spec import ImageSpec
from retrieval.models.checkpoint import save_model
from retrieval.models.network import DescriptorModel
from retrieval.progress import SILENT, Progress
from retrieval.train.config import TrainConfig
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
Save = Callable[[Path, DescriptorModel, ImageSpec, Mapping[str, Any]], None]


def save_network(folder: Path, model: DescriptorModel, spec: ImageSpec, made_by: Mapping[str, Any]) -> None:
    """Writes the network that is trained as a model folder. LmrError as `save_model`."""
    save_model(folder, model, spec, made_by=made_by)


@dataclass(frozen=True, slots=True)
class Run:
    """A training run: its folder, what it computes on, and who is told of it.

    validate: given the network and its loss, both in evaluation mode, returns metrics with a `gap`; the best network is
    kept by it. validation: digest of the images that it asks, without which runs cannot be told apart.
    processes: those that train together; only the first one writes and tells. earlier: the stages before, each the size
    of its images and its history, for the model's card. head: the state of the loss before, whose weights are taken
    over where they have the same shapes. save: writes what is trained as a model folder, given how it was made.
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
    save: Save = save_network


class StepTeller:
    """Tells the progress of all stages together, in images, from the first step on that is taken.

    configs: of each stage. count_steps: gives the steps of an epoch of each; it is called once there is a step.
    """

    def __init__(
        self, progress: Progress, configs: Sequence[TrainConfig], count_steps: Callable[[], Sequence[int]]
    ) -> None:
        self.progress, self.configs, self.count_steps = progress, configs, count_steps
        self.begins: list[int] = []  # images before each stage, and in all
        self.n_told = 0

    def of_stage(self, number: int) -> Callable[[Step], None]:
        """A listener to the steps of a stage, counted from 1."""
        config = self.configs[number - 1]
        stage = f"stage {number}/{len(self.configs)}, " if len(self.configs) > 1 else ""

        def on_step(step: Step) -> None:
            if not self.begins:
                self.begins = self._count()
                self.progress.begin("training", self.begins[-1], "pictures")
            n_steps = step.epoch * step.n_steps + step.step
            n_done = self.begins[number - 1] + n_steps * config.batch_size * config.accumulate
            self.progress.add(n_done - self.n_told)
            self.n_told = n_done
            self.progress.note(f"{stage}epoch {step.epoch + 1}/{config.epochs}, loss {step.loss:.3f}")

        return on_step

    def _count(self) -> list[int]:
        per_stage = (
            n_steps * config.epochs * config.batch_size * config.accumulate
            for n_steps, config in zip(self.count_steps(), self.configs, strict=True)
        )
        return [0, *accumulate(per_stage)]


def epoch_teller(progress: Progress, board: Path | None) -> Callable[[Mapping[str, float]], None]:
    """A listener to epochs: tells a line of figures, and writes them to a folder for TensorBoard.

    What a run that was killed wrote there of this epoch and later ones no longer counts.
    """

    def on_epoch(row: Mapping[str, float]) -> None:
        progress.tell("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
        if board is None:
            return
        epoch = int(row["epoch"])
        writer = summary_writer()(str(board), purge_step=epoch)
        for name, value in row.items():
            if name != "epoch":
                writer.add_scalar(name, value, epoch)
        writer.close()

    return on_epoch


def summary_writer() -> Any:
    """The class that writes for TensorBoard. LmrError without its package."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise LmrError(f"`tensorboard` needs tensorboard ({error}); {install_hint('tensorboard')}") from error
    return SummaryWriter
