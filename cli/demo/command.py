"""lmr demo: the whole path on a small rendered set of landmarks, or on somebody's own folder."""

from contextlib import chdir
from pathlib import Path
from typing import Any

import click

from cli.demo.config import DemoJob
from cli.demo.run import Outcome, run_demo
from cli.options import job_options, json_option
from cli.progress import TerminalProgress
from cli.terminal import command_line, say_json, say_lines, shown
from cli.web.server import ServeJob, require_web, serve
from cli.web.settings import WebSettings
from retrieval.extras import require_report
from retrieval.jobs import build


@click.command(name="demo")
@job_options(DemoJob)
@json_option
def command(as_json: bool, **words: Any) -> None:
    """Make a small set of landmarks in DIRECTORY and run everything on it: train, embed, build-index, calibrate,
    evaluate, query and submit.

    A stopped demo goes on where it was. With --images it does the same on your own images, which are only read; the
    network is then lite2 where the extra weights is installed and no other is asked for, and answers as it came where
    training it does not better its answers to the pictures held out for val. From random weights, on images
    below 128 pixels, its ResNet-18 ends at layer3. Answers are given where 90 of 100 are right, since there are few
    images to calibrate on; lmr calibrate asks for 95.

    \b
    Example:
      lmr demo
      lmr demo --serve
      lmr demo my-demo --images holiday-photos
    """
    if words.get("serve"):
        require_web("--serve")
    require_report("the report of lmr demo")
    with TerminalProgress() as progress:
        job = build(DemoJob, {**words, "progress": progress})
        outcome = run_demo(job)
        if as_json:
            facts = {word: getattr(outcome, word) for word in ("gap", "top1", "untrained_gap", "is_trained")}
            say_json(facts | {"report": str(job.directory / outcome.report)}, indent=None)
        else:
            say_lines(_summary(job.directory, outcome))
        if job.serve:
            _serve(job)


def _serve(job: DemoJob) -> None:
    """Serves what the demo made on any free port, so that another server does not spoil the end of a long walk."""
    with chdir(job.directory):
        web = WebSettings(port=0)
        serve(ServeJob(web=web, device=job.device, threads=job.threads, progress=job.progress))


def _summary(directory: Path, outcome: Outcome) -> str:
    untrained = f"GAP {outcome.untrained_gap:.3f}" if outcome.is_trained else "on val training did not better it"
    return "\n".join(
        [
            f"GAP {outcome.gap:.3f}, top-1 {outcome.top1:.3f} on the test pictures (untrained: {untrained})",
            f"report:     {shown(directory / outcome.report)}",
            f"sheet:      {shown(directory / outcome.sheet)}  (queries beside the pictures that voted)",
            f"submission: {shown(directory / outcome.submission)}",
            "",
            "Try next:",
            f"  {shown(command_line('cd', directory))}",
            "  lmr query images --csv" if (directory / "images").is_dir() else "  lmr query PICTURE",
            "  lmr serve",
            "  lmr evaluate test_solution.csv --report again.html",
            "  lmr info landmarks",
            "  lmr demo my-demo --images FOLDER_OF_FOLDERS",
        ]
    )
