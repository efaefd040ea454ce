"""`lmr score`: scores a submission file, ours or another's, against a solution file."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cli.options import allow_disjoint_option
from cli.progress import TerminalProgress
from cli.terminal import say_result


@click.command("score")
@click.argument("submission", type=click.Path(path_type=Path))
@click.argument("solution", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
@click.option(
    "--ignore-unknown",
    is_flag=True,
    help="Leave out the submission's ids that the solution lacks, instead of refusing them: "
    "for a solution that holds only a part of the test set.",
)
@allow_disjoint_option
@click.option(
    "--within",
    metavar="DISTANCE",
    help="Images of the index that were taken so near a query, as 25m, are right: SOLUTION is a manifest of the "
    "queries with lat and lon.",
)
@click.option("--index", type=click.Path(path_type=Path), help="Manifest of the index's images, with lat and lon.")
@click.option(
    "--column",
    multiple=True,
    metavar="ROLE=NAME",
    help="With --within: column of these manifests that holds the image_id, lat or lon, as in lat=y. Repeat it.",
)
def command(
    submission: Path,
    solution: Path,
    as_json: bool,
    ignore_unknown: bool,
    allow_disjoint: bool,
    within: str | None,
    index: Path | None,
    column: tuple[str, ...],
) -> None:
    """Score SUBMISSION against SOLUTION.

    Their headers tell the task. id,landmarks and id,landmarks,Usage: recognition, scored with GAP and
    top-1. id,images and id,images,Usage: retrieval, scored with mAP@100, precision@k and the position of
    the first right image. Ignored rows are left out; Public and Private are reported each and together.

    \b
    Example:
      lmr score submission.csv recognition_solution_v2.1.csv
      lmr score submission.csv test_solution_public.csv --ignore-unknown --json
      lmr score lists.csv queries.csv --within 25m --index database.csv
    """
    import lmr

    with TerminalProgress() as progress:
        scores = lmr.score(
            submission,
            solution,
            ignore_unknown=ignore_unknown,
            allow_disjoint=allow_disjoint,
            within=within,
            index=index,
            column=column,
            progress=progress,
        )
    content = {str(half): asdict(metrics) for half, metrics in scores.items()}
    say_result(content, _table(content), as_json=as_json, indent=2)


def _table(scores: dict[str, dict[str, Any]]) -> str:
    """One line per metric, one column per half."""
    flat = {half: _flatten(metrics) for half, metrics in scores.items()}
    rows = [["", *flat]]
    rows += [[name, *(_cell(metrics[name]) for metrics in flat.values())] for name in flat["All"]]
    width = max(len(row[0]) for row in rows)
    return "\n".join(row[0].ljust(width) + "".join(cell.rjust(10) for cell in row[1:]) for row in rows)


def _flatten(metrics: dict[str, Any]) -> dict[str, float | None]:
    flat: dict[str, float | None] = {}
    for name, value in metrics.items():
        if isinstance(value, dict):
            flat.update({f"{name} {k}": share for k, share in value.items()})
        else:
            flat[name] = value
    return flat


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4f}"
