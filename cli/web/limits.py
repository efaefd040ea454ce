"""Limits of requests: how large, how slow and how many of one client; connections that keep to them."""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import h11
from starlette.requests import HTTPConnection
from starlette.types import Message, Receive
from uvicorn.protocols.http.h11_impl import H11Protocol

from cli.web.problems import ProblemError
from cli.web.settings import WebSettings
from retrieval.images.limits import Limits

GRACE_S = 10.0  # until a body must come at MIN_RATE; also the longest time without a byte of it
MIN_RATE = 16_000  # bytes a second of a body, on average, and of an answer that is read
HEADERS_S = 10.0  # for the headers of a request, the rest of a body that was refused, a part of an answer
KEEP_ALIVE_S = 5  # between the requests of a connection
N_CONNECTIONS = 512  # at once; further ones are told to come again
MAX_HEADER_BYTES = 16_384  # of a request

_N_CLIENTS = 10_000  # whose requests are counted; those that asked longest ago are forgotten
_HELD_BYTES = 256_000_000  # of bodies at once, or four of the largest


def server_words() -> dict[str, Any]:
    """What uvicorn is configured with, so that connections keep to limits and nothing is told of the server."""
    return {
        "http": Connection,
        "ws": "none",
        "server_header": False,
        "proxy_headers": False,
        "access_log": False,
        "log_level": "error",
        "h11_max_incomplete_event_size": MAX_HEADER_BYTES,
        "timeout_keep_alive": KEEP_ALIVE_S,
        "limit_concurrency": N_CONNECTIONS,
    }


def image_limits(settings: WebSettings) -> Limits:
    """Limits of what is decoded for a request: an image may take a third of its time."""
    return Limits(
        max_bytes=round(settings.max_upload_mb * 1e6),
        max_pixels=settings.max_pixels,
        max_seconds=max(1, round(settings.timeout_s / 3)),
    )


class Connection(H11Protocol):
    """A connection that is closed where headers, the rest of a refused body, or reading the answer take too long."""

    _clock: asyncio.TimerHandle | None = None  # for what the client sends
    _reading: asyncio.TimerHandle | None = None  # for what it is sent
    _n_unread = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the time for the first request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Ends that time where the request's headers are whole."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Starts the time for the next request."""
        super().on_response_complete()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Refuses what is no HTTP; an answer that was on its way is given up."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends all of it."""
        super().connection_lost(exc)
        self._stop()
        self._stop_reading()

    def pause_writing(self) -> None:
        """Starts to look whether the client reads, as much waits to be read."""
        super().pause_writing()
        self._n_unread = self.transport.get_write_buffer_size()
        self._reading = self.loop.call_later(HEADERS_S, self._require_reading)

    def resume_writing(self) -> None:
        """Ends that, as most is read."""
        super().resume_writing()
        self._stop_reading()

    def _require_reading(self) -> None:
        n_unread = self.transport.get_write_buffer_size()
        if self._n_unread - n_unread < MIN_RATE * HEADERS_S:
            self.transport.abort()
        else:
            self._n_unread = n_unread
            self._reading = self.loop.call_later(HEADERS_S, self._require_reading)

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _watch(self) -> None:
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if is_answering or self.transport.is_closing():
            self._stop()
        elif self._clock is None:
            self._clock = self.loop.call_later(HEADERS_S, self.transport.close)

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None


class Rate:
    """Requests that each client may make in a minute (a token bucket), 0 = any number."""

    def __init__(self, per_minute: int, *, n_clients: int = _N_CLIENTS, now: Callable[[], float] = time.monotonic):
        self._per_minute, self._n_clients, self._now = per_minute, n_clients, now
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # requests, at which time

    def take(self, client: str, cost: float = 1.0) -> None:
        """Counts a request. Raises ProblemError where the client has none left."""
        if not self._per_minute:
            return
        now, a_second, cost = self._now(), self._per_minute / 60, min(cost, self._per_minute)
        left, last = self._left.pop(client, (self._per_minute, now))
        left = min(self._per_minute, left + (now - last) * a_second)
        is_over = left < cost
        self._left[client] = left if is_over else left - cost, now
        if len(self._left) > self._n_clients:
            self._left.popitem(last=False)
        if is_over:
            wait_s = math.ceil((cost - left) / a_second)
            limit = f"more than {self._per_minute:,} requests a minute of one client"
            raise ProblemError(429, f"{limit}; try again in {wait_s} s", {"Retry-After": str(wait_s)})


def require_headers(request: HTTPConnection) -> None:
    """Refuses headers that are too long. Raises ProblemError."""
    if sum(len(name) + len(value) for name, value in request.scope["headers"]) > MAX_HEADER_BYTES:
        raise ProblemError(431, f"the headers have more than the {MAX_HEADER_BYTES:,} bytes that they may have")


class GoneError(Exception):
    """Raised where a client has gone before it was answered."""


class Bodies:
    """The bodies of requests, which are read whole before anything is done with them."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._n_free = max(_HELD_BYTES, 4 * max_bytes)

    async def read(self, request: HTTPConnection, receive: Receive) -> "Body":
        """The body of a request. Raises ProblemError where it is too long or too slow, GoneError."""
        declared, is_chunked = request.headers.get("content-length"), "transfer-encoding" in request.headers
        if declared is not None and is_chunked:
            raise ProblemError(400, "a request has a Content-Length or a Transfer-Encoding, this one both")
        if declared is not None and int(declared) > self.max_bytes:
            raise self._too_long(f"{int(declared):,} bytes")
        body = Body(receive)
        if declared is not None or is_chunked:
            try:
                await self._fill(body)
            except BaseException:
                self.release(body)
                raise
        return body

    def release(self, body: "Body") -> None:
        """Gives back the room that a body took."""
        self._n_free += body.n_bytes
        body.n_bytes = 0

    async def _fill(self, body: "Body") -> None:
        begun = time.monotonic()
        while True:
            left_s = GRACE_S + body.n_bytes / MIN_RATE - (time.monotonic() - begun)
            try:
                async with asyncio.timeout(max(0, min(left_s, GRACE_S))):
                    message = await body.receive()
            except TimeoutError as error:
                detail = f"the request came too slowly: {body.n_bytes:,} bytes in {time.monotonic() - begun:.0f} s"
                raise ProblemError(408, detail, {"Connection": "close"}) from error
            if message["type"] == "http.disconnect":
                raise GoneError
            self._add(body, message.get("body", b""))
            if not message.get("more_body", False):
                return

    def _add(self, body: "Body", chunk: bytes) -> None:
        if len(chunk) > self._n_free:
            raise ProblemError(503, "too many requests at once; try again in 1 s", {"Retry-After": "1"})
        self._n_free -= len(chunk)
        body.add(chunk)
        if body.n_bytes > self.max_bytes:
            raise self._too_long("the request")

    def _too_long(self, what: str) -> ProblemError:
        return ProblemError(413, f"{what}: more than the {self.max_bytes:,} bytes that a request may have")


class Body:
    """The body of a request, given to the app as if it came then."""

    def __init__(self, receive: Receive) -> None:
        self.receive, self.n_bytes = receive, 0
        self._chunks: list[bytes] | None = None

    def add(self, chunk: bytes) -> None:
        """Takes a piece."""
        if self._chunks is None:
            self._chunks = []
        self._chunks.append(chunk)
        self.n_bytes += len(chunk)

    async def again(self) -> Message:
        """The whole body, once; then what comes after it."""
        if self._chunks is None:
            return await self.receive()
        whole, self._chunks = b"".join(self._chunks), None
        return {"type": "http.request", "body": whole, "more_body": False}

    async def gone(self) -> None:
        """Waits until the client of a whole body has gone, or is answered."""
        while (await self.receive())["type"] != "http.disconnect":
            pass
