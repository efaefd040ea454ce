"""lmr stats: what is in the data, as text or JSON and as an HTML report."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import (
    PATH,
    Share,
    config_option,
    facts_option,
    json_option,
    overwrite_option,
    warn,
    workers_option,
    writes,
)
from cli.terminal import say_result
from retrieval.data.near_duplicates import NEAR_SIMILARITY
from retrieval.extras import install_hint, missing, require_report
from retrieval.images.quality import SCREEN_DIAGONAL_IN

if TYPE_CHECKING:
    from cli.stats.collecting import Asked

REPORT = Path("stats.html")


def _files(given: Mapping[str, Any]) -> list[Path | None]:
    """What may be written, besides the facts, which SQLite guards. LmrError for what could not be."""
    report = given["report"] or (None if given["as_json"] else REPORT)
    files = [report, given["pictures_csv"], given["clusters_csv"]]
    for path in files:
        _require_place(path)
    return files


@click.command(name="stats")
@click.argument("manifest", metavar="CSV", type=PATH)
@click.option(
    "--images",
    type=PATH,
    default=None,
    help="Folder of pictures to measure: <id>.jpg, Google's a/b/c/<id>.jpg, or what a path column is relative to.",
)
@click.option("--store", type=PATH, default=None, help="Descriptors of the pictures: a map, copies, clusters.")
@click.option("--test", type=PATH, default=None, help="Manifest of a test set: pictures that it shares with CSV.")
@click.option("--test-images", type=PATH, default=None, help="Folder of its pictures. [default: --images]")
@click.option("--report", type=PATH, default=None, help="HTML report. [default: stats.html; with --json none]")
@facts_option
@click.option("--pictures-csv", type=PATH, default=None, help="CSV file of all pictures, best resolution first.")
@click.option("--names", type=PATH, default=None, help="Names of the landmarks, as for build-index.")
@click.option(
    "--diagonal-in", type=Share(1, 1000), default=SCREEN_DIAGONAL_IN, show_default=True, help="Screen, in inches."
)
@click.option("--clusters", type=click.IntRange(1), default=None, help="Clusters to find in the store (k-means).")
@click.option("--clusters-csv", type=PATH, default=None, help="CSV file of each picture's cluster.")
@click.option("--map-pictures", type=click.IntRange(0, 10_000), default=2000, show_default=True, help="On the map.")
@click.option(
    "--near-similarity",
    type=Share(0.5, 1),
    default=NEAR_SIMILARITY,
    show_default=True,
    help="Of copies, with --store.",
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Of all that is drawn.")
@click.option("--image-list", type=PATH, default=None, help="Open Images: the list of pictures, with their Subset.")
@click.option("--boxes", type=PATH, default=None, help="Open Images: the file of boxes.")
@click.option("--hierarchy", type=PATH, default=None, help="Which label is a kind of which (Open Images' JSON).")
@click.option(
    "--min-label-confidence", type=Share(0, 1), default=0.99, show_default=True, help="Open Images: labels that count."
)
@json_option
@workers_option
@config_option
@overwrite_option
@writes(_files)
def command(manifest: Path, as_json: bool, overwrite: bool, **values: Any) -> None:
    """Tell what is in the data that CSV lists: a manifest, a folder of folders, labels of Open Images.

    Landmarks and how many pictures each has, blank cells, hosts. With --images also sizes, resolution, light,
    sharpness, unreadable pictures and duplicates; a folder's own pictures are measured without it. What was measured
    is kept: the same command goes on after a stop, and measures only new pictures.

    \b
    Example:
      lmr stats train.csv --images images
      lmr stats train.csv --images images --test test.csv --report report.html
      lmr stats train.csv --store train.h5 --clusters 40
      lmr stats train.csv --json
    """
    from cli.stats.collecting import collect
    from cli.stats.output import save_text
    from cli.stats.text import to_text

    asked = _asked(manifest, values)
    report = _report_path(values["report"], as_json)
    _require_place(values["facts"])
    found = collect(asked)
    say_result(found.document, to_text(found.document), as_json=as_json)
    for path, content in ((values["pictures_csv"], found.pictures_csv), (values["clusters_csv"], found.clusters_csv)):
        if path is not None:
            warn(save_text(path, content, overwrite=overwrite))
    if report is not None:
        from cli.report.statistics import render_statistics_report

        page = render_statistics_report(found.document, found.pictures, report.parent)
        warn(save_text(report, [page], overwrite=overwrite))


def _asked(manifest: Path, values: dict[str, Any]) -> "Asked":
    """What is to be found out. Raises click.UsageError for options that need another one."""
    from cli.stats.collecting import Asked
    from cli.stats.data import Beside
    from cli.workers import default_workers

    for option, needed in (
        ("clusters", "store"),
        ("clusters_csv", "clusters"),
        ("test_images", "test"),
    ):
        if values[option] is not None and values[needed] is None:
            raise click.UsageError(f"--{option.replace('_', '-')} needs --{needed}")
    beside = ("image_list", "boxes", "hierarchy", "names", "min_label_confidence")
    taken = (*beside, "workers", "report", "pictures_csv", "clusters_csv")
    return Asked(
        manifest=manifest,
        beside=Beside(**{name: values[name] for name in beside}),
        n_workers=max(1, default_workers(values["workers"])),
        wants_csv=values["pictures_csv"] is not None,
        **{name: value for name, value in values.items() if name not in taken},
    )


def _report_path(given: Path | None, as_json: bool) -> Path | None:
    """Where the report goes; None, said so, where it cannot be drawn and was not asked for."""
    if given is not None:
        require_report(f"--report {given}")
    if given is not None or as_json:
        return given
    if missing("matplotlib", "jinja2"):
        warn(f"no HTML report: it needs {install_hint('report')}")
        return None
    return REPORT


def _require_place(path: Path | None) -> None:
    """LmrError before the work for a file that could not be written after it."""
    import errno
    import os

    from retrieval.files.atomic import write_error
    from retrieval.files.made_of import require_no_folder

    if path is None:
        return
    require_no_folder(path)
    if not path.absolute().parent.is_dir():
        code = errno.ENOTDIR if path.absolute().parent.exists() else errno.ENOENT
        raise write_error(path, OSError(code, os.strerror(code)))
