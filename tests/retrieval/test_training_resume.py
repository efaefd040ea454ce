"""Training that was stopped or killed goes on to the same weights."""

import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import CONFIG, N_STEPS, VARIATIONS, data_of, falling_gap, message, run_of, stop_after, trained
from tiny_world import SPEC, digest_of, tiny_model

from retrieval.models.checkpoint import read_card, weights_digest
from retrieval.train.loop import train
from retrieval.train.loss_config import LossConfig
from retrieval.train.run import Step
from retrieval.train.state import LOG_NAME, read_state

pytestmark = pytest.mark.usefixtures("in_float32")


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
