"""Which URLs may be asked."""

import asyncio
import socket

import pytest
from yarl import URL

from retrieval.download.addresses import (
    PrivateAddressError,
    PublicResolver,
    RefusedUrlError,
    checked_url,
    is_public,
)

PRIVATE = [
    *("127.0.0.1", "127.255.0.3", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *("224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.2.7"),
    *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a00:1"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "208.80.154.240", "2620:0:861:ed1a::2:b", "::ffff:8.8.8.8"])
def test_addresses_of_the_internet_are_public(address):
    assert is_public(address)


@pytest.mark.parametrize(
    ("url", "cause", "detail"),
    [
        ("http://127.0.0.1:8000/x", "private address", "127.0.0.1; --allow-private lets it pass"),
        ("http://[::1]/x", "private address", "::1; --allow-private lets it pass"),
        ("http://user:word@10.0.0.1/x", "private address", "10.0.0.1; --allow-private lets it pass"),
        ("http://127.1/x", "bad url", "127.1 is neither a name nor a whole address"),
        ("http://2130706433/x", "bad url", "2130706433 is neither a name nor a whole address"),
        ("http://0177.0.0.1/x", "bad url", "0177.0.0.1 is neither a name nor a whole address"),
        ("http://0/x", "bad url", "0 is neither a name nor a whole address"),
        ("ftp://example.org/x", "bad url", "only http and https are fetched"),
        ("file:///etc/passwd", "bad url", "only http and https are fetched"),
        ("picture.jpg", "bad url", "only http and https are fetched"),
        ("http:///x.jpg", "bad url", "it names no host"),
    ],
)
def test_a_url_that_is_not_asked_says_why(url, cause, detail):
    with pytest.raises(RefusedUrlError) as error:
        checked_url(url, allow_private=False)
    assert (error.value.cause, str(error.value)) == (cause, detail)


@pytest.mark.parametrize(
    "url", ["http://[::1/x", "http://example.org:99999/x", "http://example.org:port/x", "http://["]
)
def test_a_broken_url_is_refused(url):
    with pytest.raises(RefusedUrlError) as error:
        checked_url(url, allow_private=True)
    assert error.value.cause == "bad url"


def test_a_quoted_url_is_sent_as_it_is_and_others_are_quoted():
    sent = "http://example.org/a%2Cb/%C3%A9.jpg?x=%20y"
    assert str(checked_url(sent, allow_private=False)) == sent
    assert str(checked_url("http://example.org/é a.jpg", allow_private=False)) == "http://example.org/%C3%A9%20a.jpg"


def test_a_redirect_target_is_checked_as_well():
    with pytest.raises(RefusedUrlError, match=r"^169\.254\.169\.254; --allow-private lets it pass$"):
        checked_url(URL("http://169.254.169.254/meta"), allow_private=False)


def resolve_with(monkeypatch, *addresses):
    """What the resolver makes of a name at these addresses."""

    async def found(*_):
        rest = {"hostname": "h", "port": 80, "family": socket.AF_INET, "proto": 6, "flags": 0}
        return [{**rest, "host": address} for address in addresses]

    async def ask():
        resolver = PublicResolver()
        monkeypatch.setattr(resolver, "_resolver", type("Fake", (), {"resolve": staticmethod(found)}))
        return [result["host"] for result in await resolver.resolve("some.name", 80)]

    return asyncio.run(ask())


def test_a_name_is_resolved_to_its_public_addresses_only(monkeypatch):
    assert resolve_with(monkeypatch, "192.168.0.1", "8.8.8.8") == ["8.8.8.8"]
    with pytest.raises(PrivateAddressError, match=r"^some\.name is at the private address 127\.0\.0\.1$"):
        resolve_with(monkeypatch, "127.0.0.1")
