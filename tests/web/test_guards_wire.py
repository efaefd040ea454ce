"""Connections of a server that runs: slow, silent, cut and meaningless ones."""

import asyncio
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from test_guards import guarded
from uvicorn import Config, Server

from cli.web import limits
from cli.web.limits import server_words

HASTY_S = 0.3


@contextmanager
def serving(**settings: Any) -> Iterator[int]:
    """The port of a server of the small app."""
    server = Server(Config(guarded(**settings), **server_words()))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=asyncio.run, args=(server.serve([listener]),))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server that waits for no time at all."""
    monkeypatch.setattr(limits, "GRACE_S", HASTY_S)
    monkeypatch.setattr(limits, "HEADERS_S", HASTY_S)
    with serving(max_upload_mb=0.1) as port:
        yield port


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving(max_upload_mb=0.1) as port:
        yield port


def said(connection: socket.socket) -> bytes:
    """All that comes until the server ends the connection."""
    connection.settimeout(30)
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def exchange(port: int, *parts: bytes) -> bytes:
    """What bytes on a connection bring, until the server ends it."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for part in parts:
            connection.sendall(part)
        return said(connection)


def head(*lines: str) -> bytes:
    return "\r\n".join((*lines, "Host: localhost", "", "")).encode()


def test_a_connection_on_which_nothing_is_said_is_closed(hasty: int) -> None:
    assert exchange(hasty) == b""


def test_headers_that_do_not_end_are_closed(hasty: int) -> None:
    assert exchange(hasty, b"GET / HTTP/1.1\r\n", b"X: y\r\n") == b""


def test_headers_of_a_second_request_must_end_too(hasty: int) -> None:
    assert exchange(hasty, head("GET / HTTP/1.1"), b"GET / HT").count(b"HTTP/1.1 200 OK") == 1


def test_a_body_that_stops_is_refused(hasty: int) -> None:
    told = exchange(hasty, head("POST /take HTTP/1.1", "Content-Length: 50"), b"abc")
    assert told.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"connection: close" in told.lower()
    assert told.endswith(b'"detail":"the request came too slowly: 3 bytes in 0 s"}')


def test_a_body_that_drips_is_refused(hasty: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MIN_RATE", 1e6)
    with socket.create_connection(("127.0.0.1", hasty)) as connection:
        connection.sendall(head("POST /take HTTP/1.1", "Content-Length: 90000"))
        over = threading.Event()

        def drip() -> None:
            try:
                while not over.wait(HASTY_S / 10):
                    connection.sendall(b"x")
            except OSError:
                pass

        thread = threading.Thread(target=drip)
        thread.start()
        status = connection.recv(12)
        over.set()
        thread.join()
    assert status == b"HTTP/1.1 408"


def test_a_body_that_keeps_the_rate_may_take_longer_than_the_grace(hasty: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MIN_RATE", 100)
    with socket.create_connection(("127.0.0.1", hasty)) as connection:
        connection.sendall(head("POST /take HTTP/1.1", "Connection: close", "Content-Length: 500"))
        for _ in range(5):
            connection.sendall(b"x" * 100)
            threading.Event().wait(HASTY_S / 2)
        assert said(connection).endswith(b"500")


def test_a_refused_body_is_answered_while_it_still_comes(port: int) -> None:
    told = exchange(port, head("POST /take HTTP/1.1", "Connection: close", "Content-Length: 3000000"), bytes(100))
    assert told.startswith(b"HTTP/1.1 413 ")


def test_who_goes_on_sending_what_was_refused_is_cut(hasty: int) -> None:
    assert exchange(hasty, head("POST /take HTTP/1.1", "Content-Length: 3000000"), bytes(100)).startswith(
        b"HTTP/1.1 413 "
    )


def test_a_body_that_is_not_wanted_is_not_asked_for(port: int) -> None:
    lines = ("POST /take HTTP/1.1", "Content-Length: 3000000", "Expect: 100-continue", "Connection: close")
    assert exchange(port, head(*lines)).startswith(b"HTTP/1.1 413 ")


def test_an_answer_that_is_not_read_is_cut(hasty: int) -> None:
    n_bytes = 0
    with socket.create_connection(("127.0.0.1", hasty)) as connection, suppress(ConnectionResetError):
        connection.sendall(head("GET /large HTTP/1.1", "Connection: close"))
        threading.Event().wait(4 * HASTY_S)
        while part := connection.recv(1 << 20):
            n_bytes += len(part)
    assert n_bytes < 30_000_000


def test_an_answer_that_is_read_slowly_comes_whole(hasty: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MIN_RATE", 1000)
    n_bytes = 0
    with socket.create_connection(("127.0.0.1", hasty)) as connection:
        connection.sendall(head("GET /large HTTP/1.1", "Connection: close"))
        while part := connection.recv(1 << 22):
            n_bytes += len(part)
            threading.Event().wait(HASTY_S / 20)
    assert n_bytes > 30_000_000


def test_who_leaves_in_the_middle_of_a_body_harms_nobody(port: int) -> None:
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(head("POST /take HTTP/1.1", "Content-Length: 50") + b"abc")
    assert exchange(port, head("GET / HTTP/1.1", "Connection: close")).endswith(b"start")


@pytest.mark.parametrize(
    "line",
    [
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"\0" * 20_000,
    ],
)
def test_what_is_no_http_is_refused(port: int, line: bytes) -> None:
    told = exchange(port, line)
    assert told.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert told.endswith(b"\r\n\r\nInvalid HTTP request received.")


def test_a_second_host_is_refused(port: int) -> None:
    assert exchange(port, head("GET / HTTP/1.1", "Host: evil.example")).startswith(b"HTTP/1.1 400 ")


def test_a_body_of_two_lengths_is_not_read_as_two_requests(port: int) -> None:
    lines = ("POST /take HTTP/1.1", "Connection: close", "Content-Length: 4", "Transfer-Encoding: chunked")
    told = exchange(port, head(*lines) + b"0\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert re.findall(rb"HTTP/1\.1 (\d+)", told) == [b"400"]


def test_nothing_is_told_of_the_server(port: int) -> None:
    told = exchange(port, head("GET / HTTP/1.1", "Connection: close")).lower()
    assert b"server:" not in told
    assert b"uvicorn" not in told
    assert b"x-frame-options: deny\r\n" in told


def test_requests_of_one_connection_are_all_answered(port: int) -> None:
    told = exchange(port, head("GET / HTTP/1.1") * 9 + head("GET / HTTP/1.1", "Connection: close"))
    assert told.count(b"HTTP/1.1 200 OK") == 10


def test_what_is_no_http_leaves_no_word_in_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    with serving() as port:  # whose log goes to where this test looks
        exchange(port, b"GET\r\n\r\n")
        exchange(port, head("GET / HTTP/1.1", "Connection: close, Upgrade", "Upgrade: websocket"))
        for line in ("X-A: b", "Sec-Fetch-Site: cross-site"):  # the second one is refused at once
            lines = ("POST /take HTTP/1.1", "Transfer-Encoding: chunked", line)
            assert exchange(port, head(*lines) + b"3\r\nabcXX no chunk").startswith(b"HTTP/1.1 400 ")
        told = exchange(port, head("GET / HTTP/1.1", "Connection: close") + b"\0\0")
        assert told.startswith((b"HTTP/1.1 200", b"HTTP/1.1 400"))
    assert capfd.readouterr().err == ""


def test_an_error_of_the_program_is_in_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    with serving() as port:
        exchange(port, head("GET /broken HTTP/1.1", "Connection: close"))
    assert capfd.readouterr().err.endswith("ValueError: secret\n")


def test_other_kinds_of_connection_are_answered_as_http(port: int) -> None:
    lines = ("GET / HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket", "Connection: close")
    assert exchange(port, head(*lines)).endswith(b"start")
