"""Progress that keeps what it is told."""

from retrieval.progress import Silent


class Recorder(Silent):
    """Shows nothing; keeps in lists what a person should read, how long each stretch is, and what was done."""

    def __init__(
        self, warnings: list[str] | None = None, *, begun: list[int] | None = None, added: list[int] | None = None
    ) -> None:
        self.warnings = [] if warnings is None else warnings
        self.begun = [] if begun is None else begun
        self.added = [] if added is None else added

    def begin(self, what: str, n: int, unit: str = "images") -> None:
        """Keeps n."""
        self.begun.append(n)

    def add(self, n: int) -> None:
        """Keeps n."""
        self.added.append(n)

    def warn(self, text: str) -> None:
        """Keeps the line."""
        self.warnings.append(text)
