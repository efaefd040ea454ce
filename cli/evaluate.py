"""lmr evaluate: measures the answers of an index folder on labelled queries, and writes a report."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import (
    PATH,
    allow_disjoint_option,
    check_option,
    config_option,
    device_option,
    images_option,
    index_option,
    json_option,
    overwrite_option,
    warn,
    workers_option,
    writes,
)
from cli.progress import PictureBar
from cli.terminal import say_result, shown
from cli.workers import default_workers
from retrieval.extras import require_report
from retrieval.words import counted

if TYPE_CHECKING:
    from index.evaluate.measurement import Measured
    from index.folder.folder import IndexFolder


@click.command(name="evaluate")
@click.argument("queries", type=PATH, required=False)
@index_option
@images_option
@click.option(
    "--store", type=PATH, default=None, help="Descriptors of the queries. [default: QUERIES with .h5, beside it]"
)
@click.option("--leave-one-out", is_flag=True, help="Ask every picture of the index, each against the others.")
@click.option(
    "--report",
    type=PATH,
    default=None,
    help="HTML file to write: curves, landmarks, confusions, errors; a table of the landmarks is written beside it.",
)
@allow_disjoint_option
@json_option
@check_option
@workers_option
@device_option
@config_option
@overwrite_option
@writes(lambda given: [given["report"]])
def command(queries: Path | None, index_path: Path, as_json: bool, report: Path | None, **values: Any) -> None:
    """Measure the answers to QUERIES: a manifest with labels (a solution file too), or its store (.h5).

    GAP, top-1/5/10, mAP@100 and more, beside baselines on the same queries. With --leave-one-out no queries are
    needed: for one labelled folder without a split. Queries that the index, its calibration or its network have seen
    are named, and the figures without them are given too.

    \b
    Example:
      lmr evaluate val.csv --images images --report report.html
      lmr evaluate --leave-one-out
    """
    if (queries is None) != values["leave_one_out"]:
        raise click.UsageError("give QUERIES or --leave-one-out, one of them")
    from index.evaluate.measurement import LEAVE_ONE_OUT
    from index.folder.folder import open_folder

    if queries is not None:
        from retrieval.data.overview import require_there

        require_there(queries)
    if report is not None:
        require_report(f"--report {report}")
    made_of = {"queries": LEAVE_ONE_OUT if queries is None else str(queries)}
    if report is not None and not values["overwrite"]:
        is_reported(report, made_of)  # refused now, not after the queries were embedded
    folder = open_folder(index_path, device=values["device"], threads=values["threads"])
    measured = measure(folder, queries, values)
    made_of |= {**inputs_of(folder), **measured.inputs}
    is_there = report is not None and not values["overwrite"] and is_reported(report, made_of)
    if folder.calibration is None:
        warn(f"{index_path} is not calibrated: no thresholds; lmr calibrate makes them")
    for text in measured.warnings:
        warn(f"warning: {text}")
    content = measured.to_json()
    say_result(content, to_text(content), as_json=as_json)
    if is_there:
        warn(f"{report}: finished already, nothing to do")
    elif report is not None:
        from cli.report.evaluation import write_report

        table = write_report(report, folder, measured, made_of)
        warn(f"{report}: report written; {table} has its landmarks")


def is_reported(report: Path, made_of: dict[str, Any]) -> bool:
    """Whether the report and its table are there, whole and made of this. LmrError for those of something else."""
    from cli.report.evaluation import landmarks_path
    from retrieval.files.made_of import is_made_of

    other = "give --overwrite or another name"
    there = [is_made_of(path, made_of, other) for path in (report, landmarks_path(report))]
    return all(there)


def inputs_of(folder: "IndexFolder") -> dict[str, Any]:
    """What answers of an index folder depend on, for the record of a file that is made of them."""
    from importlib.metadata import version

    from retrieval.files.digest import sha256_json

    return {
        "index": folder.info.inputs_digest,
        "calibration": None if folder.calibration is None else sha256_json(folder.calibration.to_json()),
        "version of lmr": version("lmr"),
    }


def measure(folder: "IndexFolder", queries: Path | None, values: dict[str, Any]) -> "Measured":
    """The measures on queries, or leaving one out where there are none."""
    from cli.describing import describe_queries
    from index.evaluate.look_alikes import Looking
    from index.evaluate.measurement import measure_left_out, measure_store

    described = None if queries is None else describe_queries(queries, folder, values)
    with PictureBar("looking for copies") as bar:
        looking = Looking(max(1, default_workers(values["workers"])), bar.begin, bar.add)
        if described is None:
            return measure_left_out(folder, looking=looking)
        return measure_store(folder, *described, looking=looking)


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
