"""Learning rates over time, and when to stop: functions of the step and of the log alone, so that any run resumes."""

import math
from collections.abc import Mapping, Sequence

from retrieval.training.config import TrainConfig

Log = Sequence[Mapping[str, float]]


def rate_share(config: TrainConfig, step: int, n_steps: int, log: Log) -> float:
    """Share of the peak learning rates in a step of n_steps, after a linear warm-up. log: of the epochs before."""
    if config.schedule == "cosine":
        return rate_factor(step, n_steps, config.warmup)
    rise = min(1.0, (step + 1) / max(1, round(config.warmup * n_steps)))
    return rise * config.rate_drop ** _n_drops(config, log)


def rate_factor(step: int, n_steps: int, warmup: float) -> float:
    """Share of the peak learning rate: linear over the first `warmup` of the steps, then a cosine to zero."""
    n_warmup = max(1, round(warmup * n_steps))
    if step < n_warmup:
        return (step + 1) / n_warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - n_warmup) / max(1, n_steps - n_warmup))))


def is_finished(config: TrainConfig, log: Log) -> bool:
    """Whether all epochs are done, or `patience` of them in a row brought no larger GAP."""
    if len(log) >= config.epochs:
        return True
    return bool(config.patience) and _n_in_vain([row["gap"] for row in log]) >= config.patience


def _n_drops(config: TrainConfig, log: Log) -> int:
    """How often the rates have dropped. plateau watches the GAP on the validation pictures, without them the loss."""
    if config.schedule == "step":
        return len(log) // config.rate_drop_epochs
    n_drops, since = 0, 0
    quality = [row.get("gap", -row["loss"]) for row in log]
    for n in range(1, len(log) + 1) if config.schedule == "plateau" else ():
        if min(n - since, _n_in_vain(quality[:n])) >= config.rate_drop_epochs:
            n_drops, since = n_drops + 1, n
    return n_drops


def _n_in_vain(quality: Sequence[float]) -> int:
    """Epochs since the first one with the largest value."""
    return len(quality) - 1 - quality.index(max(quality)) if quality else 0
