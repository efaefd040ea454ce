"""Partial class sampling: what is taken out, what moves, what comes back."""

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrieval.train.loss_config import LossConfig
from retrieval.train.losses import LandmarkLoss
from retrieval.train.state import take_over

N, D = 20, 5
Optimizers = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Optimizers] = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, fused=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5),
}


def batch(seed: int, n: int = 6) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    x = F.normalize(torch.tensor(rng.normal(size=(n, D)), dtype=torch.float32), dim=1)
    return x, torch.tensor(rng.integers(0, N, n))


def made(share: float, *, kind: str = "adamw", **further: object) -> tuple[LandmarkLoss, torch.optim.Optimizer]:
    torch.manual_seed(0)
    config = LossConfig(class_share=share, scale=10.0, **further)  # type: ignore[arg-type]
    loss = LandmarkLoss(config, D, np.arange(1, N + 1))
    optimizer = OPTIMIZERS[kind](list(loss.parameters()))
    loss.attach(optimizer)
    return loss, optimizer


def step(loss: LandmarkLoss, optimizer: torch.optim.Optimizer, seed: int) -> float:
    torch.manual_seed(seed)
    x, labels = batch(seed)
    labels[-1] = -1
    got = loss(x, labels)
    optimizer.zero_grad()
    got.backward()
    nn.utils.clip_grad_norm_(loss.parameters(), 5.0)
    optimizer.step()
    return float(got.detach())


def directions(loss: LandmarkLoss) -> Tensor:
    """(n_classes, width), of the whole loss or of the bank."""
    rows: Tensor = loss.classifier.W.detach().T if loss.bank is None else loss.bank.rows
    return rows.reshape(loss.n_outputs, -1).clone()


@pytest.mark.parametrize("kind", list(OPTIMIZERS))
@pytest.mark.parametrize(
    "further",
    [{}, {"name": "softmax"}, {"name": "cosface"}, {"n_centres": 2}, {"background": "class"}],
    ids=["arcface", "softmax", "cosface", "centres", "background"],
)
def test_a_sample_of_all_classes_trains_as_without_sampling(kind: str, further: dict[str, object]) -> None:
    whole, optimizer = made(1.0, kind=kind, **further)
    sampled, of_sampled = made(0.999, kind=kind, **further)
    assert whole.bank is None
    assert sampled.bank is not None
    for seed in range(4):
        assert step(sampled, of_sampled, seed) == pytest.approx(step(whole, optimizer, seed), rel=1e-4)
    assert directions(sampled).numpy() == pytest.approx(directions(whole).numpy(), abs=1e-5)


def test_only_the_chosen_classes_have_a_gradient_and_move() -> None:
    loss, optimizer = made(0.4)
    step(loss, optimizer, 0)
    assert loss.bank is not None
    before, memory = directions(loss), {name: value.clone() for name, value in loss.bank.memory.items()}
    step(loss, optimizer, 1)
    _, labels = batch(1)
    chosen = loss.bank.chosen.tolist()
    assert len(chosen) == len(set(chosen)) == 8
    assert set(labels[:-1].tolist()) <= set(chosen)
    moved = (directions(loss) != before).any(dim=1)
    assert moved.nonzero().flatten().tolist() == sorted(chosen)
    assert set(memory) == {"exp_avg", "exp_avg_sq"}
    for name, value in loss.bank.memory.items():
        changed = (value != memory[name]).any(dim=1)
        assert changed.nonzero().flatten().tolist() == sorted(chosen)


def test_the_loss_is_that_over_the_chosen_classes_alone() -> None:
    loss, _ = made(0.4, name="softmax", negative_weight=0.0)
    x, labels = batch(0)
    got = float(loss(x, labels).detach())
    assert loss.bank is not None
    chosen = loss.bank.chosen.tolist()
    logits = 10.0 * x @ F.normalize(directions(loss)[chosen], dim=1).T
    expected = F.cross_entropy(logits, torch.tensor([chosen.index(label) for label in labels.tolist()]))
    assert got == pytest.approx(expected.item(), rel=1e-5)


def test_each_class_keeps_its_margin_among_the_chosen() -> None:
    x, _ = batch(0, 1)
    for label in (0, N - 1):
        values = {}
        for kind in ("count", "fixed"):
            loss, _ = made(0.4, margin=kind, margin_rad=0.1, margin_rare_rad=0.4)
            torch.manual_seed(3)
            values[kind] = loss(x, torch.tensor([label])).item()
        assert (values["count"] > values["fixed"] + 1e-3) == (label == 0)  # the first has 1 image, the last 20


def test_a_batch_with_more_classes_than_the_share_has_them_all() -> None:
    loss, _ = made(0.05)
    x, _ = batch(0)
    loss(x, torch.arange(6))
    assert loss.bank is not None
    assert sorted(loss.bank.chosen.tolist()) == list(range(6))


def test_two_batches_before_a_step_add_their_gradients() -> None:
    loss, optimizer = made(0.2, name="softmax", kind="sgd")
    assert loss.bank is not None
    before = directions(loss)
    parts = [batch(0, 3), batch(1, 3)]
    for x, labels in parts:
        loss(x, labels).backward()
    chosen = loss.bank.chosen.tolist()
    taken = before[chosen].requires_grad_()
    first = 4  # the second batch compares with the classes of the first besides its own
    for (x, labels), n in zip(parts, (first, len(chosen)), strict=True):
        logits = 10.0 * x @ F.normalize(taken[:n], dim=1).T
        F.cross_entropy(logits, torch.tensor([chosen.index(label) for label in labels.tolist()])).backward()
    assert taken.grad is not None
    assert loss.bank.active.grad is not None
    assert len(chosen) > first
    assert loss.bank.active.grad.numpy() == pytest.approx(taken.grad.numpy(), rel=1e-4, abs=1e-4)
    optimizer.step()
    moved = (directions(loss) != before).any(dim=1)
    assert moved.nonzero().flatten().tolist() == sorted(chosen)


def test_a_stopped_run_goes_on_with_the_same_numbers() -> None:
    loss, optimizer = made(0.4)
    for seed in range(2):
        step(loss, optimizer, seed)
    file = io.BytesIO()
    torch.save([loss.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    again, of_again = made(0.4)
    for part, state in zip((again, of_again), torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    for seed in range(2, 4):
        assert step(loss, optimizer, seed) == step(again, of_again, seed)
    assert torch.equal(directions(loss), directions(again))


def test_a_step_that_is_skipped_leaves_nothing_out_in_what_is_saved() -> None:
    loss, optimizer = made(0.4)
    loss(*batch(0)).backward()
    assert loss.bank is not None
    assert len(loss.bank.active) == 8
    made(0.4)[0].load_state_dict(loss.state_dict())
    step(loss, optimizer, 1)
    assert len(loss.bank.chosen) == 8


def test_a_backward_pass_after_the_next_sample_is_refused() -> None:
    loss, _ = made(0.4)
    first = loss(*batch(0))
    loss(*batch(1))
    with pytest.raises(ValueError, match=r"^other classes are out by now"):
        first.backward()


def test_a_batch_of_non_landmarks_alone_is_pushed_from_a_sample() -> None:
    loss, optimizer = made(0.4)
    x, _ = batch(0)
    loss(x, torch.full((6,), -1)).backward()
    optimizer.step()
    assert loss.bank is not None
    assert len(loss.bank.active) == 0


def test_sampling_without_its_optimiser_is_refused() -> None:
    loss = LandmarkLoss(LossConfig(class_share=0.5), D, np.ones(N, dtype=np.int64))
    with pytest.raises(ValueError, match=r"^attach the optimizer first"):
        loss(*batch(0))


def test_the_head_has_every_class() -> None:
    loss, optimizer = made(0.4, n_centres=2)
    step(loss, optimizer, 0)
    head = loss.head()
    assert head is not None
    x, _ = batch(1)
    units = F.normalize(directions(loss).reshape(N, 2, D), dim=2)
    expected = 10.0 * torch.einsum("bd,nkd->bnk", x, units).amax(dim=2)
    assert head(x).numpy() == pytest.approx(expected.numpy(), abs=1e-5)


def test_the_next_stage_begins_with_the_directions_of_all_classes() -> None:
    loss, optimizer = made(0.4)
    for seed in range(3):
        step(loss, optimizer, seed)
    state = loss.state_dict()
    torch.manual_seed(1)
    following = LandmarkLoss(loss.config, D, np.arange(1, N + 1))
    assert not torch.equal(following.bank.rows, loss.bank.rows)  # type: ignore[union-attr]
    take_over(following, state)
    assert torch.equal(following.bank.rows, loss.bank.rows)  # type: ignore[union-attr]
