"""Several processes that train one network, each on its share of every batch, as torchrun starts them.

Every process sees the descriptors of the whole batch, so that its loss is that of one process, whichever loss it is.
What follows the backbone is computed by each process on the whole batch; gradients are summed in one message a step.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional as F

from retrieval.errors import LmrError
from retrieval.models.network import DescriptorModel
from retrieval.parallel import n_processes

PATIENCE = timedelta(days=1)  # how long one process waits for another; the first one validates and saves meanwhile

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Processes:
    """Place of this process among those that train together. The one of rank 0 writes, validates and reports."""

    rank: int = 0
    n: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def share_norms(self, model: DescriptorModel) -> None:
        """Makes batch norms of the backbone take their statistics from the batches of all processes."""
        if self.n > 1 and self.device.type == "cuda":
            model.backbone = with_shared_norms(model.backbone, model.config.backbone)
        elif self.n > 1:
            _share_on_cpu(model.backbone)

    def gather(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(b, c) and (b,) of this process -> those of all, in the order of their ranks; gradients reach its own."""
        if self.n == 1:
            return features, labels
        counts = self._everyones(torch.tensor([len(labels)], device=self.device))
        longest = max(int(count) for count in counts)
        padding = longest - len(labels)
        parts = [
            [part[: int(count)] for part, count in zip(self._everyones(own), counts, strict=True)]
            for own in (F.pad(features.detach(), (0, 0, 0, padding)), F.pad(labels, (0, padding)))
        ]
        parts[0][self.rank] = features
        return torch.cat(parts[0]), torch.cat(parts[1])

    def totals(self, numbers: Sequence[int]) -> list[int]:
        """Each number summed over the processes."""
        if self.n == 1:
            return list(numbers)
        summed = torch.tensor(numbers, device=self.device)
        distributed.all_reduce(summed)
        return [int(number) for number in summed]

    def add_gradients(self, model: DescriptorModel, loss: nn.Module) -> None:
        """Makes the gradients of all processes those of the whole batch.

        Backbone and pooling have seen a part of it each; what comes after them has seen all of it in every process, and
        is averaged only so that all keep the same weights to the bit.
        """
        if self.n == 1:
            return
        of_a_part = [*model.backbone.parameters(), *(model.gem.parameters() if model.gem is not None else ())]
        known = {id(p) for p in of_a_part}
        of_all = [p for p in (*model.parameters(), *loss.parameters()) if id(p) not in known]
        self._sum(of_a_part)
        self._sum(of_all, 1 / self.n)

    def first_says(self, value: T) -> T:
        """The value of the process of rank 0; the others wait for it."""
        if self.n == 1:
            return value
        holder = [value]
        distributed.broadcast_object_list(holder, src=0, device=self.device)
        return holder[0]

    def join(self, own: dict[int, str]) -> dict[int, str]:
        """The dictionaries of all processes as one."""
        if self.n == 1:
            return own
        everyones: list[dict[int, str]] = [{} for _ in range(self.n)]
        distributed.all_gather_object(everyones, own)
        return {key: value for one in everyones for key, value in sorted(one.items())}

    def _everyones(self, own: Tensor) -> list[Tensor]:
        places = [torch.empty_like(own) for _ in range(self.n)]
        distributed.all_gather(places, own.contiguous())
        return places

    def _sum(self, parameters: Sequence[nn.Parameter], factor: float = 1.0) -> None:
        trained = [p for p in parameters if p.requires_grad]
        if not trained:
            return
        for p in trained:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        flat = torch.cat([p.grad.flatten() for p in trained if p.grad is not None])
        distributed.all_reduce(flat)
        summed = torch.split(flat * factor, [p.numel() for p in trained])
        for p, gradient in zip(trained, summed, strict=True):
            assert p.grad is not None
            p.grad.copy_(gradient.view_as(p))  # in the parameter's layout, which fused optimizers take for granted


def with_shared_norms(backbone: nn.Module, name: str) -> nn.Module:
    """The backbone of this name with batch norms whose statistics are of all processes.

    timm's norms hold the activation that follows them, which torch's own conversion would lose.
    """
    convert: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
    if name.startswith("timm:"):
        from timm import layers

        convert = vars(layers)["convert_sync_batchnorm"]
    return convert(backbone)


class SharedNorm(nn.BatchNorm2d):
    """A batch norm with the statistics of all processes, on the CPU: torch's own SyncBatchNorm is for GPUs alone."""

    def forward(self, features: Tensor) -> Tensor:
        """As nn.BatchNorm2d of the features of all processes, of which each has some."""
        if not self.training:
            return super().forward(features)
        wide = features.float()
        count = wide.new_tensor([wide.numel() / wide.shape[1]])
        total = _summed(torch.cat([wide.sum((0, 2, 3)), count]))
        mean, n = total[:-1] / total[-1], float(total[-1])
        centred = wide - mean[:, None, None]
        variance = _summed(centred.square().sum((0, 2, 3))) / n
        self._remember(mean.detach(), variance.detach() * n / max(1.0, n - 1))
        scaled = centred * torch.rsqrt(variance + self.eps)[:, None, None]
        if self.affine:
            scaled = scaled * self.weight[:, None, None] + self.bias[:, None, None]
        shared: Tensor = scaled.to(features.dtype)
        return shared

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Updates the running statistics as nn.BatchNorm2d does."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def _summed(values: Tensor) -> Tensor:
    """The sum over the processes, through which gradients go."""
    summed: Tensor = all_reduce(values)  # type: ignore[no-untyped-call]
    return summed


def _share_on_cpu(module: nn.Module) -> None:
    """Puts norms that share their statistics in the place of a network's own, with the same weights."""
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d:
            shared = SharedNorm(child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats)
            for values in (child._parameters, child._buffers):
                for key, value in values.items():
                    setattr(shared, key, value)
            setattr(module, name, shared.train(child.training))
        else:
            _share_on_cpu(child)


@contextmanager
def joined_processes(device: torch.device) -> Iterator[Processes]:
    """This process among those that torchrun started, on a device of its own; alone without torchrun.

    LmrError: a device that several cannot share, fewer GPUs than processes. After an error the group is not taken down,
    which on GPUs would wait for processes that wait for this one; torchrun ends them when this one ends.
    """
    if n_processes() == 1:
        yield Processes(device=device)
        return
    if device.type == "cuda":
        device = _own_gpu(device)
        torch.cuda.set_device(device)
    elif device.type != "cpu":
        raise LmrError(f"`device` {device.type}: several processes train on cuda or cpu; start one without torchrun")
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    yield Processes(distributed.get_rank(), distributed.get_world_size(), device)
    distributed.destroy_process_group()


def _own_gpu(device: torch.device) -> torch.device:
    place = int(os.environ.get("LOCAL_RANK", "0"))
    if device.index is not None:
        raise LmrError(f"`device` {device}: each process takes a GPU of its own; give `device` cuda")
    if place >= torch.cuda.device_count():
        raise LmrError(
            f"process {place + 1} has no GPU of its own, this machine has {torch.cuda.device_count()}; "
            "give torchrun --nproc-per-node as many or fewer"
        )
    return torch.device("cuda", place)
