"""Adapters: layers that turn the finished descriptors of a network, or stored ones, into others of another length."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrieval.arrays import FloatArray
from retrieval.models.config import AdapterConfig

ADAPTER = "adapter."  # before the names of its weights in those of a model


class Adapter(nn.Module):
    """y = matrix @ (x - mean), plus what was learnt: y + change(y). A linear change, or one with a hidden layer.

    matrix, mean: a whitening, at which learning begins and which it leaves as it is. Neither layer has a constant, so
    that a longer y gives a longer result in the same direction. noise: length of what is added to y in training, at
    random, as a share of its own.
    """

    matrix: Tensor
    mean: Tensor

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.config, self.noise = config, 0.0
        self.register_buffer("matrix", torch.zeros(config.n_dimensions, config.n_given))
        self.register_buffer("mean", torch.zeros(config.n_given))
        d, n_hidden = config.n_dimensions, config.n_hidden
        last = nn.Linear(n_hidden or d, d, bias=False)
        nn.init.zeros_(last.weight)
        first = [nn.Linear(d, n_hidden, bias=False), nn.ReLU()] if n_hidden else []
        self.change = nn.Sequential(*first, last)

    def begin(self, mean: FloatArray, matrix: FloatArray) -> None:
        """Takes the whitening x -> (x - mean) @ matrix of (d,) and (d, d_out)."""
        with torch.no_grad():
            self.mean.copy_(torch.from_numpy(np.array(mean)))
            self.matrix.copy_(torch.from_numpy(np.array(matrix)).T)

    def forward(self, descriptors: Tensor) -> Tensor:
        """Unit descriptors (b, n_given) -> (b, n_dimensions) of any length, float32."""
        y = F.linear(descriptors.float() - self.mean, self.matrix)
        if self.training and self.noise:
            length = y.norm(dim=1, keepdim=True) / y.shape[1] ** 0.5
            y = y + self.noise * length * torch.randn_like(y)
        changed: Tensor = y + self.change(y)
        return changed


def adapted(adapter: Adapter) -> Callable[[FloatArray], FloatArray]:
    """A function from unit descriptors (n, n_given) to unit descriptors (n, n_dimensions), float32, in memory."""

    def adapt(vectors: FloatArray) -> FloatArray:
        device = adapter.matrix.device
        with torch.inference_mode():
            given = torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32)).to(device)
            return np.asarray(F.normalize(adapter(given), dim=1).cpu().numpy())

    return adapt
