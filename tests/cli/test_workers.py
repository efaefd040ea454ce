"""How many processes decode pictures."""

import os

import pytest

from cli.training import default_workers


def test_processes_of_torchrun_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert default_workers(None) == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert default_workers(None) == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert (default_workers(None), default_workers(0)) == (1, 0)
