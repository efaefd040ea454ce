import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_world import CPU, SPEC, Images, digest_of, jpeg, tiny_model, weights_of

from retrieval.errors import LmrError
from retrieval.models.checkpoint import read_card, weights_digest
from retrieval.models.network import DescriptorModel
from retrieval.train.config import AugmentConfig, TrainConfig
from retrieval.train.data import TrainingData
from retrieval.train.loop import Stage, stage_folder, train_stages
from retrieval.train.loss_config import LossConfig
from retrieval.train.run import Run, Step
from retrieval.train.state import TrainingState, read_head, read_state

TOP = TrainConfig(
    epochs=2,
    batch_size=4,
    head_rate=0.02,
    backbone_rate=0.01,
    freeze="all",
    plain_pictures=True,
    loss=LossConfig(scale=8.0),
    augment=AugmentConfig(min_area=0.8, hue=0),
)
FINE = dataclasses.replace(TOP, freeze="1", plain_pictures=False, epochs=1)
LARGE = dataclasses.replace(FINE, freeze="none", ema=0.9)
SPECS = (SPEC, SPEC, dataclasses.replace(SPEC, size=24))
N_STEPS = 3 * (2 + 1 + 1)

pytestmark = pytest.mark.usefixtures("in_float32")


def data_of(labels: tuple[str, ...] = ("a", "b", "c")) -> TrainingData:
    landmark = np.array([0, 1, 2] * 3 + [-1] * 3, dtype=np.int32)
    return TrainingData(Images([jpeg(int(label), i) for i, label in enumerate(landmark)]), landmark, labels, "digest")


def trained(
    folder: Path, model: DescriptorModel, configs: tuple[TrainConfig, ...] = (TOP, FINE, LARGE), **changes: Any
) -> TrainingState:
    data = changes.pop("data", [data_of()] * len(configs))
    stages = [
        Stage(data[i], SPECS[i], config, Run(stage_folder(folder, i + 1, len(configs)), CPU, 0, **changes))
        for i, config in enumerate(configs)
    ]
    return train_stages(model, stages)


def test_each_stage_goes_on_where_the_one_before_ended(tmp_path: Path) -> None:
    model = tiny_model()
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    state = trained(tmp_path, model)
    assert state.epoch == 1
    first, second = (weights_of(tmp_path / f"stage-{n}") for n in (1, 2))
    changed = [{name for name, p in start.items() if not torch.equal(p, one[name])} for one in (first, second)]
    assert changed[0] == {"neck.0.weight", "neck.1.weight", "neck.1.bias"}
    assert changed[1] == changed[0] | {"gem.p", "backbone.3.weight", "backbone.4.weight", "backbone.4.bias"}
    assert read_card(tmp_path).image_spec.size == 24
    assert digest_of(tmp_path) == weights_digest(model)
    found = read_state(tmp_path)
    assert found is not None
    assert found[0]["starting weights"] == digest_of(tmp_path / "stage-2")


def test_the_page_tells_the_recipe_of_every_stage(tmp_path: Path) -> None:
    trained(tmp_path, tiny_model())
    page = (tmp_path / "README.md").read_text()
    assert page.count("12 pictures, of 3 landmarks and 3 of none.\n") == page.count("### Numbers") == 3
    first, second, third = page.split("\n## Stage ")[1:]
    assert first.startswith("1 of 3\n\n### Data\n")
    assert "```toml\nsize = 16\nepochs = 2\n" in first
    assert second.startswith("2 of 3\n\n### Data\n")
    assert "```toml\nsize = 16\nepochs = 1\n" in second
    assert third.startswith("3 of 3\n\n### Data\n")
    assert "```toml\nepochs = 1\n" in third
    assert [('freeze = "all"' in part, 'freeze = "1"' in part) for part in (first, second, third)] == [
        (True, False), (False, True), (False, False)
    ]  # fmt: skip
    assert "Stage " not in (tmp_path / "stage-1" / "README.md").read_text()


@pytest.mark.parametrize("n_steps", [2, 7, 8, 10, N_STEPS])
def test_a_run_stopped_in_any_stage_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_steps: int
) -> None:
    monkeypatch.setattr("retrieval.train.loop.STATE_EVERY_S", -1.0)
    trained(tmp_path / "whole", tiny_model())
    steps: list[Step] = []

    def stop(progress: Step) -> None:
        steps.append(progress)
        if len(steps) == n_steps:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "stopped", tiny_model(), on_step=stop)
    steps.clear()
    trained(tmp_path / "stopped", tiny_model(), on_step=lambda p: steps.append(p))
    assert len(steps) == N_STEPS - n_steps + 1
    assert digest_of(tmp_path / "stopped") == digest_of(tmp_path / "whole")


@pytest.mark.parametrize("same", [True, False])
def test_the_class_directions_go_along_where_the_labels_are_the_same(tmp_path: Path, same: bool) -> None:
    """The rates of the second stage are zero, so that it shows what it began with."""
    still = dataclasses.replace(TOP, head_rate=0.0, epochs=1)
    data = [data_of(), data_of() if same else data_of(("x", "y", "z"))]
    trained(tmp_path, tiny_model(), (TOP, still), data=data)
    before, after = (read_head(folder)["classifier.W"] for folder in (tmp_path / "stage-1", tmp_path))
    assert torch.equal(before, after) == same


@pytest.mark.parametrize("change", [{"ema": 0.9}, {"loss": LossConfig(scale=8.0, class_share=0.5)}])
def test_the_directions_go_along_from_an_average_and_from_a_sample(tmp_path: Path, change: dict[str, Any]) -> None:
    """Of an average those that were saved with its network."""
    first = dataclasses.replace(TOP, **change)
    trained(tmp_path, tiny_model(), (first, dataclasses.replace(first, head_rate=0.0, epochs=1)))
    saved, after = (load_file(folder / "classifier.safetensors") for folder in (tmp_path / "stage-1", tmp_path))
    assert torch.allclose(saved["directions"], after["directions"], atol=1e-7)


def test_a_loss_of_another_shape_begins_anew(tmp_path: Path) -> None:
    """And what depends on the margins is the new stage's own."""
    other = dataclasses.replace(TOP, head_rate=0.0, epochs=1, loss=LossConfig(scale=8.0, margin_rad=0.3))
    trained(tmp_path, tiny_model(), (TOP, other))
    before, after = (read_head(folder) for folder in (tmp_path / "stage-1", tmp_path))
    assert torch.equal(before["classifier.W"], after["classifier.W"])
    assert not torch.equal(before["classifier.margins"], after["classifier.margins"])


def test_a_stage_that_cannot_be_is_refused_before_the_first_begins(tmp_path: Path) -> None:
    with pytest.raises(LmrError) as caught:
        trained(tmp_path / "run", tiny_model(), (TOP, dataclasses.replace(FINE, freeze="9")))
    assert str(caught.value) == "`freeze` 9: tiny has 2 blocks (0, 3); give no more than these, all or none"
    assert not (tmp_path / "run").exists()


def test_another_first_stage_is_refused(tmp_path: Path) -> None:
    trained(tmp_path, tiny_model(), (TOP, FINE))
    with pytest.raises(
        LmrError, match=r"stage-1 holds a run with another training configuration \(epochs was \d, is 1\); go on"
    ):
        trained(tmp_path, tiny_model(), (dataclasses.replace(TOP, epochs=1), FINE))
