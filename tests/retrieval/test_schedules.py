import dataclasses
import math

import pytest

from retrieval.train.config import TrainConfig
from retrieval.train.optim import is_finished, rate_factor, rate_share

CONFIG = TrainConfig(epochs=20, warmup=0, rate_drop=0.2, rate_drop_epochs=2)


def log_of(*gaps: float) -> list[dict[str, float]]:
    return [{"gap": gap, "loss": 1.0} for gap in gaps]


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0), (7, 0.5 * (1 + math.cos(math.pi / 2))), (10, 0.0), (11, 0.0)],
)
def test_the_rate_rises_in_a_line_and_falls_in_a_cosine(step: int, expected: float) -> None:
    """Ten steps, 40 % of them warm-up."""
    assert rate_factor(step, 10, 0.4) == pytest.approx(expected)
    assert rate_share(TrainConfig(warmup=0.4), step, 10, []) == pytest.approx(expected)


@pytest.mark.parametrize("warmup", [0.0, 0.15, 1.0])
def test_no_step_but_the_last_stands_still(warmup: float) -> None:
    factors = [rate_factor(step, 20, warmup) for step in range(20)]
    assert all(0 < factor <= 1 for factor in factors)
    assert max(factors) == 1


def test_steps_drop_after_every_so_many_epochs() -> None:
    config = dataclasses.replace(CONFIG, schedule="step")
    shares = [rate_share(config, 100, 200, log_of(*range(n))) for n in range(6)]
    assert shares == pytest.approx([1, 1, 0.2, 0.2, 0.04, 0.04])


@pytest.mark.parametrize(
    ("gaps", "n_drops"),
    [
        ([], 0),
        ([0.5], 0),
        ([0.5, 0.5], 0),
        ([0.5, 0.5, 0.4], 1),
        ([0.5, 0.4, 0.4, 0.4], 1),
        ([0.5, 0.4, 0.4, 0.4, 0.4], 2),
        ([0.5, 0.4, 0.6, 0.5], 0),
        ([0.5, 0.4, 0.4, 0.6, 0.5], 1),
        ([0.5, 0.4, 0.4, 0.6, 0.5, 0.5], 2),
    ],
)
def test_a_plateau_drops_the_rate_after_two_epochs_without_a_better_one(gaps: list[float], n_drops: int) -> None:
    config = dataclasses.replace(CONFIG, schedule="plateau")
    assert rate_share(config, 100, 200, log_of(*gaps)) == pytest.approx(0.2**n_drops)


def test_a_plateau_watches_the_loss_without_validation() -> None:
    config = dataclasses.replace(CONFIG, schedule="plateau")
    falling = [{"loss": loss} for loss in (3.0, 2.0, 1.0)]
    assert rate_share(config, 100, 200, falling) == 1
    assert rate_share(config, 100, 200, falling[::-1]) == 0.2


def test_every_schedule_warms_up() -> None:
    for schedule in ("step", "plateau", "constant"):
        config = TrainConfig(schedule=schedule, warmup=0.4)  # type: ignore[arg-type]
        assert [rate_share(config, step, 10, []) for step in range(6)] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def test_training_stops_after_its_epochs_or_its_patience() -> None:
    assert is_finished(TrainConfig(epochs=2), [{"loss": 1.0}] * 2)
    assert not is_finished(TrainConfig(epochs=3), log_of(0.5, 0.4))
    patient = TrainConfig(epochs=9, patience=2)
    assert not is_finished(patient, [])
    assert not is_finished(patient, log_of(0.5, 0.4))
    assert is_finished(patient, log_of(0.5, 0.4, 0.5))
    assert not is_finished(patient, log_of(0.5, 0.4, 0.6))
