"""Training: a backbone and its neck against class directions, readable from top to bottom."""

import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from retrieval.arrays import IntArray
from retrieval.checkpoint import save_model, weights_digest
from retrieval.device import keep_freed_memory, place
from retrieval.errors import LmrError
from retrieval.images import ImageSpec
from retrieval.model import DescriptorModel
from retrieval.sources import Source
from retrieval.training.augmentation import Batch, Collate, TrainingPictures
from retrieval.training.averaging import average_of
from retrieval.training.compiling import compile_backbone
from retrieval.training.config import TrainConfig
from retrieval.training.features import FeatureCache, FeatureRows, PlainPictures, frozen_features
from retrieval.training.freezing import freeze, train_mode
from retrieval.training.losses import LandmarkLoss
from retrieval.training.optimizers import make_optimizer, rates, set_rates
from retrieval.training.processes import Processes
from retrieval.training.sampling import Sampler
from retrieval.training.schedules import is_finished, rate_share
from retrieval.training.state import Parts, TrainingState, resume, save_state, write_log
from retrieval.training.step import NotFiniteError, Setting, learn, network_dtype

STATE_EVERY_S = 600.0  # a kill costs at most this much work inside an epoch
EPOCH_EVERY_S = 30.0  # epochs shorter than this are not all saved; a kill costs this much and one epoch
N_NAMED = 8  # pictures of a batch that an error names


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Pictures to train on. landmark: (n,) int32 into labels, -1 = non-landmark. image_id: (n,), for messages."""

    source: Source
    landmark: IntArray
    labels: tuple[str, ...]
    digest: str
    image_id: Sequence[str] = ()

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
    processes: those that train together; only the first one writes and tells.
    """

    folder: Path
    device: torch.device
    n_workers: int = 2
    validate: Validate | None = None
    on_step: Callable[[Progress], None] = lambda _: None
    on_epoch: Callable[[Mapping[str, float]], None] = lambda _: None
    on_warning: Callable[[str], None] = lambda _: None
    processes: Processes = field(default_factory=Processes)


Pictures = TrainingPictures | PlainPictures | FeatureRows


@dataclass(slots=True)
class _Training:
    """A run on its way. n_steps: of an epoch. clock, saved_at: monotonic seconds of the last step and the last save."""

    parts: Parts
    state: TrainingState
    data: TrainingData
    setting: Setting
    run: Run
    sampler: Sampler
    n_steps: int
    identity: dict[str, Any]
    clock: float
    saved_at: float

    @property
    def writes(self) -> bool:
        return self.run.processes.rank == 0


def train(
    model: DescriptorModel,
    data: TrainingData,
    spec: ImageSpec,
    config: TrainConfig,
    run: Run,
    head: Mapping[str, Tensor] | None = None,
) -> TrainingState:
    """Trains `model`, writing the best network to `run.folder` and the last one to `run.folder/last`.

    A run that was killed goes on from its last saved step and ends with the same weights as one that was not, for the
    same number of threads. head: the state of another run's loss, to begin with its weights where they have the
    same shapes. Raises LmrError when the folder holds another run or cannot be written, pictures cannot be read, the
    loss is not finite, memory or disk are full, or the configuration does not fit the network or the run.
    """
    training = _begin(model, data, spec, config, run, head)
    state = training.state
    batches = _batches(training, _pictures(training))
    while not is_finished(config, state.log):
        _train_epoch(training, batches)
        _finish_epoch(training)
    if training.parts.average is not None:
        model.load_state_dict(training.parts.result.state_dict())
    model.eval()
    return state


def run_identity(model: DescriptorModel, data: TrainingData, spec: ImageSpec, config: TrainConfig) -> dict[str, Any]:
    """What two runs must have in common to be one run."""
    return {
        "model": model.config.to_json(),
        "picture preparation": spec.to_json(),
        "data": data.digest,
        "training configuration": asdict(config),
    }


def _begin(
    model: DescriptorModel,
    data: TrainingData,
    spec: ImageSpec,
    config: TrainConfig,
    run: Run,
    head: Mapping[str, Tensor] | None,
) -> _Training:
    """A new run, or the one in the folder where it was saved."""
    model.require_size(spec.size)
    _require_possible(config, run)
    if run.device.type == "cpu":
        keep_freed_memory()
    torch.manual_seed(config.seed)
    sampler = _sampler(data, config)
    setting = Setting(spec, config, run.device, run.processes)
    parts = _make_parts(model, data, config, run.device)
    identity = run_identity(model, data, spec, config) | {"starting weights": weights_digest(model)}
    if head is not None:
        _take_over(parts.loss, head)
    if run.processes.rank == 0:
        _make_folder(run.folder)
    state = resume(run.folder, parts, identity)
    if run.processes.first_says(not (state.epoch or state.step)) and run.processes.rank == 0:
        save_state(run.folder, parts, identity, state)  # a full disk shows now, and a folder with a model has a state
    if config.compile and (reason := compile_backbone(model, setting)):
        run.on_warning(f"--compile: the backbone runs as it is, it cannot be compiled here: {reason}")
    now = time.monotonic()
    return _Training(parts, state, data, setting, run, sampler, len(sampler.plan(0)), identity, now, now)


def _train_epoch(training: _Training, batches: Iterator[list[Batch]]) -> None:
    """The steps of an epoch that are still to do."""
    parts, state, config, run = training.parts, training.state, training.setting.config, training.run
    train_mode(parts.model)
    for together in islice(batches, training.n_steps - state.step):
        n_done = state.epoch * training.n_steps + state.step
        set_rates(parts.optimizer, rate_share(config, n_done, training.n_steps * config.epochs, state.log))
        for batch in together:
            state.unreadable |= batch.unreadable
        try:
            loss = learn(parts, together, training.setting, config.seed * 1_000_003 + n_done)
        except NotFiniteError as error:
            raise _not_finite(training, error.value) from error
        if loss is not None:
            state.loss_sum += loss
            state.n_losses += 1
        state.step += 1
        step_s = _tick(training)
        if training.writes:
            n_pictures = sum(len(batch.labels) for batch in together) * run.processes.n
            rate = n_pictures / max(1e-9, step_s)
            run.on_step(Progress(state.epoch, state.step, training.n_steps, state.loss, rate))
            if training.clock - training.saved_at > STATE_EVERY_S:
                _save_state(training)


def _finish_epoch(training: _Training) -> None:
    """Validates, writes the log, and saves what is worth it."""
    parts, state, config, run = training.parts, training.state, training.setting.config, training.run
    state.unreadable = run.processes.join(state.unreadable)
    _require_read(state)
    row: dict[str, float] = {"epoch": state.epoch + 1, "loss": state.loss}
    row["rate"] = next(iter(rates(parts.optimizer).values()))
    parts.model.eval()
    row |= dict(run.validate(parts.result)) if run.validate and training.writes else {}
    _tick(training)
    state.log.append(run.processes.first_says(row | {"seconds": round(state.seconds, 1)}))
    better = run.validate is not None and _is_better(state)
    state.epoch, state.step, state.loss_sum, state.n_losses = state.epoch + 1, 0, 0.0, 0
    if not training.writes:
        return
    write_log(run.folder, state.log)
    if better or is_finished(config, state.log) or training.clock - training.saved_at > EPOCH_EVERY_S:
        made_by = {"training": asdict(config), "data": training.data.digest, "log": state.log}
        for folder in [run.folder] * (better or run.validate is None) + [run.folder / "last"]:
            save_model(folder, parts.result, training.setting.spec, made_by=made_by)
        _save_state(training)
    run.on_epoch(state.log[-1])


def _tick(training: _Training) -> float:
    """Seconds since the last tick; they count as training time."""
    now = time.monotonic()
    passed_s, training.clock = now - training.clock, now
    training.state.seconds += passed_s
    return passed_s


def _save_state(training: _Training) -> None:
    save_state(training.run.folder, training.parts, training.identity, training.state)
    training.saved_at = time.monotonic()


def _make_parts(model: DescriptorModel, data: TrainingData, config: TrainConfig, device: torch.device) -> Parts:
    """The network on its device, and all that trains it."""
    counts = np.bincount(data.landmark[data.landmark >= 0], minlength=len(data.labels))
    loss = LandmarkLoss(config.loss, model.d, counts)
    place(model, device)
    loss.to(device)
    freeze(model, config.freeze)
    optimizer = make_optimizer(model, loss, config)
    scaler = torch.amp.GradScaler(device.type, enabled=network_dtype(config, device) == torch.float16)
    return Parts(model, loss, optimizer, scaler, average_of(model, config.ema) if config.ema else None)


def _sampler(data: TrainingData, config: TrainConfig) -> Sampler:
    """Draws what a step takes: several batches are drawn as one."""
    share = config.negative_share if config.loss.negative_weight else 0.0
    n_pictures = config.batch_size * config.accumulate
    return Sampler(data.landmark, n_pictures, config.balance, share, config.epoch_size, config.seed)


def _take_over(loss: LandmarkLoss, head: Mapping[str, Tensor]) -> None:
    """Begins with the weights of another loss, if they all fit; what depends on margins and counts stays."""
    own = dict(loss.named_parameters())
    if all(name in head and head[name].shape == weights.shape for name, weights in own.items()):
        with torch.no_grad():
            for name, weights in own.items():
                weights.copy_(head[name])


def _pictures(training: _Training) -> Pictures:
    """What is trained on: varied pictures, plain ones, or what a frozen backbone makes of those."""
    data, setting, run = training.data, training.setting, training.run
    if not setting.config.plain_pictures:
        return TrainingPictures(data.source, setting.spec, setting.config.augment)
    plain = PlainPictures(data.source, setting.spec)
    if setting.config.freeze != "all":
        return plain
    cache = FeatureCache(run.folder, data.digest, len(data.landmark), run.n_workers)
    return frozen_features(training.parts, setting, plain, cache)


def _batches(training: _Training, pictures: Pictures) -> Iterator[list[Batch]]:
    """What each step takes, from an epoch and a step on, without end.

    Decoded by worker processes that outlive the epochs.
    """
    config, run, state = training.setting.config, training.run, training.state
    loader = iter(
        DataLoader(
            pictures,
            batch_sampler=_keys(training.sampler, (state.epoch, state.step), config.accumulate, run.processes),
            collate_fn=Collate(training.data.landmark),
            num_workers=0 if isinstance(pictures, FeatureRows) else run.n_workers,
            pin_memory=torch.cuda.is_available(),
        )
    )
    while True:
        try:
            together = [next(loader) for _ in range(config.accumulate)]
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise LmrError(
                "a process that decodes pictures was killed, most often for want of memory; "
                "run the same command again with fewer --workers"
            ) from error
        yield together


def _keys(
    sampler: Sampler, begin: tuple[int, int], accumulate: int, processes: Processes
) -> Iterator[list[tuple[int, int]]]:
    """Of each batch the rows and seeds of this process' pictures; `accumulate` batches are a step."""
    for epoch in count(begin[0]):
        plan = sampler.plan(epoch)
        steps = zip(plan.rows, plan.seeds, strict=True)
        for rows, seeds in islice(steps, begin[1] if epoch == begin[0] else 0, None):
            keys = list(zip(rows.tolist(), seeds.tolist(), strict=True))
            for i in range(accumulate):
                yield keys[i::accumulate][processes.rank :: processes.n]


def _require_possible(config: TrainConfig, run: Run) -> None:
    if config.patience and run.validate is None:
        raise LmrError(f"--patience {config.patience} needs --val, the pictures that tell a better epoch")
    if config.batch_size < run.processes.n:
        raise LmrError(f"--batch-size {config.batch_size} leaves some of {run.processes.n} processes without pictures")


def _not_finite(training: _Training, loss: float) -> LmrError:
    state, data = training.state, training.data
    rows = training.sampler.plan(state.epoch).rows[state.step].tolist()
    names = [str(data.image_id[row]) if len(data.image_id) else f"row {row}" for row in rows]
    more = f" and {len(names) - N_NAMED} more" if len(names) > N_NAMED else ""
    return LmrError(
        f"the loss became {loss} in epoch {state.epoch + 1}, step {state.step + 1} "
        f"(learning rates {' and '.join(f'{rate:g}' for rate in rates(training.parts.optimizer).values())}, "
        f"pictures {', '.join(names[:N_NAMED])}{more}); "
        "lower --backbone-rate and --head-rate and start again with --overwrite"
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
