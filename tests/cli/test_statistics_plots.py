"""The figures of the report on the data."""

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest

from cli.report import statistics as plots
from cli.report.plots import to_svg
from index.stats.clusters import DescriptorMap
from index.stats.images import Histogram
from index.stats.labels import Density, LongTail, SizeBin
from index.stats.open_images import LabelShare, Subset

BINS = [SizeBin(1, 1, 7), SizeBin(2, 3, 0)]
CURVE = LongTail((1, 2, 30), (0.25, 0.5, 1.0))
SUBSETS = [
    Subset(name, 4, 2, 1.0, None, (LabelShare("/m/1", "Cat", share),)) for name, share in (("train", 0.5), ("", 0.25))
]
MAP = DescriptorMap(
    4, 4, 0, ("p", "q", "r", "s"), ("a", "b", None, "c"), x=(0.0, 0.5, 1.0, -1.0), y=(0.0, 1.0, 0.0, 0.0)
)
DRAWN: dict[str, Callable[[], Any]] = {
    "histogram": lambda: plots.plot_histogram(BINS),
    "many bins": lambda: plots.plot_histogram([SizeBin(1 << i, (2 << i) - 1, i) for i in range(17)]),
    "density": lambda: plots.plot_density(Density((1.0, 10.0), (0.1, 0.2))),
    "long tail": lambda: plots.plot_long_tail(CURVE, 2, "labels"),
    "one landmark": lambda: plots.plot_long_tail(LongTail((1,), (1.0,)), 1, "labels"),
    "shares": lambda: plots.plot_shares(["a.org", "$x^2$" * 20], [0.9, 0.1], "share"),
    "subsets": lambda: plots.plot_subsets(SUBSETS),
    "measure": lambda: plots.plot_measure(Histogram((0.1, 1.0, 10.0), (3, 4)), "megapixels", scale="log"),
    "map": lambda: plots.plot_map(MAP, [("a", "The A"), ("b", "_b")]),
}


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("name", DRAWN)
def test_every_figure_is_well_formed_and_takes_the_ink_of_the_page(name: str) -> None:
    svg = to_svg(DRAWN[name](), "what & why")
    assert ElementTree.fromstring(svg).get("aria-label") == "what & why"
    assert "currentColor" in svg
    assert "#ffffff" not in svg.lower()


def test_bins_are_named_by_their_ends() -> None:
    axes = plots.plot_histogram(BINS).axes[0]
    assert [bar.get_height() for bar in axes.patches] == [7, 0]  # type: ignore[attr-defined]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2-3"]


def test_where_half_of_all_is_is_marked() -> None:
    axes = plots.plot_long_tail(CURVE, 2, "labels").axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[1, 0.25], [2, 0.5], [30, 1]]  # type: ignore[union-attr]
    assert list(axes.lines[1].get_xdata()) == [2, 2]  # type: ignore[arg-type]


def test_long_and_odd_names_are_cut_and_stay_text() -> None:
    shown = texts(to_svg(plots.plot_shares(["$x^2$" * 20], [0.5], "share"), "a"))
    assert "$x^2$" * 5 + "$x…" in shown
    assert "50.0%" in " ".join(shown)


def test_the_map_puts_the_shown_landmarks_in_colour_and_the_others_in_grey() -> None:
    figure = plots.plot_map(MAP, [("a", "The A"), ("b", "_b")])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["no landmark", "other landmarks", "The A", "b"]
    assert [part.get_offsets().tolist() for part in figure.axes[0].collections] == [
        [[1, 0]],
        [[-1, 0]],
        [[0, 0]],
        [[0.5, 1]],
    ]


def test_subsets_have_a_bar_for_each_label() -> None:
    figure = plots.plot_subsets(SUBSETS)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.5, 0.25]  # type: ignore[attr-defined]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["train", "(blank)"]


def test_the_histogram_begins_where_landmarks_begin_and_turns_names_that_would_touch() -> None:
    bins = [SizeBin(1 << i, (2 << i) - 1, int(i > 4)) for i in range(12)]
    labels = plots.plot_histogram(bins).axes[0].get_xticklabels()
    assert [label.get_text() for label in labels[:2]] == ["32-63", "64-127"]
    assert {label.get_rotation() for label in labels} == {90}
    assert plots.plot_histogram(BINS).axes[0].get_xticklabels()[0].get_rotation() == 0


def test_shares_stand_off_their_bars_and_their_axis_is_in_percent() -> None:
    axes = plots.plot_shares(["a.org"], [0.5], "share").axes[0]
    assert [(text.get_text(), text.get_position()) for text in axes.texts] == [("50.0%", (3, 0))]
    assert axes.xaxis.get_major_formatter()(0.25) == "25%"
    assert not any(line.get_visible() for line in axes.yaxis.get_gridlines())


def test_letters_that_the_font_has_not_are_no_warning_and_stay_text(recwarn):
    svg = to_svg(plots.plot_shares(["\u6545\u5bab"], [0.5], "share"), "a")
    assert "\u6545\u5bab" in svg
    assert [str(warning.message) for warning in recwarn] == []
