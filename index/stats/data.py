"""Data of statistics: a manifest with everything beside it, and all that is counted without looking at an image."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from index.stats import labels, open_images
from index.stats.labels import Labelling, describe_hosts, labelling_of
from index.stats.open_images import labelling_of_rows
from retrieval.data.columns import Blanks, count_blanks, read_column
from retrieval.data.formats import Layout, read_layout
from retrieval.data.manifest import Manifest, open_table, read_names
from retrieval.data.names import of_no_landmark
from retrieval.data.open_images import Hierarchy, LabelRows, read_hierarchy, read_label_rows
from retrieval.data.overview import load_manifest, overview_line, reading
from retrieval.errors import LmrError
from retrieval.progress import Progress

if TYPE_CHECKING:
    from retrieval.arrays import ObjArray
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


def read_data(path: Path, beside: Beside, progress: Progress) -> Data:
    """Reads the manifest and what lies beside it; tells of names of no landmark. LmrError for what is not usable."""
    names = {} if beside.names is None else {label: n.name for label, n in read_names(beside.names, progress).items()}
    data = _read_data(path, beside, names, progress)
    if beside.names is not None and (line := of_no_landmark(names, data.labelling.names, beside.names, path)):
        progress.warn(line)
    return data


def _read_data(path: Path, beside: Beside, names: Mapping[str, str], progress: Progress) -> Data:
    table = open_table(path)
    layout = None if table is None else read_layout(table)
    hierarchy = None if beside.hierarchy is None else read_hierarchy(beside.hierarchy)
    boxes = None if beside.boxes is None else _read_boxes(beside.boxes, progress)
    if table is None or layout is None or layout.format != "open_images":
        if beside.image_list is not None:
            raise LmrError(f"`image_list` goes with the labels of Open Images, {path} holds none; give it as CSV")
        images = load_manifest(path, progress)
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
    progress.warn(overview_line(str(path), n, n_landmarks=n_landmarks, n_without=n_without))
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


def describe_data(data: Data, source: str) -> dict[str, Any]:
    """Everything that needs no image, as a JSON object."""
    images, labelling = data.images, data.labelling
    counts = labelling.counts
    return {
        "source": source,
        "rows": data.blanks.n_rows if data.blanks else len(images),
        "pictures": len(images),
        "labelled": labelling.n_labelled,
        "without_landmark": len(images) - labelling.n_labelled,
        **labels.describe_counts(counts),
        "most_frequent": _landmarks(data, labels.most_frequent(counts, N_SHOWN)),
        "least_frequent": _landmarks(data, labels.least_frequent(counts, N_SHOWN)),
        "histogram": labels.histogram(counts),
        "density": labels.density(counts),
        "long_tail": labels.long_tail(counts),
        "blanks": dict(data.blanks.blanks) if data.blanks else {},
        "kinds": _counted(images.kind),
        "usages": _counted(images.usage),
        "hosts": None if images.url is None else describe_hosts(images.url, N_HOSTS),
        "subsets": _subsets(data),
        "hierarchy": _rolled_up(data),
        "open_images": _open_images(data),
        "boxes": _boxes(data),
    }


def _landmarks(data: Data, shown: Any) -> list[dict[str, Any]]:
    counts, image_id = data.labelling.counts, data.images.image_id
    return [
        {
            "landmark_id": data.labelling.names[code],
            "name": data.names.get(data.labelling.names[code]),
            "pictures": int(counts[code]),
            "samples": [image_id[row] for row in labels.samples(data.labelling, code, N_SAMPLES)],
        }
        for code in shown.tolist()
    ]


def _counted(values: Any) -> dict[str, int] | None:
    return None if values is None else dict(Counter(values.tolist()).most_common())


def _subsets(data: Data) -> list[dict[str, Any]] | None:
    if data.subset is None:
        return None
    boxes = data.box_rows
    per_image = None if boxes is None else open_images.boxes_per_picture(boxes, data.images.image_id)
    compared = open_images.compare_subsets(data.labelling, data.subset, per_image)
    return [{**row, "top_labels": _named_shares(data, row["top_labels"])} for row in compared]


def _named_shares(data: Data, shares: dict[str, float]) -> list[dict[str, Any]]:
    return [{"landmark_id": label, "name": data.names.get(label), "share": share} for label, share in shares.items()]


def _rolled_up(data: Data) -> list[dict[str, Any]] | None:
    """The labels of the hierarchy with most images, kinds included."""
    if data.hierarchy is None:
        return None
    below = {label: data.hierarchy.below(label) for label in data.hierarchy.children}
    total = open_images.rolled_up(data.labelling, below)
    own = dict(zip(data.labelling.names, data.labelling.counts.tolist(), strict=True))
    shown = sorted(total, key=lambda label: (-total[label], -len(below[label]), label))[: open_images.N_TOP]
    return [
        {
            "landmark_id": label,
            "name": data.names.get(label),
            "pictures": total[label],
            "own": own.get(label, 0),
            "kinds": len(below[label]) - 1,
        }
        for label in shown
    ]


def _open_images(data: Data) -> dict[str, Any] | None:
    if data.label_rows is None:
        return None
    content = open_images.describe_labels(data.label_rows, data.labelling, data.min_label_confidence)
    return {**content, "top_labels": _named(data, content["top_labels"])}


def _boxes(data: Data) -> dict[str, Any] | None:
    if data.box_rows is None:
        return None
    content = open_images.describe_boxes(data.box_rows, data.images.image_id)
    return {**content, "top_labels": _named(data, content["top_labels"])}


def _named(data: Data, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "name": data.names.get(row["landmark_id"])} for row in rows]
