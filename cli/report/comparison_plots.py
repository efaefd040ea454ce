"""Figures of a comparison: several systems in one picture, and a confusion matrix."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cli.report.plots import BLUE, GREEN, INK, ORANGE, PINK, SKY, drawable, legend, name_axes, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from index.calibration import Curves
    from index.compare.measure import Confusion

_DARK, _LIGHT = "#1d2127", "white"  # on shades that are the same on light and dark pages
_COLOURS, _DASHES = (BLUE, ORANGE, GREEN, PINK, SKY), ("-", "--", "-.", ":")
_LANDMARK_IN = 0.16  # side of a landmark in a confusion matrix
_NAME_LETTERS = 48


def plot_precision_recalls(curves: "Mapping[tuple[int, str], Curves]") -> "Figure":
    """Precision against recall of several systems, by number and label; the number chooses the colour."""
    figure = new_figure((7.0, 4.4))
    axes = figure.add_subplot()
    for (i, label), curve in curves.items():
        axes.plot(curve.recall, curve.precision, _dash(i), color=_colour(i), label=_name(label))
    axes.set(xlim=(0, 1.01), ylim=(0, 1.03))
    name_axes(axes, "recall (landmark queries answered rightly)", "precision (answers that are right)")
    legend(axes)
    return figure


def plot_training_runs(logs: Mapping[tuple[int, str], Sequence[Mapping[str, float]]], key: str) -> "Figure":
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


def plot_confusion(confusion: "Confusion") -> "Figure":
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


def plot_landmark_accuracies(landmarks: Sequence[str], accuracy: Mapping[tuple[int, str], Sequence[float]]) -> "Figure":
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
