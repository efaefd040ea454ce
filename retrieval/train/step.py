"""One step of training: from batches to a loss, from the loss to new weights."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrieval.images.spec import ImageSpec
from retrieval.models.device import explained
from retrieval.models.network import DescriptorModel, to_input
from retrieval.train.augment import Batch, mix
from retrieval.train.config import TrainConfig
from retrieval.train.data import Teacher
from retrieval.train.distributed import Processes
from retrieval.train.optim import train_mode
from retrieval.train.state import Parts, network_dtype

_SEEDS_APART, _RANKS_APART = 1_000_000_000_039, 1_000_000_007_000_003  # of batches of one step, and of processes


class NotFiniteError(ArithmeticError):
    """The loss or its gradient is not a number, or infinite; the text says which."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Surroundings of a step: all of it but what changes."""

    spec: ImageSpec
    config: TrainConfig
    device: torch.device
    processes: Processes = field(default_factory=Processes)
    teacher: Teacher | None = None


def step_seed(seed: int, n_done: int) -> int:
    """The seed of all that is random in a step, after n_done others."""
    return seed * 1_000_003 + n_done


def learn(parts: Parts, batches: Sequence[Batch], setting: Setting, seed: int) -> float | None:
    """One step down the gradient of the batches as if they were one; its loss.

    None, and no step, when no batch holds two images. seed: of what is random in network and loss. Raises
    NotFiniteError, for loss or gradient, before a weight changes; LmrError when memory runs out, or images are too
    small.
    """
    counts = setting.processes.totals([len(batch.labels) for batch in batches])
    n_used = sum(count for count in counts if count > 1)
    if not n_used:
        return None
    parts.optimizer.zero_grad(set_to_none=True)
    losses: list[Tensor] = []
    with explained_step(setting):
        for i, (count, batch) in enumerate(zip(counts, batches, strict=True)):
            if count > 1:
                loss = batch_loss(parts, batch, setting, seed + i * _SEEDS_APART) * (count / n_used)
                losses.append(loss.detach())
                parts.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        norm = _clip(parts, setting)
        *values, length = torch.stack([*losses, norm]).tolist()  # one wait for a GPU instead of two
        total = float(sum(values))
        if not math.isfinite(total):
            raise NotFiniteError(f"the loss became {total}")
        if not math.isfinite(length) and not _may_scale_less(parts.scaler):
            raise NotFiniteError(f"the length of the gradient became {length}")
        _descend(parts)
    return total


def batch_loss(parts: Parts, batch: Batch, setting: Setting, seed: int) -> Tensor:
    """The loss of a batch, or of all processes' batches as one.

    The network runs in the number format of the configuration, the loss in float32.
    """
    processes = setting.processes
    torch.manual_seed(seed + processes.rank * _RANKS_APART)
    batch = mix(batch, setting.config.augment, torch.default_generator)
    features = pooled_features(parts, batch, setting)
    n_features = features.shape[1]
    if setting.teacher is not None:
        features = torch.cat([features, _targets(setting.teacher, batch).to(setting.device)], dim=1)
    features, labels = processes.gather(features, batch.labels.to(setting.device))
    features, targets = features[:, :n_features], features[:, n_features:]
    if processes.n > 1:
        torch.manual_seed(seed)  # what a loss draws is the same in all processes
    descriptors = parts.model.neck(features)
    if parts.loss.wants == "unit":
        descriptors = F.normalize(descriptors, dim=1)
    loss: Tensor = parts.loss(descriptors, labels)
    if batch.mixed is not None:
        others, share = batch.mixed
        loss = share * loss + (1 - share) * parts.loss(descriptors, others.to(setting.device))
    if parts.distillation is not None:
        loss = loss + parts.distillation(F.normalize(descriptors, dim=1), targets[:, :-1], targets[:, -1] > 0)
    return loss


def _targets(teacher: Teacher, batch: Batch) -> Tensor:
    """(b, d + 1) what the teacher makes of the images, and in the last column whether it knows them."""
    found, known = teacher.targets(np.array(batch.rows, dtype=np.int64))
    return torch.from_numpy(np.concatenate([found, known[:, None].astype(np.float32)], axis=1))


def pooled_features(parts: Parts, batch: Batch, setting: Setting) -> Tensor:
    """(b, c) float32 features before the neck, on the device; they may be in the batch already."""
    if batch.images.ndim == 2:
        return batch.images.to(setting.device, non_blocking=True)
    images = batch.images
    if not len(images):  # other processes have some, and wait for this one
        images = torch.zeros(1, 3, setting.spec.size, setting.spec.size, dtype=torch.uint8)
    with autocast(setting):
        features = parts.model.pooled(to_input(images, setting.spec, setting.device))
    return features[: len(batch.labels)]


def autocast(setting: Setting) -> torch.autocast:
    """The number format of the configuration."""
    dtype = network_dtype(setting.config, setting.device)
    return torch.autocast(setting.device.type, dtype, enabled=dtype != torch.float32)


def _may_scale_less(scaler: torch.amp.GradScaler) -> bool:
    """True if the gradient may be finite with a smaller scale, to which such a step, that is skipped, leads."""
    return scaler.is_enabled() and scaler.get_scale() >= 1


def _clip(parts: Parts, setting: Setting) -> Tensor:
    """Makes the norm of the gradient over all parameters at most the configuration's clip_norm; what it was."""
    setting.processes.add_gradients(parts.model, parts.losses)
    parts.scaler.unscale_(parts.optimizer)
    parameters = [*parts.model.parameters(), *parts.losses.parameters()]
    return nn.utils.clip_grad_norm_(parameters, setting.config.clip_norm)


def _descend(parts: Parts) -> None:
    """One step down the gradient."""
    parts.scaler.step(parts.optimizer)
    parts.scaler.update()
    if parts.loss.bank is not None:
        parts.loss.bank.rest()  # also when the step was skipped
    if parts.average is not None:
        parts.average.update_parameters(parts.averaged_from)


def explained_step(setting: Setting) -> AbstractContextManager[None]:
    """LmrError for too little memory for a batch, and for images that are too small for the network."""
    remedy = (
        "lower `batch_size` (with `accumulate` as much larger a step stays the same) or `size`, "
        "and start again with `overwrite`"
    )
    return explained(setting.device, setting.config.batch_size, setting.spec.size, remedy)


def compile_backbone(model: DescriptorModel, setting: Setting) -> str | None:
    """Compiles the backbone and tries it on an empty batch; why it cannot be, None if it can.

    What cannot be compiled runs as it is: from then on nothing in this process is compiled.
    """
    config, side = setting.config, setting.spec.size
    n_images = max(1, config.batch_size // setting.processes.n)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.backbone.compile()
    train_mode(model)
    try:
        with autocast(setting):
            empty = to_input(torch.zeros(n_images, 3, side, side, dtype=torch.uint8), setting.spec, setting.device)
            features = model.pooled(empty)
        if features.requires_grad:
            features.sum().backward()  # type: ignore[no-untyped-call]
    except Exception as error:  # of the compiler, of the one that it calls, of the system that has none
        torch.compiler.set_stance("force_eager")
        return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    finally:
        model.zero_grad(set_to_none=True)
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    return None
