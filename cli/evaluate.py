"""lmr evaluate: measures the answers of an index folder on labelled queries, and writes a report."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.config_file import PATH
from cli.options import job_options, json_option
from cli.progress import TerminalProgress
from cli.report.text import evaluation_text
from cli.terminal import say, say_result
from index.evaluate.job import EvaluateShareJob
from index.folder.config import INDEX_FOLDER
from retrieval.extras import require_report
from retrieval.files.lock import output_locks
from retrieval.version import program_version
from retrieval.words import counted

if TYPE_CHECKING:
    from index.evaluate.result import EvaluationResult


@click.command(name="evaluate")
@job_options(EvaluateShareJob)
@click.option(
    "--report",
    type=PATH,
    default=None,
    help="HTML file to write: curves, landmarks, confusions, errors; a table of the landmarks is written beside it.",
)
@json_option
def command(as_json: bool, report: Path | None, **words: Any) -> None:
    """Measure the answers to QUERIES: a manifest with labels (a solution file too), or its store (.h5).

    GAP, top-1/5/10, mAP@100 and more, beside baselines on the same queries. With --leave-one-out no queries are
    needed: for one labelled folder without a split. Queries that the index, its calibration or its network have seen
    are named, and the figures without them are given too. With --shard a share of the queries is embedded and
    asked, and what comes of it kept: lmr join joins it, and the same command without --shard makes the figures of it.
    A run over many queries that was stopped goes on where it was. With --verify the figures are of verified answers,
    beside those without.

    \b
    Example:
      lmr evaluate val.csv --images images --report report.html
      lmr evaluate val.csv --images images --verify
      lmr evaluate --leave-one-out
      lmr evaluate val.csv --images images --shard 1/4
    """
    if "shard" in words:
        _ask_share(words, report)
    else:
        _evaluate(words, report, as_json=as_json)


def _evaluate(words: dict[str, Any], report: Path | None, *, as_json: bool) -> None:
    import lmr

    _require_queries(words)
    queries = words.get("queries")
    overwrite = words.get("overwrite", False)
    with TerminalProgress() as progress, output_locks(report, wait=words.get("wait", False), progress=progress):
        if report is not None:
            require_report(f"--report {report}")
            if not overwrite:  # refused now, not after the queries were embedded
                is_reported(report, made_of(queries))
        result = lmr.evaluate(**words, progress=progress)
        is_there = report is not None and not overwrite and is_reported(report, made_of(queries, result))
        if result.folder.calibration is None:
            progress.warn(
                f"{words.get('index', INDEX_FOLDER)} is not calibrated: no thresholds; lmr calibrate makes them"
            )
        for text in result.warnings:
            progress.warn(f"warning: {text}")
        content = result.to_json()
        say_result(content, evaluation_text(content), as_json=as_json)
        if is_there:
            progress.warn(f"{report}: finished already, nothing to do")
        elif report is not None:
            from cli.report.evaluation import write_report

            table = write_report(report, result, made_of(queries, result))
            progress.warn(f"{report}: report written; {table} has its landmarks")


def _ask_share(words: dict[str, Any], report: Path | None) -> None:
    """Embeds and asks a share of the queries."""
    import lmr

    _require_queries(words)
    if report is not None:
        raise click.UsageError("--report needs all queries; join the shares first, by lmr join")
    with TerminalProgress() as progress:
        done = lmr.evaluate_share(**words, progress=progress)
    n = counted(done.n_queries, "query")
    say(f"{done.output}: {'finished already, nothing to do' if done.state == 'unchanged' else 'written'} ({n})")


def _require_queries(words: dict[str, Any]) -> None:
    if (words.get("queries") is None) != words.get("leave_one_out", False):
        raise click.UsageError("give QUERIES or --leave-one-out, one of them")


def made_of(queries: Path | None, result: "EvaluationResult | None" = None) -> dict[str, Any]:
    """The inputs of a report, as far as they are known. queries: None where images of the index are left out."""
    from index.evaluate.result import LEAVE_ONE_OUT

    asked = {"queries": LEAVE_ONE_OUT if queries is None else str(queries)}
    if result is None:
        return asked
    return {**asked, **result.folder.made_of, "version of lmr": program_version(), **result.inputs}


def is_reported(report: Path, made_of: dict[str, Any]) -> bool:
    """True where the report and its table are there, whole and made of this. LmrError for those of something else."""
    from cli.report.evaluation import landmarks_path
    from retrieval.files.made_of import is_made_of

    there = [is_made_of(path, made_of, "give `overwrite` or another name") for path in (report, landmarks_path(report))]
    return all(there)
