import numpy as np
import pytest
import torch
from tiny_world import tiny_model

from retrieval.errors import LmrError
from retrieval.train.config import BalanceConfig, TrainConfig
from retrieval.train.loss_config import LossConfig
from retrieval.train.losses import LandmarkLoss
from retrieval.train.optim import freeze, make_optimizer, rates, set_rates

CONFIG = TrainConfig(backbone_rate=0.01, head_rate=0.1, weight_decay=0.5)


def loss_of(d: int = 8) -> LandmarkLoss:
    return LandmarkLoss(LossConfig(), d, np.array([2, 3, 4]))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adamw", torch.optim.AdamW),
        ("adam", torch.optim.Adam),
        ("sgd", torch.optim.SGD),
        ("rmsprop", torch.optim.RMSprop),
    ],
)
def test_each_optimizer_takes_a_step_of_its_own_kind(name: str, kind: type) -> None:
    model, loss = tiny_model(), loss_of()
    optimizer = make_optimizer(model, loss, TrainConfig(optimizer=name))  # type: ignore[arg-type]
    assert type(optimizer) is kind
    before = [p.detach().clone() for p in model.parameters()]
    loss(model(torch.randn(4, 3, 16, 16)), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    assert all(not torch.equal(b, p) for b, p in zip(before, model.parameters(), strict=True))


def test_weight_decay_is_not_on_norms_and_biases() -> None:
    model, loss = tiny_model(), loss_of()
    groups = make_optimizer(model, loss, CONFIG).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(p) for p in (*model.parameters(), *loss.parameters()) if p.ndim > 1}
    every = [id(p) for group in groups for p in group["params"]]
    assert sorted(every) == sorted(id(p) for p in (*model.parameters(), *loss.parameters()))


def test_what_is_frozen_has_no_rate() -> None:
    model = tiny_model()
    optimizer = make_optimizer(model, loss_of(), CONFIG)
    set_rates(optimizer, 0.5)
    assert rates(optimizer) == {"backbone": 0.005, "head": 0.05}
    freeze(model, "all")
    optimizer = make_optimizer(model, loss_of(), CONFIG)
    set_rates(optimizer, 0.5)
    assert rates(optimizer) == {"head": 0.05}


def test_nothing_to_train_is_one_line() -> None:
    model = tiny_model(n_dimensions=0)
    freeze(model, "all")
    loss = LandmarkLoss(LossConfig("triplet"), 8, np.array([2, 3, 4]))
    with pytest.raises(LmrError) as caught:
        make_optimizer(model, loss, TrainConfig(freeze="all", loss=loss.config, sampling=BalanceConfig(per_landmark=2)))
    assert str(caught.value) == (
        "`freeze` all leaves nothing to train: this network has no neck and `loss` triplet has no weights; train some "
        "blocks, or give `n_dimensions`"
    )
