"""The report of a comparison: the table, curves of answering and of training, confusion matrices, configurations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cli.compare.results import COLUMNS, Row
from cli.report.comparison_plots import (
    plot_confusion,
    plot_landmark_accuracies,
    plot_precision_recalls,
    plot_training_runs,
)
from cli.report.curves import read_log
from cli.report.html import Figure, figure, fill_template
from retrieval.files.atomic import write_text
from retrieval.recipe import to_toml

if TYPE_CHECKING:
    from index.comparing import Confusion

TEMPLATE = "comparison.html"
N_SHOWN = 40  # landmarks that a figure has room for


def write_comparison(path: Path, rows: Sequence[Row], facts: Mapping[str, Any]) -> None:
    """Writes the report in one piece. Raises LmrError without jinja2 or matplotlib, or if it cannot be written."""
    best = max((row.figure("gap")[0] or 0.0 for row in rows), default=0.0)
    write_text(
        path,
        [
            fill_template(
                TEMPLATE,
                {},
                title=f"Comparison on {facts['part']}",
                facts=facts,
                headings=[heading for _, heading, _ in COLUMNS],
                rows=[(row, [row.cell(key, form) for key, _, form in COLUMNS]) for row in rows],
                best=best,
                curves=_curves(rows),
                by_landmark=_by_landmark(rows, f"comparison-{facts['part']}-landmarks.csv"),
                confusions=[_confusion(row.label, row.runs[0].measured.confusion) for row in rows if row.recipe],
                recipes=[(row.label, row.about, _configuration(row), row.tried) for row in rows if row.recipe],
            )
        ],
    )


def _curves(rows: Sequence[Row]) -> list[Figure]:
    made = [row for row in rows if row.recipe]
    curves = {(i, row.label): row.runs[0].measured.curves for i, row in enumerate(made)}
    about = "What each system's answers are worth as the threshold falls; first seed."
    found = [figure("Precision and recall", about, plot_precision_recalls({k: v for k, v in curves.items() if v}))]
    logs = {
        (i, f"{row.label}, {name}".removesuffix(", ")): read_log(path)
        for i, row in enumerate(made)
        for name, path in row.runs[0].logs.items()
    }
    about = "Each on a scale of its own, because losses of different kinds cannot be compared; first seed."
    if logs:
        found.append(figure("Training loss", about, plot_training_runs(logs, "loss")))
    for key, name in (("gap", "GAP on val while training"), ("top1", "Top-1 on val while training")):
        measured = {place: log for place, log in logs.items() if any(key in row for row in log)}
        if measured:
            about = "After each epoch, by the classes of a linear head, else by the vote of the neighbours; first seed."
            found.append(figure(name, about, plot_training_runs(measured, key)))
    return found


def _by_landmark(rows: Sequence[Row], all_of_them: str) -> Figure:
    """Of the landmarks that all systems together know worst. all_of_them: the file that has every landmark."""
    asked = rows[0].runs[0].measured.by_landmark
    made = {(i, row.label): row.landmark_accuracy for i, row in enumerate(rows) if row.recipe}
    worst = np.argsort(np.mean(list(made.values()), axis=0), kind="stable")[:N_SHOWN]
    about = (
        f"Percent of a landmark's pictures that were answered rightly, whatever the confidence; the {len(worst)} that "
        f"are hardest for all, of {len(asked.landmarks)}. Every landmark is in {all_of_them}."
    )
    shown = {place: accuracy[worst].tolist() for place, accuracy in made.items()}
    names = [f"{asked.landmarks[i]} ({asked.n_queries[i]})" for i in worst]
    return figure("Accuracy by landmark", about, plot_landmark_accuracies(names, shown))


def _confusion(label: str, confusion: "Confusion") -> Figure:
    shown = len(confusion.landmarks)
    about = f"Lines: what the pictures show; columns: what was answered; {shown} landmarks, those with most errors."
    return figure(label, about, plot_confusion(confusion))


def _configuration(row: Row) -> str:
    """The tables of a recipe as TOML."""
    if row.recipe is None:
        raise ValueError(f"{row.label} has no recipe")
    parts = []
    for name, table in row.recipe.tables.items():
        heading = "[[stage]]" if name.startswith("stage.") else f"[{name}]"
        parts.append(f"{heading}\n{to_toml(table)}")
    for member in row.recipe.members:
        parts.append("[[member]]\n" + to_toml({f'"{key}"' if "." in key else key: v for key, v in member.items()}))
    return "\n".join(parts)
