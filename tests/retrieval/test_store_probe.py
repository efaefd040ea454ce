import sys
from pathlib import Path

import pytest

from retrieval.errors import LmrError
from retrieval.store import file as store_probe
from retrieval.store.file import limit_of, main, require_readable

ENDLESS = "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 2))\nwhile True: pass"
CRASHING = "import os; os.abort()"


def child_that(does: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets another process read stores: it begins, then does this."""
    program = f"print('ready', flush=True)\n{does}"
    monkeypatch.setattr(store_probe, "start_words", lambda _: [sys.executable, "-c", program])


@pytest.mark.parametrize(
    ("does", "said"),
    [
        (ENDLESS, "PATH cannot be read within 6 s: its HDF5 structure is damaged; REMEDY"),
        (CRASHING, "PATH is damaged (HDF5 crashes on its structure); REMEDY"),
        ("raise ValueError", "a process that reads PATH ended with exit code 1; try again"),
        ("raise SystemExit(0)", None),
    ],
)
def test_what_reading_does_to_a_process_is_one_line_in_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, said: str | None
) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(b"x")
    child_that(does, monkeypatch)
    if said is None:
        require_readable(path, "REMEDY")
        return
    with pytest.raises(LmrError) as caught:
        require_readable(path, "REMEDY")
    assert str(caught.value) == said.replace("PATH", str(path))


def test_a_process_that_does_not_start_says_nothing_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(b"x")
    monkeypatch.setattr(store_probe, "start_words", lambda _: [sys.executable, "-c", "raise SystemExit(5)"])
    with pytest.raises(LmrError) as caught:
        require_readable(path, "REMEDY")
    assert str(caught.value) == f"a process that reads {path} ended at its start with exit code 5"


def test_a_process_that_waits_for_long_says_nothing_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(b"x")
    child_that("import time; time.sleep(600)", monkeypatch)
    monkeypatch.setattr(store_probe, "_WALL_S", 1)
    with pytest.raises(LmrError) as caught:
        require_readable(path, "REMEDY")
    assert str(caught.value) == (
        f"{path} was not read within 1 s; the machine or the disk may be busy, the file may be whole: try again"
    )
    child_that("raise SystemExit(0)", monkeypatch)
    require_readable(path, "REMEDY")


def test_a_store_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(b"x")
    child_that("raise SystemExit(0)", monkeypatch)
    require_readable(path, "REMEDY")
    child_that(CRASHING, monkeypatch)
    require_readable(path, "REMEDY")
    path.write_bytes(b"xx")
    with pytest.raises(LmrError, match="HDF5 crashes"):
        require_readable(path, "REMEDY")


def test_no_store_may_compute_for_a_minute() -> None:
    assert [limit_of(n) for n in (0, 1 << 30, 1 << 40)] == [6, 16, 50]


def test_what_is_wrong_comes_from_the_other_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(b"x" * 2000)
    for name in ("limit_computing", "limit_memory"):
        monkeypatch.setattr(store_probe, name, lambda _: None)
    assert main(path, 6) == 3
    said = f"{path} is not a descriptor store (no HDF5 file); give the right file"
    assert capsysbinary.readouterr().out.decode() == f"ready\n{said}"
    with pytest.raises(LmrError) as caught:
        require_readable(path, "REMEDY")
    assert str(caught.value) == said
