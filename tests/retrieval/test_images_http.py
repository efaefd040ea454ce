"""One URL is fetched, or not, against servers on loopback that do as they like."""

import asyncio
import gzip
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial

import pytest

from retrieval.errors import UnreadableError
from retrieval.images import addresses
from retrieval.images.fetch_rules import FetchRules
from retrieval.images.given import QueryImage
from retrieval.images.http import fetch, fetch_image, open_session
from retrieval.images.http_body import FetchError
from retrieval.images.limits import Limits

CONTENT = b"\xff\xd8 content"
LOCAL = FetchRules(timeout_s=30, idle_s=30, allow_private=True)
HASTY = replace(LOCAL, timeout_s=0.3)

Answer = Callable[[socket.socket, threading.Event], None]


class Server:
    """asked: what each connection sent."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/x.jpg"


@contextmanager
def answering(answer: Answer, address: str = "127.0.0.1", port: int = 0) -> Iterator[Server]:
    """A server that answers each connection with this function, until the context is left."""
    is_over = threading.Event()
    with socket.create_server((address, port)) as listener:
        server = Server(listener.getsockname()[1])

        def talk(connection: socket.socket) -> None:
            with connection, suppress(OSError):  # who asked has given up
                server.asked.append(connection.recv(65536))
                answer(connection, is_over)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield server
        finally:
            is_over.set()
            listener.shutdown(socket.SHUT_RDWR)


def says(*parts: bytes) -> Answer:
    """Sends these and closes."""
    return lambda connection, _: connection.sendall(b"".join(parts))


def ok(body: bytes, *headers: str) -> Answer:
    lines = "".join(f"{line}\r\n" for line in (f"Content-Length: {len(body)}", *headers))
    return says(f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode(), body)


def moved(target: str) -> Answer:
    return says(f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())


def repeating(start: bytes, part: bytes, pause_s: float = 0.0) -> Answer:
    """Sends the start, and then this part for as long as anybody takes it."""

    def answer(connection: socket.socket, is_over: threading.Event) -> None:
        connection.sendall(start)
        while not is_over.wait(pause_s):
            connection.sendall(part)

    return answer


def reason(url: str, rules: FetchRules = LOCAL) -> str:
    with pytest.raises(UnreadableError) as caught:
        fetch_image(url, rules)
    return str(caught.value)


def reason_of(answer: Answer, rules: FetchRules = LOCAL) -> str:
    with answering(answer) as server:
        return reason(server.url, rules)


def test_a_image_is_fetched_also_when_it_has_moved() -> None:
    with answering(ok(CONTENT)) as server, answering(moved(server.url)) as other:
        assert fetch_image(server.url, LOCAL) == CONTENT
        assert fetch_image(other.url, LOCAL) == CONTENT
        assert QueryImage(server.url, allow_private=True).read() == CONTENT


def test_a_image_is_fetched_within_a_loop_that_runs() -> None:
    async def ask(url: str) -> bytes:
        return fetch_image(url, LOCAL)

    with answering(ok(CONTENT)) as server:
        assert asyncio.run(ask(server.url)) == CONTENT


@pytest.mark.parametrize(
    "answer",
    [
        lambda _, is_over: is_over.wait(30),
        repeating(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a", 0.02),
        repeating(b"H", b"", 0.02),
        repeating(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", 0.02),
        repeating(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n", b"a", 0.02),
        repeating(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n", 0.02),
        repeating(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"a", 0.02),
    ],
    ids=["no answer", "slow header", "slow status", "continue for ever", "slow body", "slow chunks", "slow chunk size"],
)
def test_a_slow_server_is_left_when_the_time_is_over(answer: Answer) -> None:
    assert reason_of(answer, HASTY) == "timeout: not whole after 0.3 s"


def test_redirects_share_one_time() -> None:
    def later(connection: socket.socket, is_over: threading.Event) -> None:
        is_over.wait(0.12)
        moved("/again")(connection, is_over)

    assert reason_of(later, HASTY) == "timeout: not whole after 0.3 s"


def test_a_lookup_that_never_ends_is_left_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    may_end, has_ended = threading.Event(), threading.Event()

    def look_up(*_: object, **__: object) -> list[object]:
        may_end.wait(30)
        has_ended.set()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    try:
        assert reason("http://slow.example/x.jpg", HASTY) == "timeout: not whole after 0.3 s"
        assert not has_ended.is_set()
    finally:
        may_end.set()


def test_endless_and_huge_headers_are_refused() -> None:
    assert reason_of(repeating(b"HTTP/1.1 200 OK\r\n", b"X-More: yes\r\n" * 1000)).startswith("not http: ")
    assert reason_of(says(b"HTTP/1.1 200 OK\r\nX-Big: ", b"a" * 1_000_000, b"\r\n\r\n")).startswith("not http: ")
    assert reason_of(repeating(b"HTTP/1.1 200 ", b"a" * 10_000)).startswith("not http: ")


def test_a_body_that_is_too_long_is_refused() -> None:
    small = replace(LOCAL, limits=Limits(max_bytes=9))
    assert reason_of(ok(CONTENT), small) == "too many bytes: 10 bytes, over the limit of 9"
    start = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    assert reason_of(repeating(start, b"a" * 1000), small) == "too many bytes: over the limit of 9"
    bomb = gzip.compress(bytes(30_000_000), 1)
    limit = replace(LOCAL, limits=Limits(max_bytes=1_000_000))
    assert reason_of(ok(bomb, "Content-Encoding: gzip"), limit) == "too many bytes: over the limit of 1,000,000"


def test_a_wrong_length_is_noticed() -> None:
    cut = says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", CONTENT)
    assert reason_of(cut) == "cut short: the connection ended before the picture did"
    more = says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\n", CONTENT, b"and more")
    assert reason_of(more).startswith("not http: ")
    assert reason_of(says(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", CONTENT)).startswith("not http: ")


def test_what_a_server_refuses_is_said() -> None:
    assert reason_of(says(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")) == "HTTP 404: Not Found"
    assert reason_of(says(b"SSH-2.0-OpenSSH_9.6\r\n")).startswith("not http: ")


def test_redirects_end_and_lead_nowhere_else() -> None:
    assert reason_of(moved("/round")) == "too many redirects: more than 5"
    for target in ("file:///etc/hostname", "ftp://example.org/x"):
        assert reason_of(moved(target)) == "bad url: only http and https are fetched"
    assert reason_of(moved("http://[broken")).startswith("bad url: redirect to 'http://[broken': ")


def test_urls_that_cannot_be_asked_say_why() -> None:
    assert reason("file:///etc/hostname") == "bad url: only http and https are fetched"
    assert reason("http://[broken") == "bad url: not a URL: Invalid IPv6 URL"
    assert reason("http://127.0.0.1:1/x").startswith("no answer: ")
    assert reason("http://127.0.0.1:99999/x").startswith("bad url: not a URL: ")


def test_no_password_cookie_or_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")
    monkeypatch.delenv("no_proxy", raising=False)
    setting = says(
        b"HTTP/1.1 302 Found\r\nSet-Cookie: a=b\r\nLocation: /y\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )

    def once(connection: socket.socket, is_over: threading.Event) -> None:
        (setting if len(server.asked) == 1 else ok(CONTENT))(connection, is_over)

    with answering(once) as server:
        assert fetch_image(server.url.replace("//", "//me:secret@"), LOCAL) == CONTENT
    sent = b"".join(server.asked).lower()
    assert len(server.asked) == 2
    assert not any(word in sent for word in (b"cookie", b"authorization", b"secret", b"referer"))


@pytest.fixture
def one_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 stands for the internet, 127.0.0.2 for a private network."""
    is_public = addresses.is_public
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.1" or is_public(address))


def fetch_by_name(url: str, *answers: list[str]) -> bytes:
    """What is at a URL whose name has these addresses, at the first lookup, the second and so on."""
    found = iter(answers)

    def look_up(_host: str, port: int, _family: int) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in next(found)]

    rules = replace(LOCAL, allow_private=False)

    async def get() -> bytes:
        async with open_session(rules, look_up) as session:
            return (await fetch(session, url, rules, None)).content

    return asyncio.run(get())


@pytest.mark.usefixtures("one_is_public")
def test_a_private_address_is_refused_however_it_is_reached() -> None:
    public = replace(LOCAL, allow_private=False)
    let_pass = "--allow-private (allow_private=True) lets it pass"
    with answering(ok(CONTENT), "127.0.0.2") as private:
        hidden = f"http://127.0.0.2:{private.port}/x.jpg"
        assert reason(hidden, public) == f"private address: 127.0.0.2; {let_pass}"
        with answering(moved(hidden)) as server:
            assert reason(server.url, public) == f"private address: 127.0.0.2; {let_pass}"
        with pytest.raises(FetchError) as caught:
            fetch_by_name(f"http://inside.example:{private.port}/x.jpg", ["127.0.0.2"])
        assert str(caught.value) == (f"private address: inside.example is at the private address 127.0.0.2; {let_pass}")
    assert private.asked == []


@pytest.mark.usefixtures("one_is_public")
def test_a_name_is_looked_up_once_and_the_connection_is_made_to_what_was_checked() -> None:
    with answering(ok(b"public")) as server, answering(ok(b"private"), "127.0.0.2", server.port) as private:
        url = f"http://both.example:{server.port}/x.jpg"
        assert fetch_by_name(url, ["127.0.0.1"], ["127.0.0.2"]) == b"public"
        assert fetch_by_name(url, ["127.0.0.2", "127.0.0.1"]) == b"public"
    assert private.asked == []


@pytest.mark.usefixtures("one_is_public")
def test_a_spelling_that_passes_the_resolver_is_stopped_at_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses.Resolver, "resolve", partial(_resolve_anything))
    with pytest.raises(FetchError) as caught:
        fetch_by_name("http://odd.example:1/x.jpg")
    assert str(caught.value) == (
        "private address: 127.0.0.2 is a private address; --allow-private (allow_private=True) lets it pass"
    )


async def _resolve_anything(host: str, port: int = 0, family: int = 0) -> list[dict[str, object]]:
    rest = {"hostname": host, "port": port, "family": socket.AF_INET, "proto": 6, "flags": 0}
    return [{**rest, "host": "127.0.0.2"}]
