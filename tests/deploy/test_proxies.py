"""The proxies of deploy/ in front of a server: nginx with TLS, and Caddy; skipped where they are not installed."""

import getpass
import json
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path

import pytest
from served import SITE, find_program, free_port, running, wait_for

DEPLOY = Path(__file__).parents[2] / "deploy"
OTHERS_ADDRESS = "203.0.113.9"  # of nobody (RFC 5737)
MAIN = """
daemon off;
user {user};
worker_processes 1;
error_log stderr;
pid {folder}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""


@dataclass(frozen=True)
class Proxy:
    """A proxy that listens. secure: its certificate, None where it speaks plainly. host: what it is asked by."""

    port: int
    secure: Path | None
    host: str
    log: Path

    @contextmanager
    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Iterator[HTTPResponse]:
        """What a request by the name of the site is answered with."""
        if self.secure is None:
            connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        else:
            context = ssl.create_default_context(cafile=str(self.secure))
            context.check_hostname = False
            connection = HTTPSConnection("127.0.0.1", self.port, timeout=60, context=context)
        named = {"Host": self.host, **{name.replace("_", "-"): value for name, value in headers.items()}}
        try:
            with suppress(BrokenPipeError):  # it was answered before all of the body was sent
                connection.request(method, path, body, named)
            yield connection.getresponse()
        finally:
            connection.close()


def replaced(text: str, old: str, new: str) -> str:
    """The text with something in it replaced, which must be there."""
    assert old in text
    return text.replace(old, new)


@pytest.fixture(scope="session")
def nginx(request, tmp_path_factory) -> Iterator[Proxy]:
    """nginx with the site of deploy/, whose ports and certificate are those of this test."""
    program, openssl = find_program("nginx"), find_program("openssl")
    if program is None or openssl is None:
        pytest.skip("nginx or openssl is not installed: scripts/debian.py nginx")
    upstream = request.getfixturevalue("guarded").server
    folder, port, plain = tmp_path_factory.mktemp("nginx"), free_port(), free_port()
    make = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={SITE}"]
    subprocess.run([*make, "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], check=True, capture_output=True)
    site = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    for old, new in (
        ("    listen [::]:80;\n", ""),
        ("    listen [::]:443 ssl http2;\n", ""),
        ("listen 80;", f"listen 127.0.0.1:{plain};"),
        ("listen 443 ", f"listen 127.0.0.1:{port} "),
        ("server 127.0.0.1:8080;", f"server 127.0.0.1:{upstream.port};"),
        (f"/etc/letsencrypt/live/{SITE}/fullchain.pem", str(folder / "cert.pem")),
        (f"/etc/letsencrypt/live/{SITE}/privkey.pem", str(folder / "key.pem")),
    ):
        site = replaced(site, old, new)
    (folder / "site.conf").write_text(site)
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder, user=getpass.getuser()))
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    subprocess.run([*command, "-t"], check=True, capture_output=True)
    with running(command, folder, folder / "nginx.log") as process:
        wait_for(f"http://127.0.0.1:{plain}/.well-known/acme-challenge/none", process, folder / "nginx.log")
        yield Proxy(port, folder / "cert.pem", SITE, folder / "nginx.log")


@pytest.fixture(scope="session")
def caddy(request, tmp_path_factory) -> Iterator[Proxy]:
    """Caddy with the file of deploy/, without TLS, as it would ask for a certificate and have itself trusted here."""
    program = find_program("caddy")
    if program is None:
        pytest.skip("caddy is not installed: scripts/debian.py caddy")
    upstream = request.getfixturevalue("guarded").server
    folder, port = tmp_path_factory.mktemp("caddy"), free_port()
    more = {"LMR_SITE": f"http://{SITE}:{port}", "LMR_UPSTREAM": f"127.0.0.1:{upstream.port}"}
    more |= {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    command = [program, "run", "--config", str(DEPLOY / "Caddyfile"), "--adapter", "caddyfile"]
    with running(command, folder, folder / "caddy.log", more) as process:
        wait_for(f"http://127.0.0.1:{port}/", process, folder / "caddy.log")
        yield Proxy(port, None, f"{SITE}:{port}", folder / "caddy.log")


@pytest.fixture(params=["nginx", "caddy"])
def proxy(request) -> Proxy:
    """One proxy after the other."""
    found: Proxy = request.getfixturevalue(request.param)
    return found


def test_a_picture_is_answered_through_the_proxy(proxy, guarded):
    picture = (guarded.server.folder / "images" / "val-dome-0.jpg").read_bytes()
    bearer = {"Authorization": f"Bearer {guarded.token}", "Content_Type": "image/jpeg"}
    with proxy.ask("POST", "/v1/query", picture, **bearer) as answer:
        assert answer.status == 200
        (found,) = json.loads(answer.read())
    assert found["neighbours"]


def test_without_the_token_nothing_is_answered(proxy):
    with proxy.ask("POST", "/v1/query", b"", Content_Type="image/jpeg") as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (401, "application/problem+json")


def test_the_headers_of_the_page_arrive_once_each_and_with_the_one_of_the_proxy(proxy):
    with proxy.ask("GET", "/healthz") as answer:
        assert answer.status == 200
        assert len(answer.headers.get_all("Content-Security-Policy")) == 1
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"


def test_what_a_client_says_of_its_address_is_not_believed(proxy, guarded):
    with proxy.ask("GET", "/healthz?of-a-liar", X_Forwarded_For=OTHERS_ADDRESS, Forwarded=f"for={OTHERS_ADDRESS}"):
        pass
    assert OTHERS_ADDRESS not in guarded.server.log.read_text()
    assert "127.0.0.1" in guarded.server.log.read_text()


def test_a_page_of_the_site_itself_may_send(proxy, guarded):
    bearer = {"Authorization": f"Bearer {guarded.token}", "Content_Type": "image/jpeg"}
    scheme = "http" if proxy.secure is None else "https"
    with proxy.ask("POST", "/v1/query", b"none", Origin=f"{scheme}://{proxy.host}", **bearer) as answer:
        assert answer.status != 403
    with proxy.ask("POST", "/v1/query", b"none", Origin="https://elsewhere.example", **bearer) as answer:
        assert answer.status == 403


def test_another_name_is_not_this_site(nginx):
    other = Proxy(nginx.port, nginx.secure, "elsewhere.example", nginx.log)
    with other.ask("GET", "/") as answer:
        assert answer.status == 421


def test_measures_are_not_told_outside(proxy, guarded):
    with proxy.ask("GET", "/metrics", Authorization=f"Bearer {guarded.token}") as answer:
        assert answer.status == 404


def test_the_certificate_is_asked_for_by_the_newer_protocols_alone(nginx):
    context = ssl.create_default_context(cafile=str(nginx.secure))
    context.check_hostname = False
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    connection = HTTPSConnection("127.0.0.1", nginx.port, timeout=60, context=context)
    with pytest.raises(ssl.SSLError):
        connection.request("GET", "/")


def test_a_request_that_is_too_large_is_refused_by_lmr_itself(proxy, guarded):
    bearer = {"Authorization": f"Bearer {guarded.token}", "Content_Type": "image/jpeg"}
    with proxy.ask("POST", "/v1/query", bytes(25_000_000), **bearer) as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (413, "application/problem+json")


def test_a_huge_request_is_refused_before_it_is_sent(nginx):
    with nginx.ask("POST", "/v1/query", Content_Length="40000000") as answer:
        assert answer.status == 413
