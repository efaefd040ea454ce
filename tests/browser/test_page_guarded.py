"""A server with a token in a browser; and pages of other sites, which get nothing of it and nothing done."""

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from served import SITE, served
from watched import WAIT_MS, Watched, drop

TOKEN = "0123456789abcdef"
ATTACK = """
async (server) => {
    const tried = {};
    const post = { method: "POST", body: new Blob(["x"], { type: "text/plain" }) };
    const attempts = {
        read: () => fetch(server + "/v1/landmarks"),
        send: () => fetch(server + "/v1/query", post),
        sendBlind: () => fetch(server + "/v1/feedback", { ...post, mode: "no-cors" }).then(told => told.text()),
        change: () => fetch(server + "/v1/pictures/train-arch-0", { method: "DELETE" }),
        preflight: () => fetch(server + "/v1/query", { method: "POST", headers: { "X-A": "b" }, body: "{}" }),
    };
    for (const [name, attempt] of Object.entries(attempts))
        tried[name] = await attempt().then(told => String(told.status ?? told), () => "failed");
    tried.image = await new Promise(done => {
        const image = new Image();
        image.onload = () => done("shown");
        image.onerror = () => done("failed");
        image.src = server + "/v1/images/train-arch-0";
    });
    const frame = document.createElement("iframe");
    frame.src = server + "/";
    await new Promise(done => { frame.onload = done; document.body.append(frame); });
    try { tried.frame = frame.contentWindow.document.title; } catch { tried.frame = "failed"; }
    return tried;
}
"""


class Elsewhere(BaseHTTPRequestHandler):
    """A site of somebody else."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!DOCTYPE html><title>elsewhere</title><body>")

    def log_message(self, *_):
        """Says nothing."""


@pytest.fixture(scope="module")
def elsewhere():
    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield site.server_port
        site.shutdown()


@pytest.fixture(scope="module")
def logging_server(finished_set):
    with served(finished_set, "--access-log") as server:
        yield server


@pytest.fixture(scope="module")
def token_server(finished_set, tmp_path_factory):
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    with served(finished_set, "--token-file", str(token), "--allowed-host", SITE) as server:
        yield server


def test_a_person_gives_the_token_once(chromium, token_server, finished_set):
    watched = Watched(chromium.new_context(base_url=token_server.url), token_server)
    watched.expected = ["401"]
    page = watched.open()
    assert page.url.endswith("/login")
    assert page.get_by_role("heading", level=1).inner_text() == "A token is needed"
    watched.require_accessible()
    page.keyboard.type("another token")
    page.keyboard.press("Enter")
    page.get_by_role("alert").wait_for()
    assert page.get_by_role("alert").inner_text() == "This is not the token."
    page.keyboard.type(TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_url("**/")
    drop(page, "main", finished_set / "images" / "val-dome-0.jpg")
    page.locator("article.answer img").nth(2).wait_for()
    assert page.evaluate("document.cookie") == ""
    watched.close()


def test_forms_are_taken_by_plain_http_on_a_network_too(chromium, token_server, finished_set):
    context = chromium.new_context(base_url=f"http://{SITE}:{token_server.port}")
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    page.goto("/")
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Which landmark is this?").wait_for()
    page.locator("#files").set_input_files(finished_set / "images" / "val-dome-0.jpg")
    with context.expect_page() as opened:
        page.get_by_role("button", name="Why this answer?").click()
    assert opened.value.get_by_role("heading", level=1).inner_text()
    context.close()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_page_of_another_site_gets_and_does_nothing(chromium, logging_server, elsewhere, name):
    context = chromium.new_context()
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    page.goto(f"http://{name}:{elsewhere}/")
    before = len(logging_server.log.read_text())
    tried = page.evaluate(ATTACK, logging_server.url)
    context.close()
    assert tried.pop("sendBlind") in ("", "failed")
    assert set(tried.values()) == {"failed"}, tried
    said = re.findall(r"(?m) ([A-Z]+ \S+) (\d+|gone) \d+ bytes in", logging_server.log.read_text()[before:])
    assert {request for request, _ in said} >= {"GET /v1/landmarks", "POST /v1/query", "POST /v1/feedback"}
    assert {status for _, status in said} == {"403"}, said


def test_a_link_from_another_site_leads_to_the_page(chromium, logging_server, elsewhere):
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"http://localhost:{elsewhere}/")
    page.evaluate("(server) => { location = server; }", logging_server.url)
    page.get_by_role("heading", level=1).wait_for()
    assert page.get_by_role("heading", level=1).inner_text() == "Which landmark is this?"
    context.close()
