"""lmr download: the images of a manifest, resized on arrival, or Google's tar files."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from cli.config_file import PATH
from cli.options import job_options, json_option
from cli.progress import TerminalProgress
from cli.terminal import say, say_json, say_result, shown, with_options
from retrieval.download.google import Part
from retrieval.download.job import ArchiveJob, DownloadJob
from retrieval.jobs import InvalidValueError, words_of
from retrieval.words import agreeing, counted

if TYPE_CHECKING:
    from retrieval.download.summary import DownloadPlan, DownloadReport

N_SHOWN = 10  # causes and hosts in a table


@click.command("download")
@click.argument("manifest", metavar="[CSV]", type=PATH, required=False)
@click.argument("images", metavar="[IMAGES]", type=PATH, required=False)
@click.option("--tars", type=click.Choice(get_args(Part)), default=None, help="Fetch this part of Google Landmarks.")
@job_options(DownloadJob, ArchiveJob, but=("manifest", "images", "tars", "folder"))
@json_option
def command(manifest: Path | None, images: Path | None, tars: str | None, as_json: bool, **words: Any) -> None:
    """Fetch the url of every row of CSV to <id>.jpg in IMAGES (images/ beside the CSV), resized on arrival.

    A stopped run goes on where it was: what the ledger, IMAGES/download.sqlite, lists is not fetched again. Rows
    without an image are counted by cause and written to IMAGES/failed.csv. With --tars the files images_000.tar and
    so on of Google Landmarks are fetched to IMAGES and checked against their md5; CSV is then left out.

    \b
    Example:
      lmr download train.csv
      lmr download train.csv images --resize shorter --size 288 --user-agent "landmarks/1 (me@example.org)"
      lmr download train.csv images --retry-failed --per-host 4
      lmr download --tars index google-index
    """
    if tars and images is not None:
        raise click.UsageError("--tars takes a folder and no CSV")
    try:
        if tars:
            _download_tars({"tars": tars, "folder": manifest or Path("images"), **words}, as_json)
        elif manifest is not None:
            _download({"manifest": manifest, "images": images, **words}, as_json)
        else:
            raise click.UsageError("Missing argument 'CSV'; or give --tars train, index or test.")
    except InvalidValueError as error:
        raise click.UsageError(with_options(str(error))) from error


def _download_tars(words: dict[str, Any], as_json: bool) -> None:
    import lmr

    with TerminalProgress() as progress:
        report = lmr.download_tars(**_own(ArchiveJob, words), progress=progress)
    n, place = report.n_archives, shown(report.folder)
    content: dict[str, Any] = {"images": str(report.folder), "n_archives": n}
    if report.n_new is None:
        content["n_there"] = report.n_there
        text = f"{place}: {n - report.n_there} of {n} tar files would be fetched"
    else:
        content |= {"n_done": report.n_there, "n_new": report.n_new, "failed": report.failed}
        what = f"{report.n_new} new" if report.n_new or report.failed else "nothing to do"
        text = f"{place}: {report.n_there} of {n} tar files are there and checked, {what}"
    say_result(content, text, as_json=as_json, indent=2)
    report.require_all()


def _download(words: dict[str, Any], as_json: bool) -> None:
    import lmr
    from retrieval.download.summary import DownloadPlan

    with TerminalProgress() as progress:
        report = lmr.download(**_own(DownloadJob, words), progress=progress)
    if isinstance(report, DownloadPlan):
        _tell_plan(report, as_json)
        return
    _tell(report, as_json)
    report.require_any()


def _own(kind: type, words: dict[str, Any]) -> dict[str, Any]:
    """The words of one of the two jobs."""
    known = {word for word, _, _ in words_of(kind)}
    return {word: value for word, value in words.items() if word in known}


def _tell_plan(plan: "DownloadPlan", as_json: bool) -> None:
    from retrieval.download.hosts import ROBOTS_TAG

    if as_json:
        say_json(asdict(plan), indent=2, default=str)
        return
    say(
        f"{plan.images}: {counted(plan.n_to_fetch, 'picture', of=plan.n_rows)} would be fetched; "
        f"{plan.n_there:,} are there, {counted(plan.n_to_verify, 'file')} would be checked, "
        f"{plan.n_failed_before:,} failed before, {plan.n_excluded_before:,} are excluded by "
        f"{ROBOTS_TAG}, {plan.n_without_url:,} have no url, {plan.n_bad_id:,} a bad id"
    )
    _table("to fetch, by host", plan.hosts)


def _tell(report: "DownloadReport", as_json: bool) -> None:
    if as_json:
        say_json(_content(report), indent=2)
        return
    done = report.tally.n_done
    there = f"{counted(done, 'picture', of=report.n_rows)} {agreeing(done, 'is', 'are')} there"
    there += f", {report.tally.n_bytes / 1e6:,.2f} MB"
    if not report.was_anything:
        say(f"{report.images}: {there}, nothing to do")
    else:
        say(f"{report.images}: {there}; {report.n_new:,} new, {report.n_new / max(report.seconds, 1e-3):.1f} a second")
    if report.tally.n_missing:
        _table("not there, by cause", report.causes)
        _table("not there, by host", {name: host.n_missing for name, host in report.hosts.items()})
        say(with_options(report.advice()))


def _content(report: "DownloadReport") -> dict[str, Any]:
    return {
        "images": str(report.images),
        "n_rows": report.n_rows,
        "n_done": report.tally.n_done,
        "n_missing": report.tally.n_missing,
        "bytes": report.tally.n_bytes,
        "n_excluded": report.n_excluded,
        "causes": report.causes,
        "hosts": {name: asdict(host) for name, host in report.hosts.items()},
        "failed": str(report.failed) if report.failed else None,
        "n_new": report.n_new,
        "seconds": report.seconds,
        "hosts_left": report.hosts_left,
    }


def _table(title: str, counts: dict[str, int]) -> None:
    """Prints the largest counts and how many others there are."""
    if items := [(name, n) for name, n in counts.items() if n]:
        say(f"{title}:")
    for name, n in items[:N_SHOWN]:
        say(f"  {n:>9,}  {shown(name)}")
    if len(items) > N_SHOWN:
        say(f"  {sum(n for _, n in items[N_SHOWN:]):>9,}  in {len(items) - N_SHOWN} others")
