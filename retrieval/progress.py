"""Progress: who is told how far long work is, and what a person should know of it."""

import warnings
from typing import Protocol


class Progress(Protocol):
    """Listens to long work, one stretch of it after the other."""

    def begin(self, what: str, n: int, unit: str = "images") -> None:
        """A stretch of n images, steps or bytes (`B`) begins; the one before it has ended."""

    def add(self, n: int) -> None:
        """n more of them are done."""

    def expect(self, n: int) -> None:
        """n more of them are to be done than was known."""

    def note(self, text: str) -> None:
        """A word on the stretch that goes on, such as the loss."""

    def end(self) -> None:
        """The last stretch has ended."""

    def tell(self, text: str) -> None:
        """A line of the log, such as the figures of an epoch."""

    def warn(self, text: str) -> None:
        """A line that a person should read; it holds values from data as they are."""


class Silent:
    """Hears nothing and says nothing: for those that warn elsewhere."""

    def begin(self, what: str, n: int, unit: str = "images") -> None:
        """Does nothing."""

    def add(self, n: int) -> None:
        """Does nothing."""

    def expect(self, n: int) -> None:
        """Does nothing."""

    def note(self, text: str) -> None:
        """Does nothing."""

    def end(self) -> None:
        """Does nothing."""

    def tell(self, text: str) -> None:
        """Does nothing."""

    def warn(self, text: str) -> None:
        """Does nothing."""


class PythonWarnings(Silent):
    """Shows no progress; what a person should read becomes a Python warning."""

    def warn(self, text: str) -> None:
        """A UserWarning."""
        warnings.warn(text, stacklevel=2)


SILENT, PYTHON_WARNINGS = Silent(), PythonWarnings()
