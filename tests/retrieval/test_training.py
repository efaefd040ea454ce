import contextlib
import dataclasses
import json
import math
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_world import CPU, SPEC, Pictures, digest_of, jpeg, tiny_model

from retrieval.errors import LmrError
from retrieval.files.atomic import write_error
from retrieval.models.checkpoint import read_card, weights_digest
from retrieval.models.network import DescriptorModel
from retrieval.progress import Recorder
from retrieval.train.config import AugmentConfig, LossConfig, TrainConfig
from retrieval.train.data import TrainingData
from retrieval.train.loop import train
from retrieval.train.losses import LandmarkLoss
from retrieval.train.run import Run, Step
from retrieval.train.sampler import Sampler
from retrieval.train.state import LOG_NAME, STATE_NAME, TrainingState, read_state, require_state

CONFIG = TrainConfig(
    epochs=2,
    batch_size=4,
    head_rate=0.02,
    backbone_rate=0.01,
    loss=LossConfig(scale=8.0),
    augment=AugmentConfig(min_area=0.8, hue=0),
)
N_STEPS = 3  # of an epoch: 9 landmark pictures, 3 in a batch of 4 with a negative

pytestmark = pytest.mark.usefixtures("in_float32")


def data_of(unreadable: tuple[int, ...] = (), *, negatives: bool = True) -> TrainingData:
    """Nine pictures of three landmarks and three non-landmarks."""
    landmark = np.array([0, 1, 2] * 3 + [-1] * 3 * negatives, dtype=np.int32)
    encoded: list[bytes | None] = [jpeg(int(label), i) for i, label in enumerate(landmark)]
    for row in unreadable:
        encoded[row] = None
    return TrainingData(Pictures(encoded), landmark, ("a", "b", "c"), "digest", "abcdefghijkl")


def run_of(folder: Path, **changes: Any) -> Run:
    return Run(**({"folder": folder, "device": CPU, "n_workers": 0} | changes))


def trained(
    folder: Path,
    config: TrainConfig = CONFIG,
    *,
    data: TrainingData | None = None,
    model: DescriptorModel | None = None,
    **changes: Any,
) -> TrainingState:
    return train(model or tiny_model(), data or data_of(), SPEC, config, run_of(folder, **changes))


def message(call: Callable[..., object], *arguments: object, **named: object) -> str:
    with pytest.raises(LmrError) as caught:
        call(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def stop_after(n: int) -> Callable[[Step], None]:
    """Ctrl-C in the n-th step."""
    steps: list[Step] = []

    def on_step(progress: Step) -> None:
        steps.append(progress)
        if len(steps) == n:
            raise KeyboardInterrupt

    return on_step


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("retrieval.train.state.fast_dtype", lambda _: torch.float32)
        trained(folder)
    return folder


# A whole run


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


# Going on


@pytest.mark.parametrize("n_workers", [0, 1])
def test_a_run_is_a_function_of_its_seed(tmp_path: Path, whole: Path, n_workers: int) -> None:
    torch.rand(7)
    trained(tmp_path / "a", n_workers=n_workers)
    assert digest_of(tmp_path / "a") == digest_of(whole)
    if not n_workers:
        trained(tmp_path / "b", dataclasses.replace(CONFIG, seed=1))
        assert digest_of(tmp_path / "b") != digest_of(whole)


@pytest.mark.parametrize("n_steps", [1, 2, 3, 4, 6])
def test_a_stopped_run_ends_with_the_same_weights(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, n_steps: int
) -> None:
    """Stopped in the n-th step of six, whose state is not saved yet, and with a state of the step before."""
    monkeypatch.setattr("retrieval.train.loop.STATE_EVERY_S", -1.0)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, on_step=stop_after(n_steps))
    found = read_state(tmp_path)
    done = 0 if found is None else found[1].epoch * N_STEPS + found[1].step
    assert done == n_steps - 1
    steps: list[Step] = []
    state = trained(tmp_path, on_step=steps.append)
    assert len(steps) == 6 - done
    assert digest_of(tmp_path) == digest_of(whole)
    assert digest_of(tmp_path / "last") == digest_of(whole / "last")
    one, other = read_card(whole).made_by["log"], state.log
    assert [{k: v for k, v in row.items() if k != "seconds"} for row in one] == [
        {k: v for k, v in row.items() if k != "seconds"} for row in other
    ]


def test_a_state_saved_after_the_last_step_of_an_epoch_goes_on(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.train.loop.STATE_EVERY_S", -1.0)

    def killed(*_: object) -> Mapping[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, validate=killed)
    found = read_state(tmp_path)
    assert found is not None
    assert (found[1].epoch, found[1].step) == (0, N_STEPS)
    trained(tmp_path)
    assert digest_of(tmp_path) == digest_of(whole)


def test_the_state_is_saved_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not within an epoch, and after a short one neither."""
    for n_steps in (N_STEPS, N_STEPS + 2):
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path, on_step=stop_after(n_steps))
        found = read_state(tmp_path)
        assert found is not None
        assert (found[1].epoch, found[1].step) == (0, 0)
    monkeypatch.setattr("retrieval.train.loop.EPOCH_EVERY_S", -1.0)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, on_step=stop_after(N_STEPS + 2))
    found = read_state(tmp_path)
    assert found is not None
    assert (found[1].epoch, found[1].step) == (1, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_process_goes_on_with_the_same_weights(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 at random moments, until a run reaches the end."""
    monkeypatch.setattr("retrieval.train.loop.STATE_EVERY_S", -1.0)
    rng = np.random.default_rng(0)
    n_kills = 0
    patience_s = 0.05
    while True:
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                trained(tmp_path)
                os._exit(0)
            os._exit(1)
        time.sleep(float(rng.uniform(0, patience_s)))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        n_kills += 1
        patience_s *= 1.3
        assert n_kills < 40
    assert n_kills > 0
    assert digest_of(tmp_path) == digest_of(whole)
    assert digest_of(tmp_path / "last") == digest_of(whole / "last")
    assert len((tmp_path / LOG_NAME).read_text().splitlines()) == 3


def test_a_finished_run_does_nothing(tmp_path: Path) -> None:
    trained(tmp_path)
    before = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.iterdir() if p.is_file()}
    steps: list[Step] = []
    model = tiny_model()
    state = trained(tmp_path, model=model, on_step=steps.append)
    assert steps == []
    assert len(state.log) == 2
    assert {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.iterdir() if p.is_file()} == before
    assert weights_digest(model) == digest_of(tmp_path)


def test_the_log_is_whole_when_a_run_is_killed_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the state says is finished has its row in the log."""
    from retrieval.train.state import save_state

    def save_and_die(*arguments: Any) -> None:
        save_state(*arguments)
        if arguments[-1].epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr("retrieval.train.loop.save_state", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, dataclasses.replace(CONFIG, epochs=1))
    assert len((tmp_path / LOG_NAME).read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("what", "changed"),
    [
        ("data", lambda f: trained(f, data=dataclasses.replace(data_of(), digest="other"))),
        ("training configuration (epochs was 2, is 3)", lambda f: trained(f, dataclasses.replace(CONFIG, epochs=3))),
        (
            "training configuration (loss margin_rad was 0.1, is 0.2)",
            lambda f: trained(f, dataclasses.replace(CONFIG, loss=LossConfig(scale=8.0, margin_rad=0.2))),
        ),
        (
            "picture preparation (fit was squash, is pad)",
            lambda f: train(tiny_model(), data_of(), dataclasses.replace(SPEC, fit="pad"), CONFIG, run_of(f)),
        ),
        ("model (pooling was gem, is avg)", lambda f: trained(f, model=tiny_model(pooling="avg"))),
        ("starting weights", lambda f: trained(f, model=tiny_model(seed=1))),
        ("validation manifest", lambda f: trained(f, validate=falling_gap(), validation="other")),
    ],
)
def test_another_run_is_refused_by_name(whole: Path, what: str, changed: Callable[[Path], object]) -> None:
    before = digest_of(whole)
    assert message(changed, whole) == (
        f"{whole} holds a run with another {what}; go on with that one, or give `overwrite`"
    )
    assert digest_of(whole) == before


VARIATIONS = {
    "average": dataclasses.replace(CONFIG, ema=0.9),
    "accumulation": dataclasses.replace(CONFIG, batch_size=2, accumulate=2),
    "plateau": dataclasses.replace(CONFIG, epochs=5, schedule="plateau", rate_drop_epochs=1, warmup=0),
    "patience": dataclasses.replace(CONFIG, epochs=9, patience=2),
    "rmsprop": dataclasses.replace(CONFIG, optimizer="rmsprop", freeze="1"),
    "features": dataclasses.replace(CONFIG, plain_pictures=True, freeze="all"),
    "fp16": dataclasses.replace(CONFIG, precision="fp16"),
}


def falling_gap() -> Callable[[DescriptorModel, LandmarkLoss], Mapping[str, float]]:
    """Best in the second epoch; a function of the weights, so that it does not know how often it was asked."""
    seen: dict[str, float] = {}
    gaps = iter([0.5, 0.6, 0.4, 0.3, 0.2])

    def validate(model: DescriptorModel, _: LandmarkLoss) -> Mapping[str, float]:
        digest = weights_digest(model)
        if digest not in seen:
            seen[digest] = next(gaps)
        return {"gap": seen[digest]}

    return validate


@pytest.mark.parametrize("name", VARIATIONS)
def test_a_stopped_run_of_every_kind_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Stopped in the second step of the second epoch, and again in the third epoch where there is one."""
    config = VARIATIONS[name]
    validate = falling_gap() if name in ("plateau", "patience") else None
    uninterrupted = trained(tmp_path / "whole", config, validate=validate)
    monkeypatch.setattr("retrieval.train.loop.STATE_EVERY_S", -1.0)
    for n_steps in (5, 4) if config.epochs > 2 else (5,):
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "stopped", config, validate=validate, on_step=stop_after(n_steps))
    model = tiny_model()
    state = trained(tmp_path / "stopped", config, model=model, validate=validate)
    assert [row["loss"] for row in state.log] == [row["loss"] for row in uninterrupted.log]
    assert [row["rate"] for row in state.log] == [row["rate"] for row in uninterrupted.log]
    assert len(state.log) == {"plateau": 5, "patience": 4}.get(name, 2)
    assert digest_of(tmp_path / "stopped") == digest_of(tmp_path / "whole")
    assert digest_of(tmp_path / "stopped" / "last") == digest_of(tmp_path / "whole" / "last") == weights_digest(model)


# Variations


def test_the_number_format_may_be_asked_for(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the device is fast in."""
    monkeypatch.setattr("retrieval.train.state.fast_dtype", lambda _: torch.bfloat16)
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
    """Up to batch norm, left in evaluation mode here. Each picture counts alike, also one in a smaller batch."""
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
    """And train as the pictures themselves do."""
    from retrieval.train import loop as training

    class Counted(Pictures):
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
    monkeypatch.setattr(training, "frozen_features", lambda parts, setting, pictures, cache: pictures)
    direct = tiny_model()
    trained(tmp_path / "direct", config, data=data, model=direct)
    assert Counted.n > 12 + 3 * 6
    for a, b in zip(cached.parameters(), direct.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    changed = {n for n, p in cached.named_parameters() if not torch.equal(p, dict(tiny_model().named_parameters())[n])}
    assert changed == {"neck.0.weight", "neck.1.weight", "neck.1.bias"}


def test_features_of_other_pictures_are_not_taken(tmp_path: Path) -> None:
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


# Trouble


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
    pictures = TrainingImages(data.source, SPEC, config.augment)
    batch = Collate(data.landmark)([pictures[(row, row)] for row in range(6)])
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
    class Broken(Pictures):
        def read(self, i: int) -> bytes:
            raise RuntimeError("a mistake of ours")

    with pytest.raises(RuntimeError, match="a mistake of ours"):
        trained(tmp_path, data=dataclasses.replace(data_of(), source=Broken([])), n_workers=1)


def test_unreadable_pictures_are_left_out_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A black picture in their place would be -mean / std everywhere."""
    from retrieval.train import step as training

    shapes: list[int] = []
    black: list[bool] = []
    to_input = training.to_input

    def watched(pictures: torch.Tensor, *arguments: Any) -> torch.Tensor:
        shapes.append(len(pictures))
        black.extend((picture == 0).all().item() for picture in pictures)
        return to_input(pictures, *arguments)

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
def test_no_readable_picture_is_an_error(tmp_path: Path, epoch_size: int | None) -> None:
    data = data_of(unreadable=tuple(range(12)))
    text = message(trained, tmp_path, dataclasses.replace(CONFIG, epoch_size=epoch_size), data=data)
    assert text.startswith("no batch of epoch 1 held two pictures that can be read (picture ")
    assert text.endswith(" is gone); check `images`")
    assert not (tmp_path / "model.json").exists()


@pytest.mark.parametrize("landmark", [[], [-1, -1], [0, 0, -1]])
def test_fewer_than_two_landmarks_are_refused(landmark: list[int]) -> None:
    n = len({label for label in landmark if label >= 0})
    assert message(TrainingData, Pictures([]), np.array(landmark, dtype=np.int32), ("a", "b"), "") == (
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
        TrainingData(Pictures([]), np.array([0, 2], dtype=np.int32), ("a", "b"), "")


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
    class Deadly(Pictures):
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
    monkeypatch.setattr("retrieval.train.state.fast_dtype", lambda _: torch.bfloat16)
    model = tiny_model()
    state = trained(tmp_path, model=model)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert math.isfinite(state.log[-1]["loss"])
