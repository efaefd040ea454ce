"""One writer for each output: who holds a lock, who waits, and what ends it."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from recorder import Recorder

from retrieval.errors import LmrError
from retrieval.files import lock
from retrieval.files.lock import lock_path, output_lock, weak_locks

HOLDER = """
    import sys
    from pathlib import Path
    from retrieval.files.lock import output_lock

    with output_lock(Path(sys.argv[1])):
        {then}
        print("held", flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def hold() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts another process that holds the lock of a path until its input ends; `then` is done under the lock."""
    begun: list[subprocess.Popen[bytes]] = []

    def start(output: Path, then: str = "pass") -> subprocess.Popen[bytes]:
        code = textwrap.dedent(HOLDER).format(then=then)
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(output)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        begun.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        return process

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def test_a_second_process_is_told_who_holds_the_output(tmp_path, hold):
    holder = hold(tmp_path / "x.csv")
    with pytest.raises(LmrError) as caught, output_lock(tmp_path / "x.csv"):
        pass
    told = str(caught.value)
    assert told.startswith(f"{tmp_path / 'x.csv'} is being written by process {holder.pid} on ")
    assert told.endswith("; run this again when that has ended, or with `wait`")


def test_a_waiting_process_says_so_once_and_goes_on_when_the_other_has_ended(tmp_path, hold, monkeypatch):
    holder = hold(tmp_path / "x.csv")
    told: list[str] = []
    slept: list[float] = []

    def end_the_holder(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            holder.communicate(b"")

    monkeypatch.setattr(lock.time, "sleep", end_the_holder)
    with output_lock(tmp_path / "x.csv", wait=True, progress=Recorder(told)):
        pass
    assert len(told) == 1
    assert told[0].endswith("; waiting for it to end")


def test_kill_9_of_the_holder_ends_its_lock(tmp_path, hold):
    holder = hold(tmp_path / "x.csv")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert lock_path(tmp_path / "x.csv").exists()
    with output_lock(tmp_path / "x.csv"):
        pass
    assert not lock_path(tmp_path / "x.csv").exists()


def test_workers_that_outlive_a_killed_holder_do_not_keep_its_lock(tmp_path, hold):
    then = "import os, signal; worker = os.fork() or signal.pause(); Path(sys.argv[1]).write_text(str(worker))"
    holder = hold(tmp_path / "x.csv", then)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    worker = int((tmp_path / "x.csv").read_text())
    try:
        os.kill(worker, 0)  # it lives
        with output_lock(tmp_path / "x.csv"):
            assert str(os.getpid()) in lock_path(tmp_path / "x.csv").read_text(), "this process has it"
    finally:
        os.kill(worker, signal.SIGKILL)


def test_another_thread_does_not_get_the_lock_that_a_thread_holds(tmp_path):
    caught: list[str] = []

    def second() -> None:
        try:
            with output_lock(tmp_path / "x.csv"):
                caught.append("got it")
        except LmrError as error:
            caught.append(str(error))

    with output_lock(tmp_path / "x.csv"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert caught == [
        f"{tmp_path / 'x.csv'} is being written by another thread of this process; "
        "run this again when that has ended, or with `wait`"
    ]


def test_threads_that_wait_have_the_output_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_POLL_S", 0.001)
    met: list[str] = []

    def work() -> None:
        for _ in range(20):
            with output_lock(tmp_path / "x.csv", wait=True):
                try:
                    os.close(os.open(tmp_path / "inside", os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    met.append("another is inside")
                (tmp_path / "inside").unlink(missing_ok=True)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not met


def test_processes_that_wait_never_hold_it_together(tmp_path):
    code = """
    import os, sys
    from pathlib import Path
    from retrieval.files import lock

    lock._POLL_S = 0.001
    folder = Path(sys.argv[1])
    for _ in range(40):
        with lock.output_lock(folder / "x.csv", wait=True):
            os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))
            os.unlink(folder / "inside")
    """
    words = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    processes = [subprocess.Popen(words) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]


def test_a_thread_may_ask_again_for_the_lock_that_it_holds(tmp_path):
    with output_lock(tmp_path / "x.csv"):
        with output_lock(tmp_path / "x.csv"):
            pass
        assert lock_path(tmp_path / "x.csv").exists()
    assert not lock_path(tmp_path / "x.csv").exists()


def test_a_fork_of_the_holder_does_not_take_the_lock_for_its_own(tmp_path):
    with output_lock(tmp_path / "x.csv"):
        pid = os.fork()
        if not pid:
            try:
                with output_lock(tmp_path / "x.csv"):
                    os._exit(1)
            except LmrError:
                os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert lock_path(tmp_path / "x.csv").exists()


def test_a_link_and_what_it_leads_to_have_one_lock(tmp_path, hold):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "x.csv").write_text("old")
    (tmp_path / "y.csv").symlink_to(tmp_path / "far" / "x.csv")
    hold(tmp_path / "y.csv")
    with pytest.raises(LmrError, match="is being written by process"), output_lock(tmp_path / "far" / ".." / "y.csv"):
        pass
    with pytest.raises(LmrError, match="is being written by process"), output_lock(tmp_path / "far" / "x.csv"):
        pass


def test_a_lock_file_that_a_killed_run_left_is_no_hindrance(tmp_path):
    lock_path(tmp_path / "x.csv").write_text("process 1 on a machine that is gone")
    with output_lock(tmp_path / "x.csv"):
        assert str(os.getpid()) in lock_path(tmp_path / "x.csv").read_text()


def test_folders_that_only_the_lock_needed_are_removed(tmp_path):
    with output_lock(tmp_path / "a" / "b" / "x.csv"):
        assert (tmp_path / "a" / "b").is_dir()
    assert list(tmp_path.iterdir()) == []
    with output_lock(tmp_path / "a" / "b" / "x.csv"):
        (tmp_path / "a" / "b" / "x.csv").write_text("there")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["x.csv"]


def deny(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """As a folder without the right to write; root has it everywhere."""

    def refuse(path: object, *_: object) -> int:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(lock.os, "open", refuse)


def test_where_nothing_may_be_written_a_missing_output_is_refused_at_once(tmp_path, monkeypatch):
    deny(monkeypatch, errno.EACCES)
    with pytest.raises(LmrError) as caught, output_lock(tmp_path / "x.csv"):
        pass
    assert str(caught.value) == (
        f"{tmp_path / 'x.csv'} cannot be written: Permission denied; choose another place or make room"
    )


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_where_nothing_may_be_written_an_output_that_is_there_can_be_looked_at(tmp_path, monkeypatch, code):
    (tmp_path / "x.csv").write_text("finished")
    deny(monkeypatch, code)
    with output_lock(tmp_path / "x.csv"):
        assert (tmp_path / "x.csv").read_text() == "finished"


def test_a_full_disk_that_cannot_hold_a_lock_file_is_told(tmp_path, monkeypatch):
    deny(monkeypatch, errno.ENOSPC)
    with pytest.raises(LmrError) as caught, output_lock(tmp_path / "x.csv"):
        pass
    assert str(caught.value) == (
        f"{tmp_path / 'x.csv'} cannot be written: No space left on device; choose another place or make room"
    )


def test_a_disk_too_full_for_the_holders_name_still_has_the_lock(tmp_path, monkeypatch):
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(lock.os, "write", refuse)
    with output_lock(tmp_path / "x.csv"):
        assert lock_path(tmp_path / "x.csv").read_text() == ""


def test_a_mounted_folder_beside_which_nothing_may_be_written_carries_its_own_lock(tmp_path, monkeypatch):
    (tmp_path / "mounted").mkdir()
    monkeypatch.setattr(lock.os, "access", lambda path, _: Path(path) != tmp_path)
    assert lock_path(tmp_path / "mounted") == tmp_path / "mounted" / ".lock"
    with output_lock(tmp_path / "mounted"):
        assert (tmp_path / "mounted" / ".lock").exists()
    assert list((tmp_path / "mounted").iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_told_of_once(tmp_path, monkeypatch, code):
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(lock.fcntl, "lockf", refuse)
    told: list[str] = []
    for name in ("x.csv", "y.csv"):
        with output_lock(tmp_path / name, progress=Recorder(told)):
            pass
    assert told == [
        f"{tmp_path}: its file system has no locks ({os.strerror(code)}); "
        f"do not write {tmp_path / 'x.csv'} by two commands at once"
    ]


def test_another_error_of_a_lock_is_one_line(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(lock.fcntl, "lockf", refuse)
    with pytest.raises(LmrError) as caught, output_lock(tmp_path / "x.csv"):
        pass
    assert str(caught.value) == (
        f"{tmp_path / 'x.csv'} cannot be written: Input/output error; choose another place or make room"
    )


def test_letters_that_steer_a_terminal_are_not_shown_of_a_holder(tmp_path, hold):
    hold(tmp_path / "x.csv")
    lock_path(tmp_path / "x.csv").write_text("\x1b[2Jcleared")
    with pytest.raises(LmrError) as caught, output_lock(tmp_path / "x.csv"):
        pass
    assert "\x1b" not in str(caught.value)


def escaped(folder: Path) -> str:
    """A folder as the table of mounts names it."""
    return str(folder).replace(" ", "\\040")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("server:/a {0} nfs4 rw,vers=4.2,local_lock=none 0 0", ""),
        ("server:/a {0} nfs rw,nolock 0 0", "locks of its file system (nfs with nolock) hold on this machine alone"),
        (
            "server:/a {0} nfs rw,local_lock=all 0 0",
            "locks of its file system (nfs with local_lock=all) hold on this machine alone",
        ),
        ("me@server: {0} fuse.sshfs rw 0 0", "locks of its file system (fuse.sshfs) hold on this machine alone"),
        ("server:/a {0}/other nfs rw,nolock 0 0", ""),
        ("/dev/sda1 {0} ext4 rw 0 0", ""),
    ],
)
def test_locks_that_hold_on_one_machine_alone_are_known_by_what_is_mounted(tmp_path, line, told):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/root / ext4 rw 0 0\n{line.format(escaped(tmp_path))}\n", encoding="utf-8")
    (tmp_path / "in it").mkdir()
    assert weak_locks(tmp_path / "in it", mounts) == told


def test_the_nearest_mount_counts_and_its_name_may_hold_a_space(tmp_path):
    mounts = tmp_path / "mounts"
    (tmp_path / "in it").mkdir()
    place = escaped(tmp_path)
    mounts.write_text(f"a:/ {place} nfs rw,nolock 0 0\nb {place}/in\\040it ext4 rw 0 0\n", encoding="utf-8")
    assert weak_locks(tmp_path / "in it", mounts) == ""
    assert weak_locks(tmp_path, mounts) != ""


def test_nothing_is_told_where_the_mounts_are_not_known(tmp_path):
    assert weak_locks(tmp_path, tmp_path / "missing") == ""
