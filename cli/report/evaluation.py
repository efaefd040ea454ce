"""The report of an evaluation, put together from what the index room found."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cli.report.html import EvaluationReport, ReportError, ReportPair, ReportPicture, write_evaluation_report

if TYPE_CHECKING:
    from index.evaluation import Evaluation, Queries
    from index.folder import IndexFolder
    from index.mistakes import ConfidentError, Confusion


def write_report(path: Path, folder: "IndexFolder", evaluation: "Evaluation", queries: "Queries") -> None:
    """Writes the HTML report. Raises LmrError without the extra `report`, or if it cannot be written."""
    calibrated = folder.calibration is not None
    curves: dict[str, Any] | None = asdict(evaluation.curves) if evaluation.curves else None
    if curves is not None and not calibrated:
        del curves["confidence"]
    report = EvaluationReport(
        title=f"Evaluation of {folder.path}",
        metrics=evaluation.to_json(),
        curves=curves,
        reliability=[asdict(b) for b in evaluation.reliability] if evaluation.reliability else None,
        by_count=[asdict(b) for b in evaluation.mistakes.by_count],
        pairs=[_pair(folder, confusion) for confusion in evaluation.mistakes.confusions],
        errors=[_error(folder, queries, error) for error in evaluation.mistakes.errors],
        facts=_facts(folder, evaluation),
        warnings=_warnings(folder, evaluation),
    )
    write_evaluation_report(path, report)


def _pair(folder: "IndexFolder", confusion: "Confusion") -> ReportPair:
    shown = [
        ReportPicture(_picture_of(folder, label), _name(folder, label))
        for label in (confusion.true, confusion.predicted)
    ]
    return ReportPair(shown[0].label, shown[1].label, confusion.n_queries, *shown)


def _error(folder: "IndexFolder", queries: "Queries", error: "ConfidentError") -> ReportError:
    true = ", ".join(_name(folder, label) for label in error.true)
    rows = folder.rows
    neighbours = tuple(
        ReportPicture(str(rows.path[row]), _name(folder, rows.landmarks[rows.landmark[row]]), score)
        for row, score in zip(error.rows, error.scores, strict=True)
    )
    query = ReportPicture(str(queries.path[error.query]), error.image_id)
    return ReportError(query, true, _name(folder, error.predicted), error.confidence, neighbours)


def _facts(folder: "IndexFolder", evaluation: "Evaluation") -> dict[str, str]:
    info = folder.info
    facts = {
        "index": f"{info.n_rows} pictures of {info.n_landmarks} landmarks, {info.n_background} in the background",
        "queries": f"{evaluation.n_queries}, {evaluation.n_landmark_queries} of them show a landmark",
        "vote": f"k = {folder.rule.k}, tau = {folder.rule.tau:g}, r = {folder.rule.r:g}, beta = {folder.rule.beta:g}",
        "model": folder.fingerprint[:12],
    }
    if folder.calibration is not None:
        facts["calibrated on"] = folder.calibration.origin.source
    return facts


def _warnings(folder: "IndexFolder", evaluation: "Evaluation") -> list[str]:
    warnings = list(folder.calibration.warnings) if folder.calibration else ["the index is not calibrated"]
    if evaluation.n_unreadable:
        warnings.append(f"{evaluation.n_unreadable} queries have no descriptor and count as not answered")
    if evaluation.n_same_picture:
        warnings.append(f"{evaluation.n_same_picture} queries are pictures of the index itself")
    return warnings


def _picture_of(folder: "IndexFolder", label: str) -> str:
    """Path of the landmark's first picture in the index; '' where it has none."""
    rows = folder.rows
    if label not in rows.landmarks:
        return ""
    return str(rows.path[np.flatnonzero(rows.landmark == rows.landmarks.index(label))[0]])


def _name(folder: "IndexFolder", label: str) -> str:
    known = folder.names.get(label)
    return known.name if known else label
