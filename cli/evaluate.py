"""lmr evaluate: measures the answers of an index folder on labelled queries, and writes a report."""

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import lmr
from cli.config_file import PATH
from cli.options import job_options, json_option
from cli.progress import TerminalProgress
from cli.terminal import say_result, shown
from index.evaluate.job import EvaluateJob
from index.folder.config import INDEX_FOLDER
from retrieval.extras import require_report
from retrieval.files.lock import output_locks
from retrieval.words import counted

if TYPE_CHECKING:
    from index.evaluate.result import EvaluationResult


@click.command(name="evaluate")
@job_options(EvaluateJob)
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
    are named, and the figures without them are given too.

    \b
    Example:
      lmr evaluate val.csv --images images --report report.html
      lmr evaluate --leave-one-out
    """
    queries = words.get("queries")
    if (queries is None) != words.get("leave_one_out", False):
        raise click.UsageError("give QUERIES or --leave-one-out, one of them")
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
        say_result(content, to_text(content), as_json=as_json)
        if is_there:
            progress.warn(f"{report}: finished already, nothing to do")
        elif report is not None:
            from cli.report.evaluation import write_report

            table = write_report(report, result, made_of(queries, result))
            progress.warn(f"{report}: report written; {table} has its landmarks")


def made_of(queries: Path | None, result: "EvaluationResult | None" = None) -> dict[str, Any]:
    """The inputs of a report, as far as they are known. queries: None where images of the index are left out."""
    from index.evaluate.result import LEAVE_ONE_OUT

    asked = {"queries": LEAVE_ONE_OUT if queries is None else str(queries)}
    if result is None:
        return asked
    return {**asked, **result.folder.made_of, "version of lmr": version("lmr"), **result.inputs}


def is_reported(report: Path, made_of: dict[str, Any]) -> bool:
    """True where the report and its table are there, whole and made of this. LmrError for those of something else."""
    from cli.report.evaluation import landmarks_path
    from retrieval.files.made_of import is_made_of

    there = [is_made_of(path, made_of, "give `overwrite` or another name") for path in (report, landmarks_path(report))]
    return all(there)


def to_text(content: dict[str, Any]) -> str:
    """The table for people: ours beside the baselines, then what stands alone."""
    header = f"{'':24}{'GAP':>8}{'top-1':>8}{'top-5':>8}{'top-10':>8}"
    rows = {"lmr": content, **content["baselines"]}
    lines = [header] + [
        f"{name.replace('_', ' '):24}" + "".join(_cell(row.get(key)) for key in ("gap", "top1", "top5", "top10"))
        for name, row in rows.items()
    ]
    low, high = content["gap_interval"]
    if content["without_leaked"] is not None:
        n, row = content["leaked"]["n"], content["without_leaked"]
        cells = "".join(_cell(row[key]) for key in ("gap", "top1", "top5", "top10"))
        lines.insert(2, f"{f'  without the {n} leaked':24}{cells}")
    elif content["leaked"]["n"]:
        lines.insert(2, f"  no landmark query is left without the {content['leaked']['n']:,} leaked")
    lines += [
        "",
        f"measured on {shown(content['measured']['source'])}, lmr {content['measured']['lmr_version']}",
        f"95 % interval of GAP: {_cell(low).strip()} to {_cell(high).strip()}",
        f"{counted(content['n_queries'], 'query')}, {content['n_landmark_queries']:,} of them with a landmark"
        + (f", {content['n_unreadable']} unreadable" if content["n_unreadable"] else ""),
        f"mAP@100 {_cell(content['map_at_100']).strip()}, mean landmark accuracy "
        f"{_cell(content['mean_landmark_accuracy']).strip()}",
    ]
    if content["threshold_precision"] is not None:
        precision, recall = (_cell(content[key]).strip() for key in ("precision_at_threshold", "recall_at_precision"))
        threshold = content["threshold_precision"]
        lines.append(
            f"named from a confidence of {threshold:.3f} on, as calibrated: precision {precision}, recall {recall}"
        )
        for kind, rate in (content["false_answer_rate"] or {}).items():
            lines.append(f"  {shown(kind)}: {1 - rate:.1%} of non-landmarks turned away")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"{value:8.3f}"
