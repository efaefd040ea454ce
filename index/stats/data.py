"""Data of statistics: a manifest with everything beside it, and all that is counted without looking at an image."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from index.stats import labels
from index.stats.labels import Density, Hosts, Labelling, LandmarkCounts, LongTail, SizeBin, labelling_of
from index.stats.open_images import (
    BoxCounts,
    LabelCounts,
    RolledUp,
    Subset,
    boxes_per_picture,
    compare_subsets,
    count_boxes,
    count_labels,
    labelling_of_rows,
    roll_up,
)
from retrieval.data.columns import Blanks, count_blanks, read_column
from retrieval.data.formats import Layout, read_layout
from retrieval.data.header.mapping import ColumnMap
from retrieval.data.manifest import Manifest, read_names
from retrieval.data.names import of_no_landmark
from retrieval.data.open_images import Hierarchy, LabelRows, read_hierarchy, read_label_rows
from retrieval.data.overview import load_manifest, overview_line, reading
from retrieval.data.tables.opening import open_table
from retrieval.errors import LmrError
from retrieval.files.urls import text_of
from retrieval.progress import Progress

if TYPE_CHECKING:
    from retrieval.arrays import LongArray, ObjArray
    from retrieval.data.csv_table import Table


@dataclass(frozen=True, slots=True)
class Beside:
    """Files that say more about the images. image_list, boxes: of Open Images. names: of landmarks."""

    image_list: Path | None
    boxes: Path | None
    hierarchy: Path | None
    names: Path | None
    min_label_confidence: float


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """A manifest, read. images: all of them; their landmarks are in labelling. blanks: None for a folder.

    label_rows: of Open Images labels, None for other manifests. subset: (n,) str of each image.
    """

    images: Manifest
    labelling: Labelling
    blanks: Blanks | None = None
    label_rows: LabelRows | None = None
    box_rows: LabelRows | None = None
    subset: "ObjArray | None" = None
    hierarchy: Hierarchy | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    min_label_confidence: float = 0  # of the label_rows that count


def read_data(path: Path, beside: Beside, columns: ColumnMap, progress: Progress) -> Data:
    """Reads the manifest and what lies beside it; tells of names of no landmark. LmrError for what is not usable.

    columns: which column of the manifest holds what.
    """
    names = {} if beside.names is None else {label: n.name for label, n in read_names(beside.names, progress).items()}
    data = _read_data(path, beside, names, columns, progress)
    if beside.names is not None and (line := of_no_landmark(names, data.labelling.names, beside.names, path)):
        progress.warn(line)
    return data


def _read_data(path: Path, beside: Beside, names: Mapping[str, str], columns: ColumnMap, progress: Progress) -> Data:
    table = open_table(path)
    layout = None if table is None else read_layout(table, columns)
    hierarchy = None if beside.hierarchy is None else read_hierarchy(beside.hierarchy)
    boxes = None if beside.boxes is None else _read_boxes(beside.boxes, progress)
    if table is None or layout is None or layout.format != "open_images":
        if beside.image_list is not None:
            raise LmrError(f"`image_list` goes with the labels of Open Images, {path} holds none; give it as CSV")
        images = load_manifest(path, progress, columns)
        blanks = None if table is None else _count_blanks(path, progress)
        is_a_row_a_image = layout is not None and layout.format == "pictures"
        subset = read_column(table, "Subset") if table is not None and is_a_row_a_image else None
        return Data(images, labelling_of(images), blanks, None, boxes, subset, hierarchy, {**images.names, **names})
    rows = _read_label_rows(path, layout, progress)
    images, subset = rows.images(), rows.subset
    if beside.image_list is not None:
        images, subset = _read_image_list(beside.image_list, progress)
    labelling = labelling_of_rows(rows, images.image_id, beside.min_label_confidence)
    n, n_landmarks, n_without = len(images), int((labelling.counts > 0).sum()), len(images) - labelling.n_labelled
    progress.warn(overview_line(text_of(path), n, n_landmarks=n_landmarks, n_without=n_without))
    is_boxes = rows.area is not None
    boxes = rows if is_boxes and boxes is None else boxes
    least = beside.min_label_confidence
    return Data(images, labelling, _count_blanks(path, progress), rows, boxes, subset, hierarchy, names, least)


def _read_boxes(path: Path, progress: Progress) -> LabelRows:
    table = open_table(path)
    layout = None if table is None else read_layout(table)
    if table is None or layout is None or layout.format != "open_images":
        raise LmrError(f"`boxes` {path} holds no boxes; it takes ImageID,LabelName,Confidence,XMin,XMax,YMin,YMax")
    rows = _read_label_rows(path, layout, progress)
    if rows.area is None:
        raise LmrError(f"`boxes` {path} holds labels without boxes; it takes a file with XMin,XMax,YMin,YMax")
    return rows


def _read_label_rows(path: Path, layout: Layout, progress: Progress) -> LabelRows:
    with reading(path, progress):
        table = _table(path, progress)
        for line in table.notes:
            progress.warn(line)
        return read_label_rows(table, layout)


def _count_blanks(path: Path, progress: Progress) -> Blanks:
    with reading(path, progress):
        return count_blanks(_table(path, progress))


def _table(path: Path, progress: Progress) -> "Table":
    table = open_table(path, progress)
    assert table is not None, "told to be a table before"
    return table


def _read_image_list(path: Path, progress: Progress) -> "tuple[Manifest, ObjArray | None]":
    table = open_table(path)
    layout = None if table is None else read_layout(table)
    if table is None or layout is None or layout.format != "pictures":
        raise LmrError(f"`image_list` {path} is no list of pictures; it takes ImageID,Subset,OriginalURL")
    return load_manifest(path, progress), read_column(table, "Subset")


N_SHOWN = 10
N_SAMPLES = 4
N_HOSTS = 20


@dataclass(frozen=True, slots=True)
class LandmarkImages:
    """A landmark with its number of images, and the ids of some of them. name: for people, None where it has none."""

    landmark_id: str
    name: str | None
    pictures: int
    samples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DataCounts:
    """All that is counted without looking at an image; None for what a manifest does not tell.

    rows: of the manifest. labelled: images that show a landmark. blanks: blank cells by column. kinds, usages: images
    by kind and `Usage`, most first. hierarchy: labels with all kinds of them.
    """

    source: str
    rows: int
    pictures: int
    labelled: int
    without_landmark: int
    counts: LandmarkCounts
    most_frequent: tuple[LandmarkImages, ...]
    least_frequent: tuple[LandmarkImages, ...]
    histogram: tuple[SizeBin, ...]
    density: Density | None
    long_tail: LongTail
    blanks: Mapping[str, int]
    kinds: Mapping[str, int] | None
    usages: Mapping[str, int] | None
    hosts: Hosts | None
    subsets: tuple[Subset, ...] | None
    hierarchy: tuple[RolledUp, ...] | None
    open_images: LabelCounts | None
    boxes: BoxCounts | None


def count_data(data: Data, source: str) -> DataCounts:
    """Everything that needs no image. source: name of the manifest."""
    images, labelling, names = data.images, data.labelling, data.names
    counts, rows, boxes = labelling.counts, data.label_rows, data.box_rows
    return DataCounts(
        source=source,
        rows=data.blanks.n_rows if data.blanks else len(images),
        pictures=len(images),
        labelled=labelling.n_labelled,
        without_landmark=len(images) - labelling.n_labelled,
        counts=labels.count_landmarks(counts),
        most_frequent=_landmarks(data, labels.most_frequent(counts, N_SHOWN)),
        least_frequent=_landmarks(data, labels.least_frequent(counts, N_SHOWN)),
        histogram=labels.histogram(counts),
        density=labels.density(counts),
        long_tail=labels.long_tail(counts),
        blanks=dict(data.blanks.blanks) if data.blanks else {},
        kinds=_counted(images.kind),
        usages=_counted(images.usage),
        hosts=None if images.url is None else labels.rank_hosts(images.url, N_HOSTS),
        subsets=_subsets(data),
        hierarchy=None if data.hierarchy is None else roll_up(labelling, data.hierarchy, names),
        open_images=None if rows is None else count_labels(rows, labelling, data.min_label_confidence, names),
        boxes=None if boxes is None else count_boxes(boxes, images.image_id, names),
    )


def _landmarks(data: Data, shown: "LongArray") -> tuple[LandmarkImages, ...]:
    counts, image_id = data.labelling.counts, data.images.image_id
    return tuple(
        LandmarkImages(
            landmark_id=data.labelling.names[code],
            name=data.names.get(data.labelling.names[code]),
            pictures=int(counts[code]),
            samples=tuple(image_id[row] for row in labels.samples(data.labelling, code, N_SAMPLES)),
        )
        for code in shown.tolist()
    )


def _counted(values: "ObjArray | None") -> dict[str, int] | None:
    return None if values is None else dict(Counter(values.tolist()).most_common())


def _subsets(data: Data) -> tuple[Subset, ...] | None:
    if data.subset is None:
        return None
    boxes = data.box_rows
    per_image = None if boxes is None else boxes_per_picture(boxes, data.images.image_id)
    return compare_subsets(data.labelling, data.subset, per_image, data.names)
