"""What holds for all tests: the number format that `auto` means, where one is asked for."""

import os

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--precision",
        choices=("fp32", "bf16"),
        help="Number format that networks compute in when it is left to the machine, also in processes of the tests.",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--precision"):
        os.environ["LMR_PRECISION"] = config.getoption("--precision")
