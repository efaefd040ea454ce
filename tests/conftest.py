"""What holds for all tests: no limits of time, the engine, and the number format that `auto` means where one is asked
for. No test but those of the export waits for one, and answers are the same with the extra onnx and without."""

import os

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
