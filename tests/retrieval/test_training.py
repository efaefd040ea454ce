"""Training: what a whole run leaves, and its variations."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recorder import Recorder
from safetensors.torch import load_file
from tiny_training import CONFIG, N_STEPS, VARIATIONS, data_of, falling_gap, message, run_of, stop_after, trained
from tiny_world import SPEC, Images, digest_of, tiny_model

from retrieval.models.checkpoint import read_card, weights_digest
from retrieval.models.network import DescriptorModel
from retrieval.train.loss_config import LossConfig
from retrieval.train.losses import LandmarkLoss
from retrieval.train.run import Step
from retrieval.train.state import LOG_NAME, STATE_NAME, read_state

pytestmark = pytest.mark.usefixtures("in_float32")


def test_training_learns(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=12, loss=LossConfig(scale=8.0, margin_rad=0, margin_rare_rad=0))
    seen: list[Step] = []
    rows: list[Mapping[str, float]] = []
    model = tiny_model()
    before = weights_digest(model)
    state = trained(tmp_path, config, model=model, on_step=seen.append, on_epoch=rows.append)
    losses = [row["loss"] for row in state.log]
    assert np.mean(losses[-3:]) < 0.7 * losses[0]
    assert weights_digest(model) != before
    assert rows == state.log
    assert [row["epoch"] for row in rows] == list(range(1, 13))
    assert [(p.epoch, p.step) for p in seen] == [(e, s) for e in range(12) for s in range(1, N_STEPS + 1)]
    assert {p.n_steps for p in seen} == {N_STEPS}
    assert state.unreadable == {}


def test_what_a_run_leaves(whole: Path) -> None:
    assert sorted(p.name for p in whole.iterdir()) == sorted(
        [
            "last",
            "model.json",
            "README.md",
            "classifier.safetensors",
            read_card(whole).weights_name,
            STATE_NAME,
            LOG_NAME,
        ]
    )
    card = read_card(whole)
    assert card.weights_sha256 == digest_of(whole) == digest_of(whole / "last")
    assert card.image_spec == SPEC
    assert card.made_by["training"] == json.loads(json.dumps(dataclasses.asdict(CONFIG)))
    assert card.made_by["data"] == "digest"
    lines = (whole / LOG_NAME).read_text().splitlines()
    assert lines[0] == "epoch,loss,rate,seconds"
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2"]
    assert float(lines[2].split(",")[1]) == pytest.approx(card.made_by["log"][1]["loss"], rel=1e-4)
    found = read_state(whole)
    assert found is not None
    assert (found[1].epoch, found[1].step) == (2, 0)


def test_the_best_network_is_kept_beside_the_last(tmp_path: Path) -> None:
    gaps = iter([0.2, 0.9, 0.5])
    digests: list[str] = []
    modes: list[bool] = []

    def validate(model: DescriptorModel, loss: LandmarkLoss) -> Mapping[str, float]:
        modes.extend([model.training, loss.training])
        digests.append(weights_digest(model))
        return {"gap": next(gaps), "top1": 0.5}

    state = trained(tmp_path, dataclasses.replace(CONFIG, epochs=3), validate=validate)
    assert digest_of(tmp_path) == digests[1]
    assert digest_of(tmp_path / "last") == digests[2]
    assert modes == [False] * 6
    assert state.best == 0.9
    assert [row["gap"] for row in state.log] == [0.2, 0.9, 0.5]
    assert (tmp_path / LOG_NAME).read_text().splitlines()[0] == "epoch,loss,rate,gap,top1,seconds"
    assert [row["gap"] for row in read_card(tmp_path).made_by["log"]] == [0.2, 0.9]


def test_training_on_a_cpu_keeps_freed_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr("retrieval.train.loop.keep_freed_memory", lambda: asked.append(True))
    trained(tmp_path)
    assert asked == [True]


def test_a_run_that_has_not_trained_yet_may_become_another(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, on_step=stop_after(1))
    trained(tmp_path, dataclasses.replace(CONFIG, seed=1))
    found = read_state(tmp_path)
    assert found is not None
    assert found[1].epoch == CONFIG.epochs


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "rmsprop"])
def test_backbone_and_head_have_their_own_rates(tmp_path: Path, optimizer: Any) -> None:
    config = dataclasses.replace(CONFIG, optimizer=optimizer, backbone_rate=0.0, weight_decay=0.0)
    model = tiny_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trained(tmp_path, config, model=model)
    changed = {name for name, p in model.named_parameters() if not torch.equal(before[name], p)}
    assert changed == {"gem.p", "neck.0.weight", "neck.1.weight", "neck.1.bias"}


def test_negatives_change_what_is_learned(tmp_path: Path, whole: Path) -> None:
    trained(tmp_path / "without", dataclasses.replace(CONFIG, loss=LossConfig(scale=8.0, negative_weight=0)))
    assert digest_of(tmp_path / "without") != digest_of(whole)


def test_the_number_format_may_be_asked_for(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the device is fast in."""
    monkeypatch.setattr("retrieval.train.state.training_dtype", lambda _: torch.bfloat16)
    for precision in ("fp32", "auto", "bf16"):
        trained(tmp_path / precision, dataclasses.replace(CONFIG, precision=precision))  # type: ignore[arg-type]
    assert digest_of(tmp_path / "fp32") == digest_of(whole)
    assert digest_of(tmp_path / "auto") == digest_of(tmp_path / "bf16") != digest_of(whole)


def test_a_plateau_lowers_the_rates(tmp_path: Path) -> None:
    state = trained(tmp_path, VARIATIONS["plateau"], validate=falling_gap())
    assert [row["rate"] for row in state.log] == pytest.approx([0.01, 0.01, 0.01, 0.002, 0.0004])


def test_the_average_is_validated_and_saved(tmp_path: Path) -> None:
    """Of six steps, with the share kept growing: 2/11, 3/12 and so on after the first, which is taken whole."""
    from retrieval.train import loop as training

    weights: list[torch.Tensor] = []
    means: list[torch.Tensor] = []
    shown: list[str] = []
    model = tiny_model()

    def watch(_: Step) -> None:
        weights.append(model.neck[0].weight.detach().clone())  # type: ignore[index,union-attr]
        means.append(model.neck[1].running_mean.clone())  # type: ignore[index,union-attr,operator]

    def validate(given: DescriptorModel, _: LandmarkLoss) -> Mapping[str, float]:
        assert given is not model
        assert not given.training
        shown.append(weights_digest(given))
        return {"gap": 0.5}

    training.train(model, data_of(), SPEC, VARIATIONS["average"], run_of(tmp_path, on_step=watch, validate=validate))
    for values, found in (
        (weights, model.neck[0].weight),  # type: ignore[index,union-attr]
        (means, model.neck[1].running_mean),  # type: ignore[index,union-attr]
    ):
        expected = values[0]
        for n, value in enumerate(values[1:], start=1):
            kept = min(0.9, (1 + n) / (10 + n))
            expected = kept * expected + (1 - kept) * value
        assert torch.allclose(expected, found, atol=1e-6)  # type: ignore[arg-type]
    assert digest_of(tmp_path) == shown[-1] == weights_digest(model)
    parts = torch.load(tmp_path / STATE_NAME, weights_only=True)["parts"]
    last, mean = parts["loss"]["classifier.W"], parts["average"]["module.1.classifier.W"]
    (saved,) = (t for name, t in load_file(tmp_path / "classifier.safetensors").items() if "directions" in name)
    assert not torch.allclose(last, mean, atol=1e-3)
    assert torch.equal(saved[:, 0], mean.T)


@pytest.mark.parametrize(("n", "unreadable"), [(2, ()), (4, ()), (2, (4, 9))])
def test_accumulated_batches_are_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int, unreadable: tuple[int, ...]
) -> None:
    """Up to batch norm, left in evaluation mode here. Each image counts alike, also one in a smaller batch."""
    data = data_of(unreadable)
    monkeypatch.setattr("retrieval.train.loop.train_mode", lambda model: model.eval())
    config = dataclasses.replace(CONFIG, batch_size=8, optimizer="sgd")
    one, other = tiny_model(), tiny_model()
    whole = trained(tmp_path / "whole", config, data=data, model=one)
    config = dataclasses.replace(config, batch_size=8 // n, accumulate=n)
    parts = trained(tmp_path / "parts", config, data=data, model=other)
    assert [row["loss"] for row in parts.log] == pytest.approx([row["loss"] for row in whole.log], rel=1e-5)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    assert weights_digest(one) != weights_digest(tiny_model())


def test_patience_stops_training_and_needs_validation(tmp_path: Path) -> None:
    state = trained(tmp_path, VARIATIONS["patience"], validate=falling_gap())
    assert (state.epoch, [row["gap"] for row in state.log]) == (4, [0.5, 0.6, 0.4, 0.3])
    assert len(read_card(tmp_path / "last").made_by["log"]) == 4
    assert message(trained, tmp_path / "blind", VARIATIONS["patience"]) == (
        "`patience` 2 needs `val`, the pictures that tell a better epoch"
    )
    assert not (tmp_path / "blind").exists()


def test_features_of_a_frozen_backbone_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And train as the images themselves do."""
    from retrieval.train import loop as training

    class Counted(Images):
        n = 0

        def read(self, i: int) -> bytes:
            Counted.n += 1
            return super().read(i)

    data = data_of(unreadable=(4,))
    data = dataclasses.replace(data, source=Counted(data.source.encoded))  # type: ignore[attr-defined]
    config = dataclasses.replace(VARIATIONS["features"], epochs=3)
    cached = tiny_model()
    state = trained(tmp_path / "cached", config, data=data, model=cached)
    assert Counted.n == 12
    assert state.unreadable == {4: "picture 4 is gone"}
    monkeypatch.setattr(training, "frozen_features", lambda parts, setting, images, cache: images)
    direct = tiny_model()
    trained(tmp_path / "direct", config, data=data, model=direct)
    assert Counted.n > 12 + 3 * 6
    for a, b in zip(cached.parameters(), direct.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    changed = {n for n, p in cached.named_parameters() if not torch.equal(p, dict(tiny_model().named_parameters())[n])}
    assert changed == {"neck.0.weight", "neck.1.weight", "neck.1.bias"}


def test_features_of_other_images_are_not_taken(tmp_path: Path) -> None:
    trained(tmp_path, VARIATIONS["features"])
    (before,) = tmp_path.glob("features-*.npy")
    (tmp_path / STATE_NAME).unlink()
    trained(tmp_path, VARIATIONS["features"], data=dataclasses.replace(data_of(), digest="other"))
    (after,) = tmp_path.glob("features-*.npy")
    assert before.name != after.name
    assert len(list(tmp_path.glob("features-*.json"))) == 1


@pytest.mark.parametrize(
    ("error", "is_told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_too_little_memory_says_what_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError, is_told: bool
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("retrieval.train.step.to_input", fail)
    for config in (CONFIG, VARIATIONS["features"]):
        if is_told:
            assert message(trained, tmp_path, config) == (
                "not enough memory on cpu for batches of 4 pictures of 16 pixels; lower `batch_size` (with "
                "`accumulate` as much larger a step stays the same) or `size`, and start again with `overwrite`"
            )
        else:
            with pytest.raises(RuntimeError, match="mat1"):
                trained(tmp_path, config)
        for path in tmp_path.iterdir():
            path.unlink()


def test_a_backbone_that_cannot_be_compiled_runs_as_it_is(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler\nand more")

    stances: list[str] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: setattr(module, "_compiled_call_impl", no_compiler))
    model = tiny_model()

    def stay_eager(stance: str) -> None:
        stances.append(stance)
        model.backbone._compiled_call_impl = None  # type: ignore[assignment]

    monkeypatch.setattr(torch.compiler, "set_stance", stay_eager)
    said: list[str] = []
    trained(tmp_path, dataclasses.replace(CONFIG, compile=True), model=model, progress=Recorder(said))
    assert said == ["`compile`: the backbone runs as it is, it cannot be compiled here: no compiler"]
    assert stances == ["force_eager"]
    assert digest_of(tmp_path) == digest_of(whole)
