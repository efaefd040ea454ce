"""Training with damaged states, values that are not finite, images that cannot be read, full disks."""

import dataclasses
import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import CONFIG, N_STEPS, VARIATIONS, data_of, message, trained
from tiny_world import CPU, SPEC, Images, digest_of, tiny_model

from retrieval.files.atomic import write_error
from retrieval.train.data import TrainingData
from retrieval.train.loss_config import LossConfig
from retrieval.train.losses import LandmarkLoss
from retrieval.train.run import Step
from retrieval.train.sampler import Sampler
from retrieval.train.state import LOG_NAME, STATE_NAME, TrainingState, read_state, require_state

pytestmark = pytest.mark.usefixtures("in_float32")


def test_a_damaged_state_is_one_line(tmp_path: Path) -> None:
    (tmp_path / STATE_NAME).write_bytes(b"garbage")
    expected = f"{tmp_path}/{STATE_NAME} is damaged; start again with `overwrite`"
    assert message(trained, tmp_path) == expected
    assert message(read_state, tmp_path) == expected


def test_a_flipped_bit_in_a_state_is_noticed(tmp_path: Path) -> None:
    """torch compares no checksums of what it reads: a changed weight would be gone on with."""
    trained(tmp_path)
    path = tmp_path / STATE_NAME
    assert require_state(tmp_path)
    whole = path.read_bytes()
    for at in (0.1, 0.5, 0.9):
        data = bytearray(whole)
        data[int(at * len(data))] ^= 1
        path.write_bytes(data)
        expected = f"{path} is damaged (its sha256 is not the one at its end); start again with `overwrite`"
        assert message(trained, tmp_path) == expected
        assert message(read_state, tmp_path) == expected


def test_a_state_of_before_goes_on_without_a_digest(tmp_path: Path) -> None:
    trained(tmp_path)
    path = tmp_path / STATE_NAME
    content = torch.load(path, weights_only=True)
    torch.save(content, path)
    assert not require_state(tmp_path)
    assert trained(tmp_path).epoch == CONFIG.epochs


@pytest.mark.parametrize(("change", "said"), [
    (lambda c: c.pop("identity"), "is damaged or of another version (Object missing required field `identity`)"),
    (lambda c: c.update(parts=7), "is damaged (it holds no parts)"),
    (lambda c: c["state"].update(epoch="x"), "is damaged or of another version (Expected `int`, got `str` - at "
     "`$.epoch`)"),
    (lambda c: c["parts"].pop("model"), "is damaged (its model does not fit the run)"),
    (lambda c: c["parts"]["model"].popitem(), "is damaged (its model does not fit the run)"),
])  # fmt: skip
def test_a_state_that_cannot_be_is_one_line(tmp_path: Path, change: Any, said: str) -> None:
    trained(tmp_path)
    path = tmp_path / STATE_NAME
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    assert message(trained, tmp_path) == f"{path} {said}; start again with `overwrite`"


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward, calls = LandmarkLoss.forward, []

    def forward_or_nan(self: LandmarkLoss, descriptors: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        calls.append(labels)
        return forward(self, descriptors, labels) * (math.nan if len(calls) == 2 else 1.0)

    monkeypatch.setattr(LandmarkLoss, "forward", forward_or_nan)
    model = tiny_model()
    assert message(trained, tmp_path, dataclasses.replace(CONFIG, warmup=0), model=model) == (
        "the loss became nan in epoch 1, step 2 (learning rates 0.01 and 0.02, pictures h, e, d, l); "
        "lower `backbone_rate` and `head_rate` and start again with `overwrite`"
    )
    assert all(torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    """The loss is finite: its next one, of spoilt weights, would not be, after they were saved."""
    from retrieval.train.losses import LandmarkLoss

    forward, calls = LandmarkLoss.forward, []

    def spoil_gradient(self: LandmarkLoss, descriptors: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        calls.append(labels)
        if len(calls) == N_STEPS:  # the last one of the epoch
            descriptors.register_hook(lambda gradient: gradient * value)
        return forward(self, descriptors, labels)

    monkeypatch.setattr(LandmarkLoss, "forward", spoil_gradient)
    model = tiny_model()
    text = message(trained, tmp_path, dataclasses.replace(CONFIG, warmup=0), model=model)
    assert text.startswith("the length of the gradient became ")
    assert f" in epoch 1, step {N_STEPS} (learning rates " in text
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert not (tmp_path / "model.json").exists()


def test_a_step_that_fp16_skips_leaves_sampled_classes_at_rest(tmp_path: Path) -> None:
    from retrieval.train.augment import Collate, TrainingImages
    from retrieval.train.state import make_parts
    from retrieval.train.step import Setting, learn

    loss = LossConfig(scale=8.0, class_share=0.5)
    config = dataclasses.replace(CONFIG, precision="fp16", optimizer="sgd", ema=0.9, loss=loss)
    data = data_of()
    parts = make_parts(tiny_model(), data.counts, config, CPU)
    parts = dataclasses.replace(parts, scaler=torch.amp.GradScaler("cpu", init_scale=2.0**127))
    images = TrainingImages(data.source, SPEC, config.augment)
    batch = Collate(data.landmark)([images[(row, row)] for row in range(6)])
    before = [p.detach().clone() for p in parts.model.parameters()]
    for seed in range(2):
        learn(parts, [batch], Setting(SPEC, config, CPU), seed)
    assert all(torch.equal(a, b) for a, b in zip(before, parts.model.parameters(), strict=True))


def test_a_gradient_that_no_scale_makes_finite_stops_fp16(tmp_path: Path) -> None:
    model = tiny_model()
    weight = next(model.parameters())
    weight.register_hook(lambda gradient: gradient * torch.nan)
    config = dataclasses.replace(CONFIG, precision="fp16", epochs=20)
    text = message(trained, tmp_path, config, model=model)
    assert text.startswith("the length of the gradient became nan in epoch ")


def test_a_run_goes_on_in_another_number_format(tmp_path: Path) -> None:
    """`auto` is another one on another device."""
    from retrieval.train.state import make_parts, resume, save_state

    plain = make_parts(tiny_model(), data_of().counts, CONFIG, CPU)
    scaled = dataclasses.replace(plain, scaler=torch.amp.GradScaler("cpu"))
    for folder, before, after in ((tmp_path / "a", plain, scaled), (tmp_path / "b", scaled, plain)):
        folder.mkdir()
        save_state(folder, before, {}, TrainingState(epoch=1))
        assert resume(folder, after, {}).epoch == 1


def test_an_error_in_a_decoding_process_is_not_told_as_its_death(tmp_path: Path) -> None:
    class Broken(Images):
        def read(self, i: int) -> bytes:
            raise RuntimeError("a mistake of ours")

    with pytest.raises(RuntimeError, match="a mistake of ours"):
        trained(tmp_path, data=dataclasses.replace(data_of(), source=Broken([])), n_workers=1)


def test_unreadable_images_are_left_out_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A black image in their place would be -mean / std everywhere."""
    from retrieval.train import step as training

    shapes: list[int] = []
    black: list[bool] = []
    to_input = training.to_input

    def watched(images: torch.Tensor, *arguments: Any) -> torch.Tensor:
        shapes.append(len(images))
        black.extend((image == 0).all().item() for image in images)
        return to_input(images, *arguments)

    monkeypatch.setattr(training, "to_input", watched)
    state = trained(tmp_path, data=data_of(unreadable=(1, 4, 9)))
    assert state.unreadable == {row: f"picture {row} is gone" for row in (1, 4, 9)}
    assert sum(shapes) == 2 * (12 - 3)
    assert not any(black)
    found = read_state(tmp_path)
    assert found is not None
    assert found[1].unreadable == state.unreadable


def test_the_mean_loss_is_that_of_the_batches_that_were_read(tmp_path: Path) -> None:
    readable = (0, 1, 2)
    data = data_of(unreadable=tuple(row for row in range(9) if row not in readable), negatives=False)
    config = dataclasses.replace(CONFIG, epochs=1, batch_size=3)
    losses: list[float] = []
    state = trained(tmp_path, config, data=data, on_step=lambda p: losses.append(p.loss))
    assert len(losses) == 3
    assert min(losses[-1:]) > 0
    assert state.log[0]["loss"] == losses[-1]
    assert losses[-1] > 0.5


@pytest.mark.parametrize("epoch_size", [None, 6])
def test_no_readable_image_is_an_error(tmp_path: Path, epoch_size: int | None) -> None:
    data = data_of(unreadable=tuple(range(12)))
    text = message(trained, tmp_path, dataclasses.replace(CONFIG, epoch_size=epoch_size), data=data)
    assert text.startswith("no batch of epoch 1 held two pictures that can be read (picture ")
    assert text.endswith(" is gone); check `images`")
    assert not (tmp_path / "model.json").exists()


@pytest.mark.parametrize("landmark", [[], [-1, -1], [0, 0, -1]])
def test_fewer_than_two_landmarks_are_refused(landmark: list[int]) -> None:
    n = len({label for label in landmark if label >= 0})
    assert message(TrainingData, Images([]), np.array(landmark, dtype=np.int32), ("a", "b"), "") == (
        f"training needs pictures of at least 2 landmarks, got {n}; add labelled rows"
    )


@pytest.mark.filterwarnings("error")
def test_an_unreadable_first_batch_warns_of_nothing(tmp_path: Path) -> None:
    sampler = Sampler(data_of().landmark, 4, CONFIG.sampling, None, CONFIG.seed)
    first = tuple(sampler.plan(0).rows[0].tolist())
    losses: list[float] = []
    state = trained(tmp_path, data=data_of(unreadable=first), on_step=lambda p: losses.append(p.loss))
    assert losses[0] == 0.0 < losses[1]
    assert len(state.log) == 2


def test_a_label_without_a_name_is_a_bug() -> None:
    with pytest.raises(ValueError, match=r"^landmark must lie in \[-1, 2\), got 2$"):
        TrainingData(Images([]), np.array([0, 2], dtype=np.int32), ("a", "b"), "")


def test_a_folder_that_cannot_be_made_is_found_out_first(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    steps: list[Step] = []
    assert message(trained, tmp_path / "file" / "model", on_step=steps.append) == (
        f"{tmp_path}/file/model: cannot be written: Not a directory; choose another `output`"
    )
    assert steps == []


def test_a_full_disk_is_one_line_and_resumed(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from retrieval.train import state as training_state

    write, calls = training_state.write_bytes, []

    def write_or_full(path: Path, data: bytes) -> None:
        calls.append(path.name)
        if len(calls) == 3:
            raise write_error(path, OSError(28, os.strerror(28)))
        write(path, data)

    monkeypatch.setattr(training_state, "write_bytes", write_or_full)
    monkeypatch.setattr("retrieval.train.loop.EPOCH_EVERY_S", -1.0)
    assert message(trained, tmp_path) == (
        f"{tmp_path}/{STATE_NAME} cannot be written: No space left on device; choose another place or make room"
    )
    assert calls == [STATE_NAME, LOG_NAME, STATE_NAME]
    trained(tmp_path)
    assert digest_of(tmp_path) == digest_of(whole)


@pytest.mark.parametrize("name", ["pictures", "features"])
def test_a_killed_decoding_process_is_one_line(tmp_path: Path, name: str) -> None:
    class Deadly(Images):
        def read(self, i: int) -> bytes:
            os.kill(os.getpid(), signal.SIGKILL)
            return b""

    data = dataclasses.replace(data_of(), source=Deadly([]))
    config = VARIATIONS.get(name, CONFIG)
    assert message(trained, tmp_path, config, data=data, n_workers=1) == (
        "a process that works on pictures was killed, most often for want of memory; "
        "run the same command again with fewer `workers`"
    )


def test_training_in_bfloat16_keeps_float32_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.train.state.training_dtype", lambda _: torch.bfloat16)
    model = tiny_model()
    state = trained(tmp_path, model=model)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert math.isfinite(state.log[-1]["loss"])
