"""Progress bars on stderr, with rate and time left; silent when stderr is not a terminal."""

import sys
from typing import Any

import click

from cli.terminal import shown, warn, with_options

_TOLD = "cli.progress.told"  # in the context's meta


class TerminalProgress:
    """A bar for each stretch of a command's work, and its warnings, each once, on stderr."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __enter__(self) -> "TerminalProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def begin(self, what: str, n: int, unit: str = "images") -> None:
        """Shows a bar, below the last one, where somebody can see it."""
        self.end()
        if not sys.stderr.isatty():
            return
        from tqdm import tqdm

        is_bytes = unit == "B"
        self._bar = tqdm(
            total=n,
            desc=shown(what),
            unit=unit if is_bytes else f" {unit}",
            unit_scale=is_bytes,
            dynamic_ncols=True,
        )

    def add(self, n: int) -> None:
        """n more are done."""
        if self._bar is not None:
            self._bar.update(n)

    def expect(self, n: int) -> None:
        """n more are to be done."""
        if self._bar is not None:
            self._bar.total += n
            self._bar.refresh()

    def note(self, text: str) -> None:
        """A word at the end of the bar."""
        if self._bar is not None:
            self._bar.set_postfix_str(text)

    def end(self) -> None:
        """Closes the bar, which stays to be seen."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def tell(self, text: str) -> None:
        """A line on stderr."""
        if self._bar is not None:
            self._bar.clear()
        warn(with_options(text))
        if self._bar is not None:
            self._bar.refresh()

    def warn(self, text: str) -> None:
        """A line on stderr, unless the command that runs has said it before."""
        context = click.get_current_context(silent=True)
        told: set[str] = set() if context is None else context.find_root().meta.setdefault(_TOLD, set())
        text = with_options(text)
        if text in told:
            return
        told.add(text)
        self.tell(text)
