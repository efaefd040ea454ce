"""The guards of the app: which requests are answered, what each response carries, what is logged."""

import asyncio
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
from fastapi.testclient import TestClient

from cli.web import access, guards, limits
from cli.web.access import Access, open_token, require_safe
from cli.web.guards import HEADERS, add_guards
from cli.web.limits import Rate
from cli.web.problems import ProblemError, add_problems
from cli.web.settings import WebSettings
from retrieval.errors import LmrError

TOKEN = "0123456789abcdef"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def guarded(**settings: Any) -> FastAPI:
    """A small app behind the guards."""
    app = FastAPI(docs_url=None, redoc_url=None)
    add_problems(app, Path("landmarks"))

    @app.get("/")
    async def start() -> PlainTextResponse:
        return PlainTextResponse("start")

    @app.get("/kept")
    async def kept() -> PlainTextResponse:
        return PlainTextResponse("kept", headers={"Cache-Control": "private"})

    @app.get("/healthz")
    async def healthz() -> PlainTextResponse:
        return PlainTextResponse("ok")

    @app.post("/take")
    async def take(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    @app.get("/broken")
    async def broken() -> None:
        raise ValueError("secret")

    @app.get("/large")
    async def large() -> PlainTextResponse:
        return PlainTextResponse("x" * 30_000_000)

    @app.get("/slow")
    async def slow() -> None:
        await asyncio.Event().wait()

    add_guards(app, WebSettings(**settings))
    return app


def client_of(app: FastAPI, address: str = "10.0.0.1", base_url: str = "http://127.0.0.1:8080") -> TestClient:
    return TestClient(app, base_url, raise_server_exceptions=False, client=(address, 5000), follow_redirects=False)


def asking(**settings: Any) -> TestClient:
    return client_of(guarded(**settings))


def refused(response: Any) -> tuple[int, str]:
    """Status and detail of a problem."""
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, response.json()["detail"]


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("LMR_TOKEN", f" {TOKEN}\n")
    return TOKEN


@pytest.mark.parametrize(
    ("path", "status"), [("/", 200), ("/there-is-none", 404), ("/broken", 500), ("/take", 405), ("/slow", 503)]
)
def test_every_response_carries_what_browsers_heed(path: str, status: int) -> None:
    response = asking(timeout_s=0.05).get(path)
    assert response.status_code == status
    assert {name: response.headers[name] for name in HEADERS} == HEADERS
    assert "server" not in response.headers


@pytest.mark.parametrize(
    ("words", "status", "detail"),
    [
        ({"url": "/<b>"}, 404, "there is nothing at /&lt;b&gt;; /openapi.json lists what there is"),
        ({"url": "/", "headers": {"Host": "evil.example"}}, 421, "lmr serve takes --allowed-host evil.example"),
    ],
)
def test_a_person_gets_a_page_where_a_program_gets_a_problem(words: dict[str, Any], status: int, detail: str) -> None:
    headers = words.get("headers", {})
    program = asking().get(**words)
    person = asking().get(**{**words, "headers": {**headers, "Accept": "text/html,*/*"}})
    script = asking().get(**{**words, "headers": {**headers, "Accept": "text/html,*/*", "X-Fragment": "1"}})
    assert {program.status_code, person.status_code, script.status_code} == {status}
    assert person.headers["Content-Type"] == "text/html; charset=utf-8"
    assert detail in person.text
    assert program.headers["Content-Type"] == script.headers["Content-Type"] == "application/problem+json"
    assert {name: person.headers[name] for name in HEADERS} == HEADERS


def test_a_refusal_carries_it_too() -> None:
    response = asking().get("/", headers={"Host": "evil.example"})
    assert {name: response.headers[name] for name in HEADERS} == HEADERS


def test_no_script_or_style_within_a_page_may_run_and_no_other_site_is_asked() -> None:
    assert HEADERS["Content-Security-Policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def test_what_a_response_says_itself_stays() -> None:
    assert asking().get("/kept").headers.get_list("cache-control") == ["private"]


def test_no_page_of_another_origin_is_given_leave_to_read() -> None:
    response = asking().get("/", headers={"Origin": "http://evil.example"})
    assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:80",
        "a.localhost",
        "127.0.0.1:8080",
        "[::1]:8080",
        "192.0.2.7",
        "lmr.example:443",
        "LMR.example.",
    ],
)
def test_a_host_that_no_other_site_can_have_is_answered(host: str) -> None:
    assert asking(allowed_host=("Lmr.Example",)).get("/", headers={"Host": host}).text == "start"


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "evillocalhost", "evil.example:80", "127.0.0.1.evil.example"]
)
def test_a_name_that_leads_here_from_elsewhere_is_refused(host: str) -> None:
    name = host.partition(":")[0]
    assert refused(asking().get("/", headers={"Host": host})) == (
        421,
        f"the name '{name}' is not known to be this server's; lmr serve takes --allowed-host {name}",
    )


def test_a_request_without_a_host_is_refused() -> None:
    assert refused(asking().get("/", headers={"Host": ""})) == (421, "the request names no host; send a Host header")


def test_any_name_is_taken_where_a_proxy_checks_them() -> None:
    assert asking(allowed_host=("*",)).get("/", headers={"Host": "evil.example"}).text == "start"


CROSS = "a page of another site asks; only this server's own page and programs may"
VISIT = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://127.0.0.1:8080"},
        {"Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "same-origin"},
    ],
)
def test_the_own_page_and_programs_may_send(headers: dict[str, str]) -> None:
    assert asking().post("/take", content=b"abc", headers=headers).text == "3"


@pytest.mark.parametrize(
    "headers",
    [
        VISIT,
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "nonsense"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:8081"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_a_page_of_another_site_may_send_nothing(headers: dict[str, str]) -> None:
    assert refused(asking().post("/take", content=b"abc", headers=headers)) == (403, CROSS)


def test_a_link_from_another_site_is_followed_but_nothing_is_shown_within_it() -> None:
    client = asking()
    assert client.get("/", headers=VISIT).text == "start"
    for dest in ("iframe", "image", "object"):
        assert refused(client.get("/", headers={**VISIT, "Sec-Fetch-Dest": dest})) == (403, CROSS)
    assert refused(client.get("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"})) == (
        403,
        CROSS,
    )
    assert refused(client.options("/", headers={"Sec-Fetch-Site": "cross-site"})) == (403, CROSS)


def test_a_token_is_asked_for_where_there_is_one(token: str) -> None:
    client = asking()
    response = client.get("/")
    assert refused(response) == (401, "a token is needed: send Authorization: Bearer TOKEN")
    assert response.headers["www-authenticate"] == "Bearer"
    for given in (f"Bearer {token}x", "Bearer ", f"Basic {token}", "Bearer é", token):
        response = client.get("/", headers={"Authorization": given.encode()})
        assert refused(response) == (401, "another token is needed: send Authorization: Bearer TOKEN")
    for given in (f"Bearer {token}", f"bearer  {token} "):
        assert client.get("/", headers={"Authorization": given}).text == "start"


def test_only_what_tells_nothing_is_open_without_the_token(token: str) -> None:
    client = asking()
    assert client.get("/healthz").text == "ok"
    for path in ("/metrics", "/openapi.json", "/healthz/", "/v1/landmarks", "/static", "/there-is-none"):
        assert client.get(path).status_code == 401


def test_a_person_gives_the_token_to_the_page(token: str) -> None:
    client = asking()
    html = {"Accept": "text/html"}
    assert client.get("/", headers=html).headers["location"] == "/login"
    assert 'name="token" type="password"' in client.get("/login").text
    wrong = client.post("/login", data={"token": "x" * 20})
    assert (wrong.status_code, "This is not the token." in wrong.text) == (401, True)
    given = client.post("/login", data={"token": f" {token} "})
    assert (given.status_code, given.headers["location"]) == (303, "/")
    cookie = given.headers["set-cookie"]
    assert re.fullmatch(r"lmr_session=\d+\.[0-9a-f]{64}; HttpOnly; Max-Age=43200; Path=/; SameSite=strict", cookie), (
        cookie
    )
    assert token not in cookie
    assert client.get("/", headers=html).text == "start"


def test_the_cookie_of_a_page_by_tls_is_for_tls_alone(token: str) -> None:
    client = client_of(guarded(), base_url="https://127.0.0.1")
    assert "; Secure" in client.post("/login", data={"token": token}).headers["set-cookie"]


def test_a_forged_or_old_session_is_none(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = guarded()
    good = Access(WebSettings(), token).session()
    end, _, signature = good.partition(".")
    assert client_of(app).get("/", headers={"Cookie": f"lmr_session={good}"}).text == "start"
    other = Access(WebSettings(), "another token of mine").session()
    for forged in (f"{int(end) + 1}.{signature}", f"{end}.{signature[:-1]}", end, "", ".", "x.y", other):
        assert client_of(app).get("/", headers={"Cookie": f"lmr_session={forged}"}).status_code == 401
    monkeypatch.setattr(access.time, "time", lambda: int(end) + 1)
    assert client_of(app).get("/", headers={"Cookie": f"lmr_session={good}"}).status_code == 401


def test_without_a_token_there_is_no_login() -> None:
    assert asking().get("/login").status_code == 404


def test_who_guesses_tokens_is_soon_refused(token: str) -> None:
    client = asking(per_minute=60)
    statuses = [client.get("/", headers={"Authorization": f"Bearer {i}"}).status_code for i in range(5)]
    assert statuses == [401, 401, 429, 429, 429]
    other = client_of(client.app, "10.0.0.2")  # type: ignore[arg-type]
    assert [other.post("/login", data={"token": "x"}).status_code for _ in range(4)] == [401, 401, 429, 429]
    assert client_of(client.app, "10.0.0.3").get("/", headers=BEARER).text == "start"  # type: ignore[arg-type]


class Clock:
    """A time that is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_client_may_ask_as_often_as_is_said_and_then_at_that_rate() -> None:
    clock = Clock()
    rate = Rate(60, now=clock)
    for _ in range(60):
        rate.take("a")
    with pytest.raises(ProblemError) as caught:
        rate.take("a")
    assert (caught.value.status, caught.value.detail, caught.value.headers) == (
        429,
        "more than 60 requests a minute of one client; try again in 1 s",
        {"Retry-After": "1"},
    )
    rate.take("b")
    clock.now = 2.0
    rate.take("a")
    rate.take("a")
    with pytest.raises(ProblemError):
        rate.take("a")
    clock.now = 10_000.0
    for _ in range(60):
        rate.take("a")
    with pytest.raises(ProblemError):
        rate.take("a")


def test_the_memory_for_clients_is_bounded() -> None:
    rate = Rate(1, n_clients=2, now=Clock())
    rate.take("a")
    rate.take("b")
    with pytest.raises(ProblemError):
        rate.take("a")
    rate.take("c")  # in the place of b, who asked longest ago
    with pytest.raises(ProblemError):
        rate.take("a")
    rate.take("b")


def test_zero_is_any_number_of_requests() -> None:
    rate = Rate(0)
    for _ in range(1000):
        rate.take("a")


@pytest.mark.parametrize(
    ("settings", "n_answered"),
    [({}, 9), ({"host": "0.0.0.0"}, 6), ({"trusted_proxy": ("10.9.9.9",)}, 6), ({"per_minute": 5}, 5)],
)
def test_requests_are_counted_where_others_than_this_machine_can_ask(
    settings: dict[str, Any], n_answered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "Rate", partial(Rate, now=Clock()))
    monkeypatch.setattr(guards, "PER_MINUTE", 6)
    client = asking(**settings)
    statuses = [client.post("/take").status_code for _ in range(n_answered + 2)]
    assert statuses == [200] * n_answered + [429 if n_answered < 9 else 200] * 2


def test_reading_costs_a_tenth() -> None:
    client = asking(per_minute=2)
    assert [client.get("/").status_code for _ in range(19)] == [200] * 19
    assert client.post("/take").status_code == 429


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("testclient", "testclient", True),
    ],
)
def test_a_client_is_an_address_or_its_network(one: str, other: str, is_same: bool) -> None:
    app = guarded(per_minute=1)
    assert client_of(app, one).post("/take").status_code == 200
    assert client_of(app, other).post("/take").status_code == (429 if is_same else 200)


def test_a_proxy_says_whose_request_it_is_only_where_it_is_trusted() -> None:
    app = guarded(per_minute=1, trusted_proxy=("10.0.0.0/24",))
    proxy, stranger = client_of(app, "10.0.0.1"), client_of(app, "10.1.0.1")
    for i in (1, 2):
        assert proxy.post("/take", headers={"X-Forwarded-For": f"192.0.2.{i}"}).status_code == 200
    assert proxy.post("/take", headers={"X-Forwarded-For": "6.6.6.6, 192.0.2.1"}).status_code == 429
    assert stranger.post("/take", headers={"X-Forwarded-For": "192.0.2.8"}).status_code == 200
    assert stranger.post("/take", headers={"X-Forwarded-For": "192.0.2.9"}).status_code == 429


def test_a_request_may_have_so_many_bytes_and_no_more() -> None:
    client = asking(max_upload_mb=0.1)
    assert client.post("/take", content=bytes(100_000)).text == "100000"
    assert refused(client.post("/take", content=bytes(100_001))) == (
        413,
        "100,001 bytes: more than the 100,000 bytes that a request may have",
    )
    assert client.post("/take", content=iter([bytes(50_000)] * 2)).text == "100000"
    assert refused(client.post("/take", content=iter([bytes(50_000)] * 3))) == (
        413,
        "the request: more than the 100,000 bytes that a request may have",
    )


def test_a_request_of_two_lengths_is_refused() -> None:
    headers = {"Content-Length": "3", "Transfer-Encoding": "chunked"}
    assert refused(asking().post("/take", content=b"abc", headers=headers)) == (
        400,
        "a request has a Content-Length or a Transfer-Encoding, this one both",
    )


def test_headers_may_have_so_many_bytes() -> None:
    assert refused(asking().get("/", headers={"X-A": "a" * 17_000})) == (
        431,
        "the headers have more than the 16,384 bytes that they may have",
    )


def test_bodies_share_the_memory_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_HELD_BYTES", 10)
    bodies = limits.Bodies(2)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"ab"}

    async def fill() -> list[limits.Body]:
        scope = {"type": "http", "headers": [(b"content-length", b"2")]}
        return [await bodies.read(limits.HTTPConnection(scope), receive) for _ in range(5)]

    held = asyncio.run(fill())
    with pytest.raises(ProblemError) as caught:
        asyncio.run(fill())
    assert (caught.value.status, caught.value.detail) == (503, "too many requests at once; try again in 1 s")
    for body in held:
        bodies.release(body)
    assert len(asyncio.run(fill())) == 5


def test_an_answer_that_takes_too_long_is_given_up() -> None:
    response = asking(timeout_s=0.05).get("/slow")
    assert refused(response) == (503, "no answer within 0.05 s; try again later")
    assert response.headers["retry-after"] == "5"


def test_work_that_nobody_waits_for_any_more_is_given_up() -> None:
    begun, given_up = asyncio.Event(), asyncio.Event()
    sent = [{"type": "http.request", "body": b"ab"}]

    async def work(_: Any, receive: Any, __: Any) -> None:
        assert (await receive())["body"] == b"ab"
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()

    async def receive() -> dict[str, Any]:
        if sent:
            return sent.pop()
        await begun.wait()
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        raise AssertionError

    settings = WebSettings()
    guard = guards.Guard(work, settings, Access(settings, None), Rate(0))
    headers = [(b"host", b"localhost"), (b"content-length", b"2")]
    asyncio.run(guard({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive, send))
    assert given_up.is_set()


def test_an_error_of_the_program_says_nothing_of_it() -> None:
    assert refused(asking().get("/broken")) == (500, "the server failed; its log says why")


def test_nothing_but_http_is_taken() -> None:
    async def nothing(*_: Any) -> Any:
        raise AssertionError

    asyncio.run(guarded()({"type": "websocket", "path": "/", "headers": []}, nothing, nothing))


def test_the_log_tells_of_requests_without_what_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    client = asking(access_log=True)
    client.post("/take?name=secret", content=b"secret")
    client.get("/a%0Ab%1b[2J c?secret")
    said, wrong = capsys.readouterr().err.splitlines()
    when = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00"
    assert re.fullmatch(rf"{when} 10\.0\.0\.1 POST /take 200 6 bytes in, 1 out, \d+ ms", said)
    assert re.fullmatch(rf"{when} 10\.0\.0\.1 GET /a%0Ab%1b\[2J%20c 404 0 bytes in, \d+ out, \d+ ms", wrong)


def test_without_being_asked_nothing_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    asking().get("/")
    assert capsys.readouterr().err == ""


@pytest.fixture
def token_file(tmp_path: Path) -> Callable[..., Path]:
    def write(content: bytes, mode: int = 0o600) -> Path:
        path = tmp_path / "token"
        path.write_bytes(content)
        path.chmod(mode)
        return path

    return write


def test_the_token_is_that_of_the_file_before_that_of_the_environment(token_file: Any, token: str) -> None:
    path = token_file(b"  another-token-of-mine\n")
    assert open_token(WebSettings(token_file=path)) == "another-token-of-mine"
    assert open_token(WebSettings()) == token
    assert open_token(WebSettings(token_file=token_file(b"another-token-of-mine", 0o640))) == "another-token-of-mine"


def test_without_either_there_is_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LMR_TOKEN", raising=False)
    assert open_token(WebSettings()) is None


@pytest.mark.parametrize(
    ("content", "mode", "problem"),
    [
        (b"", 0o600, "there is no token in it; `openssl rand -hex 32` makes one"),
        (b" \n", 0o600, "there is no token in it; `openssl rand -hex 32` makes one"),
        (b"short", 0o600, "a token has at least 16 characters, this one 5; `openssl rand -hex 32` makes one"),
        (b"two words of a token", 0o600, "a token is one word of ASCII characters, this is none"),
        ("tökentökentöken".encode(), 0o600, "a token is one word of ASCII characters, this is none"),
        (b"x" * 5000, 0o600, "a token has at most 4,096 bytes, this file more"),
        (TOKEN.encode(), 0o644, "others on this machine may read or change the token; chmod 600 {0}"),
        (TOKEN.encode(), 0o620, "others on this machine may read or change the token; chmod 600 {0}"),
    ],
)
def test_a_token_that_is_none_is_refused(token_file: Any, content: bytes, mode: int, problem: str) -> None:
    path = token_file(content, mode)
    with pytest.raises(LmrError) as caught:
        open_token(WebSettings(token_file=path))
    assert str(caught.value) == f"{path}: {problem.format(path)}"


def test_a_token_of_the_environment_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMR_TOKEN", "")
    with pytest.raises(LmrError) as caught:
        open_token(WebSettings())
    assert str(caught.value) == "LMR_TOKEN: there is no token in it; `openssl rand -hex 32` makes one"


def test_a_token_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(LmrError) as caught:
        open_token(WebSettings(token_file=tmp_path / "no"))
    assert str(caught.value) == f"{tmp_path / 'no'}: the token cannot be read: No such file or directory"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_alone_may_be_answered_without_a_token(host: str) -> None:
    require_safe(WebSettings(host=host), None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "lmr.example", "", "localhost.example"])
def test_others_are_not_answered_without_a_token_unless_it_is_said(host: str) -> None:
    with pytest.raises(LmrError) as caught:
        require_safe(WebSettings(host=host), None)
    assert str(caught.value) == (
        f"others reach {host} too, and no token is asked of them: give `token_file` or LMR_TOKEN, or `public` to "
        "answer everybody"
    )
    require_safe(WebSettings(host=host), TOKEN)
    require_safe(WebSettings(host=host, public=True), None)


def test_changes_need_a_token_wherever_they_are_asked_from() -> None:
    with pytest.raises(LmrError) as caught:
        require_safe(WebSettings(allow_changes=True, public=True), None)
    assert str(caught.value) == "`allow_changes` needs a token: give `token_file`, or LMR_TOKEN"
    require_safe(WebSettings(allow_changes=True), TOKEN)


@pytest.mark.parametrize("name", ["https://lmr.example", "lmr.example:443", "[::1]"])
def test_a_name_that_no_request_could_have_is_refused(name: str) -> None:
    with pytest.raises(LmrError) as caught:
        require_safe(WebSettings(allowed_host=("ok.example", name)), None)
    assert str(caught.value) == f"`allowed_host` must be a name without scheme and port, got {name}"


def test_a_proxy_that_is_no_address_is_refused() -> None:
    require_safe(
        WebSettings(trusted_proxy=("10.0.0.1", "10.0.0.0/8", "fd00::/8"), allowed_host=("*", "A.example.")), None
    )
    with pytest.raises(LmrError) as caught:
        require_safe(WebSettings(trusted_proxy=("proxy.example",)), None)
    assert str(caught.value) == (
        "`trusted_proxy` must be an address or a network such as 10.0.0.0/8: 'proxy.example' does not appear to be an "
        "IPv4 or IPv6 network"
    )


def test_a_problem_is_json_that_says_its_status() -> None:
    response = asking().get("/", headers={"Host": "evil.example"})
    assert json.loads(response.content)["status"] == response.status_code == 421
    assert json.loads(response.content)["title"] == "Misdirected Request"
