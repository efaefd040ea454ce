"""What takes the steps, and at which learning rates."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from retrieval.errors import LmrError
from retrieval.model import DescriptorModel
from retrieval.training.config import TrainConfig

SGD_MOMENTUM = 0.9
RMSPROP_ALPHA, RMSPROP_EPSILON = 0.9, 1e-7  # Keras' defaults


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
            f"--freeze {config.freeze} leaves nothing to train: this network has no neck and --loss {config.loss.name} "
            "has no weights; train some blocks, or give --dimensions"
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
