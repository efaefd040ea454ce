"""The layers of a network: what each is, the shape it gives, its parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from retrieval.models.device import explained
from retrieval.words import counted


@dataclass(frozen=True, slots=True)
class Layer:
    """A module without children that ran. shape: of what it gave, without the batch; n_trained: of its parameters."""

    name: str
    kind: str
    shape: tuple[int, ...]
    n_parameters: int
    n_trained: int


def summarise(network: nn.Module, size: int) -> list[Layer]:
    """The layers in the order in which they ran on one empty image of size x size pixels.

    A layer that runs several times is told once, where it ran first, with what it gave last.
    """
    layers: dict[str, Layer] = {}

    def note(name: str, module: nn.Module, given: Any) -> None:
        own = list(module.parameters())
        shape = tuple(given.shape[1:]) if isinstance(given, Tensor) else ()
        trained = sum(p.numel() for p in own if p.requires_grad)
        layers[name] = Layer(name, type(module).__name__, shape, sum(p.numel() for p in own), trained)

    hooks = [
        module.register_forward_hook(lambda module, _, given, name=name: note(name, module, given))
        for name, module in network.named_modules()
        if not list(module.children())
    ]
    training = network.training
    try:
        with torch.inference_mode(), explained(torch.device("cpu"), 1, size, "lower `size`"):
            network.eval()(torch.zeros(1, 3, size, size))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return list(layers.values())


def to_text(layers: Sequence[Layer], network: nn.Module) -> str:
    """A table, and the sums over the whole network, parameters that belong to no layer included."""
    rows = [("layer", "kind", "gives", "parameters")]
    for layer in layers:
        frozen = " frozen" if layer.n_parameters and not layer.n_trained else ""
        rows.append((layer.name, layer.kind, " x ".join(map(str, layer.shape)), f"{layer.n_parameters:,}{frozen}"))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    total = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return "\n".join([*lines, f"{counted(total, 'parameter')}, {trained:,} of them trained"])
