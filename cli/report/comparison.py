"""The report of a comparison: the table, curves of answering and of training, confusion matrices, configurations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cli.report.comparison_plots import (
    plot_confusion,
    plot_landmark_accuracies,
    plot_precision_recalls,
    plot_training_runs,
)
from cli.report.comparison_table import cells, headings
from cli.report.html import Figure, figure, fill_template
from index.compare.results import Row
from retrieval.files.atomic import write_text
from retrieval.train.log import read_log
from retrieval.train.recipe import Recipe, to_toml

if TYPE_CHECKING:
    from index.compare.measure import Confusion

TEMPLATE = "comparison.html"
_SETTINGS = {"loss": "loss {}", "size": "{} px", "epochs": "epochs: {}", "optimizer": "{}", "freeze": "freeze {}"}
_ANSWERED = {
    "index": "Answered by the calibrated vote of the neighbours.",
    "nearest": "Answered by the nearest neighbour.",
    "majority": "Answered by the plain vote of {} neighbours.",
    "classifier": "Answered by the network's own classes.",
}
_JOINED = {"mean": "their mean", "majority": "majority"}
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
                headings=headings(),
                rows=[(row, cells(row)) for row in rows],
                files=[f"comparison-{facts['part']}{end}" for end in (".csv", "-landmarks.csv", ".json")],
                best=best,
                curves=_curves(rows),
                by_landmark=_by_landmark(rows, f"comparison-{facts['part']}-landmarks.csv"),
                confusions=[_confusion(row.label, row.runs[0].measured.confusion) for row in rows if row.recipe],
                recipes=[(row, in_words(row.recipe), _configuration(row)) for row in rows if row.recipe],
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
    """Figure of the landmarks that all systems together know worst. all_of_them: the file that has every landmark."""
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
    about = (
        f"Rows: what the pictures show; columns: what was answered; {shown} landmarks, those with most errors. "
        "Numbers are pictures, shades their share of the row."
    )
    return figure(label, about, plot_confusion(confusion))


def in_words(recipe: Recipe) -> str:
    """A sentence or two on what was run, from the settings that it ran with; what a recipe leaves open is unsaid."""
    said = [_trained(recipe) if "train" in recipe.tables else "A network that was not trained here."]
    embed, build = (recipe.tables.get(table, {}) for table in ("embed", "build-index"))
    size = [f"at {embed['size']} px"] if "size" in embed else []
    ways = [str(embed["fit"])] if "fit" in embed else []
    ways += ["averaged with the mirror image"] if embed.get("flip") else []
    ways += [f"descriptor {embed['descriptor']}"] if "descriptor" in embed else []
    if size or ways:
        said.append(f"Embedded {', '.join(size + ways)}.")
    answering = recipe.answering
    if answering.by == "index" and "whitening-power" in build:
        said.append(f"Whitened with power {build['whitening-power']}.")
    said.append(_ANSWERED[answering.by].format(answering.neighbours))
    if recipe.members:
        said.append(f"{len(recipe.members)} members, joined by {_JOINED[answering.combine]}.")
    return " ".join(said)


def _trained(recipe: Recipe) -> str:
    train = recipe.tables["train"]
    weights = "given weights" if "weights" in train else "published weights" if train.get("pretrained") else ""
    parts = [str(train.get("backbone", "the default network")), f"from {weights}" if weights else "from random weights"]
    for key, form in _SETTINGS.items():
        if key in train:
            parts.append(form.format(train[key]))
    parts += [f"{len(recipe.stages)} stages"] if recipe.stages else []
    return f"Trained: {', '.join(parts)}."


def _configuration(row: Row) -> str:
    """The tables of a recipe as TOML."""
    if row.recipe is None:
        raise ValueError(f"{row.label} has no recipe")
    parts = []
    for name, table in row.recipe.tables.items():
        heading = "[[stage]]" if name.startswith("stage.") else f"[{name}]"
        parts.append(f"{heading}\n{to_toml(table)}")
    for member in row.recipe.members:
        parts.append("[[member]]\n" + to_toml(member))
    return "\n".join(parts)
