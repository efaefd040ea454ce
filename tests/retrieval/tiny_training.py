"""Trainings of a tiny network, of three steps an epoch."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_world import CPU, SPEC, Images, jpeg, tiny_model

from retrieval.errors import LmrError
from retrieval.models.checkpoint import weights_digest
from retrieval.models.network import DescriptorModel
from retrieval.train.config import AugmentConfig, TrainConfig
from retrieval.train.data import TrainingData
from retrieval.train.loop import train
from retrieval.train.loss_config import LossConfig
from retrieval.train.losses import LandmarkLoss
from retrieval.train.run import Run, Step
from retrieval.train.state import TrainingState

CONFIG = TrainConfig(
    epochs=2,
    batch_size=4,
    head_rate=0.02,
    backbone_rate=0.01,
    loss=LossConfig(scale=8.0),
    augment=AugmentConfig(min_area=0.8, hue=0),
)
N_STEPS = 3  # of an epoch: 9 landmark images, 3 in a batch of 4 with a negative


def data_of(unreadable: tuple[int, ...] = (), *, negatives: bool = True) -> TrainingData:
    """Nine images of three landmarks and three non-landmarks."""
    landmark = np.array([0, 1, 2] * 3 + [-1] * 3 * negatives, dtype=np.int32)
    encoded: list[bytes | None] = [jpeg(int(label), i) for i, label in enumerate(landmark)]
    for row in unreadable:
        encoded[row] = None
    return TrainingData(Images(encoded), landmark, ("a", "b", "c"), "digest", "abcdefghijkl")


def run_of(folder: Path, **changes: Any) -> Run:
    return Run(**({"folder": folder, "device": CPU, "n_workers": 0} | changes))


def trained(
    folder: Path,
    config: TrainConfig = CONFIG,
    *,
    data: TrainingData | None = None,
    model: DescriptorModel | None = None,
    **changes: Any,
) -> TrainingState:
    return train(model or tiny_model(), data or data_of(), SPEC, config, run_of(folder, **changes))


def message(call: Callable[..., object], *arguments: object, **named: object) -> str:
    with pytest.raises(LmrError) as caught:
        call(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def stop_after(n: int) -> Callable[[Step], None]:
    """Ctrl-C in the n-th step."""
    steps: list[Step] = []

    def on_step(progress: Step) -> None:
        steps.append(progress)
        if len(steps) == n:
            raise KeyboardInterrupt

    return on_step


VARIATIONS = {
    "average": dataclasses.replace(CONFIG, ema=0.9),
    "accumulation": dataclasses.replace(CONFIG, batch_size=2, accumulate=2),
    "plateau": dataclasses.replace(CONFIG, epochs=5, schedule="plateau", rate_drop_epochs=1, warmup=0),
    "patience": dataclasses.replace(CONFIG, epochs=9, patience=2),
    "rmsprop": dataclasses.replace(CONFIG, optimizer="rmsprop", freeze="1"),
    "features": dataclasses.replace(CONFIG, plain_pictures=True, freeze="all"),
    "fp16": dataclasses.replace(CONFIG, precision="fp16"),
}


def falling_gap() -> Callable[[DescriptorModel, LandmarkLoss], Mapping[str, float]]:
    """Best in the second epoch; a function of the weights, so that it does not know how often it was asked."""
    seen: dict[str, float] = {}
    gaps = iter([0.5, 0.6, 0.4, 0.3, 0.2])

    def validate(model: DescriptorModel, _: LandmarkLoss) -> Mapping[str, float]:
        digest = weights_digest(model)
        if digest not in seen:
            seen[digest] = next(gaps)
        return {"gap": seen[digest]}

    return validate
