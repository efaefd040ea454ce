"""What became of every row of a manifest: counts by cause and by host, and the rows that have no picture."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from retrieval.data.csv_cells import csv_line
from retrieval.data.manifest import Manifest
from retrieval.download.ledger import Entry, Ledger
from retrieval.download.survey import ROWS_AT_ONCE

NOT_TRIED = "not tried"
FAILED_COLUMNS = ("image_id", "url", "cause")


@dataclass(slots=True)
class HostTally:
    """Of the pictures of a host: how many are stored and how many are not, and the bytes of those that are."""

    n_done: int = 0
    n_missing: int = 0
    n_bytes: int = 0


@dataclass(slots=True)
class Tally:
    """Counts that grow row by row. causes: of the rows without a picture."""

    causes: Counter[str] = field(default_factory=Counter)
    hosts: dict[str, HostTally] = field(default_factory=dict)

    def add(self, url: str, entry: Entry | None) -> str:
        """Counts a row and returns the cause why it has no picture; '' when it has one."""
        tally = self.hosts.setdefault(host_of(url), HostTally())
        if entry is not None and entry.status == "done":
            tally.n_done += 1
            tally.n_bytes += entry.bytes or 0
            return ""
        cause = NOT_TRIED if entry is None else str(entry.cause)
        tally.n_missing += 1
        self.causes[cause] += 1
        return cause

    @property
    def n_done(self) -> int:
        """Pictures that are stored."""
        return sum(tally.n_done for tally in self.hosts.values())

    @property
    def n_missing(self) -> int:
        """Rows without a picture."""
        return self.causes.total()

    @property
    def n_bytes(self) -> int:
        """Of the stored files."""
        return sum(tally.n_bytes for tally in self.hosts.values())


def failed_lines(manifest: Manifest, ledger: Ledger, tally: Tally) -> Iterator[str]:
    """The lines of failed.csv: image_id, url and cause of rows without a picture. Counts every row into the tally."""
    assert manifest.url is not None
    yield csv_line(FAILED_COLUMNS)
    for start in range(0, len(manifest), ROWS_AT_ONCE):
        ids = manifest.image_id[start : start + ROWS_AT_ONCE].tolist()
        entries = ledger.find(ids)
        for image_id, url in zip(ids, manifest.url[start : start + ROWS_AT_ONCE].tolist(), strict=True):
            if cause := tally.add(url, entries.get(image_id)):
                yield csv_line((image_id, url, cause))


def host_of(url: str) -> str:
    """The host's name in a URL."""
    try:
        return urlsplit(url).hostname or "(no host)"
    except ValueError:
        return "(no host)"
