"""Files that appear whole or not at all."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from retrieval.errors import LmrError
from retrieval.files import atomic
from retrieval.files.atomic import private_path, remove_leftovers, replacing, write_bytes, write_text, written_for


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_and_replaced_and_nothing_is_left_beside_it(tmp_path):
    write_text(tmp_path / "x.csv", ["a\n", "é\n"])
    assert (tmp_path / "x.csv").read_bytes() == "a\né\n".encode()
    write_bytes(tmp_path / "x.csv", b"new")
    assert (tmp_path / "x.csv").read_bytes() == b"new"
    assert names(tmp_path) == ["x.csv"]


def test_content_reaches_the_disk_before_the_name_and_the_folder_after_it(tmp_path, monkeypatch):
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    def noted_replace(*given: object) -> None:
        done.append("rename")
        replace(*given)

    monkeypatch.setattr(atomic.os, "fsync", noted_fsync)
    monkeypatch.setattr(atomic.os, "replace", noted_replace)
    write_text(tmp_path / "x.csv", ["a"])
    assert done == ["file", "rename", "folder"]


def test_an_error_in_the_block_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "x.csv", ["old"])

    def fail() -> None:
        with replacing(tmp_path / "x.csv") as file:
            file.write(b"half")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    assert (tmp_path / "x.csv").read_text() == "old"
    assert names(tmp_path) == ["x.csv"]


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path, monkeypatch):
    write_text(tmp_path / "x.csv", ["old"])

    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", refuse)
    with pytest.raises(LmrError) as caught:
        write_text(tmp_path / "x.csv", ["new"])
    assert str(caught.value) == (
        f"{tmp_path / 'x.csv'} cannot be written: No space left on device; choose another place or make room"
    )
    assert (tmp_path / "x.csv").read_text() == "old"
    assert names(tmp_path) == ["x.csv"]


def test_what_a_killed_writer_left_is_removed_and_what_another_writes_is_not(tmp_path):
    (tmp_path / ".x.csv.0123abcd.partial").write_text("of a killed one")
    others = [".x.csv.gz.0123abcd.partial", ".y.csv.0123abcd.partial"]
    for name in others:
        (tmp_path / name).write_text("of another file")
    with replacing(tmp_path / "x.csv") as first:
        first.write(b"first")
        remove_leftovers(tmp_path / "x.csv")
        assert Path(first.name).exists()
        assert names(tmp_path) == sorted([Path(first.name).name, *others])
    assert (tmp_path / "x.csv").read_text() == "first"


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EIO])
def test_a_file_system_that_flushes_no_folders_is_no_error_and_a_broken_one_is(tmp_path, monkeypatch, code):
    flush = os.fsync

    def refuse_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        flush(descriptor)

    monkeypatch.setattr(atomic.os, "fsync", refuse_folders)
    if code == errno.EIO:
        with pytest.raises(LmrError, match="cannot be written: Input/output error"):
            write_text(tmp_path / "x.csv", ["new"])
    else:
        write_text(tmp_path / "x.csv", ["new"])
    assert names(tmp_path) == ["x.csv"]


def test_kill_9_leaves_the_old_file_and_the_next_writer_clears_up(tmp_path):
    write_text(tmp_path / "x.csv", ["old"])
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom retrieval.files.atomic import replacing\n"
        "with replacing(Path(sys.argv[1])) as file:\n"
        "    file.write(b'half')\n    file.flush()\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.csv")]).returncode == -9
    assert (tmp_path / "x.csv").read_text() == "old"
    assert len(names(tmp_path)) == 2
    write_text(tmp_path / "x.csv", ["new"])
    assert names(tmp_path) == ["x.csv"]


@pytest.mark.parametrize("make", ["folder", "pipe"])
def test_what_is_no_file_is_not_replaced(tmp_path, make):
    path = tmp_path / "x"
    os.mkfifo(path) if make == "pipe" else path.mkdir()
    with pytest.raises(LmrError) as caught:
        write_text(path, ["a"])
    what = "not a file" if make == "pipe" else "a folder"
    assert str(caught.value) == f"{path} is {what}; choose another name"


def test_a_private_name_tells_for_which_file_it_is():
    assert written_for(private_path(Path("a/x.csv")).name) == "x.csv"
    assert [written_for(name) for name in ("x.csv", ".x.csv.partial", ".x.csv.0123abcd", "x.0123abcd.partial")] == (
        [None] * 4
    )
