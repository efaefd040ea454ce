"""Results as text: lines for people, CSV for programs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.terminal import shown
from index.answer import certainty, headline, verification
from retrieval.data.csv_cells import csv_line
from retrieval.data.names import shown_name
from retrieval.errors import LmrError
from retrieval.words import agreeing, counted, none_can

if TYPE_CHECKING:
    from index.answer import Answer, LandmarkScore, Neighbour
    from index.calibration import Calibration, KindFigures, Threshold, Verified
    from index.kaggle.submit import SubmitReport
    from index.vote_rule import VoteRule
    from retrieval.embed.fill import FillReport
    from retrieval.embed.profile import Profile
    from retrieval.local.job import LocalReport
    from retrieval.progress import Progress

SHOWN_NEIGHBOURS = 5  # in the text for people; --json lists all that voted
CSV_COLUMNS = (
    *("image", "landmark_id", "name", "confidence"),
    *("best_landmark_id", "best_name", "best_confidence", "best_score", "reason", "verified", "inliers"),
)


def answer_text(answer: "Answer") -> str:
    """An answer for people."""
    if answer.unreadable is not None:
        return f"{shown(answer.image)}\n  unreadable: {shown(answer.unreadable)}"
    address = f"  {shown(answer.address)}" if answer.address else ""
    lines = [shown(answer.image), f"  {shown(headline(answer))}{address}"]
    if answer.in_index is not None:
        lines.append(f"  this very picture is in the index: {shown(answer.in_index)}")
    if others := answer.landmarks[1:]:
        said = ", ".join(f"{_label(other)} {certainty(other.confidence, other.score)}" for other in others)
        lines.append(f"  other landmarks: {said}")
    if told := verification(answer):
        lines.append(f"  {told}")
    for n in answer.neighbours[:SHOWN_NEIGHBOURS]:
        inliers = "" if n.inliers is None else f"  {counted(n.inliers, 'inlier')}"
        lines.append(f"  {n.score:6.3f}  {_label(n)}  {shown(n.path or n.image_id)}{inliers}")
    return "\n".join(lines)


def answers_csv(answers: "Sequence[Answer]") -> str:
    """A line for each image under CSV_COLUMNS: landmark_id and name blank where no landmark is named, the best guess
    and why it was not enough beside them.

    Where the index has own columns, those of the nearest image of the best landmark follow, as `nearest_NAME`.
    """
    own = own_names(near for answer in answers for near in answer.neighbours)
    nearest = ["nearest_image_id", *(f"nearest_{name}" for name in own)] if own else []
    lines = [csv_line([*CSV_COLUMNS, *nearest])]
    for answer in answers:
        best = answer.best
        guess = ["", "", "", ""]
        if best is not None:
            guess = [best.landmark_id, best.name, _exact(best.confidence), _exact(best.score)]
        named = [answer.image, answer.landmark_id or "", answer.name, _exact(answer.confidence)]
        verified = "" if answer.verified is None else str(answer.verified).lower()
        inliers = "" if answer.inliers is None else str(answer.inliers)
        near = answer.nearest
        said = [near.image_id, *(near.columns.get(name, "") for name in own)] if near else [""] * len(nearest)
        lines.append(csv_line([*named, *guess, answer.reason, verified, inliers, *(said if own else ())]))
    return "".join(lines)


def own_names(neighbours: "Iterable[Neighbour]") -> list[str]:
    """Names of the own columns of these images, as they appear."""
    return list(dict.fromkeys(name for near in neighbours for name in near.columns))


def own_words(near: "Neighbour") -> str:
    """What the own columns say of an image, on one line of bounded length; '' where they are blank."""
    return "; ".join(f"{shown(name)}: {shown(text)}" for name, text in near.columns.items() if text)


def warn_of_unreadable(answers: "Sequence[Answer]", progress: "Progress") -> None:
    """Warns of images that cannot be read; raises LmrError where none can."""
    unreadable = [answer for answer in answers if answer.unreadable is not None]
    n = len(unreadable)
    if n and n == len(answers):
        first = unreadable[0]
        raise LmrError(f"{none_can(n, 'picture')} be read: {shown(first.image)}: {shown(first.unreadable)}")
    if n:
        progress.warn(f"{counted(n, 'picture', of=len(answers))} {agreeing(n, 'is', 'are')} unreadable")


def _label(named: "LandmarkScore | Neighbour") -> str:
    return shown(shown_name(named.landmark_id, named.name))


def _exact(value: float | None) -> str:
    return "" if value is None else repr(value)


def calibration_text(index_path: Path, calibration: "Calibration") -> str:
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
    lines += trade_table(calibration)
    return "\n".join([*lines, *(_verified_lines(calibration.verified) if calibration.verified else ())])


def _verified_lines(verified: "Verified") -> list[str]:
    """The part of a calibration for verified answers: what verification is worth."""
    choice, seen, evidence = verified.choice, verified.cross_validated, verified.evidence
    is_default = choice.gain == 0 or (verified.rule, evidence) != (choice.tried, choice.tried_evidence)
    gain = f"{choice.gain:+.4f} GAP, standard error {choice.gain_error:.4f}"
    why = "the vote without and the default weight; nothing was better by more than chance"
    if not is_default:
        why = f"chosen: {gain}"
    lines = [
        f"with the best {counted(verified.by.top, 'neighbour')} verified (--verify):",
        f"  vote: {_constants(verified.rule)}, weight {evidence.weight:g} of the evidence ({why})",
        f"  a neighbour counts as verified from {counted(verified.n_inliers, 'inlier')} on",
        f"  cross-validated: GAP {seen.gap:.3f}, {choice.plain_gap:.3f} without ({choice.from_plain:+.4f}, standard "
        f"error {choice.from_plain_error:.4f}); top-1 {seen.top1:.3f}, {choice.plain_top1:.3f} without",
        *gain_lines([asdict(row) for row in verified.gain]),
        f"  pictures are named from a confidence of {verified.threshold_precision.confidence:.3f} on",
        f"    there {_figures(verified.threshold_precision)}",
    ]
    if verified.n_unverified:
        lines.append(f"  {counted(verified.n_unverified, 'query')} could not be verified")
    return lines


def gain_lines(rows: "Sequence[Mapping[str, Any]]") -> list[str]:
    """What verification gains at some precisions."""
    lines = []
    for row in rows:
        told = f"{row['recall']:.1%} of landmark queries are named rightly, {row['plain_recall']:.1%} without"
        if row["turned_away"] is not None:
            away, plain = row["turned_away"], row["plain_turned_away"]
            told += f"; {away:.1%} of non-landmarks are turned away, {plain:.1%} without"
        lines.append(f"  at a precision of {row['precision']:.0%}: {told}")
    return lines


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
    from index.vote_rule import VoteRule

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


def evaluation_text(content: dict[str, Any]) -> str:
    """The table for people: ours beside the baselines, then what stands alone."""
    header = f"{'':24}{'GAP':>8}{'top-1':>8}{'top-5':>8}{'top-10':>8}"
    rows = {"lmr": content, **content["baselines"]}
    lines = [header] + [
        f"{name.replace('_', ' '):24}" + "".join(_column(row.get(key)) for key in ("gap", "top1", "top5", "top10"))
        for name, row in rows.items()
    ]
    low, high = content["gap_interval"]
    if content["without_leaked"] is not None:
        n, row = content["leaked"]["n"], content["without_leaked"]
        cells = "".join(_column(row[key]) for key in ("gap", "top1", "top5", "top10"))
        lines.insert(2, f"{f'  without the {n} leaked':24}{cells}")
    elif content["leaked"]["n"]:
        lines.insert(2, f"  no landmark query is left without the {content['leaked']['n']:,} leaked")
    if (plain := content.get("without_verification")) is not None:
        cells = "".join(_column(plain[key]) for key in ("gap", "top1", "top5", "top10"))
        lines.insert(2, f"{'  without verification':24}{cells}")
    lines += [
        "",
        *gain_lines(content.get("verification_at_precision", ())),
        f"measured on {shown(content['measured']['source'])}, lmr {content['measured']['lmr_version']}",
        f"95 % interval of GAP: {_column(low).strip()} to {_column(high).strip()}",
        f"{counted(content['n_queries'], 'query')}, {content['n_landmark_queries']:,} of them with a landmark"
        + (f", {content['n_unreadable']} unreadable" if content["n_unreadable"] else ""),
        f"mAP@100 {_column(content['map_at_100']).strip()}, mean landmark accuracy "
        f"{_column(content['mean_landmark_accuracy']).strip()}",
    ]
    if content["threshold_precision"] is not None:
        precision, recall = (_column(content[key]).strip() for key in ("precision_at_threshold", "recall_at_precision"))
        threshold = content["threshold_precision"]
        lines.append(
            f"named from a confidence of {threshold:.3f} on, as calibrated: precision {precision}, recall {recall}"
        )
        for kind, rate in (content["false_answer_rate"] or {}).items():
            lines.append(f"  {shown(kind)}: {1 - rate:.1%} of non-landmarks turned away")
    if (places := content.get("places")) is not None:
        lines += place_lines(places)
    return "\n".join(lines)


def place_lines(places: Mapping[str, Any]) -> list[str]:
    """Figures of answers as places."""
    from retrieval.places import shown_distance  # which needs numpy

    recall = ", ".join(f"@{k} {_column(share).strip()}" for k, share in places["recall_at"].items())
    errors = ", ".join(
        f"{share} % {'-' if metres is None else shown_distance(metres)}" for share, metres in places["error_m"].items()
    )
    n, n_without = places["n_place_queries"], places["n_without_place"]
    nearest = places["nearest_m"]
    return [
        f"within {shown_distance(places['within_m'])}: recall {recall} of {counted(n, 'query')}; {n_without:,} more "
        f"{agreeing(n_without, 'has', 'have')} no picture of the index so near"
        + ("" if nearest is None else f" (half of all have one within {shown_distance(nearest)})"),
        f"located answers: GAP {_column(places['gap']).strip()}, {_column(places['located']).strip()} within that; "
        f"error not above, for {errors} of them",
    ]


def _column(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"{value:8.3f}"


def embedding_text(store: Path, report: "FillReport") -> str:
    """A line that says what was embedded."""
    if report.state == "unchanged":
        return f"{store}: finished already, nothing to do ({counted(report.n_pictures, 'picture')})"
    n_done = report.n_pictures - report.n_unreadable
    return f"{store}: {counted(n_done, 'descriptor')}, {report.n_unreadable:,} unreadable"


def local_text(report: "LocalReport") -> str:
    """A line that says which local features were found."""
    if report.state == "unchanged":
        return f"{report.store}: finished already, nothing to do ({counted(report.n_images, 'picture')})"
    n_done = report.n_images - report.n_unreadable
    size = report.n_bytes / max(1, n_done) / 1000
    return (
        f"{report.store}: {counted(report.n_features, 'local feature')} of {counted(n_done, 'picture')}, "
        f"{report.n_unreadable:,} unreadable; {size:,.0f} KB a picture"
    )


def profile_text(profile: "Profile") -> str:
    """A table of where the time went, and what decided the rate."""
    lines = [f"{'stage':<10}{'threads':>9}{'seconds':>10}{'share':>8}{'images/s':>10}"]
    for stage in profile.stages:
        rate = "" if stage.rate is None else f"{stage.rate:,.1f}"
        lines.append(f"{stage.name:<10}{stage.n_threads:>9}{stage.seconds:>10.2f}{stage.share:>8.0%}{rate:>10}")
    lines.append(f"{'all':<10}{'':>9}{profile.wall_s:>10.2f}{'':>8}{profile.rate:>10,.1f}")
    return "\n".join([*lines, f"bound by: {profile.bound}"])


def submission_text(report: "SubmitReport") -> str:
    """A line that says what was written."""
    lines = counted(report.n_lines, "line")
    if report.n_answered is None:
        return f"{report.output}: finished already, nothing to do ({lines})"
    n_blank = report.n_lines - report.n_answered
    return f"{report.output}: {lines}, {report.n_answered} with a landmark, {n_blank} blank"


def fact_lines(facts: Mapping[str, Any], indent: str = "") -> str:
    """Facts for people, a line each; those of a part, and texts of a list, are indented."""
    width = max(map(len, facts), default=0)
    lines = []
    for name, value in facts.items():
        if isinstance(value, Mapping) and value:
            lines += [f"{indent}{shown(name)}", fact_lines(value, indent + "  ")]
        elif isinstance(value, list | tuple) and any(isinstance(item, str) for item in value):
            lines += [f"{indent}{shown(name)}", *(f"{indent}  {_fact(item)}" for item in value)]
        else:
            lines.append(f"{indent}{shown(name).ljust(width)}  {_fact(value)}")
    return "\n".join(lines)


def _fact(value: object) -> str:
    """A fact for people: `none` for what there is not, yes or no, numbers to six digits."""
    if value is None or value in ("", (), [], {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_fact, value))
    return shown(value)
