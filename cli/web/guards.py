"""Guards of the app: each request is checked before the app sees it, each response carries what browsers heed."""

import asyncio
import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from ipaddress import IPv6Address, IPv6Network, ip_address
from threading import BoundedSemaphore
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from cli.terminal import shown, warn
from cli.web.access import COOKIE, SESSION_S, Access, is_local, open_token
from cli.web.limits import Bodies, Body, GoneError, Rate, image_limits, require_headers
from cli.web.problems import ProblemError, problem, refusal
from cli.web.settings import WebSettings
from cli.web.views import views

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with none at all, a form that is sent by plain HTTP says no Origin
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=(), payment=(), usb=()",
    "Cache-Control": "no-store",
}  # of each response that does not say otherwise itself

PER_MINUTE = 600  # requests of one client
READING_COST = 0.1  # of a request that computes nothing: a page asks for many images
GUESS_COST = 20.0  # of a request with a wrong token

_N_FETCHES = 8  # of URLs at once
_FETCHES = BoundedSemaphore(_N_FETCHES)
_FETCH_S = 20.0  # for one URL, or two thirds of the time for a request


def add_guards(app: FastAPI, settings: WebSettings) -> None:
    """Has an app answer what is allowed, within limits. Raises LmrError for the token."""
    access, rate = Access(settings, open_token(settings)), Rate(_per_minute(settings))
    app.add_middleware(Guard, settings=settings, access=access, rate=rate)
    if settings.trusted_proxy:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.trusted_proxy))
    if access.has_token:
        app.include_router(_login_routes(access, rate))


class Guard:
    """ASGI middleware: requests are checked and their bodies read before the app sees them."""

    def __init__(self, app: ASGIApp, settings: WebSettings, access: Access, rate: Rate) -> None:
        self._app, self._settings, self._access, self._rate = app, settings, access, rate
        self._bodies = Bodies(round(settings.max_upload_mb * 1e6))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request; kinds of connection other than HTTP are not taken."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        if scope["type"] != "http":
            return
        request, told = HTTPConnection(scope), _Told(send, self._settings.timeout_s)
        try:
            await self._answer(request, receive, told)
        except ProblemError as error:
            await _refusal(request, error)(scope, receive, told)
        except GoneError:
            pass
        except Exception:
            if told.status is None:
                await problem(500, "the server failed; its log says why")(scope, receive, told)
            raise
        finally:
            if self._settings.access_log:
                warn(told.line(scope))

    async def _answer(self, request: HTTPConnection, receive: Receive, told: "_Told") -> None:
        scope, client = request.scope, _client_of(request.scope)
        require_headers(request)
        self._access.require_host(request)
        self._rate.take(client, READING_COST if scope["method"] in ("GET", "HEAD") else 1)
        self._access.require_origin(request)
        try:
            self._access.require_token(request)
        except ProblemError:
            if "authorization" in request.headers:
                self._rate.take(client, GUESS_COST)
            raise
        body = await self._bodies.read(request, receive)
        told.n_received = body.n_bytes
        try:
            await told.within(_while_asked(self._app(scope, body.again, told), body, told))
        finally:
            self._bodies.release(body)


class _Told:
    """What was sent of a response. status: None = nothing yet. is_whole: all of it."""

    def __init__(self, send: Send, timeout_s: float) -> None:
        self._send, self._timeout_s = send, timeout_s
        self._begun = time.monotonic()
        self._clock: asyncio.Timeout | None = None
        self.status: int | None = None
        self.is_whole = False
        self.n_received = self.n_sent = 0

    async def __call__(self, message: Message) -> None:
        """Sends a part, with the headers of all responses; each part has its own time."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        else:
            self.is_whole = not message.get("more_body", False)
        self.n_sent += len(message.get("body", b""))
        await self._send(message)
        if self._clock is not None and not self._clock.expired():
            self._clock.reschedule(asyncio.get_running_loop().time() + self._timeout_s)

    async def within(self, work: Awaitable[None]) -> None:
        """Waits for work within the time. Raises ProblemError where that is over before the response has begun."""
        clock = self._clock = asyncio.timeout(self._timeout_s)
        try:
            async with clock:
                await work
        except TimeoutError as error:
            if not clock.expired():
                raise
            if self.status is None:
                detail = f"no answer within {self._timeout_s:g} s; try again later"
                raise ProblemError(503, detail, {"Retry-After": "5"}) from error
        finally:
            self._clock = None  # what is sent of an error has no time of its own

    def line(self, scope: Scope) -> str:
        """The line of a request in the log: no query, no content."""
        now, took_ms = datetime.now(UTC).isoformat(timespec="milliseconds"), 1000 * (time.monotonic() - self._begun)
        client = scope["client"][0] if scope.get("client") else "-"
        path = shown(scope.get("raw_path", b"").decode("ascii", "replace"))
        status = "gone" if self.status is None else self.status
        counts = f"{self.n_received} bytes in, {self.n_sent} out, {took_ms:.0f} ms"
        return f"{now} {shown(client)} {shown(scope['method'])} {path} {status} {counts}"


async def _while_asked(work: Awaitable[None], body: Body, told: _Told) -> None:
    """Waits for work, which is given up where the client goes that had sent a body for it. Raises GoneError then."""
    if not body.n_bytes:
        await work
        return
    both = answering, leaving = asyncio.ensure_future(work), asyncio.ensure_future(body.gone())
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not (answering.done() or told.is_whole):
            raise GoneError
        await answering
    finally:
        answering.cancel()
        leaving.cancel()
        await asyncio.gather(*both, return_exceptions=True)


def _refusal(request: HTTPConnection, error: ProblemError) -> Response:
    if error.status == 401 and "text/html" in request.headers.get("accept", ""):
        return RedirectResponse("/login", 303)
    return refusal(request, error.status, error.detail, error.headers)


def _per_minute(settings: WebSettings) -> int:
    if settings.per_minute is not None:
        return settings.per_minute
    return 0 if is_local(settings.host) and not settings.trusted_proxy else PER_MINUTE


def _client_of(scope: Scope) -> str:
    """The client that is counted: an address, of IPv6 the network of 64 bits, which one client has whole."""
    host = scope["client"][0] if scope.get("client") else ""
    try:
        address = ip_address(host)
    except ValueError:
        return str(host)
    return str(IPv6Network((int(address), 64), strict=False)) if isinstance(address, IPv6Address) else host


def _login_routes(access: Access, rate: Rate) -> APIRouter:
    """Where a person gives the token to the page."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/login", response_class=HTMLResponse)
    async def ask() -> str:
        return views().render("login.html", wrong=False)

    @routes.post("/login", response_class=HTMLResponse)
    async def login(request: Request) -> Response:
        given = parse_qs((await request.body()).decode("ascii", "replace"), max_num_fields=5).get("token", [""])[0]
        if not access.is_token(given.strip()):
            rate.take(_client_of(request.scope), GUESS_COST)
            return HTMLResponse(views().render("login.html", wrong=True), 401)
        response = RedirectResponse("/", 303)
        is_secure = request.scope["scheme"] == "https"
        response.set_cookie(
            COOKIE, access.session(), SESSION_S, secure=is_secure, httponly=True, samesite="strict", path="/"
        )
        return response

    return routes


async def fetch_picture(url: str, settings: WebSettings) -> bytes:
    """The image that a public server sends for a URL. Raises ProblemError."""
    from retrieval.images.addresses import PRIVATE
    from retrieval.images.fetch_rules import FetchRules
    from retrieval.images.given import QUERY_AGENT
    from retrieval.images.http import fetch, open_session
    from retrieval.images.http_body import FetchError

    if not settings.allow_urls:
        raise ProblemError(403, "this server fetches no URLs; send the image, or start lmr serve with --allow-urls")
    if not _FETCHES.acquire(blocking=False):
        raise ProblemError(503, f"{_N_FETCHES} URLs are being fetched; try again in 1 s", {"Retry-After": "1"})
    time_s = min(_FETCH_S, settings.timeout_s * 2 / 3)
    how: dict[str, Any] = {"n_retries": 0, "user_agent": QUERY_AGENT, "limits": image_limits(settings)}
    rules = FetchRules(timeout_s=time_s, idle_s=time_s, **how)
    try:
        async with open_session(rules) as session:
            body = await fetch(session, url, rules, None)
    except FetchError as error:
        reason = "only public addresses are asked" if error.cause == PRIVATE else str(error)
        raise ProblemError(422, f"the URL cannot be fetched: {reason}") from error
    finally:
        _FETCHES.release()
    assert isinstance(body.content, bytes)
    return body.content
