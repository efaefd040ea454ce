"""lmr stats: what is in the data, as text or JSON and as an HTML report."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.config_file import PATH
from cli.options import job_options, json_option
from cli.progress import TerminalProgress
from cli.terminal import say, say_result, shown, warn
from index.stats.job import StatsJob
from index.stats.measure import MeasureJob
from retrieval.errors import LmrError
from retrieval.extras import install_hint, missing, require_report
from retrieval.files.lock import output_locks
from retrieval.jobs import WritingJob
from retrieval.words import agreeing, counted

if TYPE_CHECKING:
    from index.stats.data import DataCounts, LandmarkImages
    from index.stats.job import Statistics
    from index.stats.measured import ImageCounts, ImageGroups, Leakage
    from index.stats.open_images import RolledUp

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
    With --engine spark a Spark cluster does the shares and joins them.

    \b
    Example:
      lmr stats train.csv --images images
      lmr stats train.csv --images images --test test.csv --report report.html
      lmr stats train.csv --store train.h5 --clusters 40
      lmr stats train.csv --json
      lmr stats train.csv --images images --shard 1/4
      lmr stats s3://bucket/open-images.parquet --engine spark --master spark://HOST:7077
    """
    if "shard" in words:
        _measure_share(words, [report, pictures_csv, clusters_csv])
    else:
        _tell(words, report, pictures_csv, clusters_csv, as_json=as_json)


def _tell(
    words: dict[str, Any], report: Path | None, pictures_csv: Path | None, clusters_csv: Path | None, *, as_json: bool
) -> None:
    import lmr
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
        say_result(found.to_json(), statistics_text(found), as_json=as_json)
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

    if words.get("engine") == "spark":
        raise click.UsageError("--shard does a share here, --engine spark all of them on a cluster; give one of them")
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


def statistics_text(found: "Statistics") -> str:
    """The statistics in some thirty lines for people."""
    data = found.data
    parts = [_about(data), _landmarks(data), _beside(data), _images(found.measured), _copies(found)]
    return "\n".join(line for part in parts for line in part)


def _about(data: "DataCounts") -> Iterator[str]:
    rows, landmarks = counted(data.rows, "row"), counted(data.counts.landmarks, "landmark")
    yield f"{data.source}: {rows}, {counted(data.pictures, 'picture')}, {landmarks}"
    share = data.without_landmark / data.pictures
    yield f"without a landmark: {data.without_landmark:,} ({share:.1%})"


def _landmarks(data: "DataCounts") -> Iterator[str]:
    sizes = data.counts.pictures_per_landmark
    if sizes is None:
        return
    yield ""
    yield f"pictures per landmark: {sizes.min} to {sizes.max:,}, mean {sizes.mean:.1f}, " + (
        f"{counted(sizes.single, 'landmark')} {agreeing(sizes.single, 'has', 'have')} one"
    )
    yield "percentile  " + "".join(f"{percent:>9}" for percent in sizes.percentiles)
    yield "pictures    " + "".join(f"{value:>9,.6g}" for value in sizes.percentiles.values())
    shares = [f"{row.share:.1%} in {row.k:,}" for row in data.counts.biggest]
    yield f"share of the biggest landmarks: {', '.join(shares)}; half of all in {data.counts.half:,}"
    if data.counts.landmarks <= len(data.most_frequent):
        yield f"landmarks: {_named(data.most_frequent)}"
    else:
        yield f"most frequent: {_named(data.most_frequent)}"
        yield f"least frequent: {_named(data.least_frequent)}"


def _beside(data: "DataCounts") -> Iterator[str]:
    if any(data.blanks.values()):
        yield "blank cells: " + ", ".join(f"{name} {n:,}" for name, n in data.blanks.items() if n)
    for name, values in (("kinds", data.kinds), ("usages", data.usages)):
        if values:
            yield f"{name}: " + ", ".join(
                f"{shown(value or '(blank)')} {n:,}" for value, n in list(values.items())[:12]
            )
    if data.hosts:
        top = ", ".join(f"{shown(row.host)} {row.share:.1%}" for row in data.hosts.top[:5])
        yield f"hosts: {data.hosts.hosts:,}; {top}" if top else "hosts: none"
    if data.open_images:
        labels = data.open_images
        yield (
            f"labels: {counted(labels.kept, 'row', of=labels.rows)} have confidence {labels.min_label_confidence:g} "
            f"or more, {labels.rejected:,} have 0; {labels.labels_per_picture.mean:.2f} labels a picture"
        )
    if data.boxes:
        yield f"boxes: {data.boxes.boxes:,}, {data.boxes.boxes_per_picture.mean:.2f} a picture"
    for row in data.subsets or ():
        yield (
            f"subset {shown(row.subset or '(blank)')}: {counted(row.pictures, 'picture')}, "
            f"{row.labelled:,} with a label, {row.labels_per_picture:.2f} labels a picture"
        )
    if data.hierarchy:
        yield f"with all kinds of it: {_named(data.hierarchy[:8])}"


def _images(found: "ImageCounts | None") -> Iterator[str]:
    if found is None:
        return
    yield ""
    yield f"readable: {found.readable:,}, unreadable: {found.unreadable:,}"
    for name, reason in list(found.reasons.items())[:5]:
        yield f"  {shown(name)}: {shown(reason)}"
    yield f"{'':16}" + "".join(f"{name:>12}" for name in ("min", "10 %", "median", "90 %", "max"))
    for name, row in found.measures.items():
        table = row.percentiles
        cells = (row.min, table["10"], table["50"], table["90"], row.max)
        yield f"{name.replace('_', ' '):16}" + "".join(f"{_short(value):>12}" for value in cells)
    yield "outliers: " + ", ".join(f"{kind} {row.pictures:,}" for kind, row in found.outliers.items())


def _copies(found: "Statistics") -> Iterator[str]:
    if found.duplicates:
        yield f"same bytes: {_groups(found.duplicates.same_bytes)}"
        yield f"same look: {_groups(found.duplicates.same_look)}"
    if found.leakage:
        yield from _leakage(found.leakage)
    if found.store:
        yield ""
        yield f"{found.store.source}: describes {counted(found.store.pictures, 'picture', of=found.store.of)}"
    if found.alike:
        yield f"near descriptors ({found.alike.near_similarity:g}): {_groups(found.alike.groups)}"
    if found.clusters:
        clusters, purity = found.clusters.clusters, found.clusters.purity
        sizes = f"{clusters[-1].pictures:,} to {counted(clusters[0].pictures, 'picture')}"
        yield (
            f"{counted(len(clusters), 'cluster')} of {sizes}" + (f", purity {purity:.3f}" if purity is not None else "")
        )


def _leakage(found: "Leakage") -> Iterator[str]:
    yield ""
    said = [f"{found.same_id.pictures:,} by id", f"{found.same_url.pictures:,} by address"]
    for shared, what in ((found.same_bytes, "by their bytes"), (found.same_look, "by their look")):
        if shared:
            said.append(f"{shared.test_pictures:,} {what}")
    yield f"of {counted(found.test_pictures, 'test picture')} these are there too: {', '.join(said)}"


def _named(rows: "Sequence[LandmarkImages | RolledUp]") -> str:
    """Landmarks with their numbers of images."""
    return ", ".join(f"{shown(row.name or row.landmark_id)} {row.pictures:,}" for row in rows)


def _groups(row: "ImageGroups") -> str:
    across = f"{row.across_landmarks:,} of them across landmarks"
    return f"{counted(row.pictures, 'picture')} in {counted(row.groups, 'group')}, {across}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
