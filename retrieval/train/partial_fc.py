"""Partial class sampling: a step takes out the directions of some classes, moves them, and puts them back.

An et al., Partial FC: Training 10 Million Identities on a Single Machine, 2021. What a step computes, and what the
optimizer reads and writes, grows with the classes taken out, not with all.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class ClassBank(nn.Module):
    """The directions of all classes and the optimizer's memory of them, at rest between two steps.

    `take` gives those of the wanted classes and of a random share of the others; their gradient arrives in `active`,
    the one parameter, which the optimizer given to `attach` moves and which is empty between its steps. Classes not
    taken keep direction and memory: no momentum and no weight decay moves them. As in torch's SparseAdam, the number
    of steps that corrects Adam's bias is that of all steps. Batches whose gradients are summed share one sample.

    rows: (n_classes, width), all directions of a class in one row. share: of the classes, in (0, 1].
    """

    def __init__(self, rows: Tensor, share: float) -> None:
        super().__init__()
        self.n_sampled = math.ceil(share * len(rows))
        self.rows: Tensor
        self.register_buffer("rows", rows.detach().clone(memory_format=torch.contiguous_format))
        self.active = nn.Parameter(torch.empty(0, rows.shape[1]))
        self.memory: dict[str, Tensor] = {}
        self.chosen = torch.empty(0, dtype=torch.int64)
        self._n_samples = 0
        self._is_attached = False
        self.register_state_dict_pre_hook(lambda *_: self.rest())  # type: ignore[no-untyped-call]

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Lets this optimizer, which has `active` among its parameters, move what was taken."""
        optimizer.register_step_pre_hook(lambda *_: self._lend_memory(optimizer))
        optimizer.register_step_post_hook(lambda *_: self._put_back(optimizer))
        self._is_attached = True

    def take(self, wanted: Tensor) -> Tensor:
        """(n, width) rows of `self.chosen`, a leaf whose gradient goes to `active`.

        wanted: classes that must be among the chosen. ValueError when no optimizer is attached; in a backward pass that
        comes after the next sample was drawn.
        """
        if not self._is_attached:
            raise ValueError("attach the optimizer first: without it what a step takes out is not put back")
        self.chosen = self._choose(torch.unique(wanted))
        grad, self.active.grad = self.active.grad, None
        self.active.data = self.rows[self.chosen]
        if grad is not None:
            self.active.grad = nn.functional.pad(grad, (0, 0, 0, len(self.chosen) - len(grad)))
        # The graph holds a tensor of its own: one that changes its size between steps may not be in two graphs.
        leaf = self.active.detach().requires_grad_()
        sample = self._n_samples
        leaf.register_post_accumulate_grad_hook(lambda leaf: self._collect(leaf, sample))  # type: ignore[no-untyped-call]
        return leaf

    def rest(self) -> None:
        """Nothing is out; what a step did not move needs no putting back."""
        self.active.grad = None
        self.active.data = self.rows[:0]

    def position(self, classes: Tensor) -> Tensor:
        """Positions of these classes among the chosen; negative ones stay as they are."""
        places = torch.full((len(self.rows),), -1, device=classes.device)
        places[self.chosen] = torch.arange(len(self.chosen), device=classes.device)
        return torch.where(classes < 0, classes, places[classes.clamp(min=0)])

    def get_extra_state(self) -> dict[str, Any]:
        """The optimizer's memory, for state_dict."""
        return {"memory": self.memory}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """From state_dict, to the device of the rows."""
        self.memory = {name: value.to(self.rows.device) for name, value in state["memory"].items()}

    def _choose(self, wanted: Tensor) -> Tensor:
        """A new sample; or, where gradients wait for a step, the one that is out and those wanted besides behind it."""
        if self.active.grad is not None:
            return torch.cat([self.chosen, wanted[~torch.isin(wanted, self.chosen)]])
        self._n_samples += 1
        lot = torch.rand(len(self.rows), device=self.rows.device)
        lot[wanted] = 2.0  # above every lot
        return lot.topk(max(self.n_sampled, len(wanted))).indices

    def _collect(self, leaf: Tensor, sample: int) -> None:
        """Adds a leaf's gradient to that of `active`, which may have more rows by now."""
        if sample != self._n_samples:
            raise ValueError("other classes are out by now: call backward before the loss of the next batch")
        grad, leaf.grad = leaf.grad, None
        assert grad is not None
        if self.active.grad is None:
            self.active.grad = torch.zeros_like(self.active)
        self.active.grad[: len(grad)] += grad

    def _lend_memory(self, optimizer: torch.optim.Optimizer) -> None:
        if len(self.active):
            state = optimizer.state[self.active]
            state.update({name: value[self.chosen] for name, value in self.memory.items()})

    def _put_back(self, optimizer: torch.optim.Optimizer) -> None:
        if not len(self.active):
            return
        self.rows[self.chosen] = self.active.data
        state = optimizer.state[self.active]
        for name in [n for n, v in state.items() if isinstance(v, Tensor) and v.shape == self.active.shape]:
            if name not in self.memory:
                self.memory[name] = torch.zeros_like(self.rows)
            self.memory[name][self.chosen] = state.pop(name)
        self.rest()
