"""The report on the data: one HTML file with figures and small images inside, from the document of `lmr stats`."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from cli.report import statistics_plots as plots
from cli.report.html import Figure, figure, file_link, fill_template, small_picture
from retrieval.errors import UnreadableError
from retrieval.words import agreeing, counted

TEMPLATE = "statistics.html"
THUMBNAIL_PX, THUMBNAIL_QUALITY = 132, 70  # about 5 kB each
N_OUTLIERS, N_GROUPS, N_IN_GROUP, N_CLUSTERS = 8, 12, 5, 40  # what is shown; the document has more

_WORDS = {
    "pixels_per_inch": "pixels per inch",
    "megapixels": "megapixels",
    "bytes": "bytes",
    "aspect_ratio": "width / height",
}


class PicturesById(Protocol):
    """Source of a report's images; of the test set if that is asked for."""

    def read(self, image_id: str, of_test: bool = False) -> bytes:
        """The encoded image. UnreadableError with the reason."""
        ...

    def where(self, image_id: str, of_test: bool = False) -> str:
        """The path of the image, '' where it has none."""
        ...


def render_statistics_report(document: Mapping[str, Any], pictures: PicturesById, folder: Path) -> str:
    """The report as HTML text; everything that is data is escaped.

    document: of `lmr stats`. folder: where the page will be, for links.
    Raises LmrError without jinja2 or matplotlib.
    """

    def thumbnail(image_id: str, of_test: bool = False) -> str:
        try:
            return small_picture(pictures.read(image_id, of_test), THUMBNAIL_PX, THUMBNAIL_QUALITY)
        except UnreadableError:
            return ""

    def link(image_id: str, of_test: bool = False) -> str:
        return file_link(pictures.where(image_id, of_test), folder)

    def file_name(image_id: str, of_test: bool = False) -> str:
        return os.path.basename(pictures.where(image_id, of_test)) or image_id

    limits = {"outliers": N_OUTLIERS, "groups": N_GROUPS, "in_group": N_IN_GROUP, "clusters": N_CLUSTERS}
    filters = {"number": _number, "thumbnail": thumbnail, "words": _words, "link": link, "file_name": file_name}
    has_pictures = document["measured"] is not None or document["store"] is not None
    figures = {"landmarks": _of_landmarks(document), "beside": _of_labels(document), "pictures": _of_pictures(document)}
    return fill_template(
        TEMPLATE, filters, d=document, limits=limits, figures=figures, map=_map(document), has_pictures=has_pictures
    )


def _of_landmarks(d: Mapping[str, Any]) -> list[Figure]:
    if not d["histogram"]:
        return []
    found = [figure("Histogram", "Landmarks by their number of pictures.", plots.plot_histogram(d["histogram"]))]
    if d["density"]:
        about = "The same as a smooth curve: Gaussian kernels over the logarithm, Scott's rule."
        found.append(figure("Density", about, plots.plot_density(d["density"])))
    what = "labelled pictures" if d["labels"] == d["labelled"] else "labels"
    about = f"What share of all {what} the biggest landmarks hold."
    found.append(figure("Long tail", about, plots.plot_long_tail(d["long_tail"], d["half"], what)))
    return found


def _of_labels(d: Mapping[str, Any]) -> list[Figure]:
    found = []
    if d["hosts"] and d["hosts"]["top"]:
        top = d["hosts"]["top"][:12]
        drawn = plots.plot_shares([row["host"] for row in top], [row["share"] for row in top], "share of all pictures")
        found.append(figure("Hosts", f"{counted(d['hosts']['hosts'], 'host')} in all.", drawn))
    if d["subsets"] and d["subsets"][0]["top_labels"]:
        about = "How often the most frequent labels of all are in each subset."
        found.append(figure("Subsets", about, plots.plot_subsets(d["subsets"][: plots.MAPPED])))
    for key, heading, x in (
        ("open_images", "Top labels", "share of all pictures"),
        ("boxes", "Top labels of boxes", "share of all boxes"),
    ):
        if d[key] and d[key]["top_labels"]:
            top = d[key]["top_labels"]
            drawn = plots.plot_shares(_names(top), [row["share"] for row in top], x)
            found.append(figure(heading, f"The {len(top)} most frequent.", drawn))
    return found


def _of_pictures(d: Mapping[str, Any]) -> list[Figure]:
    found = (d["measured"] or {}).get("histograms") or {}
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


def _map(d: Mapping[str, Any]) -> Figure | None:
    found = d["map"]
    if found is None:
        return None
    names = {row["landmark_id"]: row["name"] for row in d["most_frequent"]}
    counts = Counter(label for label in found["landmark_id"] if label is not None)
    top = sorted(counts, key=lambda label: (-counts[label], label))[: plots.MAPPED]
    about = (
        f"{counted(found['pictures'], 'descriptor', of=found['of'])}, drawn with seed {found['seed']}, laid out by "
        f"t-SNE. The {counted(len(top), 'landmark')} with most dots {agreeing(len(top), 'is', 'are')} in "
        f"colour. Near dots are near "
        "descriptors; distances far apart mean little."
    )
    return figure(
        "Map of descriptors", about, plots.plot_map(found, [(label, names.get(label) or label) for label in top])
    )


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [row["name"] or row["landmark_id"] for row in rows]


def _words(name: str) -> str:
    return _WORDS.get(name, name.replace("_", " "))


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 or float(value).is_integer() else f"{value:.3g}"
