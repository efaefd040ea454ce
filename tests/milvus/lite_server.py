"""A server of Milvus Lite in a process of its own."""

import socket
import subprocess
import time
from pathlib import Path

import pytest

LITE = Path(__file__).resolve().parents[2] / ".venv-milvus" / "bin" / "milvus-lite"


class Lite:
    """A server that can be ended and started again on the same port and data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.process: subprocess.Popen[bytes] | None = None

    def url(self, collection: str) -> str:
        return f"milvus://127.0.0.1:{self.port}/{collection}"

    def start(self) -> None:
        words = ["server", "--data-dir", "data", "--host", "127.0.0.1", "--port", str(self.port)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([LITE, *words], cwd=self.folder, stdout=log, stderr=log)
        while self.process.poll() is None:
            with socket.socket() as asked:
                if asked.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        pytest.fail((self.folder / "log").read_text(encoding="utf-8"))

    def end(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
