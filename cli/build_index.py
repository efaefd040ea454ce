"""lmr build-index: descriptor stores to an index folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.index_changes import local_line
from cli.options import job_options
from cli.progress import TerminalProgress
from cli.terminal import command_line, say
from index.build_index import BuildJob
from index.folder.config import INDEX_FOLDER
from index.search.config import search_line
from retrieval.words import agreeing, counted

if TYPE_CHECKING:
    from index.folder.build import BuildReport
    from index.folder.info import ExportInfo
    from retrieval.progress import Progress


@click.command(name="build-index")
@job_options(BuildJob)
def command(**words: Any) -> None:
    """Build an index folder from STORES (train.h5 when none is given).

    Labelled rows are the index, unlabelled rows its background. The folder holds everything that a query needs,
    the model too, and can be copied to another machine. It keeps thumbnails of the index rows, made from where
    those lie, which sheets and pages show where the images themselves are not: --thumbnails 0 keeps none.

    Up to about 50,000 rows of 512 numbers every answer is exact. Above, an inverted file proposes rows, which are then
    scored by the rows themselves; it is tuned to --recall and measured, and the result printed. --kind chooses it.

    With the extra onnx the network is exported beside its weights, which takes about 20 s of the processor, and queries
    on a CPU start by it in a third of the time: --engine torch leaves that out.

    With --local the folder holds the local features of its rows too, which lmr embed --local made, so that answers can
    be verified: those of train.h5 from train.local.h5. They are linked, or copied to another file system.

    --shards 4 keeps the inverted file as four, each over a quarter of the rows, which several machines then search.

    --engine spark builds the same index by tasks of a Spark cluster (--master), which sees the stores, the model and
    the place of OUTPUT under the same names; what they finished is found again when the command is run again.

    --overwrite keeps the calibration where only names and places of images change; otherwise it ends, which is said.

    \b
    Example:
      lmr build-index train.h5 --background background.h5 --names names.csv
      lmr build-index train.h5 --dimensions 256 --overwrite --recalibrate
      lmr build-index train.h5 --recall 0.95 --memory 2
      lmr build-index train.h5 --engine spark --master spark://host:7077 --shards 4
      lmr build-index train.h5 --local
    """
    import lmr

    output: Path = words.get("output", INDEX_FOLDER)
    with TerminalProgress() as progress:
        report = lmr.build_index(**words, progress=progress)
        info = report.info
        what = "unchanged, nothing to do" if report.state == "unchanged" else "built"
        n = report.n_unreadable
        unreadable = f", {counted(n, 'row')} without a descriptor left out" if n else ""
        say(
            f"{output}: {what}: {counted(info.n_rows, 'picture')} of {counted(info.n_landmarks, 'landmark')}, "
            f"{info.n_background} in the background, d = {info.d}{unreadable}"
        )
        if info.search:
            say(f"{output}: {search_line(info.search, info.n_rows, info.d, info.n_shards)}")
        if info.export:
            say(f"{output}: {export_line(info.export)}")
        if info.local:
            say(f"{output}: {local_line(info)}")
        elif report.lost_local:
            progress.warn(
                f"warning: {output} has no local features any more, so that nothing verifies its answers; "
                "`local` carries them along"
            )
        _tell_thumbnails(output, report, progress)
        _tell_calibration(output, report, progress)


def export_line(export: "ExportInfo") -> str:
    """What became of the export of the network, in one line."""
    if export.refused:
        return f"its network is not exported, torch answers: {export.refused}"
    rows = ""
    if export.least_cosine is not None:
        rows = f"; {counted(export.n_rows, 'image')} embedded again: cosine with their rows at least "
        rows += f"{export.least_cosine:.6f}"
    return (
        f"its network is exported beside its weights: within {export.difference:.1g} of torch in float32 "
        f"(allowed {export.tolerance:g}){rows}"
    )


def _tell_thumbnails(output: Path, report: "BuildReport", progress: "Progress") -> None:
    """Says which rows have no thumbnail."""
    info = report.info
    if not info.thumbnails:
        progress.warn(f"{output} has no thumbnails, being made before there were any; `overwrite` makes them")
    elif info.thumbnails["side_px"] and info.thumbnails["n"] < info.n_rows:
        n = info.n_rows - info.thumbnails["n"]
        progress.warn(
            f"{counted(n, 'picture', of=info.n_rows)} {agreeing(n, 'was', 'were')} not found or not readable at "
            f"{agreeing(n, 'its path and has', 'their paths and have')} no thumbnail"
        )


def _tell_calibration(output: Path, report: "BuildReport", progress: "Progress") -> None:
    """Says what became of the calibration of the index that was replaced."""
    if report.kept is not None:
        source = report.kept.origin.source
        progress.warn(f"{output}: its calibration from {source} is kept; the new index answers alike")
    if report.not_read:
        progress.warn(f"warning: {output} is not calibrated: what it replaced could not be read: {report.not_read}")
    if report.lost is None:
        return
    source, after = report.lost.origin.source, report.recalibrated
    if after is None:
        again = command_line("lmr", "calibrate", source, *([] if output == INDEX_FOLDER else ["--index", output]))
        progress.warn(
            f"warning: {output} is not calibrated any more: its calibration from {source} was of other descriptors, "
            f"labels or options; {again} makes it again (`recalibrate` does that in one step)"
        )
        return
    for text in after.warnings:
        progress.warn(f"warning: {text}")
    seen, before = after.cross_validated, report.lost.cross_validated
    progress.warn(
        f"{output}: calibrated again on {source}: GAP {seen.gap:.3f}, before {before.gap:.3f}, cross-validated"
    )
