"""`lmr serve` in a process of its own, over a copy of the tiny set, and programs that are put in front of it."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

START_S, STOP_S = 120, 60  # the longest that a busy machine may take
SITE = "landmarks.example.org"
SYSTEM_FOLDERS = os.pathsep.join(("/usr/sbin", "/sbin"))
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass(frozen=True)
class Served:
    """A server that answers. folder: where it runs. log: what it said so far is in that file."""

    url: str
    folder: Path
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.url.rpartition(":")[2])


@dataclass(frozen=True)
class Guarded:
    """A server that asks for a token, and the token."""

    server: Served
    token: str


def find_program(*names: str) -> str | None:
    """The path of the first of these programs that is installed, or None."""
    path = os.environ.get("PATH", os.defpath) + os.pathsep + SYSTEM_FOLDERS
    return next(filter(None, (shutil.which(name, path=path) for name in names)), None)


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def served(folder: Path, *options: str) -> Iterator[Served]:
    """`lmr serve` in a folder with an index folder `landmarks`, until it answers; ended at the end."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("lmr")), "serve", "--device", "cpu", "--threads", "1"]
    with running([*command, "--port", str(port), *options], folder, folder / f"serve-{port}.log") as process:
        server = Served(f"http://127.0.0.1:{port}", folder, process, folder / f"serve-{port}.log")
        wait_for(f"{server.url}/readyz", process, server.log)
        yield server


@contextmanager
def guarded_server(folder: Path) -> Iterator[Guarded]:
    """`lmr serve` as deploy/ starts it, in a folder with an index folder `landmarks`."""
    token, path = secrets.token_hex(32), folder / "token"
    path.touch(0o600)
    path.write_text(token)
    words = ("--token-file", str(path), "--allowed-host", SITE, "--trusted-proxy", "127.0.0.1", "--access-log")
    with served(folder, *words) as server:
        yield Guarded(server, token)


@contextmanager
def running(
    command: list[str], folder: Path, log: Path, more: Mapping[str, str] | None = None
) -> "Iterator[subprocess.Popen[bytes]]":
    """A program, what it says in a file; asked to end at the end, and killed where it does not."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_PROXY": "*", **(more or {})}
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Until a URL is answered, whatever the answer. Raises AssertionError with what the program said if it ends."""
    end = time.monotonic() + START_S
    while True:
        try:
            urlopen(Request(url), timeout=10)
            return
        except HTTPError as error:
            if error.code != 503:
                return
        except (URLError, ConnectionError, TimeoutError):
            pass
        assert process.poll() is None, log.read_text(errors="replace")
        assert time.monotonic() < end, f"{url} was not answered in {START_S} s:\n{log.read_text(errors='replace')}"
        time.sleep(0.1)
