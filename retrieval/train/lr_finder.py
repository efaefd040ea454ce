"""A search for the learning rate: steps at rates that rise from hardly any to far too much."""

import itertools
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch

from retrieval.arrays import FloatArray
from retrieval.errors import LmrError
from retrieval.images.spec import ImageSpec
from retrieval.models.device import keep_freed_memory
from retrieval.models.network import DescriptorModel
from retrieval.train.augment import Batch
from retrieval.train.config import TrainConfig
from retrieval.train.data import TrainingData
from retrieval.train.loader import feed, images_of
from retrieval.train.optim import set_rates, train_mode
from retrieval.train.run import Run
from retrieval.train.state import Parts, make_parts
from retrieval.train.step import NotFiniteError, Setting, learn, step_seed

N_STEPS = 100
LOWEST, HIGHEST = 1e-3, 1e2  # shares of the configuration's rates
KEEP = 0.95  # share of itself that the smoothed loss keeps in a step
N_QUIET = 20  # first steps, at rates too small to diverge, in which one batch is easier than another
DIVERGED = 4.0  # times the smallest smoothed loss: steps beyond tell nothing


@dataclass(frozen=True, slots=True)
class RateTest:
    """The smoothed loss at each share of the configuration's learning rates, (n,) both. best: the suggested share.

    backbone_rate, head_rate: of the configuration.
    """

    share: FloatArray
    loss: FloatArray
    best: float
    backbone_rate: float
    head_rate: float


def find_rate(model: DescriptorModel, data: TrainingData, spec: ImageSpec, config: TrainConfig, run: Run) -> RateTest:
    """The learning rate range test (Smith 2017, section 3.3), of both rates in their proportion. Spoils the network.

    Nothing is written. The suggestion is where the loss falls most steeply. LmrError: what `train` raises but a loss
    that is not finite, which ends the test; a loss that never falls.
    """
    model.require_size(spec.size)
    if run.device.type == "cpu":
        keep_freed_memory()
    torch.manual_seed(config.seed)
    parts = make_parts(model, data.counts, config, run.device, data.teacher.d if data.teacher else 0)
    images = images_of(data, spec, config)
    setting = Setting(spec, config, run.device, run.processes, data.teacher)
    train_mode(model)
    with closing(feed(data, images, config, run)) as batches:
        shares, losses = _rise(parts, itertools.islice(batches, N_STEPS), setting)
    share, loss = np.array(shares), np.array(losses)
    return RateTest(share, loss, steepest(share, loss), config.backbone_rate, config.head_rate)


def _rise(parts: Parts, steps: Iterable[list[Batch]], setting: Setting) -> tuple[list[float], list[float]]:
    """The shares that were tried until the loss diverged or the steps ended, and the smoothed loss at each."""
    shares: list[float] = []
    losses: list[float] = []
    smooth = 0.0
    for step, batches in enumerate(steps):
        share = LOWEST * (HIGHEST / LOWEST) ** (step / (N_STEPS - 1))
        set_rates(parts.optimizer, share)
        try:
            loss = learn(parts, batches, setting, step_seed(setting.config.seed, step))
        except NotFiniteError:
            break
        if loss is None:
            continue
        smooth = KEEP * smooth + (1 - KEEP) * loss
        shares.append(share)
        losses.append(smooth / (1 - KEEP ** (len(losses) + 1)))
        if step >= N_QUIET and losses[-1] > DIVERGED * min(losses):
            break
    return shares, losses


def steepest(share: FloatArray, loss: FloatArray) -> float:
    """The share at which the loss falls most steeply, by the logarithm of the share, before its minimum.

    LmrError when the loss does not fall.
    """
    end = int(loss.argmin()) + 1 if len(loss) else 0
    if end < 3:
        raise LmrError(
            "the loss falls at no learning rate; check the labels, or give other `backbone_rate` and `head_rate`"
        )
    slope = np.gradient(loss[:end], np.log(share[:end]))
    return float(share[int(slope.argmin())])
