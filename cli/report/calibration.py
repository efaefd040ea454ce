"""A calibration for people: what was chosen, what it is worth, and what each precision costs."""

from pathlib import Path
from typing import TYPE_CHECKING

from cli.terminal import shown
from retrieval.words import agreeing, counted

if TYPE_CHECKING:
    from index.calibration import Calibration, KindFigures, Threshold
    from index.vote import VoteRule


def to_text(index_path: Path, calibration: "Calibration") -> str:
    """The calibration in lines for people: what was chosen and what it is worth."""
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
    """The price of each precision: threshold, landmarks named, wrong answers. No lines where not measured."""
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
    """Figures of the held-out answers at or above a threshold: measured, expected, sure, and what it costs."""
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
