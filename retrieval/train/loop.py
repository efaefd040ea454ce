"""Training, top to bottom: stages, the epochs of a stage, the steps of an epoch.

`job` reads what is trained on and makes the network, `step` takes a step, `state` keeps what a resumed run needs.
"""

import errno
import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from retrieval.errors import LmrError
from retrieval.images.spec import ImageSpec
from retrieval.models.checkpoint import weights_digest
from retrieval.models.device import keep_freed_memory
from retrieval.models.network import DescriptorModel
from retrieval.train.augment import Batch, TrainingImages
from retrieval.train.classifier import save_classifier
from retrieval.train.config import TrainConfig
from retrieval.train.data import TrainingData
from retrieval.train.loader import FeatureCache, Images, count_steps, feed, frozen_features, images_of
from retrieval.train.optim import freeze, is_finished, rate_share, rates, set_rates, train_mode
from retrieval.train.run import Run, Step
from retrieval.train.sampler import training_sampler
from retrieval.train.state import Parts, TrainingState, make_parts, read_head, resume, save_state, take_over, write_log
from retrieval.train.step import NotFiniteError, Setting, compile_backbone, learn, step_seed
from retrieval.train.stored.rows import StoredRows

STATE_EVERY_S = 600.0  # a kill costs at most this much work inside an epoch
EPOCH_EVERY_S = 30.0  # epochs shorter than this are not all saved; a kill costs this much and one epoch
N_NAMED = 8  # images of a batch that an error names


# Stages


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of training. run.folder: as of `stage_folder`."""

    data: TrainingData
    spec: ImageSpec
    config: TrainConfig
    run: Run


def stage_folder(output: Path, number: int, n_stages: int) -> Path:
    """Folder of a stage, counted from 1: the model folder itself for the last one, a folder in it for others."""
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


# One stage


def train(model: DescriptorModel, data: TrainingData, spec: ImageSpec, config: TrainConfig, run: Run) -> TrainingState:
    """Trains `model`, writing the best network to `run.folder` and the last one to `run.folder/last`.

    A run that was killed goes on from its last saved step and ends with the same weights as one that was not, for the
    same number of threads. Raises LmrError when the folder holds another run or cannot be written, images cannot be
    read, the loss is not finite, memory or disk are full, or the configuration does not fit the network or the run.
    """
    training = _begin(model, data, spec, config, run)
    state = training.state
    if not is_finished(config, state.log):
        with closing(feed(data, _images(training), config, run, (state.epoch, state.step))) as batches:
            while not is_finished(config, state.log):
                _train_epoch(training, batches)
                _finish_epoch(training)
    if training.parts.average is not None:
        model.load_state_dict(training.parts.result.state_dict())
    model.eval()
    return state


@dataclass(slots=True)
class _Training:
    """A run on its way. n_steps: of an epoch. clock, saved_at: monotonic seconds of the last step and the last save."""

    parts: Parts
    state: TrainingState
    data: TrainingData
    setting: Setting
    run: Run
    n_steps: int
    identity: dict[str, Any]
    clock: float
    saved_at: float

    @property
    def writes(self) -> bool:
        """True in the one process that writes files."""
        return self.run.processes.rank == 0


def _begin(model: DescriptorModel, data: TrainingData, spec: ImageSpec, config: TrainConfig, run: Run) -> _Training:
    """A new run, or the one in the folder where it was saved."""
    require_possible(model, spec, config, run)
    if config.augment.cutmix and data.teacher is not None:
        raise LmrError("`cutmix` mixes pictures, of which `teacher` has no descriptor; give one of them")
    if run.device.type == "cpu":
        keep_freed_memory()
    n_steps = count_steps(data, config)
    torch.manual_seed(config.seed)
    setting = Setting(spec, config, run.device, run.processes, data.teacher)
    run.processes.share_norms(model)
    parts = make_parts(model, data.counts, config, run.device, data.teacher.d if data.teacher else 0)
    identity = run_identity(model, data, spec, config)
    identity |= {"starting weights": weights_digest(model), "validation manifest": run.validation}
    if run.head is not None:
        take_over(parts.loss, run.head)
        identity["starting class directions"] = hashlib.sha256(save(dict(run.head))).hexdigest()
    if run.processes.rank == 0:
        _make_folder(run.folder)
    state = resume(run.folder, parts, identity)
    if run.processes.rank == 0 and not (state.epoch or state.step):
        save_state(run.folder, parts, identity, state)  # a full disk shows now, and a folder with a model has a state
    if config.compile and (reason := compile_backbone(model, setting)):
        run.progress.warn(f"`compile`: the backbone runs as it is, it cannot be compiled here: {reason}")
    now = time.monotonic()
    return _Training(parts, state, data, setting, run, n_steps, identity, now, now)


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
            loss = learn(parts, together, training.setting, step_seed(config.seed, n_done))
        except NotFiniteError as error:
            raise _not_finite(training, error) from error
        if loss is not None:
            state.loss_sum += loss
            state.n_losses += 1
        state.step += 1
        step_s = _tick(training)
        if training.writes:
            n_images = sum(len(batch.labels) for batch in together) * run.processes.n
            rate = n_images / max(1e-9, step_s)
            run.on_step(Step(state.epoch, state.step, training.n_steps, state.loss, rate))
            if training.clock - training.saved_at > STATE_EVERY_S:
                _save_state(training)


def _finish_epoch(training: _Training) -> None:
    """Validates, writes the log, and saves network and state where that is due."""
    parts, state, config, run = training.parts, training.state, training.setting.config, training.run
    state.unreadable = run.processes.join(state.unreadable)
    _require_read(state)
    row: dict[str, float] = {"epoch": state.epoch + 1, "loss": state.loss}
    row["rate"] = next(iter(rates(parts.optimizer).values()))
    parts.model.eval()
    parts.loss.eval()
    row |= dict(run.validate(parts.result, parts.result_loss)) if run.validate and training.writes else {}
    parts.loss.train()
    _tick(training)
    state.log.append(run.processes.first_says(row | {"seconds": round(state.seconds, 1)}))
    better = run.validate is not None and _is_better(state)
    state.epoch, state.step, state.loss_sum, state.n_losses = state.epoch + 1, 0, 0.0, 0
    if not training.writes:
        return
    write_log(run.folder, state.log)
    if better or is_finished(config, state.log) or training.clock - training.saved_at > EPOCH_EVERY_S:
        made_by = _history(training)
        for folder in [run.folder] * (better or run.validate is None) + [run.folder / "last"]:
            run.save(folder, parts.result, training.setting.spec, made_by)
            save_classifier(folder, parts.result_loss, training.data.labels)
        _save_state(training)
    run.on_epoch(state.log[-1])


# Before the first step


def require_possible(model: DescriptorModel, spec: ImageSpec, config: TrainConfig, run: Run) -> None:
    """LmrError when the configuration does not fit the network or the run."""
    model.require_size(spec.size)
    freeze(model, config.freeze)
    if config.patience and run.validate is None:
        raise LmrError(f"`patience` {config.patience} needs `val`, the pictures that tell a better epoch")
    if config.augment.cutmix and run.processes.n > 1:
        raise LmrError("`cutmix` mixes the pictures of one process; train with one, or without it")
    if config.batch_size < run.processes.n:
        raise LmrError(f"`batch_size` {config.batch_size} leaves some of {run.processes.n} processes without pictures")


def run_identity(model: DescriptorModel, data: TrainingData, spec: ImageSpec, config: TrainConfig) -> dict[str, Any]:
    """Facts that two runs have in common if they are one run."""
    return {
        "model": model.config.to_json(),
        "picture preparation": spec.to_json(),
        "data": data.digest,
        "training configuration": asdict(config),
        "teacher": data.teacher.identity if data.teacher else None,
    }


def _make_folder(folder: Path) -> None:
    """Makes the folder and tries it, before the first epoch and not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LmrError(f"{folder}: cannot be written: {error.strerror}; choose another `output`") from error
    if not os.access(folder, os.W_OK):
        raise LmrError(f"{folder}: cannot be written: {os.strerror(errno.EACCES)}; choose another `output`")


def _images(training: _Training) -> Images | StoredRows:
    """Training images: augmented, plain, stored, or as the features that a frozen backbone has of them."""
    data, setting, run = training.data, training.setting, training.run
    images = images_of(data, setting.spec, setting.config)
    if isinstance(images, TrainingImages | StoredRows) or setting.config.freeze != "all":
        return images
    cache = FeatureCache(run.folder, data.digest, len(data.landmark), run.n_workers, run.progress)
    return frozen_features(training.parts, setting, images, cache)


# After a step and an epoch


def _tick(training: _Training) -> float:
    """Seconds since the last tick; they count as training time."""
    now = time.monotonic()
    passed_s, training.clock = now - training.clock, now
    training.state.seconds += passed_s
    return passed_s


def _save_state(training: _Training) -> None:
    save_state(training.run.folder, training.parts, training.identity, training.state)
    training.saved_at = time.monotonic()


def _is_better(state: TrainingState) -> bool:
    """True if no epoch before had a larger GAP on the validation images; remembers the largest."""
    better = state.log[-1]["gap"] >= state.best
    state.best = max(state.best, state.log[-1]["gap"])
    return better


def _require_read(state: TrainingState) -> None:
    """An epoch in which nothing could be learned is an error, not a model."""
    if not state.n_losses:
        reason = next(iter(state.unreadable.values()), "too few pictures")
        raise LmrError(
            f"no batch of epoch {state.epoch + 1} held two pictures that can be read ({reason}); check `images`"
        )


def _not_finite(training: _Training, error: NotFiniteError) -> LmrError:
    state, data = training.state, training.data
    rows = training_sampler(data.landmark, training.setting.config).plan(state.epoch).rows[state.step].tolist()
    names = [str(data.image_id[row]) if len(data.image_id) else f"row {row}" for row in rows]
    more = f" and {len(names) - N_NAMED} more" if len(names) > N_NAMED else ""
    return LmrError(
        f"{error} in epoch {state.epoch + 1}, step {state.step + 1} "
        f"(learning rates {' and '.join(f'{rate:g}' for rate in rates(training.parts.optimizer).values())}, "
        f"pictures {', '.join(names[:N_NAMED])}{more}); "
        "lower `backbone_rate` and `head_rate` and start again with `overwrite`"
    )


def history(data: TrainingData, config: TrainConfig, log: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """The account of a stage of training for the model's card. log: a row for each epoch."""
    made_by: dict[str, Any] = {"training": asdict(config), "data": data.digest}
    made_by |= {"n_pictures": len(data.landmark), "n_landmarks": int((data.counts > 0).sum())}
    made_by |= {"n_non_landmarks": int((data.landmark < 0).sum()), "log": list(log)}
    if data.teacher is not None:
        made_by["teacher"] = data.teacher.fingerprint
    if data.record is not None:
        made_by["trained_on"] = dict(data.record)
    return made_by


def _history(training: _Training) -> dict[str, Any]:
    """The account of this stage, and of those before. epoch: after which the weights were these, counted from 1."""
    made_by = history(training.data, training.setting.config, training.state.log)
    made_by["epoch"] = training.state.log[-1]["epoch"]
    if training.run.earlier:
        made_by["earlier_stages"] = training.run.earlier
    return made_by
