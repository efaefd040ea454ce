"""What a confidence is worth, in words."""

from types import SimpleNamespace
from typing import Any

from index.calibration import ReliabilityBin
from index.serving.browse import meaning


def landmarks(*bins: ReliabilityBin) -> Any:
    """An opened index of which only the reliability is asked."""
    return SimpleNamespace(folder=SimpleNamespace(calibration=SimpleNamespace(reliability=bins)))


LOW = ReliabilityBin(0.0, 0.5, 18, 0.3, 4 / 18)
HIGH = ReliabilityBin(0.5, 1.0, 98, 0.9, 1.0)


def test_it_is_told_how_many_answers_as_sure_are_right() -> None:
    told = meaning(landmarks(LOW, HIGH), 0.3)
    assert told is not None
    assert told.text == (
        "of answers this sure, about 25 of 100 are right (18 held-out answers were 0% to 50% sure)"
    )  # (4 + 10 * 0.3) / (18 + 10)


def test_the_surest_answers_belong_to_the_last_tenth_and_are_never_all_right() -> None:
    told = meaning(landmarks(LOW, HIGH), 1.0)
    assert told is not None
    assert told.text == "of answers this sure, about 99 of 100 are right (98 held-out answers were 50% to 100% sure)"


def test_where_few_were_as_sure_the_confidence_itself_weighs_most() -> None:
    told = meaning(landmarks(ReliabilityBin(0.0, 1.0, 1, 0.6, 0.0)), 0.6)
    assert told is not None
    assert told.text == "of answers this sure, about 55 of 100 are right (only 1 held-out answer was 0% to 100% sure)"
    nobody = meaning(landmarks(ReliabilityBin(0.0, 1.0, 0, None, None)), 0.6)
    assert nobody is not None
    assert nobody.text == "of answers this sure, about 60 of 100 are right (no held-out answer was 0% to 100% sure)"


def test_without_a_calibration_a_confidence_means_nothing() -> None:
    assert meaning(SimpleNamespace(folder=SimpleNamespace(calibration=None)), None) is None  # type: ignore[arg-type]
