"""Figures of the reports: training, reliability, precision and recall, thresholds, landmarks and kinds.

Lines have the colours of Okabe and Ito (https://jfly.uni-koeln.de/color/), which differ for every kind of colour
vision, and different dashes or marks. Axes and text are mid-grey on a transparent ground in PNG and take the text
colour of the page in SVG, so that both are readable on light and on dark.
"""

import warnings
from collections.abc import Mapping, Sequence
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from xml.sax.saxutils import escape

from cli.terminal import shown
from index.search.config import gigabytes
from retrieval.errors import LmrError
from retrieval.extras import install_hint
from retrieval.files.atomic import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from index.bench import BenchRow
    from retrieval.progress import Progress
    from retrieval.train.record import Trained


BLUE, ORANGE, GREEN, PINK, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"  # Okabe and Ito
INK = "#7f7f7e"  # readable on white and on black; a colour of its own, so that SVG can exchange it
TRAINING_CURVES = "training.png"  # in a model folder
_SIZE_IN = (5.2, 3.5)
_PNG_DPI = 130


def to_svg(figure: "Figure", alt: str) -> str:
    """The figure as an <svg> element for a page, described by `alt`; the same figure gives the same text."""
    from matplotlib import rc_context

    buffer = StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": alt}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")  # text stays text: the browser has the fonts
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(alt, {chr(34): "&quot;"})}"', 1)


def to_png(figure: "Figure") -> bytes:
    """The figure as PNG bytes with a transparent ground."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=_PNG_DPI, transparent=True)
    return buffer.getvalue()


def plot_training(log: Sequence[Mapping[str, float]]) -> "Figure":
    """Loss, and GAP and top-1 where they were measured, against the epoch.

    log: a mapping an epoch with `epoch`, `loss` and, not in every epoch, `gap` and `top1`.
    """
    shown = [name for name in ("gap", "top1") if any(name in row for row in log)]
    figure = new_figure((_SIZE_IN[0] * (1 + bool(shown)), _SIZE_IN[1]))
    loss = figure.add_subplot(1, 1 + bool(shown), 1)
    epochs = [row["epoch"] for row in log if "loss" in row]
    loss.plot(epochs, [row["loss"] for row in log if "loss" in row], color=BLUE, marker="o", markersize=3)
    name_axes(loss, "epoch", "training loss")
    loss.set_ylim(bottom=0)
    if shown:
        quality = figure.add_subplot(1, 2, 2)
        for name, colour, dash in (("gap", ORANGE, "-"), ("top1", SKY, "--")):
            points = [(row["epoch"], row[name]) for row in log if name in row]
            if points:
                x, y = zip(*points, strict=True)
                quality.plot(
                    x, y, dash, color=colour, marker="o", markersize=3, label={"gap": "GAP"}.get(name, "top-1")
                )
        name_axes(quality, "epoch", "on the validation pictures")
        quality.set_ylim(0, 1)
        legend(quality)
    return figure


def plot_rates(rate: Sequence[float], loss: Sequence[float], best: float) -> "Figure":
    """Smoothed loss against the learning rate of the head, with the suggested one."""
    figure = new_figure(_SIZE_IN)
    axes = figure.add_subplot()
    axes.plot(rate, loss, color=BLUE)
    axes.axvline(best, color=ORANGE, linestyle="--", label=f"suggested: {best:.2g}")
    axes.set_xscale("log")
    name_axes(axes, "--head-rate", "training loss, smoothed")
    legend(axes)
    return figure


def plot_reliability(bins: Sequence[Mapping[str, Any]]) -> "Figure":
    """Share of right answers against confidence, with the number of answers below.

    bins: `low`, `high`, `n_queries`, `mean_confidence`, `share_right`; the last two None in empty bins.
    """
    figure = new_figure((_SIZE_IN[0], 4.2))
    grid = figure.add_gridspec(2, 1, height_ratios=(3, 1), hspace=0.1)
    top, low = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    full = [b for b in bins if b["mean_confidence"] is not None]
    top.plot([0, 1], [0, 1], ":", color=INK, label="perfect")
    confidence, right = [b["mean_confidence"] for b in full], [b["share_right"] for b in full]
    top.plot(confidence, right, "o-", color=BLUE, markersize=4, label="answers")
    top.set(xlim=(0, 1), ylim=(0, 1.02))
    name_axes(top, "", "share that is right")
    top.tick_params(labelbottom=False)
    legend(top)
    width = [b["high"] - b["low"] for b in bins]
    low.bar([b["low"] for b in bins], [b["n_queries"] for b in bins], width, align="edge", color=SKY, edgecolor=INK)
    low.set_xlim(0, 1)
    name_axes(low, "confidence", "answers")
    return figure


def plot_precision_recall(curves: Mapping[str, Any]) -> "Figure":
    """Precision against recall as the threshold falls. curves: `precision`, `recall`, equally long."""
    figure = new_figure()
    axes = figure.add_subplot()
    axes.plot(curves["recall"], curves["precision"], color=BLUE)
    axes.set(xlim=(0, 1.01), ylim=(0, 1.03))
    name_axes(axes, "recall (landmark queries answered rightly)", "precision (answers that are right)")
    return figure


def plot_thresholds(curves: Mapping[str, Any], marks: Mapping[str, float]) -> "Figure":
    """GAP, precision and recall against the threshold, with thresholds marked.

    curves: `gap`, `precision`, `recall`, and `confidence` or, where the confidences say nothing, `logit` alone.
    marks: name -> threshold, in the unit of the curves.
    """
    figure = new_figure()
    axes = figure.add_subplot()
    unit = "confidence" if "confidence" in curves else "logit"
    lines = (("gap", "GAP", ORANGE, "-"), ("precision", "precision", BLUE, "--"), ("recall", "recall", GREEN, "-."))
    for key, name, colour, style in lines:
        axes.plot(curves[unit], curves[key], style, color=colour, label=name)
    for (name, value), dash in zip(marks.items(), (":", "--"), strict=False):
        axes.axvline(value, color=INK, linestyle=dash, label=f"threshold “{name}” {value:.3f}")
    if unit == "confidence":
        axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.03)
    name_axes(axes, "threshold" if unit == "confidence" else "threshold (ranking score)", "")
    legend(axes)
    return figure


def plot_kinds(rows: Sequence["BenchRow"]) -> "Figure":
    """Queries a second against recall@10, a line for each kind of index; exact search as a level."""
    figure = new_figure()
    axes = figure.add_subplot()
    styles = {
        "ivf-pq-small": (PINK, "v-"),
        "ivf-pq": (BLUE, "o-"),
        "ivf-sq8": (ORANGE, "s--"),
        "ivf-flat": (GREEN, "^-."),
    }
    for kind, (colour, style) in styles.items():
        own = sorted((row for row in rows if row.kind == kind), key=lambda row: row.recall)
        if own:
            label = f"{kind}, {gigabytes(own[0].memory_bytes)}, built in {own[0].build_s:.0f} s"
            axes.plot([row.recall for row in own], [row.queries_per_s for row in own], style, color=colour, label=label)
    for row in rows:
        if row.kind == "flat":
            label = f"exact, {gigabytes(row.memory_bytes)}"
            axes.axhline(row.queries_per_s, color=INK, linestyle=":", label=label)
    axes.set_yscale("log")
    name_axes(axes, "recall@10", "queries a second")
    legend(axes)
    return figure


def plot_accuracy_by_count(bins: Sequence[Mapping[str, Any]]) -> "Figure":
    """Share of right answers by how many images of the landmark the index has.

    bins: `first`, `last` (None = and more), `n_queries`, `top1`.
    """
    labels = []
    for b in bins:
        span = f"{b['first']}" if b["last"] == b["first"] else f"{b['first']}-{b['last']}"
        labels.append((f"{b['first']}+" if b["last"] is None else span) + f"\n({b['n_queries']})")
    figure = new_figure()
    axes = figure.add_subplot()
    drawn = axes.bar(range(len(bins)), [b["top1"] for b in bins], 0.7, color=BLUE)
    axes.bar_label(drawn, [f"{b['top1']:.2f}" for b in bins], color=INK, fontsize=9)
    axes.set_xticks(range(len(bins)), labels)
    axes.set_ylim(0, 1.1)
    name_axes(axes, "pictures of the landmark in the index (queries)", "answered rightly", grid="y")
    return figure


def plot_false_answers(rates: Mapping[str, float]) -> "Figure":
    """Share of non-landmarks that were answered, per kind. rates: kind -> share."""
    figure = new_figure((_SIZE_IN[0], 1.1 + 0.36 * len(rates)))
    axes = figure.add_subplot()
    names = list(rates)[::-1]
    drawn = axes.barh(range(len(names)), [rates[name] for name in names], 0.65, color=ORANGE)
    axes.set_yticks(range(len(names)), [drawable(name) for name in names])
    axes.bar_label(drawn, [f"{rates[name]:.1%}" for name in names], padding=3, color=INK, fontsize=9)
    axes.set_xlim(0, max(0.1, *(1.25 * rate for rate in rates.values())))
    name_axes(axes, "share answered, though no known landmark", "", grid="x")
    percent(axes)
    return figure


def drawable(text: str) -> str:
    """A text from data as matplotlib draws it on one line: what has no shape is escaped; $ would start a formula."""
    return shown(text).replace("$", r"\$")


def new_figure(size_in: tuple[float, float] = _SIZE_IN) -> "Figure":
    """An empty figure, with no help from pyplot's global state."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise LmrError(f"figures need matplotlib ({error}); {install_hint('report')}") from error
    return Figure(figsize=size_in, layout="constrained")


def name_axes(axes: "Axes", x: str, y: str, *, grid: Literal["both", "x", "y"] = "both") -> None:
    """Axis titles; all that is not data in the ink colour. grid: the axes whose ticks have lines."""
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.tick_params(which="both", colors=INK)
    axes.grid(True, axis=grid, color=INK, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.patch.set_alpha(0)
    for side, spine in axes.spines.items():
        spine.set_color(INK)
        spine.set_visible(side in ("left", "bottom"))


def percent(axes: "Axes") -> None:
    """The x axis in percent, with few ticks."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%"))


def legend(axes: "Axes") -> None:
    """Names of what is drawn, in the ink colour."""
    axes.legend(frameon=False, labelcolor=INK, fontsize=9)


def save_training_curves(log_path: Path, image_path: Path) -> None:
    """Draws a training log (a row an epoch, with `epoch` and `loss`) into a PNG file.

    Raises LmrError without matplotlib, for a log that is missing or has no such rows, or a folder that cannot be
    written.
    """
    from retrieval.train.record import read_log

    write_bytes(image_path, to_png(plot_training(read_log(log_path))))


def draw_curves(output: Path, trained: "Trained", progress: "Progress") -> None:
    """Draws the curves of a training into its model folder, unless they are there."""
    if trained.state == "unchanged" and (output / TRAINING_CURVES).is_file():
        return
    from retrieval.train.state import LOG_NAME

    try:
        save_training_curves(output / LOG_NAME, output / TRAINING_CURVES)
    except LmrError as error:
        progress.warn(f"no picture of the curves: {error}")
