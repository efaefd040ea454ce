"""What is finished is written down in the ledger, and only then gets its name: no file is there without its row."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from retrieval.download.ledger import Entry, Ledger
from retrieval.files.atomic import flush_folder

_ENTRIES_AT_ONCE = 256
_COMMIT_S = 1.0


class Saver:
    """Collects entries and saves them together.

    on_done: is called with a number of pictures that are saved and whether they are stored. What a kill leaves between
    the ledger and the names are rows whose files are not there, which the next run fetches again.
    """

    def __init__(self, ledger: Ledger, on_done: Callable[[int, bool], None]) -> None:
        self._ledger, self._on_done = ledger, on_done
        self._entries: list[Entry] = []
        self._places: list[tuple[str, str]] = []
        self._saved_s = time.monotonic()

    def keep(self, entry: Entry, partial: str | None = None, path: str = "") -> None:
        """A picture that is stored.

        partial: the whole picture under its private name, which is to become `path`; None = it is there already. What
        lies at `path` is removed, so that it cannot be taken for this picture. Raises OSError when no file can have
        this name.
        """
        if partial is not None:
            with suppress(FileNotFoundError):
                os.unlink(path)
            self._places.append((partial, path))
        self._entries.append(entry)

    def fail(self, entry: Entry) -> None:
        """A picture that could not be had."""
        self._entries.append(entry)

    def wait_s(self) -> float | None:
        """Seconds until something is to be saved; None when there is nothing."""
        return max(0.0, self._saved_s + _COMMIT_S - time.monotonic()) if self._entries else None

    def save_when_due(self) -> None:
        """Saves when there is much to save, or it is time."""
        if len(self._entries) >= _ENTRIES_AT_ONCE or time.monotonic() >= self._saved_s + _COMMIT_S:
            self.save()

    def save(self) -> None:
        """Saves everything. Raises LmrError from the ledger, OSError from the disk."""
        self._saved_s = time.monotonic()
        entries, places = self._entries, self._places
        self._entries, self._places = [], []
        if not entries:
            return
        self._ledger.put(entries)
        for partial, path in places:
            _rename(partial, path)
        for folder in {os.path.dirname(path) for _, path in places}:
            flush_folder(Path(folder))
        n_done = sum(entry.status == "done" for entry in entries)
        for n, is_stored in ((n_done, True), (len(entries) - n_done, False)):
            if n:
                self._on_done(n, is_stored)


def _rename(partial: str, path: str) -> None:
    try:
        os.replace(partial, path)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.replace(partial, path)
