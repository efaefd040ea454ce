"""lmr stats: what is in the data, as text or JSON and as an HTML report."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from cli.config_file import PATH
from cli.options import job_options, json_option
from cli.progress import TerminalProgress
from cli.terminal import say, say_result, warn
from index.stats.job import StatsJob
from index.stats.measure import MeasureJob
from retrieval.errors import LmrError
from retrieval.extras import install_hint, missing, require_report
from retrieval.files.lock import output_locks
from retrieval.jobs import WritingJob
from retrieval.words import counted

REPORT = Path("stats.html")


@click.command(name="stats")
@job_options(StatsJob, MeasureJob, WritingJob)
@click.option("--report", type=PATH, default=None, help="HTML report. [default: stats.html; with --json none]")
@click.option("--pictures-csv", type=PATH, default=None, help="CSV file of all images, best resolution first.")
@click.option("--clusters-csv", type=PATH, default=None, help="CSV file of each image's cluster.")
@json_option
def command(
    report: Path | None,
    pictures_csv: Path | None,
    clusters_csv: Path | None,
    as_json: bool,
    **words: Any,
) -> None:
    """Tell what is in the data that CSV lists: a manifest, a folder of folders, labels of Open Images.

    Landmarks and how many images each has, blank cells, hosts. With --images also sizes, resolution, light, sharpness,
    unreadable images and duplicates; a folder's own images are measured without it. What was measured is kept: the
    same command goes on after a stop, and measures only new images. With --shard a share of the images is measured and
    of the descriptors of --store compared: lmr join joins the facts, and the same command without --shard tells of all.

    \b
    Example:
      lmr stats train.csv --images images
      lmr stats train.csv --images images --test test.csv --report report.html
      lmr stats train.csv --store train.h5 --clusters 40
      lmr stats train.csv --json
      lmr stats train.csv --images images --shard 1/4
    """
    if "shard" in words:
        _measure_share(words, [report, pictures_csv, clusters_csv])
    else:
        _tell(words, report, pictures_csv, clusters_csv, as_json=as_json)


def _tell(
    words: dict[str, Any], report: Path | None, pictures_csv: Path | None, clusters_csv: Path | None, *, as_json: bool
) -> None:
    import lmr
    from cli.report.statistics_text import to_text
    from retrieval.files.made_of import require_place

    overwrite, wait = words.pop("overwrite", False), words.pop("wait", False)
    files = [report or (None if as_json else REPORT), pictures_csv, clusters_csv]
    for path in filter(None, files):
        require_place(path)
    with TerminalProgress() as progress, output_locks(*files, wait=wait, progress=progress):
        if clusters_csv is not None and words.get("clusters") is None:
            raise click.UsageError("--clusters-csv needs --clusters")
        page = _report_path(report, as_json)
        found = lmr.stats(**words, progress=progress)
        if pictures_csv is not None and found.measured is None:
            raise LmrError("--pictures-csv is a table of measured pictures; give --images too")
        say_result(found.to_json(), to_text(found), as_json=as_json)
        if pictures_csv is not None:
            warn(_save(pictures_csv, found.image_lines(), overwrite=overwrite))
        if clusters_csv is not None:
            warn(_save(clusters_csv, found.cluster_lines(), overwrite=overwrite))
        if page is not None:
            from cli.report.statistics import render_statistics_report

            warn(_save(page, [render_statistics_report(found, page.parent)], overwrite=overwrite))


def _measure_share(words: dict[str, Any], files: list[Path | None]) -> None:
    """Measures a share of the images."""
    import lmr
    from retrieval.jobs import words_of

    if any(files):
        raise click.UsageError("--report and tables need all images; join the shares first, by lmr join")
    own = {word for word, _, _ in words_of(MeasureJob)}
    with TerminalProgress() as progress:
        done = lmr.measure(**{word: value for word, value in words.items() if word in own}, progress=progress)
    n_measured = done.n_images - done.n_unreadable
    say(f"{done.facts}: {counted(n_measured, 'image')} measured, {done.n_unreadable:,} unreadable")


def _report_path(given: Path | None, as_json: bool) -> Path | None:
    """Path of the report; None, said so, where it cannot be drawn and was not asked for."""
    if given is not None:
        require_report(f"--report {given}")
    if given is not None or as_json:
        return given
    if missing("matplotlib", "jinja2"):
        warn(f"no HTML report: it needs {install_hint('report')}")
        return None
    return REPORT


def _save(path: Path, text: Iterable[str], *, overwrite: bool) -> str:
    """Writes a file whole and returns the line that says so. LmrError when another one may not be replaced."""
    from retrieval.files.atomic import write_text

    content = "".join(text)
    if path.exists():
        if path.read_bytes() == content.encode(errors="surrogatepass"):
            return f"{path}: unchanged"
        if not overwrite:
            raise LmrError(f"{path}: exists and holds something else; give --overwrite or another name")
    write_text(path, [content])
    return f"{path}: written"
