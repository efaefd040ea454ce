"""First paint, weight and stability of the page of `lmr serve` on a slow network, in Chromium. Prints JSON.

    python scripts/bench/page.py --index demo/landmarks
    python scripts/bench/page.py --index demo/landmarks --gradio OTHER/bin/python

Starts a server of its own on loopback, and loads pages with nothing cached, --runs times each: the processor four
times slower, 1.6 Mbit/s down and 0.75 up with 150 ms for each request, which are Lighthouse's figures for slow 4G; and
once more with 562.5 ms and 90 % of the rates, which Lighthouse sets in DevTools so that a request stands for the round
trips of its connection, too. Medians of first and largest contentful paint (Performance API), milliseconds; bytes as
they were transferred, images apart. --gradio: a Python that has Gradio, whose page for a classifier of images is loaded
in the same way; the ratios are theirs by ours. Needs Debian's chromium and the extra `browser`.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
PATHS = ("/", "/landmarks", "/reports")
RATED = ("first_paint_ms", "bytes_without_images", "requests")
SLOWER = 4  # times, the processor
KBIT = 1000 / 8  # bytes
NETWORKS = {  # Lighthouse's mobileSlow4G: latency of a request in ms, bytes a second down and up
    "slow 4G": (150, 1638.4 * KBIT, 750 * KBIT),
    "slow 4G, DevTools": (562.5, 1474.56 * KBIT, 675 * KBIT),
}
STARTED_S = 120.0
POLLED_MS = 50
SETTLED_MS = 700  # after the load, in which late scripts ask and paint
OBSERVED = """
window.paints = {};
new PerformanceObserver(list => { for (const entry of list.getEntries()) paints[entry.name || entry.entryType] =
    entry.startTime; }).observe({ type: "paint", buffered: true });
new PerformanceObserver(list => { for (const entry of list.getEntries()) paints.largest = entry.startTime; })
    .observe({ type: "largest-contentful-paint", buffered: true });
window.shift = 0;
new PerformanceObserver(list => { for (const entry of list.getEntries()) if (!entry.hadRecentInput)
    window.shift += entry.value; }).observe({ type: "layout-shift", buffered: true });
"""
GRADIO = """
import sys
import gradio
gradio.Interface(lambda image: {"a landmark": 0.9}, gradio.Image(), gradio.Label()).launch(
    server_name="127.0.0.1", server_port=int(sys.argv[1]), quiet=True)
"""


def main() -> None:
    """Serves, loads each page, prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path, required=True, help="index folder, its images where they were")
    parser.add_argument("--runs", type=int, default=5, help="loads of each page (default %(default)s)")
    parser.add_argument("--gradio", type=Path, help="Python that has Gradio")
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ours = stack.enter_context(served(given.index.resolve(), folder))
        browser = stack.enter_context(chromium())
        told: dict[str, Any] = {"chromium": browser.version, "index": str(given.index), "runs": given.runs}
        told["pages"] = {path: measure_all(browser, ours + path, given.runs) for path in PATHS}
        if given.gradio:
            theirs = stack.enter_context(gradio(given.gradio, folder))
            told["gradio"] = measure_all(browser, theirs, given.runs)
            told["gradio by ours"] = {
                network: {key: round(theirs[key] / max(told["pages"]["/"][network][key], 1e-9), 2) for key in RATED}
                for network, theirs in told["gradio"].items()
            }
    print(json.dumps(told, indent=1))


def measure_all(browser: Any, url: str, runs: int) -> dict[str, dict[str, float]]:
    """Medians of the loads of a page, on each network."""
    found = {}
    for network in NETWORKS:
        loads = [measure(browser, url, *NETWORKS[network]) for _ in range(runs)]
        found[network] = {key: round(statistics.median(load[key] for load in loads), 4) for key in loads[0]}
    return found


def measure(browser: Any, url: str, latency_ms: float, down: float, up: float) -> dict[str, float]:
    """One load of a page by a browser that has nothing of it."""
    context = browser.new_context(viewport={"width": 412, "height": 823}, device_scale_factor=1.75)
    try:
        page = context.new_page()
        page.add_init_script(OBSERVED)
        control = context.new_cdp_session(page)
        control.send("Network.enable")
        rates = {"latency": latency_ms, "downloadThroughput": down, "uploadThroughput": up}
        control.send("Network.emulateNetworkConditions", {"offline": False, **rates})
        control.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
        kinds: dict[str, str] = {}
        sizes: dict[str, float] = {}
        control.on("Network.responseReceived", lambda event: kinds.update({event["requestId"]: event["type"]}))
        control.on(
            "Network.loadingFinished", lambda event: sizes.update({event["requestId"]: event["encodedDataLength"]})
        )
        page.goto(url, wait_until="load")
        while not page.evaluate("'first-contentful-paint' in paints"):  # of a page that its scripts build
            page.wait_for_timeout(POLLED_MS)
        page.wait_for_timeout(SETTLED_MS)
        paints, shift = page.evaluate("[paints, shift]")
        load = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    finally:
        context.close()
    return {
        "first_paint_ms": paints["first-contentful-paint"],
        "largest_paint_ms": paints["largest"],
        "load_ms": load,
        "layout_shift": shift,
        "requests": len(sizes),
        "bytes_without_images": sum(size for key, size in sizes.items() if kinds.get(key) != "Image"),
        "bytes_of_images": sum(size for key, size in sizes.items() if kinds.get(key) == "Image"),
    }


@contextmanager
def chromium() -> Iterator[Any]:
    """Debian's Chromium without a window, that reaches this machine alone."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        sys.exit("chromium is not installed: python3 scripts/debian.py chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(QUIET), chromium_sandbox=False)
        yield browser
        browser.close()


@contextmanager
def served(index: Path, folder: Path, *options: str) -> Iterator[str]:
    """The URL of an `lmr serve` of an index folder, run beside it, whose log is kept in a folder."""
    command = [str(Path(sys.executable).with_name("lmr")), "serve", "--index", index.name, *options]
    with listening(command, index.parent, folder / "serve.log", "/healthz") as url:
        yield url


@contextmanager
def gradio(python: Path, folder: Path) -> Iterator[str]:
    """The URL of Gradio's page for a classifier of images."""
    (folder / "app.py").write_text(GRADIO, encoding="utf-8")
    with listening([str(python), "app.py"], folder, folder / "gradio.log", "/", is_option=False) as url:
        yield url


@contextmanager
def listening(command: Sequence[str], folder: Path, log: Path, path: str, *, is_option: bool = True) -> Iterator[str]:
    """The URL of a server that is given a free port, as soon as it answers at a path; ended at the end."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    words = [*command, *(["--port"] if is_option else []), str(port)]
    own = {"OMP_NUM_THREADS": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
    with log.open("wb") as output:
        process = subprocess.Popen(words, cwd=folder, stdout=output, stderr=output, env={**os.environ, **own})
    try:
        end = time.monotonic() + STARTED_S
        while not answers(f"http://127.0.0.1:{port}{path}"):
            if process.poll() is not None or time.monotonic() > end:
                sys.exit(f"{' '.join(words)} does not answer:\n{log.read_text(errors='replace')}")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    """True where something answers well."""
    try:
        with urlopen(url, timeout=10):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    main()
