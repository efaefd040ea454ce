"""lmr calibrate: votes, confidence and thresholds of an index folder, from held-out queries."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import (
    PATH,
    Share,
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
from cli.terminal import say_result
from retrieval.errors import LmrError

if TYPE_CHECKING:
    from index.calibration import Calibration
    from index.folder import IndexFolder
    from index.thresholds import Threshold


@click.command(name="calibrate")
@click.argument("queries", type=PATH)
@index_option
@images_option
@click.option("--store", type=PATH, default=None, help="Descriptors of the queries. [default: QUERIES' name, .h5]")
@click.option(
    "--precision",
    type=Share(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Share of right answers that the threshold of query must reach.",
)
@click.option(
    "--non-landmark-share",
    type=Share(0, 1, max_open=True),
    default=None,
    help="Share of non-landmarks to expect; Google's tests had about 0.99. [default: as in QUERIES]",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the folds of cross-validation.")
@allow_disjoint_option
@json_option
@check_option
@workers_option
@device_option
@config_option
@overwrite_option
@writes(lambda given: [given["index_path"]])
def command(queries: Path, index_path: Path, as_json: bool, **values: Any) -> None:
    """Tune the vote and fit the confidence on QUERIES: a manifest with labels, or its store (.h5).

    The queries must not be in the index or its background, and should include non-landmarks (blank landmark_id) as
    they come in use. What is found is written into the index folder; a calibration on other queries or with other
    settings that is there is replaced with --overwrite.

    \b
    Example:
      lmr calibrate val.csv --images images --precision 0.95
    """
    from cli.describing import describe_queries
    from index.calibrating import calibration_of
    from index.calibration import CalibrationSettings
    from index.folder import CALIBRATION, open_folder, replace_calibration

    folder = open_folder(index_path, device=values["device"], threads=values["threads"], calibrated=False)
    store, held_out = describe_queries(queries, folder, values)
    settings = CalibrationSettings(values["precision"], values["non_landmark_share"], values["seed"])
    calibration = calibration_of(folder, store, held_out, settings)
    before = _calibration_of(folder)
    if before is not None and _content(before) == _content(calibration):
        warn(f"{index_path}: calibrated already, nothing to do")
    elif before is not None and not values["overwrite"]:
        raise LmrError(
            f"{index_path / CALIBRATION} was made from {before.origin.source} with other queries or settings; "
            "give --overwrite to replace it"
        )
    else:
        replace_calibration(folder.path, calibration)
    for text in calibration.warnings:
        warn(f"warning: {text}")
    say_result(calibration.to_json(), to_text(index_path, calibration), as_json=as_json)


def _calibration_of(folder: "IndexFolder") -> "Calibration | None":
    """The calibration that is there; None without one, or where it is damaged and has to be made again."""
    from index.folder import read_calibration

    try:
        return read_calibration(folder.path, folder.info)
    except LmrError:
        return None


def _content(calibration: "Calibration") -> str:
    return json.dumps(calibration.to_json())


def to_text(index_path: Path, calibration: "Calibration") -> str:
    """What was chosen and what it is worth, for people."""
    rule, seen = calibration.rule, calibration.cross_validated
    lines = [
        f"{index_path}: calibrated on {seen.n_queries} queries, {seen.n_non_landmarks} of them non-landmarks",
        f"  vote: k = {rule.k}, tau = {rule.tau:g}, r = {rule.r:g}, beta = {rule.beta:g}",
        f"  cross-validated: GAP {seen.gap:.3f}, top-1 {seen.top1:.3f}",
        f"  threshold for precision: {_figures(calibration.threshold_precision)}",
        f"  threshold that costs no GAP: {_figures(calibration.threshold_gap)}",
    ]
    for kind in calibration.threshold_precision.kinds:
        lines.append(f"    {kind.kind}: {_kind(kind)}")
    return "\n".join(lines)


def _figures(threshold: "Threshold") -> str:
    turned_away = (
        ""
        if threshold.false_answer_rate is None
        else f", {1 - threshold.false_answer_rate:.1%} of non-landmarks turned away"
    )
    return (
        f"{threshold.confidence:.3f} (precision {threshold.precision:.3f}, sure to be {threshold.precision_bound:.3f}; "
        f"{threshold.recall:.1%} of landmark queries named rightly{turned_away})"
    )


def _kind(kind: Any) -> str:
    if kind.false_answer_rate is not None:
        return f"{kind.n_queries} queries, {1 - kind.false_answer_rate:.1%} turned away"
    return f"{kind.n_queries} queries, {kind.recall:.1%} named rightly"
