"""What holds for all tests: no limits of time, the engine, and the number format that `auto` means where one is asked
for. No test but those of the export waits for one, and answers are the same with the extra onnx and without. The tiny
finished set, which several rooms ask."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--precision",
        choices=("fp32", "bf16"),
        help="Number format that networks compute in when it is left to the machine, also in processes of the tests.",
    )


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any machine")
    os.environ["LMR_ENGINE"] = "torch"
    if config.getoption("--precision"):
        os.environ["LMR_PRECISION"] = config.getoption("--precision")


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """Surviving a power cut is not what tests can see, and a busy disk takes a second for each file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def few_rules() -> None:
    """Calibrations take a tenth of the time; that they choose well among many rules is for tests/index to see."""
    from tiny_set import try_few_rules

    try_few_rules()


@pytest.fixture(scope="session")
def finished_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, model, stores, index and calibration; not to be changed."""
    import torch
    from tiny_set import make_set

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_set(folder)
    return folder
