import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.losses import ArcFaceLoss
from torch.nn import functional as F

from retrieval.train.heads import COSINE_LIMIT, class_margins
from retrieval.train.loss_config import LossConfig
from retrieval.train.losses import LandmarkLoss

EQUAL = np.array([5, 5, 5])
PLAIN = LossConfig(margin_rad=0.3, margin_rare_rad=0.3, scale=10.0)


def batch(n: int = 6, d: int = 8, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    descriptors = torch.tensor(rng.normal(size=(n, d)), dtype=torch.float32)
    return F.normalize(descriptors, dim=1), torch.tensor(rng.integers(0, 3, n))


def made(config: LossConfig = PLAIN, counts: object = EQUAL, d: int = 8, seed: int = 0) -> LandmarkLoss:
    torch.manual_seed(seed)
    return LandmarkLoss(config, d, np.asarray(counts))


def literal_arcface(
    x: torch.Tensor, w: torch.Tensor, labels: torch.Tensor, margins: list[float], scale: float
) -> float:
    """Deng et al. 2019, eq. 3, with a loop and math's functions."""
    total = 0.0
    for vector, label in zip(x.double().numpy(), labels.tolist(), strict=True):
        logits = []
        for c, direction in enumerate(w.detach().double().numpy().T):
            cosine = float(vector @ direction / np.linalg.norm(direction) / np.linalg.norm(vector))
            if c == label:
                angle, margin = math.acos(cosine), margins[c]
                cosine = math.cos(angle + margin) if angle + margin <= math.pi else cosine - margin * math.sin(margin)
            logits.append(scale * cosine)
        total += math.log(sum(math.exp(v) for v in logits)) - logits[label]
    return total / len(labels)


@given(seed=st.integers(0, 1000), margin=st.floats(0, 1.5), scale=st.floats(1, 60))
@settings(max_examples=25, deadline=None)
def test_the_margin_is_in_radians(seed: int, margin: float, scale: float) -> None:
    loss = made(LossConfig(margin_rad=margin, margin_rare_rad=margin, scale=scale), seed=seed)
    x, labels = batch(seed=seed)
    expected = literal_arcface(x, loss.classifier.W, labels, [margin] * 3, scale)
    assert loss(x, labels).item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_margin_of_zero_three_radians_by_hand() -> None:
    loss = made(d=2, counts=[1, 1])
    with torch.no_grad():
        loss.classifier.W.copy_(torch.eye(2))
    angle = math.pi / 3
    x = torch.tensor([[math.cos(angle), math.sin(angle)]])
    own, other = 10 * math.cos(angle + 0.3), 10 * math.sin(angle)
    assert loss(x, torch.tensor([0])).item() == pytest.approx(math.log(1 + math.exp(other - own)), rel=1e-5)


def test_the_library_counts_margins_in_degrees() -> None:
    x, labels = batch()
    library = ArcFaceLoss(3, 8, margin=0.3, scale=10.0)
    w = library.W
    assert library(x, labels).item() == pytest.approx(
        literal_arcface(x, w, labels, [math.radians(0.3)] * 3, 10.0), rel=1e-4
    )
    loss = made()
    with torch.no_grad():
        loss.classifier.W.copy_(w)
    assert loss(x, labels).item() == pytest.approx(literal_arcface(x, w, labels, [0.3] * 3, 10.0), rel=1e-4)


def test_each_class_has_its_own_margin() -> None:
    config = LossConfig(margin_rad=0.1, margin_rare_rad=0.5, scale=10.0)
    loss = made(config, [16, 1, 81])
    x, labels = batch()
    low, high = 1 / 3, 1.0  # 81 ** -1/4 and 1 ** -1/4
    margins = [0.1 + 0.4 * (0.5 - low) / (high - low), 0.5, 0.1]
    assert class_margins(np.array([16, 1, 81]), config) == pytest.approx(margins)
    assert loss(x, labels).item() == pytest.approx(
        literal_arcface(x, loss.classifier.W, labels, margins, 10.0), rel=1e-4
    )


def test_equal_counts_have_the_common_margin() -> None:
    assert class_margins(np.array([7, 7]), LossConfig(margin_rad=0.2, margin_rare_rad=0.9)).tolist() == [0.2, 0.2]


def test_a_class_without_images_counts_as_the_rarest() -> None:
    assert class_margins(np.array([0, 16]), LossConfig(margin_rad=0.2, margin_rare_rad=0.9)) == pytest.approx(
        [0.9, 0.2]
    )


def test_the_library_takes_minus_one_for_the_last_class() -> None:
    x, _ = batch(1)
    library = ArcFaceLoss(3, 8)
    mask = library.get_target_mask(x, torch.tensor([-1]))
    assert mask.tolist() == [[0.0, 0.0, 1.0]]


def test_a_negative_never_enters_the_classification() -> None:
    loss = made(LossConfig(scale=10.0, negative_weight=0.0))
    x, labels = batch(4)
    labels[2:] = torch.tensor([-1, -7])
    assert loss(x, labels).item() == pytest.approx(0.5 * loss(x[:2], labels[:2]).item(), rel=1e-6)
    grown = x.clone().requires_grad_()
    loss(grown, labels).backward()
    assert grown.grad is not None
    assert grown.grad[2:].abs().max() == 0
    assert grown.grad[:2].abs().max() > 0


def test_negatives_alone_are_pushed_from_their_best_class() -> None:
    config = LossConfig(scale=10.0, negative_weight=2.0, negative_cosine=0.2)
    loss = made(config, [1, 1], d=2)
    with torch.no_grad():
        loss.classifier.W.copy_(torch.eye(2))
    x = torch.tensor([[0.6, 0.8], [-1.0, 0.0]], requires_grad=True)
    value = loss(x, torch.tensor([-1, -1]))
    expected = 2.0 * (math.log(1 + math.exp(10 * 0.6)) + math.log(1 + math.exp(-10 * 0.2))) / 2
    assert value.item() == pytest.approx(expected, rel=1e-5)
    value.backward()
    assert x.grad is not None
    assert x.grad[0, 1] > 0 == x.grad[0, 0]


def test_a_mixed_batch_weighs_its_parts_by_their_share() -> None:
    config = LossConfig(scale=10.0, negative_weight=0.5)
    loss = made(config)
    x, labels = batch(4)
    labels[3] = -1
    known, unknown = loss(x[:3], labels[:3]).item(), loss(x[3:], labels[3:]).item()
    assert loss(x, labels).item() == pytest.approx(0.75 * known + 0.25 * unknown, rel=1e-5)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_the_gradient_is_finite_where_a_descriptor_is_its_class(sign: float, margin: float) -> None:
    loss = made(LossConfig(margin_rad=margin, margin_rare_rad=margin, scale=10.0))
    with torch.no_grad():
        x = sign * F.normalize(loss.classifier.W[:, :1].T, dim=1)
        loss.classifier.W[:, 0] = sign * x[0]
    x.requires_grad_()
    value = loss(x, torch.tensor([0]))
    value.backward()
    assert torch.isfinite(value)
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(loss.classifier.W.grad).all()


def test_the_steepest_gradient_is_that_at_the_limit() -> None:
    """The derivative of cos(theta + m) by cos(theta) is sin(theta + m) / sin(theta); acos alone reaches infinity."""
    arcface = made().classifier
    arcface.margin = torch.tensor([0.3])
    cosines = torch.tensor([1.0, 1 - 6e-8, 1 - 2e-6, 0.5, -1 + 6e-8, -1.0], requires_grad=True)
    arcface.modify_cosine_of_target_classes(cosines).sum().backward()
    assert cosines.grad is not None
    slopes = cosines.grad.tolist()
    assert slopes[:2] == [0, 0]
    assert slopes[2] == pytest.approx(math.sin(math.acos(1 - 2e-6) + 0.3) / math.sin(math.acos(1 - 2e-6)), rel=0.05)
    assert slopes[3] == pytest.approx(math.sin(math.pi / 3 + 0.3) / math.sin(math.pi / 3), rel=1e-5)
    assert slopes[4:] == [1, 1]
    bare = torch.tensor([1.0], requires_grad=True)
    torch.acos(bare).backward()
    assert bare.grad is not None
    assert math.isinf(bare.grad.item())


def test_float32_tells_the_limit_from_one() -> None:
    assert float(torch.tensor(COSINE_LIMIT, dtype=torch.float32)) < 1.0
    assert math.isfinite(float(torch.acos(torch.tensor(COSINE_LIMIT, dtype=torch.float32))))


@pytest.mark.parametrize("name", ["arcface", "softmax"])
def test_the_loss_stays_float32_under_autocast(name: str) -> None:
    loss = made(LossConfig(name, scale=10.0))  # type: ignore[arg-type]
    x, labels = batch()
    labels[0] = -1
    rounded = x.bfloat16()
    expected = loss(rounded.float(), labels)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(rounded, labels)
    assert value.dtype == torch.float32
    assert loss.classifier.W.dtype == torch.float32
    assert value.item() == expected.item()


def test_the_library_alone_would_round_its_directions() -> None:
    library = ArcFaceLoss(3, 8)
    x, labels = batch()
    library(x.bfloat16(), labels)
    assert library.W.dtype == torch.bfloat16


def test_softmax_is_the_cross_entropy_of_scaled_cosines() -> None:
    loss = made(LossConfig("softmax", scale=12.0))
    x, labels = batch()
    expected = F.cross_entropy(12.0 * loss.cosines(x), labels)
    assert float(loss(x, labels).detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_cosines_are_those_of_unit_directions() -> None:
    loss = made(d=2, counts=[1, 1])
    with torch.no_grad():
        loss.classifier.W.copy_(torch.tensor([[3.0, 0.0], [4.0, 2.0]]))
    assert loss.cosines(torch.tensor([[1.0, 0.0]])).detach().numpy() == pytest.approx(np.array([[0.6, 0.0]]))


def test_a_label_outside_the_classes_is_refused() -> None:
    x, _ = batch(2)
    with pytest.raises(ValueError, match=r"^label 3 is outside the 3 classes$"):
        made()(x, torch.tensor([0, 3]))
