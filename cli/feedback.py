"""lmr feedback: what people said of a served index, turned into labels."""

from typing import TYPE_CHECKING, Any

import click

from cli.options import job_options, json_option
from cli.progress import TerminalProgress
from cli.terminal import command_line, say_result, shown, warn
from index.serving.labels import DECISIONS, HELD_OUT, NEW, RELABEL, REMOVE, FeedbackJob
from retrieval.words import agreeing, counted

if TYPE_CHECKING:
    from index.serving.labels import FeedbackReport


@click.command(name="feedback")
@job_options(FeedbackJob)
@json_option
def command(as_json: bool, **words: Any) -> None:
    """Turn the feedback that lmr serve was given into labels.

    The verdicts on an image are settled by majority; ties are left out and listed. Writes into a folder: images.csv,
    images with their landmarks, to embed and add; held-out.csv, others to calibrate with; labels.csv and remove.csv,
    rows of the index that get another label or leave; left-out.csv, images that nothing follows for, and why. With
    --manifest also decisions.csv for lmr clean, and train.csv.

    \b
    Example:
      lmr feedback
      lmr feedback --manifest train.csv --queries val.csv
    """
    import lmr

    with TerminalProgress() as progress:
        report = lmr.feedback(**words, progress=progress)
    say_result(report.to_json(), _to_text(report), as_json=as_json)
    if report.n_held_out and "queries" not in words:
        warn("give --queries, the manifest that the index was calibrated with, and the images held out are added to it")
    if steps := _next_steps(report, words):
        warn(f"next: {' && '.join(steps)}")


def _to_text(report: "FeedbackReport") -> str:
    images = counted(report.n_images, "image")
    lines = [
        f"{counted(report.n_verdicts, 'verdict')} on {images}",
        f"{report.n_confirmed:8,}  labels confirmed, {report.n_relabelled:,} changed, {report.n_removed:,} removed",
        f"{report.n_new:8,}  {agreeing(report.n_new, 'image', 'images')} to add",
        f"{report.n_held_out:8,}  held out, {report.n_non_landmarks:,} of them without a landmark",
    ]
    lines += [f"{n:8,}  left out: {reason}" for reason, n in report.left_out.items()]
    state = "written" if report.state == "written" else "finished already, nothing to do"
    return "\n".join([*lines, f"{shown(report.output)}: {state}"])


def _next_steps(report: "FeedbackReport", words: dict[str, Any]) -> list[str]:
    """The commands that take over what there is."""
    index, output, of_index = report.index, report.output, ("--index", report.index)
    steps = []
    if report.n_relabelled:
        steps.append(command_line("lmr", "index", "relabel", output / RELABEL, *of_index))
    if report.n_removed:
        steps.append(command_line("lmr", "index", "remove", "--ids-file", output / REMOVE, *of_index))
    if report.n_new:
        steps.append(command_line("lmr", "embed", output / NEW, "--model", index / "model"))
        steps.append(command_line("lmr", "index", "add", (output / NEW).with_suffix(".h5"), *of_index))
    if "queries" in words and (steps or report.n_held_out):
        steps.append(command_line("lmr", "calibrate", output / HELD_OUT, *of_index, "--overwrite"))
    if report.n_decided:
        steps.append(command_line("lmr", "clean", words["manifest"], "--review", output / DECISIONS))
    return steps
