"""Which URLs may be asked."""

import asyncio
import re
import socket

import pytest
from yarl import URL

from retrieval.images.addresses import (
    LET_PASS,
    PrivateAddressError,
    RefusedUrlError,
    Resolver,
    checked_url,
    is_public,
    open_public_socket,
)

PRIVATE = [
    *("127.0.0.1", "127.255.0.3", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *("224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.2.7"),
    *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a00:1"),
    *("100.127.255.255", "172.31.255.255", "192.0.0.192", "192.88.99.1", "198.18.0.1", "198.19.255.255"),
    *("198.51.100.9", "203.0.113.9", "239.255.255.255", "168.63.129.16", "100.100.100.200"),
    *("::127.0.0.1", "::8.8.8.8", "::ffff:0:127.0.0.1", "fec0::1", "fd00:ec2::254", "fd20:ce::254", "100::1"),
    *("2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:20::1", "2002:808:808::", "3fff::1", "5f00::1", "64:ff9b:1::1"),
    *("4000::1", "2606:4700::1111%eth0"),
]


PRIVATE_CAUSE = "private address"


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("8.8.8.8", "208.80.154.240", "2620:0:861:ed1a::2:b", "::ffff:8.8.8.8", "64:ff9b::808:808"),
        *(
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "223.255.255.255",
        ),
    ],
)
def test_addresses_of_the_internet_are_public(address):
    assert is_public(address)


@pytest.mark.parametrize(
    ("url", "cause", "detail"),
    [
        ("http://127.0.0.1:8000/x", PRIVATE_CAUSE, f"127.0.0.1; {LET_PASS}"),
        ("http://[::1]/x", PRIVATE_CAUSE, f"::1; {LET_PASS}"),
        ("http://user:word@10.0.0.1/x", PRIVATE_CAUSE, f"10.0.0.1; {LET_PASS}"),
        ("http://127.1/x", "bad url", "127.1 is neither a name nor a whole address"),
        ("http://2130706433/x", "bad url", "2130706433 is neither a name nor a whole address"),
        ("http://0177.0.0.1/x", "bad url", "0177.0.0.1 is neither a name nor a whole address"),
        ("http://0/x", "bad url", "0 is neither a name nor a whole address"),
        ("http://0x7f000001/x", "bad url", "0x7f000001 is neither a name nor a whole address"),
        ("http://0x7f.0.0.1/x", "bad url", "0x7f.0.0.1 is neither a name nor a whole address"),
        ("http://127.0.0.0x1/x", "bad url", "127.0.0.0x1 is neither a name nor a whole address"),
        ("http://127.0.0.1./x", "bad url", "127.0.0.1. is neither a name nor a whole address"),
        ("http://127.000.000.001/x", "bad url", "127.000.000.001 is neither a name nor a whole address"),
        ("http://%31%32%37.0.0.1/x", "bad url", "%31%32%37.0.0.1 is neither a name nor a whole address"),
        ("http://１２７。０。０。１/x", PRIVATE_CAUSE, f"127.0.0.1; {LET_PASS}"),
        ("http://①②⑦.⓪.⓪.①/x", PRIVATE_CAUSE, f"127.0.0.1; {LET_PASS}"),
        ("http://[::127.0.0.1]/x", PRIVATE_CAUSE, f"::127.0.0.1; {LET_PASS}"),
        ("http://[::ffff:7f00:1]/x", PRIVATE_CAUSE, f"::ffff:7f00:1; {LET_PASS}"),
        ("http://[fe80::1%25eth0]/x", PRIVATE_CAUSE, f"fe80::1%25eth0; {LET_PASS}"),
        ("http://8.8.8.8:80@127.0.0.1/x", PRIVATE_CAUSE, f"127.0.0.1; {LET_PASS}"),
        ("http://a@b@127.0.0.1/x", PRIVATE_CAUSE, f"127.0.0.1; {LET_PASS}"),
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
    "url",
    [
        "http://[::1/x",
        "http://example.org:99999/x",
        "http://example.org:port/x",
        "http://[",
        "http://example.org\\@127.0.0.1/",
        "http://127.0.0.1\\.example.org/",
        "http:127.0.0.1",
        "//127.0.0.1/",
    ],
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
    with pytest.raises(RefusedUrlError, match=rf"^169\.254\.169\.254; {re.escape(LET_PASS)}$"):
        checked_url(URL("http://169.254.169.254/meta"), allow_private=False)


def test_a_user_and_a_password_are_not_sent():
    assert (
        str(checked_url("http://me:secret@example.org/a%2Cb#part", allow_private=False)) == "http://example.org/a%2Cb"
    )


def found_at(*addresses):
    """What the system says of a name at these addresses."""
    kinds = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses]
    return [(kind, socket.SOCK_STREAM, 6, "", (address, 80)) for kind, address in zip(kinds, addresses, strict=True)]


def resolve(lookup, *, allow_private=False):
    async def ask():
        resolver = Resolver(allow_private=allow_private, lookup=lookup)
        return [result["host"] for result in await resolver.resolve("some.name", 80)]

    return asyncio.run(ask())


def test_a_name_is_resolved_to_its_public_addresses_only():
    assert resolve(lambda *_: found_at("192.168.0.1", "8.8.8.8", "::1", "2606:4700::1111")) == [
        "8.8.8.8",
        "2606:4700::1111",
    ]
    with pytest.raises(PrivateAddressError, match=r"^some\.name is at the private address 127\.0\.0\.1$"):
        resolve(lambda *_: found_at("127.0.0.1", "fe80::1"))
    assert resolve(lambda *_: found_at("127.0.0.1", "::1"), allow_private=True) == ["127.0.0.1", "::1"]


def test_a_link_local_address_keeps_its_zone():
    found = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", 80, 0, 2))]
    assert resolve(lambda *_: found, allow_private=True) == ["fe80::1%2"]
    with pytest.raises(PrivateAddressError, match=r"^some\.name is at the private address fe80::1%2$"):
        resolve(lambda *_: found)


def test_what_the_lookup_raises_is_raised():
    def fail(*_):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(socket.gaierror, match="Name or service not known"):
        resolve(fail)


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::ffff:10.0.0.1", "fe80::1"])
def test_no_socket_is_opened_for_a_private_address(address):
    with pytest.raises(PrivateAddressError, match=f"^{address} is a private address$"):
        open_public_socket(found_at(address)[0])


def test_a_socket_is_opened_for_a_public_address():
    with open_public_socket(found_at("8.8.8.8")[0]) as opened:
        assert opened.family == socket.AF_INET
