"""Optimizers, learning rates over time, the average of the weights, and which blocks are trained."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from retrieval.errors import LmrError
from retrieval.models.network import DescriptorModel
from retrieval.train.config import TrainConfig

SGD_MOMENTUM = 0.9
RMSPROP_ALPHA, RMSPROP_EPSILON = 0.9, 1e-7  # Keras' defaults
Log = Sequence[Mapping[str, float]]
# What torchvision and timm call the row of blocks in a network, and the part of it that holds the row.
_ROWS = frozenset(("network", "features", "encoder", "trunk_output", "blocks", "layers", "stages"))


def make_optimizer(model: DescriptorModel, loss: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Two learning rates; no weight decay on norms, biases and the GeM exponent (He et al. 2019, section 3.1).

    What is frozen is left out. LmrError when that is all.
    """
    head = [p for name, p in model.named_parameters() if not name.startswith("backbone.")]
    groups = [
        *_groups("backbone", model.backbone.parameters(), config.backbone_rate, config.weight_decay),
        *_groups("head", [*head, *loss.parameters()], config.head_rate, config.weight_decay),
    ]
    if not groups:
        raise LmrError(
            f"`freeze` {config.freeze} leaves nothing to train: this network has no neck and `loss` {config.loss.name} "
            "has no weights; train some blocks, or give `n_dimensions`"
        )
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.head_rate, momentum=SGD_MOMENTUM, nesterov=True)
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=config.head_rate, alpha=RMSPROP_ALPHA, eps=RMSPROP_EPSILON)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.head_rate, fused=True)


def set_rates(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Sets every learning rate to a share of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * share


def rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The learning rates of `backbone` and `head`; of the head alone when the backbone is frozen."""
    return {group["part"]: float(group["lr"]) for group in optimizer.param_groups}


def _groups(part: str, parameters: Iterable[nn.Parameter], rate: float, weight_decay: float) -> list[dict[str, Any]]:
    trained = [p for p in parameters if p.requires_grad]
    with_decay = [p for p in trained if p.ndim > 1]
    chosen = {id(p) for p in with_decay}
    without = [p for p in trained if id(p) not in chosen]
    return [
        {"params": some, "part": part, "initial_lr": rate, "weight_decay": decay}
        for some, decay in ((with_decay, weight_decay), (without, 0.0))
        if some
    ]


def average_of(modules: nn.ModuleList, keep: float) -> AveragedModel:
    """An average that keeps the share `keep` of itself in a step; batch-norm statistics are averaged with the weights.

    Less in the first steps, (1 + n) / (10 + n) in the n-th, or it would hold on to weights that have learned nothing.
    """
    average = AveragedModel(modules, multi_avg_fn=_towards(keep), use_buffers=True)
    average.requires_grad_(False)
    average.eval()
    return average


def _towards(keep: float) -> Callable[[Any, Any, Any], None]:
    @torch.no_grad()
    def move(averages: list[Tensor], current: list[Tensor], n_steps: Tensor) -> None:
        if averages[0].is_floating_point():
            share = min(keep, (1 + int(n_steps)) / (10 + int(n_steps)))
            torch._foreach_lerp_(averages, current, 1 - share)
        else:  # counters
            torch._foreach_copy_(averages, current)

    return move


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
    """True if all epochs are done, or `patience` of them in a row brought no larger GAP."""
    if len(log) >= config.epochs:
        return True
    return bool(config.patience) and _n_in_vain([row["gap"] for row in log]) >= config.patience


def _n_drops(config: TrainConfig, log: Log) -> int:
    """Number of drops of the rates. plateau watches the GAP on the validation images, without them the loss."""
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


def blocks(backbone: nn.Module) -> list[tuple[str, list[nn.Module]]]:
    """The blocks of a backbone in their order, by name: the layers of its top-level row that have weights.

    Layers of a ResNet, convolutions of a VGG, stages or blocks of what has them. A layer whose weights are all
    vectors, such as a norm, belongs to the block before it.
    """
    found: list[tuple[str, list[nn.Module]]] = []
    for name, layer in _row(backbone):
        n_axes = max((p.ndim for p in layer.parameters()), default=0)
        if n_axes > 1 or (n_axes and not found):
            found.append((name, [layer]))
        elif n_axes:
            found[-1][1].append(layer)
    return found


def freeze(model: DescriptorModel, what: str) -> None:
    """Says which weights are trained.

    what: is frozen: `none`, `all` of backbone and pooling, or `n`, all of the backbone but its last n blocks.
    LmrError when there are fewer than n blocks.
    """
    model.requires_grad_(True)
    if what == "none":
        return
    model.backbone.requires_grad_(False)
    if what == "all":
        if model.gem is not None:
            model.gem.requires_grad_(False)
        return
    row, n = blocks(model.backbone), int(what)
    if n > len(row):
        names = ", ".join(name for name, _ in row)
        raise LmrError(
            f"`freeze` {n}: {model.config.backbone} has {len(row)} blocks ({names}); "
            "give no more than these, all or none"
        )
    for _, layers in row[-n:]:
        for layer in layers:
            layer.requires_grad_(True)
    if n == len(row):
        model.backbone.requires_grad_(True)


def train_mode(model: DescriptorModel) -> None:
    """Training mode, but for what is frozen: its batch norms keep their statistics, and it drops nothing out."""
    model.train()
    for module in model.backbone.modules():
        trained = [p.requires_grad for p in module.parameters()]
        if trained and not any(trained):
            module.eval()


def _row(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        if name in _ROWS and any(child.children()):
            yield from _row(child)
        else:
            yield name, child
