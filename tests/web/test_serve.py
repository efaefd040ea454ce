"""lmr serve: how it begins, what it refuses to begin with, and how it ends."""

import asyncio
import http.client
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tiny_set import another_process, misused, refused, run, run_there

from cli.web.server import listening


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def serving(folder: Path, output: Path, *words: str) -> Iterator[tuple[Any, int]]:
    """`lmr serve` in another process, and its port, as soon as that is listened on."""
    port = free_port()
    arguments = ["serve", "--device", "cpu", "--threads", "1", "--port", str(port), *words]
    with another_process(run_there, str(folder), arguments, {"output": str(output)}) as process:
        for _ in range(600):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.is_alive(), output.read_text()
            time.sleep(0.1)
        yield process, port


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, {"Content-Type": "image/jpeg"} if body else {})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_when_what_was_asked_is_answered(
    finished_set: Path, tmp_path: Path, number: signal.Signals
) -> None:
    image, output = (finished_set / "images/test-arch-0.jpg").read_bytes(), tmp_path / "output.txt"
    with serving(finished_set, output) as (process, port):
        assert ask(port, "GET", "/healthz") == (200, b'{"status": "ok"}')
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.putrequest("POST", "/v1/query")
        connection.putheader("Content-Length", str(len(image)))
        connection.endheaders(image[:100])
        ask(port, "GET", "/healthz")  # so that the other one has been taken too
        os.kill(process.pid, number)
        time.sleep(0.3)
        connection.send(image[100:])
        response = connection.getresponse()
        assert (response.status, b'"arch"' in response.read()) == (200, True)
        process.join(60)
        assert process.exitcode == 0
    line = f"serving landmarks (32 images of 4 landmarks) on http://127.0.0.1:{port}/; Ctrl-C ends it\n"
    assert output.read_text() == line


def test_several_processes_answer_on_one_port(finished_set: Path, tmp_path: Path) -> None:
    image, output = (finished_set / "images/test-arch-0.jpg").read_bytes(), tmp_path / "output.txt"
    with serving(finished_set, output, "--processes", "2") as (process, port):
        for _ in range(4):
            status, content = ask(port, "POST", "/v1/query", image)
            assert (status, b'"arch"' in content) == (200, True)
        counted = ask(port, "GET", "/metrics")[1].decode()  # by either of them
        assert 'lmr_requests_total{method="POST",route="/v1/query",status="200"} 4.0' in counted
        assert "lmr_index_images 32.0" in counted
        os.kill(process.pid, signal.SIGTERM)
        process.join(60)
        assert process.exitcode == 0
    start = f"serving landmarks (32 images of 4 landmarks) by 2 processes on http://127.0.0.1:{port}/; Ctrl-C ends it\n"
    assert output.read_text() == start


def test_each_part_of_an_answer_is_sent_at_once() -> None:
    sent: list[int] = []

    def taken(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent.append(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async def connect() -> None:
        with listening("127.0.0.1", 0) as listener:
            async with await asyncio.start_server(taken, sock=listener):
                reader, writer = await asyncio.open_connection(*listener.getsockname())
                await reader.read()
                writer.close()

    asyncio.run(connect())
    assert sent == [1]


def test_a_port_that_is_taken_is_refused(finished_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished_set)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        detail = f"--port {port} of 127.0.0.1 is taken by another program; give another one, or 0 for any that is free"
        assert refused("serve", "--port", port) == detail


def test_an_address_of_another_machine_is_refused(finished_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished_set)
    for host in ("192.0.2.1", "no.such.host.invalid"):
        detail = f"--host {host} is no address of this machine; give one, such as 127.0.0.1"
        assert refused("serve", "--host", host, "--public", "--port", 0) == detail


def test_an_index_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    detail = "landmarks: there is no such index folder; lmr build-index makes one"
    assert refused("serve", "--port", 0) == detail
    assert refused("serve", "--port", 0, "--processes", 2) == detail


def test_feedback_within_the_index_folder_is_refused(finished_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished_set)
    detail = (
        "--feedback-folder landmarks/said lies in the index folder, which is replaced when the index changes; give one "
        "beside it"
    )
    assert refused("serve", "--feedback-folder", "landmarks/said", "--port", 0) == detail


def test_room_for_the_images_of_a_request_is_needed() -> None:
    detail = (
        "a request of 16 images (--max-pictures) could never be answered: 5 may wait (--waiting and --batch); "
        "lower the one or raise the others"
    )
    assert refused("serve", "--waiting", 4, "--batch", 1) == detail


def test_options_that_cannot_be_are_a_matter_of_usage() -> None:
    assert misused("serve", "--port", 70000) == "Invalid value for '--port': 70000 is not in the range 0<=x<=65535."
    assert misused("serve", "--processes", 0) == "Invalid value for '--processes': 0 is not in the range 1<=x<=256."
    assert "lmr serve --port 0 --processes 4 --threads 2" in run("serve", "--help").output
