"""What `lmr stats` reads: the manifest with everything beside it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cli.options import warn
from cli.progress import TerminalProgress
from cli.reading import load_manifest
from index.stats.labels import Labelling, labelling_of
from index.stats.open_images import MIN_LABEL_CONFIDENCE, labelling_of_rows
from retrieval.data.columns import Blanks, count_blanks, read_column
from retrieval.data.formats import Layout, read_layout
from retrieval.data.manifest import Manifest, open_table, read_names
from retrieval.data.names import of_no_landmark
from retrieval.data.open_images import Hierarchy, LabelRows, read_hierarchy, read_label_rows
from retrieval.data.overview import overview_line, reading
from retrieval.errors import LmrError

if TYPE_CHECKING:
    from retrieval.arrays import ObjArray
    from retrieval.data.csv_table import Table
    from retrieval.data.table_file import OnRead


@dataclass(frozen=True, slots=True)
class Beside:
    """Files that say more about the pictures. image_list, boxes: of Open Images. names: of landmarks."""

    image_list: Path | None = None
    boxes: Path | None = None
    hierarchy: Path | None = None
    names: Path | None = None
    min_label_confidence: float = MIN_LABEL_CONFIDENCE


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """A manifest, read. pictures: all of them; their landmarks are in labelling. blanks: None for a folder.

    label_rows: of Open Images labels, None for other manifests. subset: (n,) str of each picture.
    """

    pictures: Manifest
    labelling: Labelling
    blanks: Blanks | None = None
    label_rows: LabelRows | None = None
    box_rows: LabelRows | None = None
    subset: "ObjArray | None" = None
    hierarchy: Hierarchy | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    min_label_confidence: float = MIN_LABEL_CONFIDENCE


def read_data(path: Path, beside: Beside) -> Data:
    """Reads the manifest and what lies beside it; tells of names of no landmark. LmrError for what is not usable."""
    names = (
        {}
        if beside.names is None
        else {label: n.name for label, n in read_names(beside.names, TerminalProgress()).items()}
    )
    data = _read_data(path, beside, names)
    if beside.names is not None and (line := of_no_landmark(names, data.labelling.names, beside.names, path)):
        warn(line)
    return data


def _read_data(path: Path, beside: Beside, names: Mapping[str, str]) -> Data:
    table = open_table(path)
    layout = None if table is None else read_layout(table)
    hierarchy = None if beside.hierarchy is None else read_hierarchy(beside.hierarchy)
    boxes = None if beside.boxes is None else _read_rows(beside.boxes, "--boxes")
    if table is None or layout is None or layout.format != "open_images":
        if beside.image_list is not None:
            raise LmrError(f"--image-list goes with the labels of Open Images, {path} holds none; give it as CSV")
        pictures = load_manifest(path)
        blanks = None if table is None else _count_blanks(path)
        is_a_row_a_picture = layout is not None and layout.format == "pictures"
        subset = read_column(table, "Subset") if table is not None and is_a_row_a_picture else None
        return Data(
            pictures, labelling_of(pictures), blanks, None, boxes, subset, hierarchy, {**pictures.names, **names}
        )
    rows = _read_label_rows(path, layout)
    pictures, subset = rows.pictures(), rows.subset
    if beside.image_list is not None:
        pictures, subset = _read_image_list(beside.image_list)
    labelling = labelling_of_rows(rows, pictures.image_id, beside.min_label_confidence)
    n, n_landmarks, n_without = len(pictures), int((labelling.counts > 0).sum()), len(pictures) - labelling.n_labelled
    TerminalProgress().warn(overview_line(str(path), n, n_landmarks=n_landmarks, n_without=n_without))
    is_boxes = rows.area is not None
    boxes = rows if is_boxes and boxes is None else boxes
    least = beside.min_label_confidence
    return Data(pictures, labelling, _count_blanks(path), rows, boxes, subset, hierarchy, names, least)


def _read_rows(path: Path, option: str) -> LabelRows:
    table = open_table(path)
    layout = None if table is None else read_layout(table)
    if table is None or layout is None or layout.format != "open_images":
        raise LmrError(f"{option} {path} holds no boxes; it takes ImageID,LabelName,Confidence,XMin,XMax,YMin,YMax")
    rows = _read_label_rows(path, layout)
    if rows.area is None:
        raise LmrError(f"{option} {path} holds labels without boxes; it takes a file with XMin,XMax,YMin,YMax")
    return rows


def _read_label_rows(path: Path, layout: Layout) -> LabelRows:
    progress = TerminalProgress()
    with reading(path, progress):
        table = _table(path, progress.add)
        for line in table.notes:
            TerminalProgress().warn(line)
        return read_label_rows(table, layout)


def _count_blanks(path: Path) -> Blanks:
    progress = TerminalProgress()
    with reading(path, progress):
        return count_blanks(_table(path, progress.add))


def _table(path: Path, on_read: "OnRead") -> "Table":
    table = open_table(path, on_read)
    assert table is not None, "told to be a table before"
    return table


def _read_image_list(path: Path) -> "tuple[Manifest, ObjArray | None]":
    table = open_table(path)
    layout = None if table is None else read_layout(table)
    if table is None or layout is None or layout.format != "pictures":
        raise LmrError(f"--image-list {path} is no list of pictures; it takes ImageID,Subset,OriginalURL")
    return load_manifest(path), read_column(table, "Subset")
