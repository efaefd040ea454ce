"""A served tiny set, and pages of Chromium that are watched: for errors, for what they load, and from where."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from served import BROWSERS, SITE, Guarded, Served, find_program, guarded_server, served
from tiny_set import finish_set
from watched import Watched

CHROMIUM = find_program(*BROWSERS)
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    # There is no other machine; this one has a name as on a network, by which pages are not as trusted as on loopback.
    f"--host-resolver-rules=MAP {SITE} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)


@pytest.fixture(scope="session")
def finished_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, model, stores, index and calibration."""
    folder = tmp_path_factory.mktemp("finished")
    finish_set(folder)
    return folder


@pytest.fixture(scope="session")
def server(finished_set: Path) -> Iterator[Served]:
    """`lmr serve` with nothing but its index."""
    with served(finished_set) as server:
        yield server


@pytest.fixture(scope="session")
def fetching(finished_set: Path) -> Iterator[Served]:
    """`lmr serve` that fetches pictures by their address."""
    with served(finished_set, "--allow-urls") as server:
        yield server


@pytest.fixture(scope="session")
def guarded(finished_set: Path) -> Iterator[Guarded]:
    """`lmr serve` that asks for a token."""
    with guarded_server(finished_set) as guarded:
        yield guarded


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    """A Chromium without a window, that reaches nothing but this machine."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: scripts/run.py page")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: scripts/debian.py chromium")
    with playwright.sync_playwright() as program:
        browser = program.chromium.launch(executable_path=CHROMIUM, args=list(QUIET), chromium_sandbox=False)
        yield browser
        browser.close()


@pytest.fixture
def visits(chromium, request) -> Iterator[Callable[..., Watched]]:
    """Pages of browsers that nobody used before, by how they are; what they did is looked at when the test ends."""
    opened: list[Watched] = []

    def begin(server: Served | None = None, **how: object) -> Watched:
        there = server or request.getfixturevalue("server")
        opened.append(Watched(chromium.new_context(base_url=there.url, **how), there))
        return opened[-1]

    yield begin
    for watched in opened:
        watched.close()


@pytest.fixture
def visit(visits) -> Watched:
    """A page of a desktop's browser."""
    watched: Watched = visits()
    return watched


@pytest.fixture
def asked(visit, finished_set) -> Watched:
    """A page on which a picture is answered."""
    visit.ask(finished_set / "images" / "val-dome-0.jpg")
    return visit
