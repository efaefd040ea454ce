"""Training beside a teacher's descriptors."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from made_stores import write_store
from tiny_world import CPU, SPEC, Images, jpeg, tiny_model

from retrieval.errors import LmrError
from retrieval.models.checkpoint import read_card, weights_digest
from retrieval.store.store import DONE, Descriptors, StoreInfo
from retrieval.train.config import AugmentConfig, DistillationConfig, TrainConfig
from retrieval.train.data import TrainingData, open_teacher
from retrieval.train.loop import train
from retrieval.train.loss_config import LossConfig
from retrieval.train.lr_finder import find_rate
from retrieval.train.run import Run, Step
from retrieval.train.state import TrainingState

NAMES = np.array(list("abcdefghi"), dtype=object)
LANDMARK = np.array([0, 1, 2] * 3, dtype=np.int32)
CONFIG = TrainConfig(
    epochs=40,
    batch_size=4,
    head_rate=0.02,
    backbone_rate=0.01,
    augment=AugmentConfig(min_area=0.8, hue=0, greyscale=0),
    loss=LossConfig(scale=1e-9, margin_rad=0, margin_rare_rad=0),
    distillation=DistillationConfig(distill_cosine=1.0, distill_relations=1.0),
)

pytestmark = pytest.mark.usefixtures("in_float32")


def data_of(folder: Path, seed: int | None) -> TrainingData:
    """Nine images; the teacher finds those of a landmark alike, and its directions are those of the seed."""
    teacher = None
    if seed is not None:
        directions = np.linalg.qr(np.random.default_rng(seed).normal(size=(5, 5)))[0].astype(np.float32)
        path = folder / f"teacher-{seed}.h5"
        info = StoreInfo(f"{seed}a" * 32, {}, {}, "1", "m", "float16", 5)
        texts = np.array([""] * 9, dtype=object)
        state = np.full(9, DONE, np.uint8)
        given = Descriptors(directions[LANDMARK], NAMES, LANDMARK, ("x", "y", "z"), state, texts, None, info, str(path))
        write_store(path, given)
        teacher = open_teacher([path], NAMES)
    encoded: list[bytes | None] = [jpeg(int(label), i) for i, label in enumerate(LANDMARK)]
    return TrainingData(Images(encoded), LANDMARK, ("x", "y", "z"), "digest", tuple(NAMES), teacher)


def trained(
    folder: Path, data: TrainingData, config: TrainConfig = CONFIG, stop_at: int = 0
) -> tuple[TrainingState, str]:
    """The state, and the digest of the weights. stop_at: Ctrl-C in this step."""
    steps: list[Step] = []

    def on_step(progress: Step) -> None:
        steps.append(progress)
        if len(steps) == stop_at:
            raise KeyboardInterrupt

    model = tiny_model()
    state = train(model, data, SPEC, config, Run(folder, CPU, 0, on_step=on_step))
    return state, weights_digest(model)


def test_the_loss_of_imitating_a_teacher_falls(tmp_path: Path) -> None:
    """The loss over landmarks is a constant here, log 3, so that what falls is the other one."""
    state, _ = trained(tmp_path / "run", data_of(tmp_path, 0))
    losses = [row["loss"] - np.log(3) for row in state.log]
    assert losses[-1] < 0.5 * losses[0]


def test_a_stopped_run_beside_a_teacher_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_of(tmp_path, 0)
    config = dataclasses.replace(CONFIG, epochs=2)
    _, whole = trained(tmp_path / "whole", data, config)
    monkeypatch.setattr("retrieval.train.loop.STATE_EVERY_S", -1.0)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "stopped", data, config, stop_at=3)
    assert trained(tmp_path / "stopped", data, config)[1] == whole
    assert trained(tmp_path / "alone", data_of(tmp_path, None), config)[1] != whole


def test_another_teacher_or_none_is_another_run(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=1)
    trained(tmp_path / "run", data_of(tmp_path, 0), config)
    for other in (1, None):
        with pytest.raises(LmrError) as caught:
            trained(tmp_path / "run", data_of(tmp_path, other), config)
        assert str(caught.value).startswith(f"{tmp_path / 'run'} holds a run with another teacher;")


def test_the_card_names_the_teacher(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=1)
    for seed, expected in ((0, "0a" * 32), (None, None)):
        folder = tmp_path / f"run-{seed}"
        trained(folder, data_of(tmp_path, seed), config)
        assert read_card(folder).made_by.get("teacher") == expected
        line = f"It learned to imitate the descriptors of the model `{expected}` (fingerprint).\n"
        assert (line in (folder / "README.md").read_text()) == (seed is not None)


def test_mixed_images_have_no_teacher(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, loss=LossConfig("softmax"), augment=AugmentConfig(cutmix=1.0))
    with pytest.raises(LmrError) as caught:
        trained(tmp_path / "run", data_of(tmp_path, 0), config)
    assert str(caught.value) == "`cutmix` mixes pictures, of which `teacher` has no descriptor; give one of them"


def test_the_search_for_a_rate_minds_the_teacher(tmp_path: Path) -> None:
    """Its first loss is that of the network as it begins."""
    config = dataclasses.replace(CONFIG, optimizer="sgd", head_rate=0.1, loss=LossConfig("softmax", scale=4.0))
    run = Run(tmp_path, CPU, 0)
    taught, alone = (find_rate(tiny_model(), data_of(tmp_path, seed), SPEC, config, run) for seed in (0, None))
    assert taught.loss[0] > alone.loss[0] + 0.1
