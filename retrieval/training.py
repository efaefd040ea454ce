"""Training: a backbone and its neck against class directions, readable from top to bottom."""

import io
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from retrieval.arrays import IntArray
from retrieval.augmentation import Batch, Collate, TrainingPictures, to_input
from retrieval.checkpoint import save_model, weights_digest, write_atomically
from retrieval.device import fast_dtype, place
from retrieval.errors import LmrError
from retrieval.images import ImageSpec
from retrieval.losses import LandmarkLoss
from retrieval.model import DescriptorModel
from retrieval.recipe import TrainConfig
from retrieval.sampling import EpochPlan, Sampler
from retrieval.sources import Source

STATE_NAME = "training.pt"
LOG_NAME = "training.csv"
STATE_EVERY_S = 600.0  # a kill costs at most this much work inside an epoch


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Pictures to train on. landmark: (n,) int32 into labels, -1 = non-landmark."""

    source: Source
    landmark: IntArray
    labels: tuple[str, ...]
    digest: str

    def __post_init__(self) -> None:
        if len(self.labels) < 2:
            raise LmrError(
                f"training needs pictures of at least 2 landmarks, got {len(self.labels)}; add labelled rows"
            )


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training is, after each step."""

    epoch: int
    step: int
    n_steps: int
    loss: float
    pictures_per_s: float


@dataclass(slots=True)
class TrainingState:
    """What besides the weights a resumed run needs. log: one row an epoch."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    best: float = -math.inf
    log: list[dict[str, float]] = field(default_factory=list)
    unreadable: dict[int, str] = field(default_factory=dict)


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
    same number of threads. Raises LmrError when the folder holds another run, pictures cannot be read, the loss is not
    finite, or the disk is full.
    """
    torch.manual_seed(config.seed)
    loss = LandmarkLoss(
        config.loss, model.d, np.bincount(data.landmark[data.landmark >= 0], minlength=len(data.labels))
    )
    place(model, run.device)
    loss.to(run.device)
    sampler = _sampler(data, config)
    n_steps = len(sampler.plan(0))
    optimizer = _optimizer(model, loss, config)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_factor(step, n_steps * config.epochs, config.warmup)
    )
    autocast = torch.autocast(run.device.type, fast_dtype(run.device), enabled=fast_dtype(run.device) != torch.float32)
    scaler = torch.amp.GradScaler(run.device.type, enabled=fast_dtype(run.device) == torch.float16)
    parts = {"model": model, "loss": loss, "optimizer": optimizer, "schedule": schedule, "scaler": scaler}
    identity = run_identity(model, data, spec, config) | {"starting weights": weights_digest(model)}
    state = _resume(run.folder / STATE_NAME, parts, identity)
    pictures = TrainingPictures(data.source, spec, config.augment)
    saved_at = time.monotonic()

    while state.epoch < config.epochs:
        plan = sampler.plan(state.epoch)
        model.train()
        for batch in _batches(pictures, plan, state.step, data.landmark, run.n_workers):
            began = time.monotonic()
            state.unreadable |= batch.unreadable
            torch.manual_seed(config.seed * 1_000_003 + state.epoch * n_steps + state.step)
            if len(batch.labels) > 1:
                with autocast:
                    descriptors = model(to_input(batch.pictures, spec, run.device))
                batch_loss = loss(descriptors, batch.labels.to(run.device))
                _require_finite(batch_loss, optimizer, state)
                optimizer.zero_grad(set_to_none=True)
                scaler.scale(batch_loss).backward()
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_([*model.parameters(), *loss.parameters()], config.clip_norm)
                scaler.step(optimizer)
                scaler.update()
                state.loss_sum += batch_loss.item()
            schedule.step()
            state.step += 1
            elapsed = time.monotonic() - began
            state.seconds += elapsed
            run.on_step(
                Progress(state.epoch, state.step, n_steps, state.loss_sum / state.step, len(batch.labels) / elapsed)
            )
            if time.monotonic() - saved_at > STATE_EVERY_S:
                _save_state(run.folder / STATE_NAME, parts, identity, state)
                saved_at = time.monotonic()

        _refuse_unreadable_set(state, data)
        row = {
            "epoch": state.epoch + 1,
            "loss": state.loss_sum / max(1, state.step),
            "rate": schedule.get_last_lr()[0],
        }
        row |= {"seconds": round(state.seconds, 1)}
        model.eval()
        row |= dict(run.validate(model)) if run.validate else {}
        state.log.append(row)
        made_by = {"training": asdict(config), "data": data.digest, "log": state.log}
        if row.get("gap", math.inf) >= state.best:
            state.best = row.get("gap", -math.inf)
            save_model(run.folder, model, spec, made_by=made_by)
        save_model(run.folder / "last", model, spec, made_by=made_by)
        state.epoch, state.step, state.loss_sum = state.epoch + 1, 0, 0.0
        _save_state(run.folder / STATE_NAME, parts, identity, state)
        write_log(run.folder / LOG_NAME, state.log)
        run.on_epoch(row)
    return state


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


def read_state(folder: Path) -> tuple[dict[str, Any], TrainingState] | None:
    """Identity and state of the run in a folder, None when there is none. LmrError when it is damaged."""
    content = _read_state_file(folder / STATE_NAME)
    return None if content is None else (content["identity"], TrainingState(**content["state"]))


def write_log(path: Path, log: list[dict[str, float]]) -> None:
    """Writes the epochs as CSV, a column for each metric."""
    columns = list(dict.fromkeys(name for row in log for name in row))
    lines = [",".join(columns)] + [",".join(f"{row[c]:g}" if c in row else "" for c in columns) for row in log]
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def _sampler(data: TrainingData, config: TrainConfig) -> Sampler:
    share = config.negative_share if config.loss.negative_weight else 0.0
    return Sampler(data.landmark, config.batch_size, config.balance, share, config.epoch_size, config.seed)


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
            groups.append({"params": chosen, "lr": rate, "weight_decay": decay})
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.head_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=config.head_rate)


def _batches(
    pictures: TrainingPictures, plan: EpochPlan, done: int, landmark: IntArray, n_workers: int
) -> Iterator[Batch]:
    """The batches of an epoch that are still to do, decoded by worker processes."""
    keys = [
        [(int(row), int(seed)) for row, seed in zip(rows, seeds, strict=True)]
        for rows, seeds in zip(plan.rows[done:], plan.seeds[done:], strict=True)
    ]
    loader = DataLoader(
        pictures,
        batch_sampler=keys,
        collate_fn=Collate(landmark),
        num_workers=n_workers,
        pin_memory=torch.cuda.is_available(),
    )
    yield from loader


def _require_finite(loss: Tensor, optimizer: torch.optim.Optimizer, state: TrainingState) -> None:
    if not torch.isfinite(loss):
        rates = ", ".join(f"{group['lr']:g}" for group in optimizer.param_groups[::2])
        raise LmrError(
            f"the loss became {loss.item()} in epoch {state.epoch + 1}, step {state.step + 1} (learning rates {rates}); "
            "lower --backbone-rate and --head-rate and start again with --overwrite"
        )


def _refuse_unreadable_set(state: TrainingState, data: TrainingData) -> None:
    if len(state.unreadable) == len(data.landmark):
        reason = next(iter(state.unreadable.values()))
        raise LmrError(f"none of the {len(data.landmark)} training pictures can be read ({reason}); check --images")


def _save_state(path: Path, parts: Mapping[str, Any], identity: Mapping[str, Any], state: TrainingState) -> None:
    buffer = io.BytesIO()
    states = {name: part.state_dict() for name, part in parts.items()}
    torch.save({"identity": dict(identity), "state": asdict(state), "parts": states}, buffer)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise LmrError(
            f"{path}: cannot be written: {error.strerror}; make room and run the same command again"
        ) from error


def _resume(path: Path, parts: Mapping[str, Any], identity: Mapping[str, Any]) -> TrainingState:
    content = _read_state_file(path)
    if content is None:
        return TrainingState()
    for what, value in identity.items():
        if content["identity"].get(what) != value:
            raise LmrError(f"{path.parent} holds a run with another {what}; go on with that one, or give --overwrite")
    for name, part in parts.items():
        part.load_state_dict(content["parts"][name])
    return TrainingState(**content["state"])


def _read_state_file(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise LmrError(f"{path} is damaged; start again with --overwrite") from error
    return content
