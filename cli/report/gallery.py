"""The gallery of a cleaning: what was left out and why, each image beside those that say so."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cli.report.html import ReportImage, fill_template
from cli.terminal import command_line
from index.clean.decisions import REASONS
from index.clean.folder import DECISIONS
from retrieval.errors import LmrError
from retrieval.extras import install_hint

if TYPE_CHECKING:
    from index.clean.decisions import Decisions
    from retrieval.arrays import LongArray
    from retrieval.data.manifest import Manifest

TEMPLATE = "gallery.html"
N_NEIGHBOURS = 4  # shown beside each image


@dataclass(frozen=True, slots=True)
class GalleryImage:
    """An image that is not kept. action: what happens to it."""

    image: ReportImage
    landmark: str
    action: str
    evidence: str
    neighbours: tuple[ReportImage, ...]


@dataclass(frozen=True, slots=True)
class GallerySection:
    """All images of one reason, or the first of them."""

    reason: str
    about: str
    n_pictures: int
    images: Sequence[GalleryImage]


def require_jinja() -> None:
    """Raises LmrError that names the extra."""
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise LmrError(f"the gallery needs jinja2 ({error}); {install_hint('report')}, or give --gallery 0") from error


def render_gallery(manifest: "Manifest", decisions: "Decisions", n_shown: int, output: Path) -> str:
    """The gallery as HTML text, at most n_shown images for each reason, the clearest first.

    output: the folder of the cleaning, where the page will be, as it was given.
    """
    require_jinja()
    return fill_template(
        TEMPLATE,
        {},
        source=manifest.source,
        review=str(output / DECISIONS),
        command=command_line("lmr", "clean", manifest.source, "--review", output / DECISIONS),
        folder=output,
        counts=decisions.counts(),
        sections=_sections(manifest, decisions, n_shown),
    )


def _sections(manifest: "Manifest", decisions: "Decisions", n_shown: int) -> list[GallerySection]:
    row_of = {image_id: row for row, image_id in enumerate(manifest.image_id.tolist())}
    sections = []
    for reason, about in REASONS.items():
        rows = np.flatnonzero((decisions.decision != "keep") & (decisions.reason == reason))
        if len(rows):
            shown = _clearest(rows, decisions)[:n_shown]
            images = [_image(manifest, decisions, row_of, int(row)) for row in shown]
            sections.append(GallerySection(reason, about, len(rows), images))
    return sections


def _clearest(rows: "LongArray", decisions: "Decisions") -> "LongArray":
    odds = np.nan_to_num(decisions.log_odds[rows], nan=-np.inf, neginf=-np.inf)
    ordered: LongArray = rows[np.argsort(-odds, kind="stable")]
    return ordered


def _image(manifest: "Manifest", decisions: "Decisions", row_of: dict[str, int], row: int) -> GalleryImage:
    changed = decisions.decision[row] == "relabel"
    near = [row_of[name] for name in decisions.neighbours[row].split("|") if name in row_of]
    path = _path(manifest, row)
    return GalleryImage(
        image=ReportImage(path, Path(path).name or str(decisions.image_id[row])),
        landmark=str(decisions.landmark[row]),
        action=f"becomes {decisions.suggested[row]}" if changed else "left out",
        evidence=str(decisions.evidence[row]),
        neighbours=tuple(
            ReportImage(_path(manifest, other), str(decisions.landmark[other] or "no landmark"))
            for other in near[:N_NEIGHBOURS]
        ),
    )


def _path(manifest: "Manifest", row: int) -> str:
    return "" if manifest.path is None else str(manifest.path[row])
