"""Training: a backbone and its neck against class directions, readable from top to bottom."""

import errno
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from retrieval.arrays import IntArray, ObjArray
from retrieval.checkpoint import save_model, weights_digest
from retrieval.device import fast_dtype, keep_freed_memory, place
from retrieval.errors import LmrError
from retrieval.images import ImageSpec
from retrieval.model import DescriptorModel, to_input
from retrieval.sources import Source
from retrieval.training.augmentation import Batch, Collate, TrainingPictures, mix
from retrieval.training.config import TrainConfig
from retrieval.training.losses import LandmarkLoss
from retrieval.training.sampling import Sampler, training_sampler
from retrieval.training.state import Parts, TrainingState, resume, save_state, write_log

STATE_EVERY_S = 600.0  # a kill costs at most this much work inside an epoch
EPOCH_EVERY_S = 30.0  # epochs shorter than this are not all saved; a kill costs this much and one epoch


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Pictures to train on.

    landmark: (n,) int32 into labels, -1 = non-landmark. image_id: (n,) str, for messages; None = rows have no names.
    """

    source: Source
    landmark: IntArray
    labels: tuple[str, ...]
    digest: str
    image_id: ObjArray | None = None

    def __post_init__(self) -> None:
        n_landmarks = len(np.unique(self.landmark[self.landmark >= 0]))
        if n_landmarks < 2:
            raise LmrError(f"training needs pictures of at least 2 landmarks, got {n_landmarks}; add labelled rows")
        if self.landmark.max() >= len(self.labels):
            raise ValueError(f"landmark must lie in [-1, {len(self.labels)}), got {self.landmark.max()}")


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training is, after each step."""

    epoch: int
    step: int
    n_steps: int
    loss: float
    pictures_per_s: float


Validate = Callable[[DescriptorModel], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Run:
    """Where a training run lives and who is told of it.

    validate: given the network in evaluation mode, returns metrics with a `gap`; the best network is kept by it.
    """

    folder: Path
    device: torch.device
    n_workers: int = 2
    validate: Validate | None = None
    on_step: Callable[[Progress], None] = lambda _: None
    on_epoch: Callable[[Mapping[str, float]], None] = lambda _: None


def train(model: DescriptorModel, data: TrainingData, spec: ImageSpec, config: TrainConfig, run: Run) -> TrainingState:
    """Trains `model`, writing the best network to `run.folder` and the last one to `run.folder/last`.

    A run that was killed goes on from its last saved step and ends with the same weights as one that was not, for the
    same number of threads. Raises LmrError when the folder holds another run or cannot be written, pictures cannot be
    read, the loss is not finite, or the disk is full.
    """
    model.require_size(spec.size)
    if run.device.type == "cpu":
        keep_freed_memory()
    torch.manual_seed(config.seed)
    sampler = training_sampler(data.landmark, config)
    n_steps = len(sampler.plan(0))
    parts = _make_parts(model, data, config, run.device)
    identity = run_identity(model, data, spec, config) | {"starting weights": weights_digest(model)}
    _make_folder(run.folder)
    state = resume(run.folder, parts, identity)
    if not (state.epoch or state.step):
        save_state(run.folder, parts, identity, state)  # a full disk shows now, and a folder with a model has a state
    pictures = TrainingPictures(data.source, spec, config.augment)
    batches = _batches(pictures, sampler, (state.epoch, state.step), data.landmark, run.n_workers)
    clock = saved_at = time.monotonic()

    while state.epoch < config.epochs:
        model.train()
        for batch in islice(batches, n_steps - state.step):
            n_done = state.epoch * n_steps + state.step
            torch.manual_seed(step_seed(config.seed, n_done))
            _set_rates(parts.optimizer, rate_factor(n_done, n_steps * config.epochs, config.warmup))
            state.unreadable |= batch.unreadable
            if len(batch.labels) > 1:
                loss = _loss(parts, mix(batch, config.augment, torch.default_generator), spec, run.device)
                _require_finite(loss, parts.optimizer, state)
                _descend(parts, loss, config.clip_norm)
                state.loss_sum += loss.item()
                state.n_losses += 1
            state.step += 1
            now = time.monotonic()
            step_s, clock = now - clock, now
            state.seconds += step_s
            run.on_step(Progress(state.epoch, state.step, n_steps, state.loss, len(batch.labels) / max(1e-9, step_s)))
            if clock - saved_at > STATE_EVERY_S:
                save_state(run.folder, parts, identity, state)
                saved_at = clock

        _require_read(state)
        row: dict[str, float] = {"epoch": state.epoch + 1, "loss": state.loss}
        row["rate"] = float(parts.optimizer.param_groups[0]["lr"])
        model.eval()
        row |= dict(run.validate(model)) if run.validate else {}
        now = time.monotonic()
        state.seconds, clock = state.seconds + now - clock, now
        state.log.append(row | {"seconds": round(state.seconds, 1)})
        write_log(run.folder, state.log)
        better = run.validate is not None and _is_better(state)
        state.epoch, state.step, state.loss_sum, state.n_losses = state.epoch + 1, 0, 0.0, 0
        if better or state.epoch == config.epochs or clock - saved_at > EPOCH_EVERY_S:
            made_by = {"training": asdict(config), "data": data.digest, "log": state.log}
            if better or run.validate is None:
                save_model(run.folder, model, spec, made_by=made_by)
            save_model(run.folder / "last", model, spec, made_by=made_by)
            save_state(run.folder, parts, identity, state)
            saved_at = time.monotonic()
        run.on_epoch(state.log[-1])
    return state


def step_seed(seed: int, n_done: int) -> int:
    """The seed of all that is random in a step, after n_done others."""
    return seed * 1_000_003 + n_done


def rate_factor(step: int, n_steps: int, warmup: float) -> float:
    """Share of the peak learning rate: linear over the first `warmup` of the steps, then a cosine to zero."""
    n_warmup = max(1, round(warmup * n_steps))
    if step < n_warmup:
        return (step + 1) / n_warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - n_warmup) / max(1, n_steps - n_warmup))))


def run_identity(model: DescriptorModel, data: TrainingData, spec: ImageSpec, config: TrainConfig) -> dict[str, Any]:
    """What two runs must have in common to be one run."""
    return {
        "model": model.config.to_json(),
        "picture preparation": spec.to_json(),
        "data": data.digest,
        "training configuration": asdict(config),
    }


def _make_parts(model: DescriptorModel, data: TrainingData, config: TrainConfig, device: torch.device) -> Parts:
    """The network on its device, and all that trains it."""
    counts = np.bincount(data.landmark[data.landmark >= 0], minlength=len(data.labels))
    loss = LandmarkLoss(config.loss, model.d, counts)
    place(model, device)
    loss.to(device)
    optimizer = _optimizer(model, loss, config)
    scaler = torch.amp.GradScaler(device.type, enabled=fast_dtype(device) == torch.float16)
    return Parts(model, loss, optimizer, scaler)


def _optimizer(model: DescriptorModel, loss: LandmarkLoss, config: TrainConfig) -> torch.optim.Optimizer:
    """Two learning rates; no weight decay on norms, biases and the GeM exponent (He et al. 2019, section 3.1)."""
    groups: list[dict[str, Any]] = []
    for rate, named in (
        (config.backbone_rate, list(model.backbone.named_parameters())),
        (
            config.head_rate,
            [
                *((n, p) for n, p in model.named_parameters() if not n.startswith("backbone.")),
                *loss.named_parameters(),
            ],
        ),
    ):
        for decay, wanted in ((config.weight_decay, True), (0.0, False)):
            chosen = [p for _, p in named if (p.ndim > 1) == wanted]
            groups.append({"params": chosen, "initial_lr": rate, "weight_decay": decay})
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.head_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=config.head_rate, fused=True)


def _set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def _batches(
    pictures: TrainingPictures, sampler: Sampler, done: tuple[int, int], landmark: IntArray, n_workers: int
) -> Iterator[Batch]:
    """The batches from an epoch and a step on, without end, decoded by worker processes that outlive the epochs."""
    loader = iter(
        DataLoader(
            pictures,
            batch_sampler=_keys(sampler, *done),
            collate_fn=Collate(landmark),
            num_workers=n_workers,
            pin_memory=torch.cuda.is_available(),
        )
    )
    while True:
        try:
            batch = next(loader)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise LmrError(
                "a process that decodes pictures was killed, most often for want of memory; "
                "run the same command again with fewer --workers"
            ) from error
        yield batch


def _keys(sampler: Sampler, epoch: int, step: int) -> Iterator[list[tuple[int, int]]]:
    """Of each batch the rows and seeds of its pictures."""
    for number in count(epoch):
        plan = sampler.plan(number)
        for rows, seeds in islice(zip(plan.rows, plan.seeds, strict=True), step if number == epoch else 0, None):
            yield list(zip(rows.tolist(), seeds.tolist(), strict=True))


def _autocast(device: torch.device) -> torch.autocast:
    """The number format that is fast on the device."""
    dtype = fast_dtype(device)
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def _loss(parts: Parts, batch: Batch, spec: ImageSpec, device: torch.device) -> Tensor:
    """The loss of a batch; the network runs in the number format that is fast on the device, the loss in float32."""
    with _autocast(device):
        descriptors = parts.model(to_input(batch.pictures, spec, device))
    loss: Tensor = parts.loss(descriptors, batch.labels.to(device))
    if batch.mixed is not None:
        others, share = batch.mixed
        loss = share * loss + (1 - share) * parts.loss(descriptors, others.to(device))
    return loss


def _descend(parts: Parts, loss: Tensor, clip_norm: float) -> None:
    """One step down the gradient, whose norm over all parameters is at most clip_norm."""
    parts.optimizer.zero_grad(set_to_none=True)
    parts.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    parts.scaler.unscale_(parts.optimizer)
    nn.utils.clip_grad_norm_([*parts.model.parameters(), *parts.loss.parameters()], clip_norm)
    parts.scaler.step(parts.optimizer)
    parts.scaler.update()


def _require_finite(loss: Tensor, optimizer: torch.optim.Optimizer, state: TrainingState) -> None:
    if not torch.isfinite(loss):
        rates = " and ".join(f"{group['lr']:g}" for group in optimizer.param_groups[::2])
        raise LmrError(
            f"the loss became {loss.item()} in epoch {state.epoch + 1}, step {state.step + 1} (learning rates {rates} "
            "there); lower --backbone-rate and --head-rate and start again with --overwrite"
        )


def _require_read(state: TrainingState) -> None:
    """An epoch in which nothing could be learned is an error, not a model."""
    if not state.n_losses:
        reason = next(iter(state.unreadable.values()), "too few pictures")
        raise LmrError(
            f"no batch of epoch {state.epoch + 1} held two pictures that can be read ({reason}); check --images"
        )


def _is_better(state: TrainingState) -> bool:
    """Whether no epoch before had a larger GAP on the validation pictures; remembers the largest."""
    better = state.log[-1]["gap"] >= state.best
    state.best = max(state.best, state.log[-1]["gap"])
    return better


def _make_folder(folder: Path) -> None:
    """Found out before the first epoch, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LmrError(f"{folder}: cannot be written: {error.strerror}; choose another --output") from error
    if not os.access(folder, os.W_OK):
        raise LmrError(f"{folder}: cannot be written: {os.strerror(errno.EACCES)}; choose another --output")
