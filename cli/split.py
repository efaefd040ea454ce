"""lmr split: a manifest to train, val, test and non-landmarks."""

from typing import TYPE_CHECKING, Any

import click

from cli.options import job_options, json_option
from cli.progress import TerminalProgress
from cli.terminal import say_result, shown
from retrieval.split.job import SplitJob
from retrieval.words import counted

if TYPE_CHECKING:
    from retrieval.split.report import SplitReport

_STATES = {
    "written": "written",
    "unchanged": "finished already, nothing to do",
    "dry run": "dry run, nothing written",
}


@click.command(name="split")
@job_options(SplitJob)
@json_option
def command(as_json: bool, **words: Any) -> None:
    """Split MANIFEST (CSV, Parquet or folder of folders) into train, val, test and background (non-landmarks).

    Writes manifests into a folder and never moves an image. Near-duplicates are looked for and kept in one part; a
    landmark that is in val or test has an image in train, but those held out as unknown.

    \b
    Example:
      lmr split train.csv --images images --output parts
      lmr split train.csv --val-per-landmark 2 --test 0 --landmarks 100 --pick count:500-550 --ignore-duplicates
    """
    import lmr

    with TerminalProgress() as progress:
        report = lmr.split(**words, progress=progress)
    say_result(report.to_json(), _to_text(report), as_json=as_json)


def _to_text(report: "SplitReport") -> str:
    """The table and what is to be said below it."""
    lines = [f"{'':12}{'pictures':>12}{'landmarks':>12}{'non-landmarks':>16}{'share':>10}"]
    for name, part in report.counts.parts.items():
        share = f"{part.share:.1%}" if part.landmarks else ""
        lines.append(f"{name:12}{part.pictures:>12,}{part.landmarks:>12,}{part.non_landmarks:>16,}{share:>10}".rstrip())
    lines += [f"dropped: {counted(n, 'picture')} ({shown(reason)})" for reason, n in report.counts.dropped.items()]
    unknown = report.counts.unknown_landmarks
    if any(unknown.values()):
        lines.append(f"unknown landmarks held out: {unknown['val']} in val, {unknown['test']} in test")
    if report.near_duplicates.by != "none":
        groups = report.counts.groups
        lines.append(
            f"near-duplicates: {counted(groups.n_groups, 'group')} of {counted(groups.n_pictures, 'picture')}, "
            f"each in one part; {groups.n_mixed:,} of several landmarks; the largest has {groups.largest:,}"
        )
    lines.append(f"{shown(report.output)}: {_STATES[report.state]}")
    if tree := report.class_folders:
        lines.append(f"{shown(tree.path)}: {counted(tree.n_links, 'link')}, {tree.n_new:,} of them new")
    return "\n".join(lines)
