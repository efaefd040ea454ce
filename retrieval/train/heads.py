"""Scores of landmarks, in training and after it: classifier heads, margins of each class, and partial FC.

Margins are those of ArcFace and CosFace, by the class's size or the image. Partial FC (An et al., Training 10 Million
Identities on a Single Machine, 2021): a step takes out the directions of some classes, moves them, and puts them back;
what it computes, and what the optimizer reads and writes, grows with the classes taken out, not with all.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pytorch_metric_learning.losses import CosFaceLoss, SubCenterArcFaceLoss
from torch import Tensor, nn
from torch.nn import functional as F

from retrieval.arrays import FloatArray, LongArray
from retrieval.train.loss_config import LossConfig

COSINE_LIMIT = 1.0 - 1e-6  # acos has an infinite gradient at +-1
DYNAMIC_MARGINS_RAD = (0.05, 0.5)  # 3rd place, Google Landmark Recognition 2020 (Ha et al., arXiv:2010.05350)
LENGTH_SPREAD = 0.333  # AdaFace's h: q reaches +-1 at 1 / h standard deviations
LENGTH_RATE = 0.01  # of AdaFace's moving mean and standard deviation
LENGTH_EPSILON = 1e-3  # added to the standard deviation, as AdaFace does


class LinearHead(nn.Module):
    """Softmax classifier with biases on features that are not unit vectors, perhaps with a hidden layer.

    Trained alone on frozen features it is the "top model" of transfer learning. Its dropout is before the last layer.
    """

    def __init__(self, d: int, n_classes: int, config: LossConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if config.head_hidden:
            layers += [nn.Linear(d, config.head_hidden), nn.ReLU()]
        layers += [nn.Dropout(config.dropout), nn.Linear(config.head_hidden or d, n_classes)]
        self.layers = nn.Sequential(*layers)
        self.label_smoothing = config.label_smoothing

    def forward(self, features: Tensor) -> Tensor:
        """(b, d) -> (b, n_classes) logits."""
        logits: Tensor = self.layers(features)
        return logits

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy; labels (b,) int64 classes."""
        return F.cross_entropy(self(features), labels, label_smoothing=self.label_smoothing)

    def spread(self, features: Tensor) -> Tensor:
        """Mean cross-entropy against all classes alike, for features of none of them.

        Dhamija et al., Reducing Network Agnostophobia, 2018 (entropic open-set loss).
        """
        return -F.log_softmax(self(features), dim=1).mean()


class CosineHead(nn.Module):
    """Logits of class directions: scale times the cosine to the nearest direction of each class.

    directions: (n_classes, n_centres, d), of any length.
    """

    scale: Tensor
    directions: Tensor

    def __init__(self, directions: Tensor, scale: float) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("directions", directions.detach())

    def forward(self, features: Tensor) -> Tensor:
        """(b, d) of any length -> (b, n_classes)."""
        directions = F.normalize(self.directions, dim=2)
        cosines = F.normalize(features, dim=1) @ directions.flatten(0, 1).T
        return self.scale * cosines.reshape(len(features), *directions.shape[:2]).amax(dim=2)


def class_margins(counts: LongArray, config: LossConfig) -> FloatArray:
    """(n_classes,) float64 margins in radians from the number of training images of each class.

    By count and dynamic: m_c = low + (high - low) (t_c - min t) / (max t - min t), t_c = n_c^(-1/4); a class without
    images counts as one with a single image. Equal counts give the lower bound, dynamic ones the upper.
    """
    if config.margin in ("fixed", "adaptive"):
        return np.full(len(counts), config.margin_rad)
    is_dynamic = config.margin == "dynamic"
    low, high = DYNAMIC_MARGINS_RAD if is_dynamic else (config.margin_rad, config.margin_rare_rad)
    rarity = np.maximum(counts, 1).astype(np.float64) ** -0.25
    least, most = rarity.min(), rarity.max()
    share = (rarity - least) / (most - least) if most > least else np.full_like(rarity, float(is_dynamic))
    return np.asarray(low + (high - low) * share)


class _ClassMargins:
    """A loss of the library that reads `margin`, with one for each class in the buffer `margins`."""

    margins: Tensor
    chosen: Tensor | None = None  # the classes whose directions are in W, where those are not all

    def compute_loss(self, embeddings: Tensor, labels: Tensor, *further: Any) -> Any:
        """Loss of the library, with the margins of this batch's classes."""
        self.margin = self.margins[labels if self.chosen is None else self.chosen[labels]]
        return super().compute_loss(embeddings, labels, *further)  # type: ignore[misc]


class ClassCosFace(_ClassMargins, CosFaceLoss):  # type: ignore[misc]
    """CosFace (Wang et al. 2018, eq. 4) with one margin for each class. margins: (n_classes,) cosines."""

    def __init__(self, num_classes: int, embedding_size: int, *, margins: Tensor, scale: float) -> None:
        super().__init__(num_classes, embedding_size, scale=scale)
        self.register_buffer("margins", margins)


class ClampedArcFace(_ClassMargins, SubCenterArcFaceLoss):  # type: ignore[misc]
    """ArcFace (Deng et al. 2019, eq. 3) with one margin for each class and a finite gradient everywhere.

    margins_deg: (n_classes,) degrees, as the library counts them. n_centres: directions of each class, of which the
    nearest counts (Deng et al., Sub-center ArcFace, 2020).
    """

    def __init__(
        self, num_classes: int, embedding_size: int, *, margins_deg: Tensor, scale: float, n_centres: int = 1
    ) -> None:
        sizes = {"num_classes": num_classes, "embedding_size": embedding_size}
        super().__init__(margin=0.0, scale=scale, sub_centers=n_centres, **sizes)
        self.register_buffer("margins", torch.deg2rad(margins_deg))

    def get_cosine(self, embeddings: Tensor) -> Tensor:
        """Cosines of the library, without a maximum over one centre."""
        if self.sub_centers == 1:
            return torch.as_tensor(self.distance(embeddings, self.W.t()))
        return torch.as_tensor(super().get_cosine(embeddings))

    def modify_cosine_of_target_classes(self, cosine_of_target_classes: Tensor) -> Tensor:
        """cos(theta + m), continued so that it keeps falling beyond theta = pi - m."""
        margin = self.margin
        angles = _angles(cosine_of_target_classes)
        beyond = cosine_of_target_classes - margin * torch.sin(margin)
        return torch.where(angles <= math.pi - margin, torch.cos(angles + margin), beyond)


class AdaptiveArcFace(ClampedArcFace):
    """ArcFace whose margin adapts to each image by the length of its features, a measure of its quality.

    With q in [-1, 1], how far that length is from the usual one, the cosine becomes cos(theta - m q) - m (q + 1):
    ArcFace's cos(theta + m) for a poor image, CosFace's cos(theta) - m for a usual one, and for a good one a form
    that weighs hard images more (Kim et al., AdaFace, CVPR 2022, section 3). Embeddings are not unit vectors.
    """

    length_mean: Tensor
    length_std: Tensor
    quality: Tensor  # (b,) in [-1, 1], of this batch

    def __init__(self, num_classes: int, embedding_size: int, **further: Any) -> None:
        super().__init__(num_classes, embedding_size, **further)
        self.register_buffer("length_mean", torch.tensor(math.nan))
        self.register_buffer("length_std", torch.tensor(math.nan))

    def compute_loss(self, embeddings: Tensor, labels: Tensor, *further: Any) -> Any:
        """Loss of ArcFace, for the quality of this batch's images."""
        lengths = embeddings.detach().norm(dim=1)
        self._follow(lengths)
        self.quality = ((lengths - self.length_mean) * LENGTH_SPREAD / (self.length_std + LENGTH_EPSILON)).clamp(-1, 1)
        return super().compute_loss(embeddings, labels, *further)

    def modify_cosine_of_target_classes(self, cosine_of_target_classes: Tensor) -> Tensor:
        """cos(theta - m q) - m (q + 1), the angle kept in [0, pi]."""
        shifted = _angles(cosine_of_target_classes) - self.margin * self.quality
        margined: Tensor = torch.cos(shifted.clamp(0, math.pi)) - self.margin * (self.quality + 1)
        return margined

    def _follow(self, lengths: Tensor) -> None:
        """Moving mean and standard deviation, which begin with those of the first batch."""
        for known, seen in (
            (self.length_mean, lengths.mean()),
            (self.length_std, lengths.std(correction=0)),
        ):
            known.copy_(torch.where(known.isnan(), seen, known.lerp(seen, LENGTH_RATE)))


def _angles(cosines: Tensor) -> Tensor:
    return torch.acos(cosines.clamp(-COSINE_LIMIT, COSINE_LIMIT))


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
