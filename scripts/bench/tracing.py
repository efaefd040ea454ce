"""System calls that change files, as strace sees them: which a command makes, and a kill before one of them."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CALLS = (
    "openat,write,pwrite64,writev,pwritev,pwritev2,sendfile,copy_file_range,ftruncate,truncate,fallocate,rename,"
    "renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,fsync,fdatasync"
)
_LINE = re.compile(r"(\d+) +(\w+)\((.*)")
_PLACE = re.compile(r'<(/[^>]*)>|"([^"]*)"')
_KILLED = "+++ killed by SIGKILL +++"
_CHANCE = re.compile(r"[0-9a-f]{8,}|\d+")  # of names: random letters, digests, numbers
_ATTACH_S = 20


@dataclass(frozen=True, slots=True)
class Step:
    """A system call on a file of the working folder. nth: of this name in its thread. what: the call and the file."""

    call: str
    nth: int
    what: str


def is_there() -> bool:
    """Whether strace is installed and may look at a child of this process."""
    if not sys.platform.startswith("linux") or shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-f", "-o", os.devnull, "true"], capture_output=True, check=False).returncode == 0


def follow(log: Path, step: Step | None = None) -> Callable[[], None]:
    """What a child does first to be followed with all its threads and processes; it is killed before that step."""
    options = ["-f", "-y", "-s", "0", "-o", str(log), "-e", f"trace={CALLS}"]
    if step is not None:
        options += ["-e", f"inject={step.call}:signal=KILL:when={step.nth}"]

    def attach() -> None:
        followed = os.getpid()
        if not os.fork():
            os.setsid()  # is not killed with the group
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 1)
            os.dup2(null, 2)
            os.execvp("strace", ["strace", *options, "-p", str(followed)])
        until = time.monotonic() + _ATTACH_S
        while "TracerPid:\t0\n" in Path("/proc/self/status").read_text():
            if time.monotonic() > until:
                raise OSError("strace did not attach")
            time.sleep(0.002)

    return attach


def kill_with(pid: int, log: Path) -> None:
    """Waits until strace kills a thread or process of the group that `pid` leads, or it ends; kills what is left."""
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if log.exists() and _KILLED in log.read_text(errors="replace"):
            os.killpg(pid, signal.SIGKILL)
            return
        time.sleep(0.005)


def steps(log: Path, folder: Path) -> list[Step]:
    """The steps of a run in this working folder, in their order."""
    seen: Counter[tuple[str, str]] = Counter()
    found = []
    for line in log.read_text(errors="replace").splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        thread, call, given = match.groups()
        seen[thread, call] += 1
        place = _place(call, given, f"{folder}/")
        if place:
            found.append(Step(call, seen[thread, call], f"{call} {place}"))
    return found


def killed_at(log: Path, folder: Path, step: Step) -> str:
    """Before which step a run was really killed, as threads may come in another order; "" outside the folder."""
    return next((one.what for one in steps(log, folder) if (one.call, one.nth) == (step.call, step.nth)), "")


def _place(call: str, given: str, folder: str) -> str:
    """The file or files of a call, without what chance put into their names; "" outside the folder, or only read."""
    if call == "openat" and "O_WRONLY" not in given and "O_RDWR" not in given:
        return ""
    paths = [descriptor or name for descriptor, name in _PLACE.findall(given.partition(") = ")[0])]
    inside = [path.removeprefix(folder) for path in paths if path.startswith(folder) or not path.startswith("/")]
    return " ".join(_CHANCE.sub("#", path) for path in inside if path)
