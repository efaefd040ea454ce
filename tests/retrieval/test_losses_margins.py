"""Margins, centres and the losses of whole classes, against slow, obvious versions."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from retrieval.train.heads import AdaptiveArcFace, class_margins
from retrieval.train.loss_config import LossConfig
from retrieval.train.losses import LandmarkLoss

N, D = 4, 6


def batch(n: int = 7, seed: int = 0, *, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    x = F.normalize(torch.tensor(rng.normal(size=(n, D)), dtype=torch.float32), dim=1)
    return x * scale, torch.tensor(rng.integers(0, N, n))


def made(config: LossConfig, counts: tuple[int, ...] = (5,) * N) -> LandmarkLoss:
    torch.manual_seed(0)
    return LandmarkLoss(config, D, np.array(counts))


def slow_cosines(x: Tensor, w: Tensor, n_centres: int = 1) -> np.ndarray:
    """(b, n): the largest cosine to the centres of each class, which stand one after another in the columns of w."""
    x, w = x.detach().double(), w.detach().double()
    table = np.zeros((len(x), w.shape[1] // n_centres))
    for i, vector in enumerate(x):
        for c in range(table.shape[1]):
            centres = [w[:, c * n_centres + k] for k in range(n_centres)]
            table[i, c] = max(float(vector @ v / vector.norm() / v.norm()) for v in centres)
    return table


def slow_cross_entropy(logits: np.ndarray, labels: Tensor, smoothing: float = 0.0) -> float:
    total = 0.0
    for row, label in zip(logits, labels.tolist(), strict=True):
        logs = row - math.log(sum(math.exp(v) for v in row))
        total -= (1 - smoothing) * logs[label] + smoothing * sum(logs) / len(logs)
    return total / len(labels)


def value(loss: LandmarkLoss, x: Tensor, labels: Tensor) -> float:
    return float(loss(x, labels).detach())


def test_dynamic_margins_are_those_of_the_third_place() -> None:
    config = LossConfig(margin="dynamic", margin_rad=1.0, margin_rare_rad=1.1)
    # t = 1, 1/2, 1/3 for 1, 16 and 81 images
    assert class_margins(np.array([1, 16, 81]), config) == pytest.approx([0.5, 0.05 + 0.45 * (1 / 6) / (2 / 3), 0.05])


def test_equal_counts_have_the_largest_dynamic_margin() -> None:
    assert class_margins(np.array([7, 7, 7]), LossConfig(margin="dynamic")).tolist() == [0.5, 0.5, 0.5]


def test_a_fixed_margin_is_that_of_every_class() -> None:
    config = LossConfig(margin="fixed", margin_rad=0.3, margin_rare_rad=0.9)
    assert class_margins(np.array([1, 16]), config).tolist() == [0.3, 0.3]


@pytest.mark.parametrize("n_centres", [1, 3])
def test_dynamic_sub_center_arcface_is_the_slow_one(n_centres: int) -> None:
    loss = made(LossConfig(margin="dynamic", n_centres=n_centres, scale=10.0), (1, 16, 81, 3))
    margins = class_margins(np.array([1, 16, 81, 3]), loss.config)
    x, labels = batch()
    logits = slow_cosines(x, loss.classifier.W, n_centres)
    for i, label in enumerate(labels.tolist()):
        logits[i, label] = math.cos(math.acos(logits[i, label]) + margins[label])
    assert value(loss, x, labels) == pytest.approx(slow_cross_entropy(10 * logits, labels), rel=1e-4)


def test_a_centre_that_is_not_the_nearest_has_no_gradient() -> None:
    loss = made(LossConfig(n_centres=2))
    x, labels = batch(1)
    loss(x, labels).backward()
    nearest = loss.classifier.W.grad.norm(dim=0).reshape(N, 2) > 0
    assert nearest.sum(dim=1).tolist() == [1] * N


def test_cosface_subtracts_its_margin_from_the_cosine() -> None:
    loss = made(LossConfig("cosface", margin_cos=0.35, scale=10.0))
    x, labels = batch()
    logits = slow_cosines(x, loss.classifier.W)
    for i, label in enumerate(labels.tolist()):
        logits[i, label] -= 0.35
    assert value(loss, x, labels) == pytest.approx(slow_cross_entropy(10 * logits, labels), rel=1e-4)


def test_label_smoothing_gives_every_class_a_part_of_the_target() -> None:
    loss = made(LossConfig("softmax", label_smoothing=0.2, scale=10.0))
    x, labels = batch()
    expected = slow_cross_entropy(10 * slow_cosines(x, loss.classifier.W), labels, 0.2)
    assert value(loss, x, labels) == pytest.approx(expected, rel=1e-4)


def test_adaptive_margins_follow_the_length_of_the_features() -> None:
    config = LossConfig(margin="adaptive", margin_rad=0.4, scale=10.0)
    loss = made(config)
    assert loss.wants == "raw"
    x, labels = batch(3)
    x = x * torch.tensor([[1.0], [2.0], [3.0]])
    std = math.sqrt(2 / 3)
    logits = slow_cosines(x, loss.classifier.W)
    for i, (label, length) in enumerate(zip(labels.tolist(), (1.0, 2.0, 3.0), strict=True)):
        q = min(1.0, max(-1.0, (length - 2.0) * 0.333 / (std + 1e-3)))
        logits[i, label] = math.cos(math.acos(logits[i, label]) - 0.4 * q) - 0.4 * (q + 1)
    assert value(loss, x, labels) == pytest.approx(slow_cross_entropy(10 * logits, labels), rel=1e-4)
    head = loss.classifier
    assert isinstance(head, AdaptiveArcFace)
    loss(x + x, labels)
    assert head.length_mean.item() == pytest.approx(2.0 + 0.01 * (4.0 - 2.0))
    assert head.length_std.item() == pytest.approx(std + 0.01 * (2 * std - std))


def test_a_poor_image_has_the_margin_of_arcface() -> None:
    head = made(LossConfig(margin="adaptive", margin_rad=0.4)).classifier
    head.margin = torch.tensor([0.4, 0.4])
    head.quality = torch.tensor([-1.0, 0.0])
    poor, usual = head.modify_cosine_of_target_classes(torch.tensor([0.5, 0.5])).tolist()
    assert poor == pytest.approx(math.cos(math.pi / 3 + 0.4))
    assert usual == pytest.approx(0.5 - 0.4)


@pytest.mark.parametrize(
    "config",
    [
        LossConfig(n_centres=2),
        LossConfig(margin="adaptive"),
        LossConfig("cosface"),
        LossConfig("softmax"),
        LossConfig("proxy-anchor"),
        LossConfig("contrastive", miner="none"),
        LossConfig("triplet", miner="none"),
        LossConfig("multi-similarity"),
    ],
    ids=lambda config: f"{config.name}-{config.margin}",
)
def test_gradients_are_finite_where_cosines_are_one_and_minus_one(config: LossConfig) -> None:
    loss = made(config)
    x = torch.eye(D)[:1].repeat(4, 1)
    x[2:] *= -1  # cosines of +1 and -1 between images of one landmark and of two
    labels = torch.tensor([0, 0, 0, 1])
    if config.name not in ("contrastive", "triplet", "multi-similarity"):
        w = loss.classifier.proxies.data.T if config.name == "proxy-anchor" else loss.classifier.W.data
        w[:] = 0
        w[0] = 1
    x.requires_grad_()
    got = loss(x, labels)
    got.backward()
    assert torch.isfinite(got)
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in loss.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    "config",
    [
        LossConfig("cosface"),
        LossConfig("linear", head_hidden=5),
        LossConfig("proxy-anchor"),
        LossConfig("contrastive"),
        LossConfig("triplet"),
        LossConfig("multi-similarity"),
        LossConfig(margin="adaptive"),
        LossConfig(background="class"),
    ],
    ids=lambda config: f"{config.name}-{config.margin}-{config.background}",
)
def test_every_loss_is_float32_under_autocast(config: LossConfig) -> None:
    loss = made(config)
    x, labels = batch(8)
    labels[:2] = torch.tensor([-1, -2])
    rounded = x.bfloat16()
    expected = made(config)(rounded.float(), labels)
    with torch.autocast("cpu", torch.bfloat16):
        got = loss(rounded, labels)
    assert got.dtype == torch.float32
    assert got.item() == expected.item()
    assert all(p.dtype == torch.float32 for p in loss.parameters())


def slow_proxy_anchor(cosines: np.ndarray, labels: list[int]) -> float:
    """Kim et al. 2020, eq. 4, with margin 0.1 and alpha 32."""
    near, far = 0.0, 0.0
    for c in range(cosines.shape[1]):
        own = [math.exp(-32 * (cosines[i, c] - 0.1)) for i, label in enumerate(labels) if label == c]
        others = [math.exp(32 * (cosines[i, c] + 0.1)) for i, label in enumerate(labels) if label != c]
        near, far = near + math.log(1 + sum(own)), far + math.log(1 + sum(others))
    return near / len(set(labels)) + far / cosines.shape[1]


def test_proxy_anchor_is_the_slow_one_and_leaves_non_landmarks_out() -> None:
    loss = made(LossConfig("proxy-anchor", negative_weight=0.0))
    x, labels = batch()
    cosines = slow_cosines(x, loss.classifier.proxies.T)
    assert value(loss, x, labels) == pytest.approx(slow_proxy_anchor(cosines, labels.tolist()), rel=1e-4)
    mixed = torch.cat([labels, torch.tensor([-1])])
    assert value(loss, torch.cat([x, x[:1]]), mixed) == pytest.approx(7 / 8 * value(loss, x, labels), rel=1e-5)


def test_a_background_class_is_one_class_more_without_a_margin() -> None:
    loss = made(LossConfig(margin="fixed", margin_rad=0.3, scale=10.0, background="class", negative_weight=0.5))
    x, labels = batch(4)
    labels[2:] = torch.tensor([-1, -5])
    logits = slow_cosines(x, loss.classifier.W)
    assert logits.shape == (4, N + 1)
    targets = torch.cat([labels[:2], torch.tensor([N, N])])
    for i in range(2):
        logits[i, targets[i]] = math.cos(math.acos(logits[i, targets[i]]) + 0.3)
    known, unknown = (slow_cross_entropy(10 * logits[part], targets[part]) for part in (slice(2), slice(2, 4)))
    assert value(loss, x, labels) == pytest.approx(0.5 * known + 0.5 * 0.5 * unknown, rel=1e-4)


def test_a_background_class_has_no_margin_in_cosface_either() -> None:
    loss = made(LossConfig("cosface", margin_cos=0.35, scale=10.0, background="class"))
    x, _ = batch(2)
    targets = torch.tensor([N, N])
    expected = slow_cross_entropy(10 * slow_cosines(x, loss.classifier.W), targets)
    assert value(loss, x, torch.tensor([-1, -1])) == pytest.approx(expected, rel=1e-4)


def test_the_top_model_is_a_hidden_layer_and_a_softmax_with_biases() -> None:
    loss = made(LossConfig("linear", head_hidden=3, dropout=0.5, label_smoothing=0.1)).eval()
    assert loss.wants == "raw"
    assert {name: tuple(p.shape) for name, p in loss.named_parameters()} == {
        "classifier.layers.0.weight": (3, D),
        "classifier.layers.0.bias": (3,),
        "classifier.layers.3.weight": (N, 3),
        "classifier.layers.3.bias": (N,),
    }
    x, labels = batch(scale=5.0)
    w0, b0, w1, b1 = (p.detach().double().numpy() for p in loss.parameters())
    logits = np.maximum(x.double().numpy() @ w0.T + b0, 0) @ w1.T + b1
    assert value(loss, x, labels) == pytest.approx(slow_cross_entropy(logits, labels, 0.1), rel=1e-4)


def test_dropout_drops_in_training_only() -> None:
    loss = made(LossConfig("linear", dropout=0.5))
    x, labels = batch()
    torch.manual_seed(1)
    dropped = value(loss, x, labels)
    torch.manual_seed(2)
    assert value(loss, x, labels) != dropped
    loss.eval()
    assert value(loss, x, labels) == value(loss, x, labels)


def test_a_linear_head_spreads_non_landmarks_over_all_classes() -> None:
    loss = made(LossConfig("linear"))
    x, _ = batch(3)
    w, b = (p.detach().double().numpy() for p in loss.parameters())
    logits = x.double().numpy() @ w.T + b
    everywhere = sum(slow_cross_entropy(logits, torch.full((3,), c)) for c in range(N)) / N
    assert value(loss, x, torch.full((3,), -1)) == pytest.approx(everywhere, rel=1e-5)
