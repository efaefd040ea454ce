"""How many processes decode images."""

import os

import pytest

from cli.progress import TerminalProgress
from retrieval.parallel import count_cores, count_workers, threads_within_quota
from retrieval.progress import SILENT


def test_processes_of_torchrun_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    progress = TerminalProgress()
    assert count_workers(None, progress) == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert count_workers(None, progress) == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert (count_workers(None, progress), count_workers(0, progress)) == (1, 0)


def test_more_than_the_cores_can_feed_are_not_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert count_workers(32, TerminalProgress()) == 32
    assert capsys.readouterr().err == ""
    assert count_workers(1000, TerminalProgress()) == 32
    assert capsys.readouterr().err == ("--workers 1000: 32 are used, 16 for each of 2 cores; more only take memory\n")


@pytest.mark.parametrize(
    ("text", "cores", "threads"),
    [
        ("150000 100000", 2, 2),
        ("50000 100000", 1, 1),
        ("max 100000", 8, None),
        ("1600000 100000", 8, None),
        ("broken", 8, None),
        (None, 8, None),
    ],
)
def test_a_container_uses_the_cores_that_it_is_given_time_for(tmp_path, monkeypatch, text, cores, threads):
    place = tmp_path / "cpu.max"
    if text is not None:
        place.write_text(text + "\n")
    monkeypatch.setattr("retrieval.parallel.CPU_MAX", place)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert (count_cores(), threads_within_quota()) == (cores, threads)
    assert count_workers(None, SILENT) == cores
