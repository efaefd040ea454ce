"""The report of an evaluation, put together from what the index room found."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.report.html import (
    EvaluationReport,
    ReportError,
    ReportExample,
    ReportImage,
    ReportPair,
    render_evaluation_report,
)
from cli.report.text import place_lines
from retrieval.data.csv_cells import csv_line
from retrieval.files.atomic import write_text
from retrieval.files.made_of import write_with_record
from retrieval.words import agreeing, counted

if TYPE_CHECKING:
    from index.evaluate.errors import ConfidentError, Confusion
    from index.evaluate.evaluation import Evaluation
    from index.evaluate.result import EvaluationResult
    from index.folder.folder import IndexFolder

MOST_LISTED = 500  # landmarks that the page lists; the table beside it has all
N_LEAKED = 24  # queries known to the index that the page shows
_COLUMNS = (
    *("landmark_id", "name", "n_rows", "n_queries", "n_right", "n_answers", "recall", "recall_low", "recall_high"),
    *("precision", "precision_low", "precision_high", "confused_with", "n_confused"),
)


def write_report(path: Path, measured: "EvaluationResult", made_of: Mapping[str, Any] | None = None) -> Path:
    """Writes the HTML report, and beside it a table of the landmarks, whose path is returned.

    made_of: what is kept beside both, so that the same command finds them finished; None = nothing is kept.

    Raises LmrError without the extra `report`, or if one cannot be written.
    """
    folder, evaluation = measured.folder, measured.evaluation
    calibrated = folder.calibration is not None
    curves: dict[str, Any] | None = asdict(evaluation.curves) if evaluation.curves else None
    if curves is not None and not calibrated:
        del curves["confidence"]
    rows = landmark_rows(folder, evaluation)
    table = landmarks_path(path)
    report = EvaluationReport(
        title=f"Evaluation of {folder}",
        metrics=measured.to_json(),
        curves=curves,
        reliability=[asdict(b) for b in evaluation.reliability] if evaluation.reliability else None,
        by_count=[asdict(b) for b in evaluation.error_analysis.by_count],
        pairs=[_pair(measured, confusion) for confusion in evaluation.error_analysis.confusions],
        errors=[_error(measured, error) for error in evaluation.error_analysis.errors],
        facts=_facts(measured),
        warnings=_warnings(measured),
        landmarks=sorted(rows, key=lambda row: -row["n_queries"])[:MOST_LISTED],
        n_landmarks=len(rows),
        landmarks_table=table.name,
        confusion=_confusion(folder, evaluation),
        leaked=[_query(measured, i) for i in measured.leaks.any.nonzero()[0][:N_LEAKED]],
        trade=_trade(measured),
        places=() if evaluation.places is None else place_lines(asdict(evaluation.places)),
        folder=path.parent,
    )
    lines = [csv_line(_COLUMNS), *(csv_line([row[name] for name in _COLUMNS]) for row in rows)]
    for place, text in ((table, lines), (path, [render_evaluation_report(report)])):
        if made_of is None:
            write_text(place, text)
        else:
            write_with_record(place, text, made_of)
    return table


def landmarks_path(report: Path) -> Path:
    """The table of landmarks beside a report: `report.html` -> `report-landmarks.csv`."""
    return report.with_name(f"{report.stem}-landmarks.csv")


def landmark_rows(folder: "IndexFolder", evaluation: "Evaluation") -> list[dict[str, Any]]:
    """A line for each landmark: the figures of `index.evaluate.errors`, with names for people."""
    lines = []
    for figures in evaluation.landmarks:
        line = asdict(figures) | {"name": _name(folder, figures.landmark_id)}
        for name in ("recall", "precision"):
            line[f"{name}_low"], line[f"{name}_high"] = line.pop(f"{name}_interval") or (None, None)
        lines.append({name: round(line[name], 4) if isinstance(line[name], float) else line[name] for name in _COLUMNS})
    return lines


def _confusion(folder: "IndexFolder", evaluation: "Evaluation") -> dict[str, Any]:
    """The matrix with names for people."""
    content = asdict(evaluation.confusion)
    n_named = len(content["labels"]) - 1 - (content["n_left_out"] > 0)
    names = [_name(folder, label) for label in content["labels"][:n_named]]
    rest = [counted(content["n_left_out"], "other")] if content["n_left_out"] else []
    return content | {"labels": [*names, *rest, "no landmark"]}


def _trade(measured: "EvaluationResult") -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The price of each precision: on the held-out queries of the calibration, and on these."""
    folder = measured.folder
    if folder.calibration is None:
        return []
    asked = folder.calibration.settings.precision
    pairs = zip(folder.calibration.trade, measured.to_json()["trade"], strict=True)
    return [(asdict(held) | {"is_asked": held.asked == asked}, here) for held, here in pairs]


def _pair(measured: "EvaluationResult", confusion: "Confusion") -> ReportPair:
    folder = measured.folder
    examples = tuple(
        ReportExample(_query(measured, query), _row(folder, row, str(folder.rows.image_id[row])))
        for query, row in confusion.examples
    )
    return ReportPair(_name(folder, confusion.true), _name(folder, confusion.predicted), confusion.n_queries, examples)


def _error(measured: "EvaluationResult", error: "ConfidentError") -> ReportError:
    folder = measured.folder
    true = ", ".join(_name(folder, label) for label in error.true)
    rows = folder.rows
    neighbours = tuple(
        _row(folder, row, _name(folder, rows.landmarks[rows.landmark[row]]), score)
        for row, score in zip(error.rows, error.scores, strict=True)
    )
    query = _query(measured, error.query)
    return ReportError(query, true, _name(folder, error.predicted), error.confidence, neighbours)


def _query(measured: "EvaluationResult", i: int) -> ReportImage:
    """A query; of one that is left out of the index, what that keeps of it."""
    folder = measured.folder
    is_row = measured.is_left_out and i < len(folder.rows)
    kept = folder.kept(i) if is_row else None
    return ReportImage(str(measured.queries.path[i]), str(measured.queries.image_id[i]), kept=kept)


def _row(folder: "IndexFolder", row: int, label: str, score: float | None = None) -> ReportImage:
    """An image of the index."""
    return ReportImage(str(folder.rows.path[row]), label, score, folder.kept(row))


def _facts(measured: "EvaluationResult") -> dict[str, str]:
    folder, evaluation = measured.folder, measured.evaluation
    info, calibration = folder.info, folder.calibration
    facts = {
        "measured": f"{measured.source}, {measured.measured_at}, lmr {measured.lmr_version}",
        "queries": f"{evaluation.n_queries:,}, {evaluation.n_landmark_queries:,} of them with a landmark",
        "index": f"{counted(info.n_rows, 'picture')} of {counted(info.n_landmarks, 'landmark')}, "
        f"{info.n_background:,} in the background; "
        f"built {info.built_at} by lmr {info.program_version}",
        "vote": f"k = {folder.rule.k}, tau = {folder.rule.tau:g}, r = {folder.rule.r:g}, beta = {folder.rule.beta:g}",
        "model": folder.fingerprint[:12],
    }
    if calibration is not None:
        seen = calibration.cross_validated
        facts["calibrated on"] = (
            f"{calibration.origin.source}, {counted(seen.n_queries, 'query')}; cross-validated GAP {seen.gap:.3f}, "
            f"top-1 {seen.top1:.3f}"
        )
    return facts


def _warnings(measured: "EvaluationResult") -> list[str]:
    folder = measured.folder
    warnings = list(measured.warnings)
    warnings += folder.calibration.warnings if folder.calibration else ["the index is not calibrated"]
    if n := measured.evaluation.n_unreadable:
        warnings.append(
            f"{counted(n, 'query')} {agreeing(n, 'has', 'have')} no descriptor and "
            f"{agreeing(n, 'counts', 'count')} as not answered"
        )
    return warnings


def _name(folder: "IndexFolder", label: str) -> str:
    known = folder.names.get(label)
    return known.name if known else label
