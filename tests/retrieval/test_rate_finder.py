from pathlib import Path

import numpy as np
import pytest
from tiny_world import CPU, SPEC, Images, jpeg, tiny_model

from retrieval.errors import LmrError
from retrieval.train.config import AugmentConfig, TrainConfig
from retrieval.train.data import TrainingData
from retrieval.train.loss_config import LossConfig
from retrieval.train.lr_finder import find_rate, steepest
from retrieval.train.run import Run


def test_the_suggested_rate_is_where_the_loss_falls_most_steeply() -> None:
    share = np.geomspace(1e-3, 1e2, 51)
    at = 30  # share 1
    loss = 3 - 1 / (1 + np.exp(-3 * np.log(share))) + 0.01 * np.maximum(0, np.log(share) - 2) ** 4
    assert steepest(share, loss) == pytest.approx(share[at])


@pytest.mark.parametrize("loss", [[], [1.0], [1.0, 2.0, 3.0]])
def test_a_loss_that_does_not_fall_suggests_nothing(loss: list[float]) -> None:
    with pytest.raises(LmrError) as caught:
        steepest(np.geomspace(1e-3, 1, len(loss)), np.array(loss))
    assert str(caught.value) == (
        "the loss falls at no learning rate; check the labels, or give other `backbone_rate` and `head_rate`"
    )


@pytest.mark.usefixtures("in_float32")
def test_the_search_rises_until_the_loss_diverges_and_writes_nothing(tmp_path: Path) -> None:
    landmark = np.array([0, 1, 2] * 3, dtype=np.int32)
    data = TrainingData(
        Images([jpeg(int(label), i) for i, label in enumerate(landmark)]), landmark, ("a", "b", "c"), "digest"
    )
    config = TrainConfig(
        batch_size=4,
        head_rate=0.1,
        loss=LossConfig("softmax", scale=4.0),
        optimizer="sgd",
        augment=AugmentConfig(min_area=0.8),
    )
    found = find_rate(tiny_model(), data, SPEC, config, Run(tmp_path, CPU, 0))
    assert (np.diff(found.share) > 0).all()
    assert found.share[0] == pytest.approx(1e-3)
    assert found.share[0] < found.best < found.share[-1]
    assert np.isfinite(found.loss).all()
    assert list(tmp_path.iterdir()) == []
