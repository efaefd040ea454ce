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
from cli.terminal import say_result, shown
from retrieval.errors import DamageError, LmrError
from retrieval.words import agreeing, counted

if TYPE_CHECKING:
    from index.calibration import Calibration, KindFigures, Threshold
    from index.folder.folder import IndexFolder
    from index.vote import VoteRule


@click.command(name="calibrate")
@click.argument("queries", type=PATH)
@index_option
@images_option
@click.option(
    "--store", type=PATH, default=None, help="Descriptors of the queries. [default: QUERIES with .h5, beside it]"
)
@click.option(
    "--precision",
    type=Share(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Share of right answers that the threshold of query is for; the output tells what each costs.",
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

    The constants of the vote leave their defaults only where that gains more than one standard error, on the queries
    and leaving one out of the index. With few queries the threshold is where the confidence expects the precision,
    with many where it is sure.

    \b
    Example:
      lmr calibrate val.csv --images images
      lmr calibrate val.csv --precision 0.9 --overwrite    # more named, more of them wrong
    """
    from cli.describing import describe_queries
    from index.calibrate.run import calibration_of
    from index.calibration import CalibrationSettings
    from index.folder.folder import CALIBRATION, open_folder, replace_calibration
    from retrieval.data.overview import require_there

    require_there(queries)
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
    """The calibration that is there; None without one, or where it is damaged and has to be made again.

    Raises LmrError for one that cannot be read, or is of another version.
    """
    from index.folder.folder import read_calibration

    try:
        return read_calibration(folder.path, folder.info)
    except DamageError:
        return None


def _content(calibration: "Calibration") -> str:
    return json.dumps(calibration.to_json())


def to_text(index_path: Path, calibration: "Calibration") -> str:
    """What was chosen and what it is worth, for people."""
    rule, seen = calibration.rule, calibration.cross_validated
    lines = [
        f"{shown(index_path)}: calibrated on {counted(seen.n_queries, 'query')}, "
        f"{seen.n_non_landmarks:,} of them {agreeing(seen.n_non_landmarks, 'a non-landmark', 'non-landmarks')}",
        f"  vote: {_constants(rule)}{_reason(calibration)}",
        f"  cross-validated: GAP {seen.gap:.3f}, top-1 {seen.top1:.3f}",
        *_before_after(calibration),
        f"  a precision of {calibration.settings.precision:g} was asked: pictures are named from a confidence of "
        f"{calibration.threshold_precision.confidence:.3f} on",
        f"    there {_figures(calibration.threshold_precision)}",
        f"  the GAP is the same when pictures are named from a confidence of "
        f"{calibration.threshold_gap.confidence:.3f} on (for submit)",
        f"    there {_figures(calibration.threshold_gap)}",
    ]
    for kind in calibration.threshold_precision.kinds:
        lines.append(f"    {shown(kind.kind)}: {_kind(kind)}")
    return "\n".join([*lines, *trade_table(calibration)])


def trade_table(calibration: "Calibration") -> list[str]:
    """What each precision costs: the threshold, the landmarks named, the wrong answers. No lines where not measured."""
    if not calibration.trade:
        return []
    lines = [
        f"  what a precision costs, on these queries (--precision, here {calibration.settings.precision:g}):",
        f"  {'asked':>9}{'threshold':>11}{'named':>9}{'answers':>9}{'wrong':>7}"
        f"{'precision':>11}{'expected':>10}{'sure':>7}",
    ]
    for row in calibration.trade:
        mark = "*" if row.asked == calibration.settings.precision else " "
        named = "-" if row.named is None else f"{row.named:.1%}"
        lines.append(
            f"  {mark}{row.asked:>8g}{row.confidence:>11.3f}{named:>9}{row.n_answers or 0:>9}{row.n_wrong or 0:>7}"
            f"{_cell(row.precision):>11}{_cell(row.expected_precision):>10}{row.precision_bound:>7.3f}"
        )
    return lines


def _constants(rule: "VoteRule") -> str:
    return f"k = {rule.k}, tau = {rule.tau:g}, r = {rule.r:g}, beta = {rule.beta:g}"


def _reason(calibration: "Calibration") -> str:
    """Why the vote is this one, in brackets."""
    from index.vote import VoteRule

    choice = calibration.choice
    if choice is None:
        return ""
    gain = f"{choice.gain:+.4f} GAP, standard error {choice.gain_error:.4f}"
    if choice.gain == 0 or choice.tried == VoteRule(m=choice.tried.m):
        return " (the defaults; nothing was better)"
    if calibration.rule == choice.tried:
        return f" (chosen: {gain})"
    return f" (the defaults; {_constants(choice.tried)} is not better by more than chance: {gain})"


def _before_after(calibration: "Calibration") -> list[str]:
    """GAP and top-1 of the default constants and of the chosen ones, on both kinds of queries."""
    choice = calibration.choice
    if choice is None:
        return []
    lines = []
    for name, found in (("held-out queries", choice.held_out), ("leave-one-out", choice.leave_one_out)):
        if found is None:
            lines.append(f"    {name}: not used, {choice.why_not}")
        else:
            lines.append(
                f"    {name}: GAP {found.gap_default:.3f} by the defaults, {found.gap:.3f} now; "
                f"top-1 {found.top1_default:.3f}, {found.top1:.3f} now"
            )
    return lines


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _figures(threshold: "Threshold") -> str:
    """What held-out queries say of the answers at or above a threshold: measured, expected, sure, and what it costs."""
    if threshold.precision is None:
        return "no held-out query is answered"
    n, n_wrong = threshold.n_answers, threshold.n_wrong
    parts = [f"{threshold.precision:.1%} of the answers are right"]
    if n is not None and n_wrong is not None:
        parts = [f"{n - n_wrong:,} of {counted(n, 'answer')} {agreeing(n - n_wrong, 'is', 'are')} right"]
        weighted = abs(threshold.precision * n - (n - n_wrong)) > 1e-9 * n
        parts[0] += f" ({threshold.precision:.1%}{' at the share of non-landmarks asked for' if weighted else ''})"
    if threshold.expected_precision is not None:
        parts.append(f"{threshold.expected_precision:.1%} is expected of new ones")
    parts.append(f"{threshold.precision_bound:.1%} is sure")
    parts.append(f"{threshold.recall:.1%} of landmark queries are named rightly")
    if threshold.false_answer_rate is not None:
        parts.append(f"{1 - threshold.false_answer_rate:.1%} of non-landmarks are turned away")
    return ", ".join(parts)


def _kind(kind: "KindFigures") -> str:
    if kind.false_answer_rate is not None:
        return f"{counted(kind.n_queries, 'query')}, {1 - kind.false_answer_rate:.1%} turned away"
    return f"{counted(kind.n_queries, 'query')}, {kind.recall:.1%} named rightly"
