"""lmr clean: which images of a training set to leave out, and why."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import job_options, json_option
from cli.progress import TerminalProgress
from cli.terminal import command_line, say_result, shown, warn
from index.clean.job import CleanJob
from retrieval.words import counted

if TYPE_CHECKING:
    from index.clean.decisions import Decisions
    from index.clean.job import CleanReport
    from retrieval.data.manifest import Manifest

N_SHOWN = 100  # images of each reason in the gallery
_STATES = {
    "written": "written",
    "reviewed": "reviewed decisions applied",
    "unchanged": "finished already, nothing to do",
    "dry run": "dry run, nothing written",
}


@click.command(name="clean")
@job_options(CleanJob)
@click.option(
    "--gallery",
    "n_shown",
    type=click.IntRange(0),
    default=N_SHOWN,
    show_default=True,
    help="Images of each reason in gallery.html; 0 = no gallery.",
)
@json_option
def command(n_shown: int, as_json: bool, **words: Any) -> None:
    """Find mislabelled, duplicate, low-quality and non-landmark images of MANIFEST.

    Writes a folder: kept.csv, the manifest without them; decisions.csv, a line for each image with the reason and the
    evidence; gallery.html, to look at. Edit the column `decision` (keep, drop or relabel) and give the file back with
    --review. A stopped run goes on where it was.

    \b
    Example:
      lmr clean train.csv --store train.h5 --background background.h5
      lmr clean train.csv --store train.h5 --verify --min-verified 1    # the default, 3, wants dozens of each view
      lmr clean train.csv --review cleaned/decisions.csv
    """
    import lmr

    gallery = _Gallery(n_shown, words.get("output", CleanJob.output)) if n_shown else None
    with TerminalProgress() as progress:
        report = lmr.clean(**words, gallery=gallery, progress=progress)
    say_result(report.to_json(), _to_text(report), as_json=as_json)
    if report.state == "written":
        look, review = report.output / "gallery.html", report.output / "decisions.csv"
        first = f"look at {look}; " if n_shown else ""
        again = command_line("lmr", "clean", words["manifest"], "--review", review)
        warn(f"{first}after changes in {review}: {again}")


@dataclass(frozen=True, slots=True)
class _Gallery:
    """gallery.html in the folder of the cleaning, at most n_shown images of each reason."""

    n_shown: int
    output: Path

    def require(self) -> None:
        """Raises LmrError where jinja2 is missing."""
        from cli.report.gallery import require_jinja

        require_jinja()

    def render(self, manifest: "Manifest", decisions: "Decisions") -> str:
        """HTML of the page."""
        from cli.report.gallery import render_gallery

        return render_gallery(manifest, decisions, self.n_shown, self.output)


def _to_text(report: "CleanReport") -> str:
    from index.clean.decisions import REASONS

    counts = report.counts
    lines = [
        f"{counted(counts['n_pictures'], 'picture')}: {counts['n_kept']} kept, {counts['n_dropped']} left out, "
        f"{counts['n_relabelled']} with another label"
    ]
    for reason, about in REASONS.items():
        if n := counts[f"n_{reason.replace('-', '_')}"]:
            lines.append(f"{n:8}  {reason}: {about}")
            if reason == "unverified":
                lines.append("          --verify is strict; with a lower --min-verified or --min-inliers more stay")
    return "\n".join([*lines, f"{shown(report.output)}: {_STATES[report.state]}"])
