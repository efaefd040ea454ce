"""A page of a browser, and all that it says and asks for."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from served import Served

WAIT_MS = 60_000  # the longest that a busy machine may take
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


class Watched:
    """A page that is watched.

    expected: parts of lines on the console that may be there, such as those about an answer of 4xx.
    """

    def __init__(self, context: Any, server: Served) -> None:
        self.context, self.server = context, server
        context.set_default_timeout(WAIT_MS)
        self.page = context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.expected: list[str] = []
        self.page.on("console", lambda line: self.said.append(line.text) if line.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        context.on("request", lambda request: self.asked.append(request.url))

    def open(self, path: str = "/") -> Any:
        """The page at a path, loaded."""
        self.page.goto(path)
        return self.page

    def ask(self, *images: Path) -> Any:
        """The first page with the answers to images that were chosen on it."""
        page = self.open()
        page.locator("#files").set_input_files(images)
        page.locator("article.answer").nth(len(images) - 1).wait_for()
        return page

    def close(self) -> None:
        """Closes it. Fails where the console has an error, or a request went elsewhere."""
        self.context.close()
        said = [line for line in self.said if not any(part in line for part in self.expected)]
        assert not said, f"the console of the browser: {said}"
        hosts = {urlsplit(url).netloc for url in self.asked if urlsplit(url).scheme not in ("data", "blob")}
        assert hosts <= {urlsplit(self.server.url).netloc}, f"requests that left for elsewhere: {hosts}"

    def require_accessible(self) -> None:
        """Fails where axe-core finds a violation of WCAG 2.2 AA or of good practice in the page as it is now."""
        axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is missing")
        found = axe.Axe().run(self.page, options={"runOnly": {"type": "tag", "values": RULES}}).response["violations"]
        told = [f"{one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes'][:3]]}" for one in found]
        assert not told, "\n".join(told)


def settled(page: Any, selector: str, number: int) -> None:
    """Waits until so many elements are there."""
    import playwright.sync_api

    playwright.sync_api.expect(page.locator(selector)).to_have_count(number, timeout=WAIT_MS)


def contains(located: Any, text: str) -> None:
    """Waits until what was located holds a text."""
    import playwright.sync_api

    playwright.sync_api.expect(located).to_contain_text(text, timeout=WAIT_MS)


def drop(page: Any, selector: str, *paths: Path) -> None:
    """Drops files on what a selector finds, as a person does from a folder."""
    files = [{"name": path.name, "bytes": list(path.read_bytes())} for path in paths]
    page.evaluate(
        """([selector, files]) => {
            const held = new DataTransfer();
            for (const { name, bytes } of files)
                held.items.add(new File([new Uint8Array(bytes)], name, { type: "image/jpeg" }));
            const place = document.querySelector(selector);
            for (const type of ["dragenter", "dragover", "drop"])
                place.dispatchEvent(new DragEvent(type, { dataTransfer: held, bubbles: true, cancelable: true }));
        }""",
        [selector, files],
    )


def paste(page: Any, path: Path) -> None:
    """Pastes a picture that was copied elsewhere."""
    page.evaluate(
        """([name, bytes]) => {
            const held = new DataTransfer();
            held.items.add(new File([new Uint8Array(bytes)], name, { type: "image/jpeg" }));
            document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: held, bubbles: true }));
        }""",
        [path.name, list(path.read_bytes())],
    )
