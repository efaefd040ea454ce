"""Which URLs may be asked: http and https at public addresses, checked again when a name is resolved."""

import ipaddress
import re
import socket

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

PRIVATE = "private address"  # the cause of a refusal

_VISIBLE_ASCII = re.compile(r"[!-~]+")
_NUMBERS = re.compile(r"[0-9.]+")  # 127.1 and 2130706433 too are 127.0.0.1 for the system's own functions
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


class RefusedUrlError(Exception):
    """A URL that is not asked. cause: short, to be counted."""

    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(detail)
        self.cause = cause


class PrivateAddressError(OSError):
    """A host whose addresses are all private."""


def checked_url(text: str | URL, *, allow_private: bool) -> URL:
    """The URL as it is sent. Raises RefusedUrlError for one that is not http(s) or names a private address."""
    try:
        is_quoted = isinstance(text, str) and _VISIBLE_ASCII.fullmatch(text) is not None
        url = text if isinstance(text, URL) else URL(text.strip(), encoded=is_quoted)
        host, _ = url.host, url.port
    except ValueError as error:
        raise RefusedUrlError("bad url", f"not a URL: {error}") from error
    if url.scheme not in ("http", "https"):
        raise RefusedUrlError("bad url", "only http and https are fetched")
    if not host:
        raise RefusedUrlError("bad url", "it names no host")
    is_literal = _is_literal(host)
    if not is_literal and _NUMBERS.fullmatch(host):
        raise RefusedUrlError("bad url", f"{host} is neither a name nor a whole address")
    if not allow_private and is_literal and not is_public(host):
        raise RefusedUrlError(PRIVATE, f"{host}; --allow-private lets it pass")
    return url


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet at large, also when it is wrapped in an IPv6 address."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        wrapped = ip.ipv4_mapped or ip.sixtofour or (ip.teredo or (None, None))[1]
        if wrapped is None and ip in _NAT64:
            wrapped = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if wrapped is not None:
            return is_public(str(wrapped))
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


class PublicResolver(AbstractResolver):
    """Resolves names to their public addresses only.

    The connection is made to what this returns and to nothing else, so a name that changes its address between a
    check and the connection (DNS rebinding) gains nothing.
    """

    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises PrivateAddressError when there are private addresses only."""
        found = await self._resolver.resolve(host, port, family)
        public = [result for result in found if is_public(result["host"])]
        if not public:
            raise PrivateAddressError(f"{host} is at the private address {found[0]['host']}")
        return public

    async def close(self) -> None:
        """Nothing is held open."""
        await self._resolver.close()


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
