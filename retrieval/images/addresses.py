"""URLs that may be asked: http and https at public addresses, checked for every address that is connected to."""

import asyncio
import ipaddress
import re
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

PRIVATE = "private address"  # the cause of a refusal
LET_PASS = "--allow-private (allow_private=True) lets it pass"

Lookup = Callable[[str, int, int], Sequence[tuple[Any, ...]]]  # host, port, family to what getaddrinfo returns

_VISIBLE_ASCII = re.compile(r"[!-~]+")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.IGNORECASE)  # as the end of a host: an address, whatever its spelling
_LOOKUPS_AT_ONCE = 32

# The special-purpose registries of IANA, https://www.iana.org/assignments/iana-ipv4-special-registry and
# …/iana-ipv6-special-registry; written out, since those of Python's ipaddress differ from release to release.
_SPECIAL_4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
            *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
            "168.63.129.16/32",  # answers inside each machine of Azure
        ),
    )
)
_GLOBAL_6 = ipaddress.IPv6Network("2000::/3")  # all that has been given out
_SPECIAL_6 = tuple(
    # protocols with Teredo, documentation, 6to4: the last two of these hold IPv4 addresses
    map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "3fff::/20", "2002::/16"))
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


class RefusedUrlError(Exception):
    """A URL that is not asked. cause: short, to be counted."""

    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(detail)
        self.cause = cause


class PrivateAddressError(OSError):
    """A host whose addresses are all private."""


def checked_url(text: str | URL, *, allow_private: bool) -> URL:
    """The URL as it is sent, without user name, password and fragment.

    Raises RefusedUrlError for one that is not http(s) or names a private address.
    """
    try:
        is_quoted = isinstance(text, str) and _VISIBLE_ASCII.fullmatch(text) is not None
        url = text if isinstance(text, URL) else URL(text.strip(), encoded=is_quoted)
        host, _ = url.raw_host, url.port
        if url.scheme in ("http", "https") and host:
            url = url.with_user(None).with_fragment(None)
    except ValueError as error:
        raise RefusedUrlError("bad url", f"not a URL: {error}") from error
    if url.scheme not in ("http", "https"):
        raise RefusedUrlError("bad url", "only http and https are fetched")
    if not host:
        raise RefusedUrlError("bad url", "it names no host")
    if _is_literal(host):
        if not allow_private and not is_public(host):
            raise RefusedUrlError(PRIVATE, f"{host}; {LET_PASS}")
    elif _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):  # 127.1 is 127.0.0.1 for the system's own functions
        raise RefusedUrlError("bad url", f"{host} is neither a name nor a whole address")
    return url


def is_public(address: str) -> bool:
    """True for an IP address of the internet at large, also when it is wrapped in an IPv6 address."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in network for network in _SPECIAL_4)
    if ip.scope_id is not None:
        return False
    if ip.ipv4_mapped is not None:
        return is_public(str(ip.ipv4_mapped))
    if ip in _NAT64:
        return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
    return ip in _GLOBAL_6 and not any(ip in network for network in _SPECIAL_6)


def look_up(host: str, port: int, family: int) -> Sequence[tuple[Any, ...]]:
    """The system's answer for a name."""
    return socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)


class Resolver(AbstractResolver):
    """Resolves names to addresses, public ones only unless `allow_private`.

    The connection is made to what this returns and to nothing else, so a name that changes its address between a
    check and the connection (DNS rebinding) gains nothing. The system's lookup cannot be stopped: each has a thread
    that nobody waits for once the time is over.
    """

    def __init__(self, *, allow_private: bool, lookup: Lookup = look_up) -> None:
        self._allow_private, self._lookup = allow_private, lookup
        self._at_once = asyncio.Semaphore(_LOOKUPS_AT_ONCE)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises PrivateAddressError when there are private addresses only, OSError from the lookup."""
        async with self._at_once:
            found = await self._in_thread(host, port, family)
        results = [_result(host, port, info) for info in found]
        allowed = [result for result in results if self._allow_private or is_public(result["host"])]
        if results and not allowed:
            raise PrivateAddressError(f"{host} is at the private address {results[0]['host']}")
        return allowed

    async def close(self) -> None:
        """Does nothing, as nothing is held open."""

    async def _in_thread(self, host: str, port: int, family: int) -> Sequence[tuple[Any, ...]]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Sequence[tuple[Any, ...]]] = loop.create_future()

        def settle(found: Sequence[tuple[Any, ...]] | Exception) -> None:
            if answer.cancelled():
                return
            if isinstance(found, Exception):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        def ask() -> None:
            found: Sequence[tuple[Any, ...]] | Exception
            try:
                found = self._lookup(host, port, family)
            except Exception as error:  # UnicodeError for a name that cannot be encoded
                found = error
            with suppress(RuntimeError):  # the loop is closed: the time was over
                loop.call_soon_threadsafe(settle, found)

        threading.Thread(target=ask, name=f"look up {host}", daemon=True).start()
        return await answer


def open_public_socket(info: tuple[Any, ...]) -> socket.socket:
    """The socket for a connection. Raises PrivateAddressError when that would not be to a public address.

    The last door: whatever spelling of an address came past the other checks is a plain address here.
    """
    family, kind, protocol, _, address = info
    if not is_public(str(address[0])):
        raise PrivateAddressError(f"{address[0]} is a private address")
    return socket.socket(family=family, type=kind, proto=protocol)


def _result(host: str, port: int, info: tuple[Any, ...]) -> ResolveResult:
    family, _, protocol, _, address = info
    scope = address[3] if family == socket.AF_INET6 and len(address) > 3 else 0
    return {
        "hostname": host,
        "host": f"{address[0]}%{scope}" if scope and "%" not in address[0] else address[0],
        "port": port,
        "family": family,
        "proto": protocol,
        "flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    }


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
