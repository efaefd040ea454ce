"""The report on the data: one HTML file with figures and small images inside, from the statistics of `lmr stats`."""

import itertools
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.report import statistics as plots
from cli.report.html import Figure, figure, file_link, fill_template, small_image
from cli.report.plots import BLUE, GREEN, INK, ORANGE, PINK, SKY, drawable, legend, name_axes, new_figure, percent
from retrieval.errors import UnreadableError
from retrieval.words import agreeing, counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Plot

    from index.stats.clusters import DescriptorMap
    from index.stats.data import DataCounts
    from index.stats.images import Histogram
    from index.stats.job import Statistics
    from index.stats.labels import Density, LongTail, SizeBin
    from index.stats.measured import ImageCounts
    from index.stats.open_images import Subset, TopLabel

TEMPLATE = "statistics.html"
THUMBNAIL_PX, THUMBNAIL_QUALITY = 132, 70  # about 5 kB each
N_OUTLIERS, N_GROUPS, N_IN_GROUP, N_CLUSTERS = 8, 12, 5, 40  # what is shown; the statistics have more

_WORDS = {
    "pixels_per_inch": "pixels per inch",
    "megapixels": "megapixels",
    "bytes": "bytes",
    "aspect_ratio": "width / height",
}
_MARKS = (("o", BLUE), ("s", ORANGE), ("^", GREEN), ("D", PINK), ("v", SKY), ("P", "#E69F00"), ("X", "#999933"))
_ABREAST = 45  # letters of all names of bins that stand beside each other
MAPPED = len(_MARKS)  # landmarks that the map colours


def render_statistics_report(found: "Statistics", folder: Path) -> str:
    """The report as HTML text; everything that is data is escaped.

    folder: where the page will be, for links. Raises LmrError without jinja2 or matplotlib.
    """
    images = found.images

    def thumbnail(image_id: str, of_test: bool = False) -> str:
        try:
            return small_image(images.read(image_id, of_test), THUMBNAIL_PX, THUMBNAIL_QUALITY)
        except UnreadableError:
            return ""

    def link(image_id: str, of_test: bool = False) -> str:
        return file_link(images.where(image_id, of_test), folder)

    def file_name(image_id: str, of_test: bool = False) -> str:
        return os.path.basename(images.where(image_id, of_test)) or image_id

    limits = {"outliers": N_OUTLIERS, "groups": N_GROUPS, "in_group": N_IN_GROUP, "clusters": N_CLUSTERS}
    filters = {"number": _number, "thumbnail": thumbnail, "words": _words, "link": link, "file_name": file_name}
    has_images = found.measured is not None or found.store is not None
    figures = {
        "landmarks": _of_landmarks(found.data),
        "beside": _of_labels(found.data),
        "pictures": [] if found.measured is None else _of_images(found.measured),
    }
    drawn = None if found.map is None else _map(found.map, found.data)
    return fill_template(
        TEMPLATE, filters, d=found, data=found.data, limits=limits, figures=figures, map=drawn, has_images=has_images
    )


def _of_landmarks(data: "DataCounts") -> list[Figure]:
    half = data.counts.half
    if half is None:
        return []
    found = [figure("Histogram", "Landmarks by their number of pictures.", plots.plot_histogram(data.histogram))]
    if data.density:
        about = "The same as a smooth curve: Gaussian kernels over the logarithm, Scott's rule."
        found.append(figure("Density", about, plots.plot_density(data.density)))
    what = "labelled pictures" if data.counts.labels == data.labelled else "labels"
    about = f"What share of all {what} the biggest landmarks hold."
    found.append(figure("Long tail", about, plots.plot_long_tail(data.long_tail, half, what)))
    return found


def _of_labels(data: "DataCounts") -> list[Figure]:
    found = []
    if data.hosts and data.hosts.top:
        top = data.hosts.top[:12]
        drawn = plots.plot_shares([row.host for row in top], [row.share for row in top], "share of all pictures")
        found.append(figure("Hosts", f"{counted(data.hosts.hosts, 'host')} in all.", drawn))
    if data.subsets and data.subsets[0].top_labels:
        about = "How often the most frequent labels of all are in each subset."
        found.append(figure("Subsets", about, plots.plot_subsets(data.subsets[: plots.MAPPED])))
    if data.open_images and data.open_images.top_labels:
        found.append(_top_labels("Top labels", data.open_images.top_labels, "share of all pictures"))
    if data.boxes and data.boxes.top_labels:
        found.append(_top_labels("Top labels of boxes", data.boxes.top_labels, "share of all boxes"))
    return found


def _top_labels(heading: str, top: "Sequence[TopLabel]", x: str) -> Figure:
    drawn = plots.plot_shares([row.name or row.landmark_id for row in top], [row.share for row in top], x)
    return figure(heading, f"The {len(top)} most frequent.", drawn)


def _of_images(measured: "ImageCounts") -> list[Figure]:
    found = measured.histograms
    texts: Sequence[tuple[str, str, str, str, str]] = (
        ("megapixels", "Sizes", "Width times height.", "megapixels", "log"),
        ("aspect_ratio", "Shapes", "1 is square, above it lie wide pictures.", "width / height", "log"),
        ("brightness", "Light", "Mean grey, 0 is black and 255 white.", "brightness", "linear"),
        ("sharpness", "Sharpness", "Variance of the Laplacian at 256 px, plus 1.", "sharpness + 1", "log"),
    )
    return [
        figure(heading, about, plots.plot_measure(found[key], x, scale=scale))
        for key, heading, about, x, scale in texts
        if key in found
    ]


def _map(found: "DescriptorMap", data: "DataCounts") -> Figure:
    names = {row.landmark_id: row.name for row in data.most_frequent}
    counts = Counter(label for label in found.landmark_id if label is not None)
    top = sorted(counts, key=lambda label: (-counts[label], label))[: plots.MAPPED]
    about = (
        f"{counted(found.pictures, 'descriptor', of=found.of)}, drawn with seed {found.seed}, laid out by "
        f"t-SNE. The {counted(len(top), 'landmark')} with most dots {agreeing(len(top), 'is', 'are')} in "
        f"colour. Near dots are near "
        "descriptors; distances far apart mean little."
    )
    return figure(
        "Map of descriptors", about, plots.plot_map(found, [(label, names.get(label) or label) for label in top])
    )


def _words(name: str) -> str:
    return _WORDS.get(name, name.replace("_", " "))


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 or float(value).is_integer() else f"{value:.3g}"


def plot_histogram(bins: "Sequence[SizeBin]") -> "Plot":
    """Landmarks by number of images, from the first bin that has one on."""
    figure = new_figure()
    axes = figure.add_subplot()
    bins = list(itertools.dropwhile(lambda b: not b.landmarks, bins))
    names = [f"{b.first:,}" + (f"-{b.last:,}" if b.last > b.first else "") for b in bins]
    drawn = axes.bar(range(len(bins)), [b.landmarks for b in bins], 0.8, color=BLUE)
    turned, size = (90, 7) if len("".join(names)) > _ABREAST else (0, 9)
    axes.bar_label(drawn, [f"{b.landmarks:,}" for b in bins], color=INK, fontsize=size)
    axes.set_xticks(range(len(bins)), names, rotation=turned, fontsize=max(8, size))
    axes.margins(y=0.12)
    name_axes(axes, "pictures of the landmark", "landmarks", grid="y")
    return figure


def plot_density(curve: "Density") -> "Plot":
    """Density of landmarks over the logarithm of their images."""
    figure = new_figure()
    axes = figure.add_subplot()
    axes.fill_between(curve.pictures, curve.density, color=SKY, alpha=0.35, linewidth=0)
    axes.plot(curve.pictures, curve.density, color=BLUE)
    _logarithmic(axes)
    axes.set_ylim(bottom=0)
    name_axes(axes, "pictures of the landmark", "density of landmarks")
    return figure


def plot_long_tail(curve: "LongTail", half: int, what: str) -> "Plot":
    """Share of the labels in the biggest landmarks. half: how many of them hold half."""
    figure = new_figure()
    axes = figure.add_subplot()
    axes.plot(curve.landmarks, curve.share, color=BLUE)
    axes.axvline(half, color=ORANGE, linestyle="--", label=f"half of all: the {half:,} biggest")
    _logarithmic(axes)
    axes.set_ylim(0, 1.02)
    name_axes(axes, "biggest landmarks", f"share of all {what}")
    legend(axes)
    return figure


def plot_shares(names: Sequence[str], shares: Sequence[float], x: str) -> "Plot":
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


def plot_subsets(subsets: "Sequence[Subset]") -> "Plot":
    """Shares of the most frequent labels in each subset."""
    labels = [row.name or row.landmark_id for row in subsets[0].top_labels]
    figure = new_figure((5.2, 1.3 + (0.14 * len(subsets) + 0.12) * max(1, len(labels))))
    axes = figure.add_subplot()
    width = 0.8 / len(subsets)
    for i, row in enumerate(subsets):
        places = [len(labels) - 1 - at - (i - (len(subsets) - 1) / 2) * width for at in range(len(labels))]
        colour = _MARKS[i % MAPPED][1]
        shares = [label.share for label in row.top_labels]
        axes.barh(places, shares, width, color=colour, label=_short(row.subset or "(blank)"))
    axes.set_yticks(range(len(labels) - 1, -1, -1), [_short(label) for label in labels])
    axes.margins(y=0.02)
    percent(axes)
    name_axes(axes, "share of the subset's pictures", "", grid="x")
    figure.legend(loc="outside upper center", ncols=4, frameon=False, labelcolor=INK, fontsize=9)
    return figure


def plot_measure(bins: "Histogram", x: str, *, scale: str = "linear") -> "Plot":
    """Images by one measure. scale: linear or log."""
    figure = new_figure()
    axes = figure.add_subplot()
    edges = bins.edges
    widths = [high - low for low, high in itertools.pairwise(edges)]
    axes.bar(edges[:-1], bins.pictures, widths, align="edge", color=BLUE, edgecolor=INK, linewidth=0.4)
    if scale == "log":
        _logarithmic(axes)
    name_axes(axes, x, "pictures")
    return figure


def plot_map(found: "DescriptorMap", shown: Sequence[tuple[str, str]]) -> "Plot":
    """Descriptors in the plane. shown: landmark_id and name of those in colour."""
    figure = new_figure((5.2, 5.4))
    axes = figure.add_subplot()
    place = {label: i for i, (label, _) in enumerate(shown)}
    code = [place.get(label, -1) if label is not None else -2 for label in found.landmark_id]

    def dots(number: int) -> tuple[list[float], list[float]]:
        at = [i for i, c in enumerate(code) if c == number]
        return [found.x[i] for i in at], [found.y[i] for i in at]

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
