"""Reports of a download: counts by cause and by host, and the rows that have no image."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from retrieval.data.csv_cells import csv_line
from retrieval.data.manifest import Manifest
from retrieval.download.hosts import ROBOTS_TAG
from retrieval.download.ledger import Entry, Ledger
from retrieval.download.survey import ROWS_AT_ONCE
from retrieval.errors import LmrError
from retrieval.images.addresses import PRIVATE
from retrieval.words import agreeing, none_can

NOT_TRIED = "not tried"
FAILED_COLUMNS = ("image_id", "url", "cause")


@dataclass(slots=True)
class HostTally:
    """Images of a host that are stored, with their bytes, and those that are not."""

    n_done: int = 0
    n_missing: int = 0
    n_bytes: int = 0


@dataclass(slots=True)
class Tally:
    """Counts that grow row by row. causes: of the rows without an image."""

    causes: Counter[str] = field(default_factory=Counter)
    hosts: dict[str, HostTally] = field(default_factory=dict)

    def add(self, url: str, entry: Entry | None) -> str:
        """Counts a row and returns the cause why it has no image; '' when it has one."""
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
        """Images that are stored."""
        return sum(tally.n_done for tally in self.hosts.values())

    @property
    def n_missing(self) -> int:
        """Rows without an image."""
        return self.causes.total()

    @property
    def n_bytes(self) -> int:
        """Bytes of the stored files."""
        return sum(tally.n_bytes for tally in self.hosts.values())


@dataclass(frozen=True, slots=True)
class DownloadReport:
    """Images that are there after a run.

    tally: counts of all rows. failed: the table of those without an image; None = there are none. n_new: images that
    this run stored. was_anything: whether there was anything to fetch or to check. hosts_left: hosts left for a later
    run, each with the reason.
    """

    images: Path
    n_rows: int
    tally: Tally
    failed: Path | None
    n_new: int
    seconds: float
    was_anything: bool
    hosts_left: dict[str, str]

    @property
    def causes(self) -> dict[str, int]:
        """Number of rows without an image by cause, the most frequent first."""
        return dict(self.tally.causes.most_common())

    @property
    def hosts(self) -> dict[str, HostTally]:
        """Counts by host, those that lack most first."""
        items = self.tally.hosts.items()
        return dict(sorted(items, key=lambda item: (-item[1].n_missing, -item[1].n_done, item[0])))

    @property
    def n_excluded(self) -> int:
        """Images that were not fetched, since their servers ask not to."""
        return self.tally.causes[ROBOTS_TAG]

    def advice(self) -> str:
        """A line on the rows without an image: where they are listed, and what can be done about them."""
        private = self.tally.causes[PRIVATE]
        also = f"; {private:,} {agreeing(private, 'is', 'are')} at private addresses, which `allow_private` lets pass"
        also = also if private else ""
        if self.n_excluded:
            servers = f"their servers' {ROBOTS_TAG}, which `ignore_robots_tag` lets pass"
            also += f"; {self.n_excluded:,} are excluded by {servers}"
        return f"{self.failed} lists them; `retry_failed` tries them again{also}"

    def require_any(self) -> None:
        """Raises LmrError where no image is there."""
        if not self.tally.n_done:
            raise LmrError(
                f"{none_can(self.n_rows, 'picture', can='could')} be fetched, most often: "
                f"{next(iter(self.causes))}; {self.advice()}"
            )


@dataclass(frozen=True, slots=True)
class DownloadPlan:
    """Work that a run would do. hosts: number of images to fetch from each, the most first."""

    images: Path
    n_rows: int
    n_there: int
    n_failed_before: int
    n_excluded_before: int
    n_to_fetch: int
    n_to_verify: int
    n_without_url: int
    n_bad_id: int
    hosts: dict[str, int]


def failed_lines(manifest: Manifest, ledger: Ledger, tally: Tally) -> Iterator[str]:
    """The lines of failed.csv: image_id, url and cause of rows without an image. Counts every row into the tally."""
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
