"""Downloading: the images of a manifest, or the tar files of Google Landmarks, to a folder."""

import time
from collections import Counter
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.data.request import TableJob
from retrieval.download.config import Form
from retrieval.download.google import MIRROR, Archives, Part, parse_numbers
from retrieval.errors import LmrError
from retrieval.files.lock import output_locks
from retrieval.images.fetch_rules import FetchRules
from retrieval.jobs import DecodingJob, WritingJob, option
from retrieval.words import shortened

if TYPE_CHECKING:
    from retrieval.arrays import UInt8Array
    from retrieval.data.manifest import Manifest
    from retrieval.download.ledger import Ledger
    from retrieval.download.scheduler import Fetched
    from retrieval.download.summary import DownloadPlan, DownloadReport, Tally
    from retrieval.download.survey import Places

FAILED_NAME = "failed.csv"


@dataclass(frozen=True)
class DownloadJob(DecodingJob, TableJob, WritingJob):
    """Fetch the url of every row of a manifest to <id>.jpg. images: None = images/ beside the manifest."""

    manifest: Path = option(is_argument=True)
    images: Path | None = option(None, is_argument=True)
    _: KW_ONLY
    form: Form = field(default_factory=Form)
    keep_original: bool = option(False, help="Keep the files as they come.")
    rules: FetchRules = field(default_factory=FetchRules)
    retry_failed: bool = option(False, help="Also try again what failed in an earlier run.")
    dry_run: bool = option(False, help="Only say what is there and what would be fetched.")

    @property
    def folder(self) -> Path:
        """The folder of the images."""
        return self.images if self.images is not None else self.manifest.parent / "images"

    @property
    def kept(self) -> Form:
        """The form in which images are kept."""
        return replace(self.form, resize=None) if self.keep_original else self.form


@dataclass(frozen=True)
class ArchiveJob(WritingJob):
    """Fetch tar files of a part of Google Landmarks, checked against their md5. numbers: None = all."""

    tars: Part = option(help="Fetch this part of Google Landmarks.")
    folder: Path = option(Path("images"), is_argument=True)
    _: KW_ONLY
    mirror: str = option(MIRROR, help="Where the tar files are.")
    numbers: str | None = option(None, metavar="0-9,12", default_text="all", help="Only these tar files.")
    rules: FetchRules = field(default_factory=FetchRules)
    dry_run: bool = option(False, help="Only say what is there and what would be fetched.")

    def __post_init__(self) -> None:
        """Raises ValueError where there are no archives of these numbers."""
        super().__post_init__()
        parse_numbers(self.numbers, self.tars)

    @property
    def archives(self) -> Archives:
        """The archives to fetch."""
        return Archives(self.folder, self.tars, parse_numbers(self.numbers, self.tars), self.mirror)


@dataclass(frozen=True, slots=True)
class ArchiveReport:
    """Archives that are there after a run. failed: from name to cause. n_new: None where they would only be fetched."""

    folder: Path
    n_archives: int
    n_there: int
    n_new: int | None = None
    failed: dict[str, str] = field(default_factory=dict)

    def require_all(self) -> None:
        """Raises LmrError for one that could not be fetched."""
        if self.failed:
            name, cause = next(iter(self.failed.items()))
            raise LmrError(
                f"{len(self.failed)} of {self.n_archives} tar files could not be fetched, first {name}: {cause}; "
                "run the same command again"
            )


def download(job: DownloadJob) -> "DownloadReport | DownloadPlan":
    """Fetches the images that are not there; in a dry run says what would be fetched, and neither asks nor writes.

    Raises LmrError for a manifest without URLs and a folder that holds something else or cannot be written.
    """
    with output_locks(None if job.dry_run else job.folder, wait=job.wait, progress=job.progress):
        from retrieval.data.overview import load_manifest
        from retrieval.download.survey import Places

        manifest = load_manifest(job.manifest, job.progress, job.column_names)
        if manifest.url is None:
            raise LmrError(f"{manifest.source} has no url column; give a csv file with the columns id,url")
        places = Places(job.folder, job.form.layout)
        return _plan(job, manifest, places) if job.dry_run else _run(job, manifest, places)


def _run(job: DownloadJob, manifest: "Manifest", places: "Places") -> "DownloadReport":
    from retrieval.download.ledger import LEDGER_NAME, Ledger
    from retrieval.download.summary import DownloadReport
    from retrieval.download.survey import EXCLUDED

    _make_folder(job.folder)
    with Ledger(job.folder / LEDGER_NAME) as ledger:
        if job.overwrite:
            ledger.begin_anew(job.kept)
        ledger.require_form(job.kept)
        states = _look(job, manifest, ledger, places)
        began_s = time.monotonic()
        fetched = _fetch(job, manifest, ledger, places, states)
        tally, failed = _account(manifest, ledger, job.folder)
    for host, reason in fetched.hosts_left.items():
        job.progress.warn(f"{shortened(host)} was left for a later run: {reason}; the same command tries it again")
    return DownloadReport(
        job.folder,
        len(manifest),
        tally,
        failed,
        n_new=fetched.n_new,
        seconds=round(time.monotonic() - began_s, 3),
        was_anything=bool((states > EXCLUDED).any()),
        hosts_left=fetched.hosts_left,
    )


def _plan(job: DownloadJob, manifest: "Manifest", places: "Places") -> "DownloadPlan":
    import numpy as np

    from retrieval.download.ledger import LEDGER_NAME, Ledger
    from retrieval.download.summary import DownloadPlan, host_of
    from retrieval.download.survey import BAD_ID, EXCLUDED, FAILED, NO_URL, THERE, TO_FETCH, TO_VERIFY

    assert manifest.url is not None
    path = job.folder / LEDGER_NAME
    with Ledger(path if path.exists() and not job.overwrite else None) as ledger:
        if ledger.note("form") is not None:
            ledger.require_form(job.kept)
        states = _look(job, manifest, ledger, places)
    if job.overwrite:
        states[states == TO_VERIFY] = TO_FETCH
    n_in = Counter(states.tolist())
    hosts = Counter(host_of(manifest.url[row]) for row in np.flatnonzero(states == TO_FETCH))
    return DownloadPlan(
        job.folder,
        len(manifest),
        n_there=n_in[THERE],
        n_failed_before=n_in[FAILED],
        n_excluded_before=n_in[EXCLUDED],
        n_to_fetch=n_in[TO_FETCH],
        n_to_verify=n_in[TO_VERIFY],
        n_without_url=n_in[NO_URL],
        n_bad_id=n_in[BAD_ID],
        hosts=dict(hosts.most_common()),
    )


def _look(job: DownloadJob, manifest: "Manifest", ledger: "Ledger", places: "Places") -> "UInt8Array":
    """State of each row, by which it is to be fetched or not."""
    from retrieval.download.hosts import ROBOTS_TAG
    from retrieval.download.survey import survey
    from retrieval.images.addresses import PRIVATE

    passes = {PRIVATE: job.rules.allow_private, ROBOTS_TAG: job.rules.ignore_robots_tag}
    causes = {cause for cause, is_let in passes.items() if is_let}
    return survey(manifest, ledger, places, retry_failed=job.retry_failed, retry_causes=causes, progress=job.progress)


def _fetch(
    job: DownloadJob, manifest: "Manifest", ledger: "Ledger", places: "Places", states: "UInt8Array"
) -> "Fetched":
    from retrieval.download.scheduler import Fetched, run_download
    from retrieval.download.survey import EXCLUDED, Task
    from retrieval.parallel import count_workers

    if not (states > EXCLUDED).any():
        places.remove_work_folder()
        return Fetched(0, {})
    n_workers = count_workers(job.workers, job.progress)
    return run_download(Task(manifest, states, places, job.kept, job.rules, n_workers), ledger, job.progress)


def _account(manifest: "Manifest", ledger: "Ledger", images: Path) -> "tuple[Tally, Path | None]":
    """Counts every row, and writes the table of those without an image."""
    from retrieval.download.summary import Tally, failed_lines
    from retrieval.files.atomic import write_text

    tally, failed = Tally(), images / FAILED_NAME
    write_text(failed, failed_lines(manifest, ledger, tally))
    if tally.n_missing:
        return tally, failed
    failed.unlink()
    return tally, None


def download_tars(job: ArchiveJob) -> ArchiveReport:
    """Fetches the tar files that are not there; in a dry run says what is there, and neither asks nor writes.

    Raises LmrError for a folder that holds another part's or cannot be written.
    """
    with output_locks(None if job.dry_run else job.folder, wait=job.wait, progress=job.progress):
        from retrieval.download.archives import archives_there, require_part, run_archives
        from retrieval.download.ledger import LEDGER_NAME, Ledger

        archives, path = job.archives, job.folder / LEDGER_NAME
        names = archives.names()
        if job.dry_run:
            with Ledger(path if path.exists() else None) as ledger:
                there = [] if job.overwrite else archives_there(archives, ledger)
            return ArchiveReport(job.folder, len(names), len(there))
        _make_folder(job.folder)
        with Ledger(path) as ledger:
            require_part(ledger, archives)
            if job.overwrite:
                ledger.forget_archives(names)
                for name in names:
                    for suffix in ("", ".partial"):
                        (job.folder / f"{name}{suffix}").unlink(missing_ok=True)
            there = archives_there(archives, ledger)
            failed = run_archives(archives, ledger, job.rules, job.progress)
        n_done = len(names) - len(failed)
        return ArchiveReport(job.folder, len(names), n_done, n_done - len(there), failed)


def _make_folder(images: Path) -> None:
    """Raises LmrError when it cannot be made."""
    from retrieval.files.atomic import write_error

    try:
        images.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(images, error) from error
