"""Training in stages: a top model first, then the network under it, then larger pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from retrieval.images.preprocess import ImageSpec
from retrieval.model import DescriptorModel
from retrieval.training.config import TrainConfig
from retrieval.training.data import TrainingData
from retrieval.training.loop import history, require_possible, train
from retrieval.training.run import Run
from retrieval.training.state import TrainingState, read_head


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of training. run.folder: what `stage_folder` gives."""

    data: TrainingData
    spec: ImageSpec
    config: TrainConfig
    run: Run


def stage_folder(output: Path, number: int, n_stages: int) -> Path:
    """Where a stage, counted from 1, lives: the last one in the model folder itself, others in a folder in it."""
    return output if number == n_stages else output / f"stage-{number}"


def train_stages(model: DescriptorModel, stages: Sequence[Stage]) -> TrainingState:
    """Trains through the stages, each beginning with the last weights of the one before; the state of the last.

    The weights of the loss go along where its labels and shapes are the same. Stages that are finished only give their
    weights, so that a run that was killed goes on where it was. LmrError: what `train` raises.
    """
    for stage in stages:
        require_possible(model, stage.spec, stage.config, stage.run)
    before: Stage | None = None
    earlier: tuple[dict[str, Any], ...] = ()
    state = TrainingState()
    for stage in stages:
        head = read_head(before.run.folder) if before is not None and before.data.labels == stage.data.labels else None
        state = train(model, stage.data, stage.spec, stage.config, replace(stage.run, earlier=earlier, head=head))
        made_by = {"size": stage.spec.size, **history(stage.data, stage.config, state.log)}
        earlier += (made_by,)
        stage.run.processes.first_says(None)  # what the first one has saved is there for all
        before = stage
    return state
