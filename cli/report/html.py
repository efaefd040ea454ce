"""The evaluation report: one HTML file with figures and images inside, which asks for nothing from anywhere."""

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cli.report import plots
from cli.terminal import escaped
from index.folder.thumbnails import Kept, read_shown
from retrieval.errors import LmrError, UnreadableError
from retrieval.extras import install_hint
from retrieval.images.decode import decode
from retrieval.images.limits import contain
from retrieval.words import counted

if TYPE_CHECKING:
    from jinja2 import Environment

THUMBNAIL_PX = 168
THUMBNAIL_QUALITY = 78
TEMPLATE = "evaluation.html"

_HERE = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class ReportImage:
    """An image to show small. path: '' = not known where. score: to the query, None for the query itself.

    kept: reads what an index keeps of it, shown where the image is not there.
    """

    path: str
    label: str
    score: float | None = None
    kept: Kept | None = None


@dataclass(frozen=True, slots=True)
class ReportExample:
    """A query and the image of the index that won it."""

    query: ReportImage
    won: ReportImage


@dataclass(frozen=True, slots=True)
class ReportPair:
    """Two confused landmarks, by the names to print, with some of the queries."""

    true: str
    predicted: str
    n_queries: int
    examples: tuple[ReportExample, ...]


@dataclass(frozen=True, slots=True)
class ReportError:
    """A wrong answer. true: '' = no known landmark. confidence: None where the index is not calibrated."""

    query: ReportImage
    true: str
    predicted: str
    confidence: float | None
    neighbours: tuple[ReportImage, ...]


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """The content of a report.

    metrics: the JSON object of `index.evaluate.evaluation`. curves: that of `index.thresholds`, None
    where nothing was answered; without calibration it has no `confidence`. reliability, by_count: bins, as in
    `cli.report.plots`. facts: lines about what was measured, name -> text. warnings: lines to read first.
    landmarks: lines of `cli.report.evaluation.landmark_rows`, of n_landmarks; landmarks_table: name of the file
    that has all. confusion: the matrix of `index.evaluate.errors` with names. leaked: queries known to the
    index. trade: a line for each precision, of the calibration's own queries and of these, as in the JSON. places:
    lines on the answers as places. folder: of the report, which links to images begin from.
    """

    title: str
    metrics: Mapping[str, Any]
    curves: Mapping[str, Any] | None = None
    reliability: Sequence[Mapping[str, Any]] | None = None
    by_count: Sequence[Mapping[str, Any]] = ()
    pairs: Sequence[ReportPair] = ()
    errors: Sequence[ReportError] = ()
    facts: Mapping[str, str] | None = None
    warnings: Sequence[str] = ()
    landmarks: Sequence[Mapping[str, Any]] = ()
    n_landmarks: int = 0
    landmarks_table: str = ""
    confusion: Mapping[str, Any] | None = None
    leaked: Sequence[ReportImage] = ()
    trade: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]] = ()
    places: Sequence[str] = ()
    folder: Path = Path()


def render_evaluation_report(report: EvaluationReport) -> str:
    """The report as HTML text; everything that is data is escaped."""
    rows, figures = _rows(report.metrics), _figures(report)
    script = files("cli.report").joinpath("sort.js").read_text(encoding="utf-8")
    return fill_template(TEMPLATE, {}, report=report, rows=rows, figures=figures, folder=report.folder, script=script)


def fill_template(name: str, filters: Mapping[str, Any], **values: Any) -> str:
    """A template of this package as HTML text; values are escaped. Raises LmrError without jinja2.

    filters: besides `number`, `count`, `counted`, `share`, `thumbnail`, `link` and `place`, or in place of them. Among
    the values are `folder`, where the page will be, for links to images, None where it is sent and tells no place on
    disk; and `script`, the one script that the page may run.
    """
    try:
        environment = new_environment("report", "web/static")
    except ImportError as error:
        raise LmrError(f"reports need jinja2 ({error}); {install_hint('report')}") from error

    def link(image: ReportImage) -> str:
        return file_link(image.path, values["folder"]) if values.get("folder") is not None else ""

    def place(image: ReportImage) -> str:
        return image.path if values.get("folder", ".") is not None else file_name(image.path)

    if "script" in values:
        values |= _allowed(values["script"])
    environment.filters |= {"thumbnail": thumbnail, "link": link, "place": place} | dict(filters)
    return environment.get_template(name).render(**values)


def new_environment(*folders: str) -> "Environment":
    """Jinja for the templates in these folders of `cli`, the first before the others. Values are escaped.

    Filters: `number`, `count`, `counted`, `share` and `file_name`. Raises ImportError without jinja2.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([_HERE / folder for folder in folders]),
        autoescape=True,
        finalize=_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    own = {"number": _number, "count": _count, "counted": counted, "share": _share, "file_name": file_name}
    environment.filters |= own
    return environment


def _visible(value: Any) -> Any:
    """A value of a template; what would turn the direction of a page, or cannot be written, is escaped in texts."""
    return escaped(value) if type(value) is str else value


def _allowed(script: str) -> dict[str, Any]:
    """A script of ours as safe text, and its digest for the page's policy, by which no other script runs."""
    from markupsafe import Markup

    return {"script": Markup(script), "script_digest": base64.b64encode(sha256(script.encode()).digest()).decode()}


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its words, as the templates show it. svg: safe text."""

    heading: str
    about: str
    svg: Any


def file_name(path: str) -> str:
    """The last part of an image's path."""
    return path.replace("\\", "/").rsplit("/", 1)[-1]


def _rows(metrics: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], bool]]:
    """The lines of the headline table: name, its accuracy, and whether it is ours."""
    others = [(name.replace("_", " "), row, False) for name, row in (metrics.get("baselines") or {}).items()]
    without = metrics.get("without_leaked")
    if without:
        others.insert(0, (f"lmr, without the {counted(metrics['leaked']['n'], 'query')} that it knew", without, True))
    return [("lmr", metrics, True), *others]


def _figures(report: EvaluationReport) -> list[Figure]:
    metrics, curves = report.metrics, report.curves
    figures = []
    if report.reliability:
        about = "How often answers of a confidence are right. On the dotted line the confidence means what it says."
        figures.append(figure("Reliability", about, plots.plot_reliability(report.reliability)))
    if curves is not None:
        about = "What is gained and lost as the threshold falls and more pictures are answered."
        figures.append(figure("Precision and recall", about, plots.plot_precision_recall(curves)))
        marks = {
            name: metrics[key]
            for name, key in (("gap", "threshold_gap"), ("precision", "threshold_precision"))
            if "confidence" in curves and metrics.get(key) is not None
        }
        about = "At or above the threshold a picture is answered; below it shows “no known landmark”."
        figures.append(figure("GAP and precision against the threshold", about, plots.plot_thresholds(curves, marks)))
    if report.by_count:
        about = "Without a threshold. In brackets, the number of queries."
        drawn = plots.plot_accuracy_by_count(report.by_count)
        figures.append(figure("Accuracy by number of pictures", about, drawn))
    if metrics.get("false_answer_rate"):
        about = "Pictures without a known landmark that got an answer at the precision threshold, per kind."
        figures.append(figure("False answers", about, plots.plot_false_answers(metrics["false_answer_rate"])))
    return figures


def figure(heading: str, about: str, drawn: Any) -> Figure:
    """A drawn figure, described by its heading and what it is about."""
    from markupsafe import Markup

    return Figure(heading, about, Markup(plots.to_svg(drawn, f"{heading}. {about}")))  # our own SVG


def file_link(path: str, folder: Path) -> str:
    """The address of a file for a link in a page of this folder; '' where there is no such file (it may be in a tar).

    It is relative, so that pages and images can be moved together, and begins with a dot, so that a name is never
    taken for a scheme.
    """
    if not path or not os.path.isfile(path):
        return ""
    return quote(os.fsencode(os.path.join(".", os.path.relpath(path, folder))))


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _count(value: int) -> str:
    return f"{value:,}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def thumbnail(image: ReportImage) -> str:
    """The image as a data: address with a small JPEG; '' when it cannot be read."""
    try:
        return small_image(read_shown(image.path, image.kept), THUMBNAIL_PX, THUMBNAIL_QUALITY)
    except UnreadableError:
        return ""


def small_image(data: bytes, side: int, quality: int) -> str:
    """An encoded image as a data: address with a JPEG of at most side x side. UnreadableError with the reason."""
    buffer = BytesIO()
    contain(decode(data, side), side).save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
