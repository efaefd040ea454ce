"""Figures and the HTML report: what is drawn, and that nothing of the data leaves its place."""

import base64
import hashlib
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from cli.report import plots
from cli.report.html import (
    THUMBNAIL_PX,
    EvaluationReport,
    ReportError,
    ReportExample,
    ReportImage,
    ReportPair,
    render_evaluation_report,
)
from cli.report.plots import save_training_curves
from retrieval.errors import LmrError
from retrieval.extras import install_hint
from retrieval.train.record import read_log

CURVES = {
    "logit": [2.0, 0.0, -2.0],
    "confidence": [0.88, 0.5, 0.12],
    "gap": [0.5, 0.8, 0.81],
    "precision": [1.0, 0.9, 0.6],
    "recall": [0.5, 0.85, 0.9],
}
BINS = [
    {"low": 0.0, "high": 0.5, "n_queries": 0, "mean_confidence": None, "share_right": None},
    {"low": 0.5, "high": 1.0, "n_queries": 8, "mean_confidence": 0.8, "share_right": 0.75},
]
LOG = [{"epoch": 1.0, "loss": 3.0, "gap": 0.2}, {"epoch": 2.0, "loss": 2.0}, {"epoch": 3.0, "loss": 1.0, "gap": 0.6}]
COUNTS = [
    {"first": 1, "last": 1, "n_queries": 4, "top1": 0.25},
    {"first": 100, "last": None, "n_queries": 9, "top1": 1.0},
]
DRAWN: dict[str, Callable[[], Any]] = {
    "training": lambda: plots.plot_training(LOG),
    "reliability": lambda: plots.plot_reliability(BINS),
    "precision_recall": lambda: plots.plot_precision_recall(CURVES),
    "thresholds": lambda: plots.plot_thresholds(CURVES, {"gap": 0.2, "precision": 0.6}),
    "counts": lambda: plots.plot_accuracy_by_count(COUNTS),
    "false_answers": lambda: plots.plot_false_answers({"all": 0.1, "street": 0.2}),
}
METRICS: dict[str, Any] = {
    "gap": 0.8125,
    "top1": 0.9,
    "top5": 0.95,
    "top10": None,
    "gap_interval": [0.75, 0.875],
    "top1_interval": None,
    "mean_landmark_accuracy": 0.88,
    "map_at_100": 0.5,
    "n_queries": 30,
    "n_landmark_queries": 20,
    "n_unreadable": 2,
    "leaked": {"n": 1},
    "without_leaked": {"gap": 0.7, "top1": 0.8, "top5": 0.9, "top10": None},
    "threshold_gap": 0.2,
    "threshold_precision": 0.6,
    "precision_at_threshold": 0.96,
    "recall_at_precision": 0.7,
    "false_answer_rate": {"all": 0.1, "street": 0.2},
    "baselines": {"nearest_neighbour": {"gap": 0.7, "top1": 0.8, "top5": 0.85, "top10": 0.9}},
}
UNCALIBRATED = METRICS | {
    "threshold_gap": None,
    "threshold_precision": None,
    "precision_at_threshold": None,
    "recall_at_precision": None,
    "false_answer_rate": None,
}


LANDMARK: dict[str, Any] = {
    "landmark_id": "tower",
    "n_rows": 12,
    "n_queries": 5,
    "n_right": 4,
    "n_answers": 6,
    "recall": 0.8,
    "recall_low": 0.376,
    "recall_high": 0.964,
    "precision": 0.6667,
    "precision_low": 0.3,
    "precision_high": 0.903,
    "n_confused": 1,
}


def report(**values: Any) -> EvaluationReport:
    return replace(EvaluationReport("How well", METRICS), **values)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("name", DRAWN)
def test_every_figure_is_well_formed_svg_and_png_without_a_background(name: str) -> None:
    svg = plots.to_svg(DRAWN[name](), "what & why")
    root = ElementTree.fromstring(svg)
    assert (root.get("role"), root.get("aria-label")) == ("img", "what & why")
    assert "currentColor" in svg
    assert "#ffffff" not in svg.lower()
    with Image.open(BytesIO(plots.to_png(DRAWN[name]()))) as image:
        assert image.getpixel((1, 1))[3] == 0  # type: ignore[index]


def test_the_same_figure_gives_the_same_text() -> None:
    assert plots.to_svg(DRAWN["thresholds"](), "a") == plots.to_svg(DRAWN["thresholds"](), "a")


def test_drawing_changes_no_settings_of_matplotlib_and_never_loads_pyplot() -> None:
    code = (
        "import sys, matplotlib\nbefore = matplotlib.rcParams.copy()\n"
        "from cli.report import plots\n"
        "plots.to_svg(plots.plot_false_answers({'all': 0.5}), 'a')\n"
        "assert matplotlib.rcParams.copy() == before\nassert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_training_shows_loss_and_only_the_epochs_that_were_validated() -> None:
    loss, quality = plots.plot_training(LOG).axes
    assert loss.lines[0].get_xydata().tolist() == [[1, 3], [2, 2], [3, 1]]  # type: ignore[union-attr]
    assert quality.lines[0].get_xydata().tolist() == [[1, 0.2], [3, 0.6]]  # type: ignore[union-attr]
    assert [text.get_text() for text in quality.get_legend().get_texts()] == ["GAP"]  # type: ignore[union-attr]
    assert len(plots.plot_training([{"epoch": 1.0, "loss": 3.0}]).axes) == 1


def test_reliability_leaves_empty_bins_out_of_the_line_and_counts_them_as_none() -> None:
    line, counts = plots.plot_reliability(BINS).axes
    assert line.lines[1].get_xydata().tolist() == [[0.8, 0.75]]  # type: ignore[union-attr]
    assert [bar.get_height() for bar in counts.patches] == [0, 8]  # type: ignore[attr-defined]


def test_both_thresholds_are_marked_where_they_are() -> None:
    axes = plots.plot_thresholds(CURVES, {"gap": 0.2, "precision": 0.6}).axes[0]
    assert [line.get_xdata()[0] for line in axes.lines[3:]] == [0.2, 0.6]  # type: ignore[index]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]  # type: ignore[union-attr]
    assert labels == ["GAP", "precision", "recall", "threshold “gap” 0.200", "threshold “precision” 0.600"]


def test_curves_without_confidences_are_drawn_against_the_ranking_score() -> None:
    scores = {name: values for name, values in CURVES.items() if name != "confidence"}
    axes = plots.plot_thresholds(scores, {}).axes[0]
    assert axes.get_xlabel() == "threshold (ranking score)"
    assert list(axes.lines[0].get_xdata()) == [2.0, 0.0, -2.0]  # type: ignore[arg-type]


def test_numbers_of_images_are_named_as_spans() -> None:
    shown = texts(plots.to_svg(plots.plot_accuracy_by_count(COUNTS), "a"))
    assert {"1", "(4)", "100+", "(9)", "0.25", "1.00"} <= set(shown)


def test_kinds_are_named_and_a_hostile_one_stays_text() -> None:
    svg = plots.to_svg(plots.plot_false_answers({"<script>alert(1)</script>": 0.5, "$x^2$": 0.1}), "a")
    assert "<script>alert" not in svg
    assert "<script>alert(1)</script>" in texts(svg)
    assert "$x^2$" in texts(svg)


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.said = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "path", "use"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("path", "use"):
            return
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style",):
            self.said += data + " "


TRADE = {
    "asked": 0.95,
    "is_asked": True,
    "confidence": 0.81,
    "named": 0.943,
    "n_answers": 33,
    "n_wrong": 1,
    "precision": 0.97,
    "expected_precision": 0.981,
    "precision_bound": 0.885,
}
HERE = {"asked": 0.95, "threshold": 0.81, "named": 0.5, "n_answers": 1200, "n_wrong": 60, "precision": 0.95}


def full_report(tmp_path: Path, label: str = "The Tower") -> EvaluationReport:
    Image.new("RGB", (640, 320), (200, 30, 40)).save(tmp_path / "red.png")
    red, gone = ReportImage(str(tmp_path / "red.png"), label, 0.75), ReportImage("gone.jpg", label, 0.5)
    return report(
        title=label,
        curves=CURVES,
        reliability=BINS,
        by_count=COUNTS,
        pairs=[ReportPair(label, label, 3, (ReportExample(red, gone),))],
        errors=[ReportError(red, "", label, 0.97, (red, gone)), ReportError(gone, label, label, None, ())],
        facts={label: label},
        warnings=[label],
        landmarks=[LANDMARK | {"name": label, "confused_with": label}],
        n_landmarks=1,
        landmarks_table="report-landmarks.csv",
        confusion={"labels": [label, "no landmark"], "counts": [[4, 1], [0, 2]], "n_left_out": 0},
        leaked=[gone],
        trade=[(TRADE | {"asked": 0.9, "is_asked": False}, HERE), (TRADE, HERE | {"n_answers": 0, "precision": None})],
        folder=tmp_path,
    )


@pytest.fixture(scope="module")
def full_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render_evaluation_report(full_report(tmp_path_factory.mktemp("report")))


def test_the_report_shows_the_figures_beside_the_baselines(full_text: str) -> None:
    page = Page(full_text)
    said = " ".join(page.said.split())
    assert "lmr 0.812 90.0% 95.0% –" in said
    assert "lmr, without the 1 query that it knew 0.700 80.0% 90.0% –" in said
    assert "nearest neighbour 0.700 80.0% 85.0% 90.0%" in said
    assert "GAP 0.750 to 0.875" in said
    assert "30 queries, 20 of them with a landmark, 2 cannot be read." in said
    assert "answered The Tower with confidence 0.970, shows no known landmark" in said
    assert "3 × The Tower answered as The Tower" in said
    assert sum(tag == "svg" for tag, _ in page.tags) == 5
    assert page.open == []


def test_the_report_asks_for_nothing_from_outside(full_text: str) -> None:
    page = Page(full_text)
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object"), tag
        assert not any(name.startswith("on") for name in attributes), attributes
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name)
            mine = ("./red.png", "report-landmarks.csv")
            assert value is None or value.startswith(("data:image/jpeg;base64,", "#")) or value in mine, value
    assert not re.search(r"url\((?!#)", full_text)
    assert ("http-equiv", "Content-Security-Policy") in {item for _, a in page.tags for item in a.items()}


def test_the_only_script_is_the_one_that_the_policy_allows(full_text: str) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", full_text, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\"" in full_text
    assert "fetch" not in script


def test_each_landmark_has_a_line_and_the_matrix_its_numbers(full_text: str) -> None:
    said = " ".join(Page(full_text).said.split())
    assert "The Tower 12 5 80.0% 37.6%–96.4% 6 66.7% 30.0%–90.3% The Tower 1 ×" in said
    assert "The Tower 4 1 no landmark · 2" in said
    assert "gone.jpg" in said


def test_each_precision_has_a_line_with_what_it_costs_held_out_and_here(full_text: str) -> None:
    said = " ".join(Page(full_text).said.split())
    assert "0.900 0.810 94.3% 33 1 0.970 0.981 0.885 50.0% 1,200 60 0.950" in said
    assert "0.950 0.810 94.3% 33 1 0.970 0.981 0.885 50.0% 0 60 –" in said
    (asked,) = re.findall(r'<tr class="ours"><th scope="row">([\d.]+)</th><td>0.810', full_text)
    assert asked == "0.950"


def test_where_every_query_is_known_no_figures_without_them_are_promised(tmp_path: Path) -> None:
    known = full_report(tmp_path)
    text = render_evaluation_report(replace(known, metrics=dict(known.metrics) | {"without_leaked": None}))
    assert "no landmark query is left without them." in text
    assert "the figures without them stand" not in text


def test_images_are_small_and_inside_and_described(full_text: str) -> None:
    page = Page(full_text)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 3
    for attributes in images:
        assert attributes["alt"] == "The Tower"
        content = base64.b64decode((attributes["src"] or "").removeprefix("data:image/jpeg;base64,"))
        with Image.open(BytesIO(content)) as small:
            assert small.size == (THUMBNAIL_PX, THUMBNAIL_PX // 2)
    assert "picture not found" in page.said


def test_everything_from_the_data_stays_text(tmp_path: Path) -> None:
    label = """<script>alert(1)</script> "><img src=x onerror=alert(1)> {{ 7 * 7 }} &amp; $x^2$"""
    page = Page(render_evaluation_report(full_report(tmp_path, label)))
    assert page.said.count(label) >= 8
    assert sum(tag == "img" for tag, _ in page.tags) == 3
    assert sum(tag == "script" for tag, _ in page.tags) == 1


def test_without_calibration_the_report_has_no_thresholds() -> None:
    page = Page(render_evaluation_report(EvaluationReport("How well", UNCALIBRATED)))
    assert "precision" not in page.said
    assert not any(tag == "svg" for tag, _ in page.tags)


@pytest.mark.parametrize(
    ("module", "what"), [("matplotlib.figure", "figures need matplotlib"), ("jinja2", "reports need jinja2")]
)
def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, module: str, what: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(LmrError) as error:
        render_evaluation_report(report(curves=CURVES))
    message = str(error.value)
    assert message.startswith(f"{what} (")
    assert message.endswith(f"; {install_hint('report')}")
    assert "\n" not in message


def test_a_training_log_becomes_a_image(tmp_path: Path) -> None:
    log = tmp_path / "training.csv"
    log.write_text("epoch,loss,rate,gap\n1,3.5,0.001,\n2,2.5,0.0005,0.4\n")
    assert read_log(log) == [
        {"epoch": 1.0, "loss": 3.5, "rate": 0.001},
        {"epoch": 2.0, "loss": 2.5, "rate": 0.0005, "gap": 0.4},
    ]
    save_training_curves(log, tmp_path / "training.png")
    with Image.open(tmp_path / "training.png") as image:
        assert image.format == "PNG"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epoch,loss\n1,2\n2,often\n", "{log}:3: not a row of numbers; the log of lmr train has nothing else"),
        ("epoch,loss\n1,2,3\n", "{log}:2: not a row of numbers; the log of lmr train has nothing else"),
        ("id,label\n1,2\n", "{log}: no rows with epoch and loss; is it the log of lmr train?"),
        ("", "{log}: no rows with epoch and loss; is it the log of lmr train?"),
    ],
)
def test_what_is_no_training_log_is_named(tmp_path: Path, content: str, message: str) -> None:
    log = tmp_path / "training.csv"
    log.write_text(content)
    with pytest.raises(LmrError) as error:
        save_training_curves(log, tmp_path / "training.png")
    assert str(error.value) == message.format(log=log)
    assert not (tmp_path / "training.png").exists()


def test_a_missing_training_log_is_named(tmp_path: Path) -> None:
    log = tmp_path / "training.csv"
    with pytest.raises(LmrError) as error:
        read_log(log)
    assert str(error.value) == f"{log} cannot be read: No such file or directory; lmr train writes it"
