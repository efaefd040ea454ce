"""URLs that a client gives: which are fetched, from where, and how much; no name is asked of a real resolver."""

import asyncio
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_images_http import CONTENT, answering, moved, ok, repeating, says

from cli.web import guards
from cli.web.guards import fetch_picture
from cli.web.problems import ProblemError
from cli.web.settings import WebSettings
from retrieval.images import addresses

ALLOWED = WebSettings(allow_urls=True)
ONLY_PUBLIC = "the URL cannot be fetched: only public addresses are asked"

Names = dict[str, list[list[str]]]


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """What names lead to, at the first lookup, the second and so on; 127.0.0.1 is public, and no other of loopback."""
    found: Names = {}
    is_public = addresses.is_public

    def look_up(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        if host not in found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found[host].pop(0)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.1" or is_public(address))
    return found


def fetched(url: str, settings: WebSettings = ALLOWED) -> bytes:
    return asyncio.run(fetch_picture(url, settings))


def refused(url: str, settings: WebSettings = ALLOWED) -> tuple[int, str]:
    with pytest.raises(ProblemError) as caught:
        fetched(url, settings)
    return caught.value.status, caught.value.detail


def test_no_url_is_fetched_unless_it_is_allowed() -> None:
    with answering(ok(CONTENT)) as server:
        assert refused(server.url, WebSettings()) == (
            403,
            "this server fetches no URLs; send the image, or start lmr serve with --allow-urls",
        )
    assert server.asked == []


def test_an_image_of_a_public_server_is_fetched(names: Names) -> None:
    names["public.example"] = [["127.0.0.1"]]
    with answering(ok(CONTENT)) as server, answering(moved(server.url)) as other:
        assert fetched(other.url) == CONTENT
        assert fetched(f"http://user:secret@public.example:{server.port}/x.jpg#part") == CONTENT
    assert b"secret" not in server.asked[1]
    assert b"uthorization" not in server.asked[1]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.2/x",
        "http://10.0.0.1/x",
        "http://192.168.1.1/x",
        "http://169.254.169.254/latest/meta-data/",
        "http://168.63.129.16/x",
        "http://100.64.0.1/x",
        "http://0.0.0.0/x",
        "http://[::1]/x",
        "http://[::ffff:10.0.0.1]/x",
        "http://[64:ff9b::a00:1]/x",
        "http://[fe80::1]/x",
        "http://[fd00::1]/x",
        "http://[2002:a00:1::]/x",
    ],
)
def test_no_private_address_is_asked(url: str) -> None:
    assert refused(url) == (422, ONLY_PUBLIC)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("file:///etc/passwd", "only http and https are fetched"),
        ("ftp://public.example/x", "only http and https are fetched"),
        ("gopher://public.example/x", "only http and https are fetched"),
        ("/etc/passwd", "only http and https are fetched"),
        ("", "only http and https are fetched"),
        ("http:///x", "it names no host"),
        ("http://127.1/x", "127.1 is neither a name nor a whole address"),
        ("http://2130706433/x", "2130706433 is neither a name nor a whole address"),
        ("http://0x7f000001/x", "0x7f000001 is neither a name nor a whole address"),
        ("http://0177.0.0.2/x", "0177.0.0.2 is neither a name nor a whole address"),
    ],
)
def test_what_is_no_url_of_a_server_is_refused(url: str, problem: str) -> None:
    assert refused(url) == (422, f"the URL cannot be fetched: bad url: {problem}")


def test_a_name_that_is_not_there_is_told() -> None:
    assert refused("http://nowhere.example/x") == (
        422,
        "the URL cannot be fetched: no such host: Name or service not known",
    )


def test_names_and_redirects_lead_to_no_private_address(names: Names) -> None:
    names["inside.example"] = [["127.0.0.2"], ["127.0.0.2"]]
    with answering(ok(CONTENT), "127.0.0.2") as private:
        inside = f"http://inside.example:{private.port}/x.jpg"
        assert refused(inside) == (422, ONLY_PUBLIC)
        for target in (inside, f"http://127.0.0.2:{private.port}/x.jpg"):
            with answering(moved(target)) as server:
                assert refused(server.url) == (422, ONLY_PUBLIC)
    assert private.asked == []


def test_a_name_that_changes_its_address_after_the_check_gains_nothing(names: Names) -> None:
    names["both.example"] = [["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2", "127.0.0.1"]]
    with answering(ok(b"public")) as server, answering(ok(b"private"), "127.0.0.2", server.port) as private:
        url = f"http://both.example:{server.port}/x.jpg"
        assert fetched(url) == b"public"
        assert refused(url) == (422, ONLY_PUBLIC)
        assert fetched(url) == b"public"
    assert private.asked == []


def test_redirects_lead_nowhere_but_to_http() -> None:
    with answering(moved("file:///etc/passwd")) as server:
        assert refused(server.url) == (
            422,
            "the URL cannot be fetched: bad url: only http and https are fetched",
        )


def test_an_image_may_have_as_many_bytes_as_a_request() -> None:
    small = WebSettings(allow_urls=True, max_upload_mb=0.1)
    with answering(ok(bytes(100_000))) as server:
        assert len(fetched(server.url, small)) == 100_000
    with answering(ok(bytes(100_001))) as server:
        assert refused(server.url, small) == (
            422,
            "the URL cannot be fetched: too many bytes: 100,001 bytes, over the limit of 100,000",
        )
    with answering(repeating(b"HTTP/1.1 200 OK\r\n\r\n", bytes(1000))) as server:
        assert refused(server.url, small) == (
            422,
            "the URL cannot be fetched: too many bytes: over the limit of 100,000",
        )


def test_a_server_that_takes_too_long_is_left() -> None:
    hasty = WebSettings(allow_urls=True, timeout_s=0.3)
    with answering(repeating(b"HTTP/1.1 200 OK\r\n\r\n", b"x", 0.05)) as server:
        assert refused(server.url, hasty) == (422, "the URL cannot be fetched: timeout: not whole after 0.2 s")


def test_a_page_in_place_of_an_image_is_told() -> None:
    page = b"<!DOCTYPE html><html><head><title>x</title></head>" + b" " * 2000
    with answering(ok(page)) as server:
        assert refused(server.url) == (422, "the URL cannot be fetched: a web page: instead of a picture")
    with answering(says(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")) as server:
        assert refused(server.url) == (422, "the URL cannot be fetched: HTTP 404: Not Found")


def test_only_so_many_urls_are_fetched_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = threading.BoundedSemaphore(1)
    monkeypatch.setattr(guards, "_FETCHES", slots)
    with answering(ok(CONTENT)) as server:
        with slots, pytest.raises(ProblemError) as caught:
            fetched(server.url)
        assert (caught.value.status, caught.value.detail, caught.value.headers) == (
            503,
            "8 URLs are being fetched; try again in 1 s",
            {"Retry-After": "1"},
        )
        refused("file:///etc/passwd")
        assert fetched(server.url) == CONTENT


def test_a_query_by_url_is_answered_as_one_by_bytes(client_of: Callable[..., Any], finished_set: Path) -> None:
    image = (finished_set / "images/test-arch-0.jpg").read_bytes()
    client = client_of(allow_urls=True)
    with answering(ok(image)) as server:
        (by_url,) = client.post("/v1/query", json={"images": [{"url": server.url}]}).json()
    (by_bytes,) = client.post("/v1/query", content=image).json()
    assert by_url == {**by_bytes, "image": server.url}
    private = client.post("/v1/query", json={"images": [{"url": "http://127.0.0.2/"}]})
    assert (private.status_code, private.json()["detail"]) == (422, ONLY_PUBLIC)
    off = client_of().post("/v1/query", json={"images": [{"url": server.url}]})
    assert off.status_code == 403
