"""Figures of the report on the data: the long tail of landmarks, sizes and light of images, the map."""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cli.report.plots import BLUE, GREEN, INK, ORANGE, PINK, SKY, drawable, legend, name_axes, new_figure, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKS = (("o", BLUE), ("s", ORANGE), ("^", GREEN), ("D", PINK), ("v", SKY), ("P", "#E69F00"), ("X", "#999933"))
_ABREAST = 45  # letters of all names of bins that stand beside each other
MAPPED = len(_MARKS)  # landmarks that the map colours


def plot_histogram(bins: Sequence[Mapping[str, int]]) -> "Figure":
    """Landmarks by number of images, from the first bin that has one on. bins: `first`, `last`, `landmarks`."""
    figure = new_figure()
    axes = figure.add_subplot()
    bins = list(itertools.dropwhile(lambda b: not b["landmarks"], bins))
    names = [f"{b['first']:,}" + (f"-{b['last']:,}" if b["last"] > b["first"] else "") for b in bins]
    drawn = axes.bar(range(len(bins)), [b["landmarks"] for b in bins], 0.8, color=BLUE)
    turned, size = (90, 7) if len("".join(names)) > _ABREAST else (0, 9)
    axes.bar_label(drawn, [f"{b['landmarks']:,}" for b in bins], color=INK, fontsize=size)
    axes.set_xticks(range(len(bins)), names, rotation=turned, fontsize=max(8, size))
    axes.margins(y=0.12)
    name_axes(axes, "pictures of the landmark", "landmarks", grid="y")
    return figure


def plot_density(curve: Mapping[str, Sequence[float]]) -> "Figure":
    """Density of landmarks over the logarithm of their images. curve: `pictures`, `density`."""
    figure = new_figure()
    axes = figure.add_subplot()
    axes.fill_between(curve["pictures"], curve["density"], color=SKY, alpha=0.35, linewidth=0)
    axes.plot(curve["pictures"], curve["density"], color=BLUE)
    _logarithmic(axes)
    axes.set_ylim(bottom=0)
    name_axes(axes, "pictures of the landmark", "density of landmarks")
    return figure


def plot_long_tail(curve: Mapping[str, Sequence[float]], half: int, what: str) -> "Figure":
    """Share of the labels in the biggest landmarks. curve: `landmarks`, `share`; half: that hold half."""
    figure = new_figure()
    axes = figure.add_subplot()
    axes.plot(curve["landmarks"], curve["share"], color=BLUE)
    axes.axvline(half, color=ORANGE, linestyle="--", label=f"half of all: the {half:,} biggest")
    _logarithmic(axes)
    axes.set_ylim(0, 1.02)
    name_axes(axes, "biggest landmarks", f"share of all {what}")
    legend(axes)
    return figure


def plot_shares(names: Sequence[str], shares: Sequence[float], x: str) -> "Figure":
    """Shares of named things, the first one on top."""
    figure = new_figure((5.2, 1.1 + 0.27 * len(names)))
    axes = figure.add_subplot()
    places = range(len(names) - 1, -1, -1)
    drawn = axes.barh(places, shares, 0.7, color=BLUE)
    axes.bar_label(drawn, [f"{share:.1%}" for share in shares], padding=3, color=INK, fontsize=8)
    axes.set_yticks(places, [_short(name) for name in names])
    axes.set_xlim(0, max(shares, default=0) * 1.2 or 1)
    name_axes(axes, x, "", grid="x")
    axes.margins(y=0.02)
    percent(axes)
    return figure


def plot_subsets(subsets: Sequence[Mapping[str, Any]]) -> "Figure":
    """Shares of the most frequent labels in each subset. subsets: `subset`, `top_labels` of `name`, `share`."""
    labels = [row["name"] or row["landmark_id"] for row in subsets[0]["top_labels"]]
    figure = new_figure((5.2, 1.3 + (0.14 * len(subsets) + 0.12) * max(1, len(labels))))
    axes = figure.add_subplot()
    width = 0.8 / len(subsets)
    for i, row in enumerate(subsets):
        places = [len(labels) - 1 - at - (i - (len(subsets) - 1) / 2) * width for at in range(len(labels))]
        colour = _MARKS[i % MAPPED][1]
        shares = [label["share"] for label in row["top_labels"]]
        axes.barh(places, shares, width, color=colour, label=_short(row["subset"] or "(blank)"))
    axes.set_yticks(range(len(labels) - 1, -1, -1), [_short(label) for label in labels])
    axes.margins(y=0.02)
    percent(axes)
    name_axes(axes, "share of the subset's pictures", "", grid="x")
    figure.legend(loc="outside upper center", ncols=4, frameon=False, labelcolor=INK, fontsize=9)
    return figure


def plot_measure(bins: Mapping[str, Sequence[float]], x: str, *, scale: str = "linear") -> "Figure":
    """Images by one measure. bins: `edges`, `pictures`. scale: linear or log."""
    figure = new_figure()
    axes = figure.add_subplot()
    edges = bins["edges"]
    widths = [high - low for low, high in itertools.pairwise(edges)]
    axes.bar(edges[:-1], bins["pictures"], widths, align="edge", color=BLUE, edgecolor=INK, linewidth=0.4)
    if scale == "log":
        _logarithmic(axes)
    name_axes(axes, x, "pictures")
    return figure


def plot_map(found: Mapping[str, Sequence[Any]], shown: Sequence[tuple[str, str]]) -> "Figure":
    """Descriptors in the plane. found: `x`, `y`, `landmark_id`. shown: landmark_id and name of those in colour."""
    figure = new_figure((5.2, 5.4))
    axes = figure.add_subplot()
    place = {label: i for i, (label, _) in enumerate(shown)}
    code = [place.get(label, -1) if label is not None else -2 for label in found["landmark_id"]]

    def dots(number: int) -> tuple[list[float], list[float]]:
        at = [i for i, c in enumerate(code) if c == number]
        return [found["x"][i] for i in at], [found["y"][i] for i in at]

    if -2 in code:
        axes.scatter(*dots(-2), s=7, marker="x", linewidths=0.6, color=INK, alpha=0.45, label="no landmark")
    if -1 in code:
        axes.scatter(*dots(-1), s=4, marker="o", linewidths=0, color=INK, alpha=0.45, label="other landmarks")
    for number, (_, name) in enumerate(shown):
        mark, colour = _MARKS[number]
        axes.scatter(*dots(number), s=12, marker=mark, linewidths=0, color=colour, label=_short(name))
    name_axes(axes, "", "")
    axes.set(xticks=[], yticks=[])
    axes.spines[["left", "bottom"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, labelcolor=INK, fontsize=9, markerscale=1.6)
    return figure


def _logarithmic(axes: Any) -> None:
    """A logarithmic x axis with plain numbers: 1, 10, 1,000."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    narrow = high / low < 100
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _short(name: str) -> str:
    """A name for the axis: cut after 28 characters. Matplotlib leaves out of legends what begins with _."""
    return drawable(name if len(name) <= 28 else name[:27] + "…").lstrip("_")
