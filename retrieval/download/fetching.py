"""One URL, one try: the body within all limits, or the cause why there is none."""

import asyncio
import errno
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from retrieval.download.addresses import PRIVATE, PrivateAddressError, PublicResolver, RefusedUrlError, checked_url
from retrieval.download.rules import FetchRules
from retrieval.images.signatures import HEAD_BYTES, is_web_page

MAX_REDIRECTS = 5
SPILL_BYTES = 4 << 20  # of a body that are held in memory; a longer one goes to a file

_CHUNK_BYTES = 1 << 16
_UNPACKED_BYTES = 1 << 20  # that a chunk may become at a time
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_TRANSIENT = frozenset((408, 425, 429))  # and 5xx
_DETAIL_CHARACTERS = 200
_DNS_CACHE_S = 300


@dataclass(frozen=True, slots=True)
class Body:
    """What a server sent. content: the bytes, or the file that holds them."""

    content: bytes | Path
    http_code: int

    def discard(self) -> None:
        """Removes the file, if there is one still."""
        if isinstance(self.content, Path):
            self.content.unlink(missing_ok=True)


class FetchError(Exception):
    """A try that gave no picture.

    cause: short, to be counted. is_transient: another try may help. is_silent: the host did not answer at all.
    wait_s: what the server asked for.
    """

    def __init__(
        self,
        cause: str,
        detail: object = "",
        *,
        http_code: int | None = None,
        is_transient: bool = False,
        is_silent: bool = False,
        wait_s: float | None = None,
    ) -> None:
        said = " ".join(str(detail).split())[:_DETAIL_CHARACTERS]
        text = said.encode(errors="replace").decode()  # servers also say what is no UTF-8, which no ledger takes
        super().__init__(f"{cause}: {text}" if text else cause)
        self.cause, self.detail, self.http_code = cause, text, http_code
        self.is_transient, self.is_silent, self.wait_s = is_transient, is_silent, wait_s


def open_session(rules: FetchRules) -> aiohttp.ClientSession:
    """Connections within the rules; needs a running loop."""
    connector = aiohttp.TCPConnector(
        limit=rules.connections,
        limit_per_host=rules.per_host,
        resolver=None if rules.allow_private else PublicResolver(),
        ttl_dns_cache=_DNS_CACHE_S,
    )
    return aiohttp.ClientSession(
        connector=connector,
        headers={"User-Agent": rules.user_agent, "Accept-Encoding": "identity"},
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=rules.idle_s, sock_read=rules.idle_s),
        auto_decompress=False,
    )


async def fetch(session: aiohttp.ClientSession, url: str, rules: FetchRules, spill: Path) -> Body:
    """The body at a URL. spill: file for a long one. Raises FetchError."""
    sink = _Sink(spill, rules.limits.max_bytes)
    body = None
    try:
        async with asyncio.timeout(rules.timeout_s), answered(session, url, rules) as response:
            if response.status != 200:
                raise _bad_status(response)
            await _read(response, sink)
            body = Body(sink.content(), response.status)
        return body
    except TimeoutError as error:
        raise FetchError("timeout", f"not whole after {rules.timeout_s:g} s", is_transient=True) from error
    finally:
        if body is None:
            sink.discard()


@asynccontextmanager
async def answered(
    session: aiohttp.ClientSession, text: str, rules: FetchRules, headers: Mapping[str, str] | None = None
) -> AsyncIterator[aiohttp.ClientResponse]:
    """An answer 200 or 206. Redirects are followed by hand, so that each address on the way is checked.

    Raises FetchError, also for what goes wrong on the network while the caller reads the body.
    """
    try:
        url = checked_url(text, allow_private=rules.allow_private)
        for _ in range(MAX_REDIRECTS + 1):
            async with session.get(url, allow_redirects=False, headers=headers) as response:
                if response.status in _REDIRECTS and "Location" in response.headers:
                    url = checked_url(_target(url, response.headers["Location"]), allow_private=rules.allow_private)
                    continue
                if response.status not in (200, 206):
                    raise _bad_status(response)
                yield response
                return
        raise FetchError("too many redirects", f"more than {MAX_REDIRECTS}")
    except aiohttp.ClientError as error:
        raise as_fetch_error(error) from error
    except RefusedUrlError as error:
        raise FetchError(error.cause, error) from error
    except ConnectionError as error:
        raise FetchError("connection reset", error, is_transient=True) from error
    except HttpProcessingError as error:
        raise FetchError("not http", error.message) from error
    except ValueError as error:  # a name that cannot be encoded
        raise FetchError("bad url", error) from error


def as_fetch_error(error: aiohttp.ClientError) -> FetchError:
    """Which cause an error of the network is."""
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


async def _read(response: aiohttp.ClientResponse, sink: "_Sink") -> None:
    if response.content_length is not None and response.content_length > sink.max_bytes:
        raise _too_long(sink.max_bytes, response.content_length)
    unpack = _Unpacking(response.headers.get("Content-Encoding", ""))
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        for part in unpack.add(chunk):
            sink.write(part)
    unpack.end()


class _Unpacking:
    """Undoes a Content-Encoding that was not asked for, a bounded piece at a time."""

    def __init__(self, encoding: str) -> None:
        encoding = encoding.strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise FetchError("content encoding", f"{encoding} was not asked for")
        self._inflater = None if encoding in ("", "identity") else zlib.decompressobj(32 + zlib.MAX_WBITS)

    def add(self, chunk: bytes) -> Iterator[bytes]:
        """What a part of the body unpacks to, in pieces of bounded size."""
        if self._inflater is None:
            yield chunk
            return
        try:
            while chunk:
                yield self._inflater.decompress(chunk, _UNPACKED_BYTES)
                chunk = self._inflater.unconsumed_tail
        except zlib.error as error:
            raise FetchError("content encoding", error) from error
        if self._inflater.unused_data:  # zlib would keep all of it
            raise FetchError("content encoding", "more bytes after the end of the packed body")

    def end(self) -> None:
        if self._inflater is not None and not self._inflater.eof:
            raise FetchError("cut short", "the packed body ended too early", is_transient=True)


class _Sink:
    """Takes the body up to a number of bytes: first in memory, then in a file."""

    def __init__(self, spill: Path, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._spill, self._n_bytes = spill, 0
        self._head, self._parts = b"", list[bytes]()
        self._file: IO[bytes] | None = None

    def write(self, part: bytes) -> None:
        """Takes a piece. Raises FetchError when it is a web page or the whole is too long."""
        if len(self._head) < HEAD_BYTES:
            self._head += part[:HEAD_BYTES]
            if len(self._head) >= HEAD_BYTES and is_web_page(self._head):
                raise FetchError("a web page", "instead of a picture", http_code=200)
        self._n_bytes += len(part)
        if self._n_bytes > self.max_bytes:
            raise _too_long(self.max_bytes)
        if self._file is None and self._n_bytes > SPILL_BYTES:
            self._file = self._spill.open("wb")
            self._file.writelines(self._parts)
            self._parts.clear()
        if self._file is None:
            self._parts.append(part)
        else:
            self._file.write(part)

    def content(self) -> bytes | Path:
        if self._file is None:
            return b"".join(self._parts)
        self._file.close()
        return self._spill

    def discard(self) -> None:
        if self._file is not None:
            self._file.close()
            self._spill.unlink(missing_ok=True)


def _too_long(max_bytes: int, n_bytes: int | None = None) -> FetchError:
    said = "" if n_bytes is None else f"{n_bytes:,} bytes, "
    return FetchError("too many bytes", f"{said}over the limit of {max_bytes:,}", http_code=200)


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
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _unconnected(reason: OSError) -> FetchError:
    if isinstance(reason, PrivateAddressError):
        return FetchError(PRIVATE, f"{reason}; --allow-private lets it pass")
    if isinstance(reason, socket.gaierror):
        again = reason.errno == socket.EAI_AGAIN
        return FetchError("no such host", reason.strerror, is_transient=again, is_silent=True)
    if reason.errno == errno.ECONNRESET:
        return FetchError("connection reset", reason.strerror, is_transient=True)
    return FetchError("no answer", reason.strerror or reason, is_transient=True, is_silent=True)
