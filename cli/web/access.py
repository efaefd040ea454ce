"""Access: which addresses may be listened on, the token, and which requests come from where they may."""

import hashlib
import hmac
import os
import stat
import time
from ipaddress import ip_address, ip_network
from pathlib import Path

from starlette.requests import HTTPConnection

from cli.web.problems import ProblemError
from cli.web.settings import WebSettings
from index.serving.client import TOKEN_VARIABLE
from retrieval.errors import LmrError

COOKIE = "lmr_session"
SESSION_S = 12 * 3600  # how long a person who gave the token is known
OPEN_PATHS = ("/healthz", "/readyz", "/login", "/static/")  # that need no token

_MIN_CHARACTERS = 16  # of a token, so that nobody guesses it
_MAX_TOKEN_BYTES = 4096
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


def open_token(settings: WebSettings) -> str | None:
    """The token that requests must carry: of the file, or of the variable LMR_TOKEN; None where there is neither.

    Raises LmrError for one that cannot be read, or that others may read or guess.
    """
    if settings.token_file is not None:
        token, where = _read_token(settings.token_file), str(settings.token_file)
    elif (given := os.environ.get(TOKEN_VARIABLE)) is not None:
        token, where = given.strip(), TOKEN_VARIABLE
    else:
        return None
    if not token:
        raise LmrError(f"{where}: there is no token in it; `openssl rand -hex 32` makes one")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise LmrError(f"{where}: a token is one word of ASCII characters, this is none")
    if len(token) < _MIN_CHARACTERS:
        raise LmrError(
            f"{where}: a token has at least {_MIN_CHARACTERS} characters, this one {len(token)}; "
            "`openssl rand -hex 32` makes one"
        )
    return token


def require_safe(settings: WebSettings, token: str | None) -> None:
    """Raises LmrError where everybody who reaches the address could ask, or change the index, unintended.

    Also for a name or an address of the settings that can be none, as nobody would be let in by it.
    """
    for name in settings.allowed_host:
        if name != "*" and _host_of(name) != name.lower().rstrip("."):
            raise LmrError(f"`allowed_host` must be a name without scheme and port, got {name}")
    for proxy in settings.trusted_proxy:
        try:
            ip_network(proxy)
        except ValueError as error:
            raise LmrError(f"`trusted_proxy` must be an address or a network such as 10.0.0.0/8: {error}") from error
    if settings.allow_changes and token is None:
        raise LmrError(f"`allow_changes` needs a token: give `token_file`, or {TOKEN_VARIABLE}")
    if not is_local(settings.host) and token is None and not settings.public:
        raise LmrError(
            f"others reach {settings.host} too, and no token is asked of them: give `token_file` or {TOKEN_VARIABLE}, "
            "or `public` to answer everybody"
        )


def is_local(host: str) -> bool:
    """True for a name or an address that this machine alone reaches."""
    if f".{host.lower().rstrip('.')}".endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class Access:
    """What a request must show before it is answered. Raises ProblemError, each method for its part."""

    def __init__(self, settings: WebSettings, token: str | None) -> None:
        self._names = frozenset(name.lower().rstrip(".") for name in (*settings.allowed_host, settings.host))
        self._token = None if token is None else token.encode()

    @property
    def has_token(self) -> bool:
        """True where a token is asked for."""
        return self._token is not None

    def require_host(self, request: HTTPConnection) -> None:
        """Refuses a request by a name that is not this server's: a page elsewhere that had its name lead here."""
        host = _host_of(request.headers.get("host", ""))
        if not host:
            raise ProblemError(421, "the request names no host; send a Host header")
        if not (is_local(host) or _is_address(host) or host in self._names or "*" in self._names):
            raise ProblemError(
                421, f"the name {host!r} is not known to be this server's; lmr serve takes --allowed-host {host}"
            )

    def require_origin(self, request: HTTPConnection) -> None:
        """Refuses what a page of another site asks, but a person's own visit (Sec-Fetch-Site, else Origin)."""
        headers, is_safe = request.headers, request.scope["method"] in _SAFE_METHODS
        if (site := headers.get("sec-fetch-site")) is not None:
            is_visit = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
            is_own = site in ("same-origin", "none") or (is_safe and is_visit)
        else:
            origin = headers.get("origin")
            is_own = is_safe or origin is None or origin.partition("://")[2] == headers.get("host")
        if not is_own:
            raise ProblemError(403, "a page of another site asks; only this server's own page and programs may")

    def require_token(self, request: HTTPConnection) -> None:
        """Refuses a request that carries no token, or another one, unless its path is open."""
        path = request.scope["path"]
        if self._token is None or path in OPEN_PATHS or path.startswith(OPEN_PATHS[-1]):
            return
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self.is_token(given.strip()):
            return
        if not self._is_session(request.cookies.get(COOKIE, "")):
            said = "another token is needed" if kind else "a token is needed"
            raise ProblemError(401, f"{said}: send Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})

    def is_token(self, given: str) -> bool:
        """True for the token, in the same time for each other one."""
        return self._token is not None and hmac.compare_digest(given.encode(errors="replace"), self._token)

    def session(self) -> str:
        """What a browser keeps in place of the token, good for SESSION_S."""
        end = str(int(time.time()) + SESSION_S)
        return f"{end}.{self._signature(end)}"

    def _is_session(self, cookie: str) -> bool:
        end, _, signature = cookie.partition(".")
        is_signed = hmac.compare_digest(signature.encode(errors="replace"), self._signature(end).encode())
        return is_signed and int(end) > time.time()

    def _signature(self, end: str) -> str:
        assert self._token is not None
        return hmac.new(self._token, f"lmr session until {end}".encode(errors="replace"), hashlib.sha256).hexdigest()


def _read_token(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_MAX_TOKEN_BYTES + 1)
    except OSError as error:
        raise LmrError(f"{path}: the token cannot be read: {error.strerror}") from error
    if stat.S_ISREG(mode) and mode & (stat.S_IWGRP | stat.S_IRWXO):
        raise LmrError(f"{path}: others on this machine may read or change the token; chmod 600 {path}")
    if len(content) > _MAX_TOKEN_BYTES:
        raise LmrError(f"{path}: a token has at most {_MAX_TOKEN_BYTES:,} bytes, this file more")
    return content.decode("ascii", "replace").strip()


def _host_of(header: str) -> str:
    """The name or address of a Host header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower().rstrip(".")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
