"""Which blocks of a backbone are trained: all, the last few, or none."""

from collections.abc import Iterator

from torch import nn

from retrieval.errors import LmrError
from retrieval.model import DescriptorModel

# What torchvision and timm call the row of blocks in a network, and the part of it that holds the row.
_ROWS = frozenset(("network", "features", "encoder", "trunk_output", "blocks", "layers", "stages"))


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
            f"--freeze {n}: {model.config.backbone} has {len(row)} blocks ({names}); "
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
