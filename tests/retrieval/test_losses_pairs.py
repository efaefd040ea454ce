"""Losses of images against each other, against slow, obvious versions."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from retrieval.train.loss_config import LossConfig
from retrieval.train.losses import LandmarkLoss

ROUNDING = 1e-6  # of a few float32 cosines, each to 6e-8; a loss near zero is not nearer for it
LABELS = torch.tensor([0, 0, 1, 1, 2, -1, -1])


def batch(seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return F.normalize(torch.tensor(rng.normal(size=(len(LABELS), 3)), dtype=torch.float32), dim=1)


def made(config: LossConfig) -> LandmarkLoss:
    return LandmarkLoss(config, 3, np.array([2, 2, 1]))


def pairs(*, alike: bool, with_unknown: bool = True) -> list[tuple[int, int]]:
    """Ordered pairs of different images of one landmark, or not; non-landmarks are unlike everything."""
    labels = LABELS.tolist()
    rows = [i for i in range(len(labels)) if with_unknown or labels[i] >= 0]
    found = [(i, j) for i in rows for j in rows if i != j]
    return [(i, j) for i, j in found if (labels[i] == labels[j] >= 0) == alike]


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_contrastive_loss_pulls_pairs_together_and_pushes_others_below_a_cosine(weight: float) -> None:
    x = batch()
    cosine = (x @ x.T).double().numpy()
    pull = [1 - cosine[i, j] for i, j in pairs(alike=True)]
    push = [cosine[i, j] - 0.2 for i, j in pairs(alike=False, with_unknown=weight > 0)]
    expected = np.mean([v for v in pull if v > 0]) + np.mean([v for v in push if v > 0])
    config = LossConfig("contrastive", contrastive_cosine=0.2, miner="none", negative_weight=weight)
    assert made(config)(x, LABELS).item() == pytest.approx(float(expected), abs=ROUNDING)


@pytest.mark.parametrize("miner", ["none", "hard", "semihard"])
def test_triplet_loss_is_the_mean_of_those_that_violate_the_margin(miner: str) -> None:
    x = batch()
    cosine = (x @ x.T).double().numpy()
    gaps = [cosine[a, p] - cosine[a, n] for a, p in pairs(alike=True) for b, n in pairs(alike=False) if a == b]
    chosen = {
        "none": [gap for gap in gaps if gap < 0.5],
        "hard": [gap for gap in gaps if gap <= 0],
        "semihard": [gap for gap in gaps if 0 < gap <= 0.5],
    }[miner]
    assert 0 < len(chosen) < len(gaps)
    config = LossConfig("triplet", triplet_margin=0.5, miner=miner)  # type: ignore[arg-type]
    assert made(config)(x, LABELS).item() == pytest.approx(float(np.mean([0.5 - g for g in chosen])), abs=ROUNDING)


@pytest.mark.parametrize("miner", ["none", "multi-similarity"])
def test_multi_similarity_loss_is_the_slow_one(miner: str) -> None:
    """Wang et al. 2019, eq. 14, and eq. 10-11 for the miner."""
    x = batch()
    cosine = (x @ x.T).double().numpy()
    total = 0.0
    for a in range(len(LABELS)):
        near = [cosine[a, p] for i, p in pairs(alike=True) if i == a]
        far = [cosine[a, n] for i, n in pairs(alike=False) if i == a]
        if miner == "multi-similarity":
            near, far = (
                [v for v in near if v - 0.1 < max(far)],
                [v for v in far if near and v + 0.1 > min(near)],
            )
        total += math.log(1 + sum(math.exp(-2 * (v - 0.5)) for v in near)) / 2 if near else 0
        total += math.log(1 + sum(math.exp(50 * (v - 0.5)) for v in far)) / 50 if far else 0
    config = LossConfig("multi-similarity", miner=miner)  # type: ignore[arg-type]
    assert made(config)(x, LABELS).item() == pytest.approx(total / len(LABELS), rel=1e-4)


@pytest.mark.parametrize("name", ["contrastive", "triplet", "multi-similarity"])
@pytest.mark.parametrize("miner", ["none", "hard", "semihard", "multi-similarity"])
@pytest.mark.parametrize("labels", [[0], [-1], [-1, -1], [0, 0], []])
def test_a_batch_without_pairs_of_both_kinds_has_a_finite_loss_and_gradient(
    name: str, miner: str, labels: list[int]
) -> None:
    x = batch()[: len(labels)].requires_grad_()
    loss = made(LossConfig(name, miner=miner))(x, torch.tensor(labels, dtype=torch.int64))  # type: ignore[arg-type]
    loss.backward()
    assert torch.isfinite(loss)
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_losses_of_pairs_have_nothing_to_train_and_no_head() -> None:
    loss = made(LossConfig("triplet"))
    assert list(loss.parameters()) == []
    assert loss.head() is None
