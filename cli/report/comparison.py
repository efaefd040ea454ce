"""The report of a comparison: the table, curves of answering and of training, confusion matrices, configurations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cli.report.comparison_table import cells, headings
from cli.report.html import Figure, figure, fill_template
from cli.report.plots import BLUE, GREEN, INK, ORANGE, PINK, SKY, drawable, legend, name_axes, new_figure
from index.compare.results import Row
from retrieval.files.atomic import write_text
from retrieval.train.recipes.recipe import Recipe
from retrieval.train.recipes.values import to_toml
from retrieval.train.record import read_log

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Plot

    from index.calibration import Curves
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
_DARK, _LIGHT = "#1d2127", "white"  # on shades that are the same on light and dark pages
_COLOURS, _DASHES = (BLUE, ORANGE, GREEN, PINK, SKY), ("-", "--", "-.", ":")
_LANDMARK_IN = 0.16  # side of a landmark in a confusion matrix
_NAME_LETTERS = 48


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
    if answering.comparisons:
        said.append(
            f"Withheld where none of {answering.comparisons} training images of the landmark has {answering.inliers} "
            "inliers."
        )
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


def plot_precision_recalls(curves: "Mapping[tuple[int, str], Curves]") -> "Plot":
    """Precision against recall of several systems, by number and label; the number chooses the colour."""
    figure = new_figure((7.0, 4.4))
    axes = figure.add_subplot()
    for (i, label), curve in curves.items():
        axes.plot(curve.recall, curve.precision, _dash(i), color=_colour(i), label=_name(label))
    axes.set(xlim=(0, 1.01), ylim=(0, 1.03))
    name_axes(axes, "recall (landmark queries answered rightly)", "precision (answers that are right)")
    legend(axes)
    return figure


def plot_training_runs(logs: Mapping[tuple[int, str], Sequence[Mapping[str, float]]], key: str) -> "Plot":
    """One figure of the epochs of several trainings, by number of the system and label; losses as shares of the first.

    The trainings of one system share a colour.
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure((7.0, 4.4))
    axes = figure.add_subplot()
    for n, ((i, label), log) in enumerate(logs.items()):
        n_before = sum(system == i for system, _ in list(logs)[:n])
        points = [(row["epoch"], row[key]) for row in log if key in row]
        unit = points[0][1] if key == "loss" and points[0][1] > 0 else 1.0
        x, y = [epoch for epoch, _ in points], [value / unit for _, value in points]
        axes.plot(
            x, y, _DASHES[n_before % len(_DASHES)], color=_colour(i), marker="o", markersize=2.5, label=_name(label)
        )
    axes.set_ylim(0, 1.08 * axes.get_ylim()[1])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    name_axes(axes, "epoch", {"loss": "loss, share of the first epoch's", "gap": "GAP"}.get(key, "top-1"))
    legend(axes)
    return figure


def plot_confusion(confusion: "Confusion") -> "Plot":
    """Shares of each landmark's queries; the last column is every other answer, and none."""
    n = len(confusion.landmarks)
    side = 2.2 + _LANDMARK_IN * max(n, 6)
    figure = new_figure((side, side))
    axes = figure.add_subplot()
    share = confusion.counts / np.maximum(confusion.counts.sum(axis=1, keepdims=True), 1)
    _shade(axes, share, confusion.landmarks, [*confusion.landmarks, "other"])
    _write_cells(axes, share, [[str(count) if count else "" for count in line] for line in confusion.counts.tolist()])
    name_axes(axes, "answered", "shown")
    return figure


def plot_landmark_accuracies(landmarks: Sequence[str], accuracy: Mapping[tuple[int, str], Sequence[float]]) -> "Plot":
    """Shares of each landmark's queries (lines) that each system (columns, by number and label) answered rightly."""
    figure = new_figure((3.4 + 0.5 * len(accuracy), 2.2 + _LANDMARK_IN * max(len(landmarks), 6)))
    axes = figure.add_subplot()
    share = np.array(list(accuracy.values())).T
    _shade(axes, share, landmarks, [label for _, label in accuracy])
    _write_cells(axes, share, [[f"{100 * value:.0f}" for value in line] for line in share.tolist()])
    return figure


def _shade(axes: Any, share: Any, lines: Sequence[str], columns: Sequence[str]) -> None:
    """A table of shares in [0, 1] as shades. share: (lines, columns)."""
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set_yticks(range(len(lines)), [_name(name) for name in lines], fontsize=6)
    axes.set_xticks(range(len(columns)), [_name(name) for name in columns], fontsize=6, rotation=90)
    axes.grid(False)
    axes.tick_params(colors=INK, length=0)


def _write_cells(axes: Any, share: Any, texts: Sequence[Sequence[str]]) -> None:
    """Writes a text into each cell of a table of shades."""
    for (line, column), value in np.ndenumerate(share):
        colour = _LIGHT if value > 0.6 else _DARK
        axes.text(column, line, texts[line][column], ha="center", va="center", fontsize=5.5, color=colour)


def _name(text: str) -> str:
    """Short, as it can be drawn."""
    half = _NAME_LETTERS // 2  # variants of a recipe begin alike, and may end alike
    short = text if len(text) <= _NAME_LETTERS else f"{text[: half - 1]}…{text[-half:]}"
    return drawable(short)


def _colour(i: int) -> str:
    return _COLOURS[i % len(_COLOURS)]


def _dash(i: int) -> str:
    return _DASHES[i // len(_COLOURS) % len(_DASHES)]
