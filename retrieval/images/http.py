"""One URL, one try: the body within all limits, or the cause why there is none.

The proxies and the passwords (.netrc) of the environment are not used: a proxy looks names up itself, and what it
connects to cannot be checked.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDictProxy
from yarl import URL

from retrieval.errors import UnreadableError
from retrieval.images.addresses import (
    LET_PASS,
    PRIVATE,
    Lookup,
    PrivateAddressError,
    RefusedUrlError,
    Resolver,
    checked_url,
    look_up,
    open_public_socket,
)
from retrieval.images.fetch_rules import FetchRules
from retrieval.images.http_body import Body, FetchError, Sink, Unpacking, too_long

MAX_REDIRECTS = 5

_CHUNK_BYTES = 1 << 16
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_TRANSIENT = frozenset((408, 425, 429))  # and 5xx
_DNS_CACHE_S = 300

Headers = CIMultiDictProxy[str]
T = TypeVar("T")


def fetch_image(url: str, rules: FetchRules) -> bytes:
    """Body that a server sends for one URL. Raises UnreadableError with the reason."""

    async def get() -> bytes:
        async with open_session(rules) as session:
            body = await fetch(session, url, rules, None)
        assert isinstance(body.content, bytes)
        return body.content

    try:
        return run_here(get)
    except FetchError as error:
        raise UnreadableError(str(error)) from error


def run_here(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Does asynchronous work, also for a caller that runs in a loop of its own, such as a notebook."""
    if not _is_in_loop():
        return asyncio.run(work())
    with ThreadPoolExecutor(1) as beside:  # a loop cannot be entered again
        return beside.submit(lambda: asyncio.run(work())).result()


def open_session(rules: FetchRules, lookup: Lookup = look_up) -> aiohttp.ClientSession:
    """Connections within the rules; needs a running loop."""
    connector = aiohttp.TCPConnector(
        limit=rules.connections,
        limit_per_host=rules.per_host,
        resolver=Resolver(allow_private=rules.allow_private, lookup=lookup),
        ttl_dns_cache=_DNS_CACHE_S,
        socket_factory=None if rules.allow_private else open_public_socket,
    )
    return aiohttp.ClientSession(
        connector=connector,
        headers={"User-Agent": rules.user_agent, "Accept-Encoding": "identity"},
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=rules.idle_s, sock_read=rules.idle_s),
        auto_decompress=False,
        trust_env=False,
    )


async def fetch(
    session: aiohttp.ClientSession,
    url: str | URL,
    rules: FetchRules,
    spill: Path | None,
    *,
    on_headers: Callable[[Headers], None] = lambda _: None,
) -> Body:
    """The body at a URL, all within the time: names, connections, redirects, headers and the body.

    spill: file for a long one; None = it is kept in memory. on_headers: of the answer, before its body is read; may
    raise FetchError. Raises FetchError.
    """
    sink = Sink(spill, rules.limits.max_bytes)
    body = None
    try:
        async with asyncio.timeout(rules.timeout_s), answered(session, url, rules) as response:
            if response.status != 200:
                raise _bad_status(response)
            on_headers(response.headers)
            await _read(response, sink)
            body = Body(sink.content(), response.status)
        return body
    except TimeoutError as error:
        raise _timed_out(rules) from error
    finally:
        if body is None:
            sink.discard()


@asynccontextmanager
async def answered(
    session: aiohttp.ClientSession, text: str | URL, rules: FetchRules, headers: Mapping[str, str] | None = None
) -> AsyncIterator[aiohttp.ClientResponse]:
    """An answer 200 or 206, whose headers came in time; the time for the body is the caller's.

    Redirects are followed by hand, so that each address on the way is checked. Raises FetchError, also for what goes
    wrong on the network while the caller reads the body.
    """
    try:
        url = checked_url(text, allow_private=rules.allow_private)
        async with asyncio.timeout(rules.timeout_s) as clock:
            for _ in range(MAX_REDIRECTS + 1):
                async with session.get(url, allow_redirects=False, headers=headers) as response:
                    if response.status in _REDIRECTS and "Location" in response.headers:
                        url = checked_url(_target(url, response.headers["Location"]), allow_private=rules.allow_private)
                        continue
                    if response.status not in (200, 206):
                        raise _bad_status(response)
                    clock.reschedule(None)
                    yield response
                    return
        raise FetchError("too many redirects", f"more than {MAX_REDIRECTS}")
    except aiohttp.ClientError as error:
        raise as_fetch_error(error) from error
    except RefusedUrlError as error:
        raise FetchError(error.cause, error) from error
    except ConnectionError as error:
        raise FetchError("connection reset", error, is_transient=True) from error
    except TimeoutError as error:
        raise _timed_out(rules) from error
    except HttpProcessingError as error:
        raise FetchError("not http", error.message) from error
    except ValueError as error:  # a name that cannot be encoded
        raise FetchError("bad url", error) from error


def as_fetch_error(error: aiohttp.ClientError) -> FetchError:
    """Cause of an error of the network."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return FetchError("no answer", "no connection in time", is_transient=True, is_silent=True)
    if isinstance(error, aiohttp.SocketTimeoutError):
        return FetchError("stalled", "no byte for too long", is_transient=True)
    if isinstance(error, aiohttp.ClientSSLError):
        return FetchError("tls", getattr(error, "certificate_error", error))
    if isinstance(error, aiohttp.ClientConnectorError):
        return _unconnected(error.os_error)
    if isinstance(error, aiohttp.ClientPayloadError):
        return FetchError("cut short", "the connection ended before the picture did", is_transient=True)
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
        if isinstance(error.__cause__, ssl.SSLError):
            return FetchError("tls", error)
        return FetchError("connection reset", error, is_transient=True)
    if isinstance(error, aiohttp.InvalidURL):
        return FetchError("bad url", error)
    return FetchError("not http", getattr(error, "message", None) or error)


def _target(url: URL, location: str) -> URL:
    try:
        return url.join(URL(location, encoded=location.isascii() and " " not in location))
    except ValueError as error:
        raise RefusedUrlError("bad url", f"redirect to {location[:80]!r}: {error}") from error


def _timed_out(rules: FetchRules) -> FetchError:
    return FetchError("timeout", f"not whole after {rules.timeout_s:g} s", is_transient=True)


def _is_in_loop() -> bool:
    """True where this thread runs an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _read(response: aiohttp.ClientResponse, sink: Sink) -> None:
    if response.content_length is not None and response.content_length > sink.max_bytes:
        raise too_long(sink.max_bytes, response.content_length)
    unpack = Unpacking(response.headers.get("Content-Encoding", ""))
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        for part in unpack.add(chunk):
            sink.write(part)
    unpack.end()


def _bad_status(response: aiohttp.ClientResponse) -> FetchError:
    code = response.status
    return FetchError(
        f"HTTP {code}",
        response.reason or "",
        http_code=code,
        is_transient=code in _TRANSIENT or code >= 500,
        wait_s=retry_after_s(response.headers.get("Retry-After", "")) if code in (429, 503) else None,
    )


def retry_after_s(value: str) -> float | None:
    """Seconds from a Retry-After header, a number or a date (RFC 9110, 10.2.3); None when it says nothing."""
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        moment = parsedate_to_datetime(text)
        return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):  # the last two: a zone or a year that no date can have
        return None


def _unconnected(reason: OSError) -> FetchError:
    if isinstance(reason, PrivateAddressError):
        return FetchError(PRIVATE, f"{reason}; {LET_PASS}")
    if isinstance(reason, socket.gaierror):
        again = reason.errno == socket.EAI_AGAIN
        return FetchError("no such host", reason.strerror, is_transient=again, is_silent=True)
    if reason.errno == errno.ECONNRESET:
        return FetchError("connection reset", reason.strerror, is_transient=True)
    return FetchError("no answer", reason.strerror or reason, is_transient=True, is_silent=True)
