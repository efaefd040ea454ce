"""The JSON document of `lmr stats`, from what the index room counts."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from index.stats import labels, open_images
from index.stats.labels import describe_hosts

if TYPE_CHECKING:
    from cli.stats.data import Data

N_SHOWN = 10
N_SAMPLES = 4
N_HOSTS = 20


def describe_data(data: "Data", source: str) -> dict[str, Any]:
    """Everything that needs no picture."""
    pictures, labelling = data.pictures, data.labelling
    counts = labelling.counts
    return {
        "source": source,
        "rows": data.blanks.n_rows if data.blanks else len(pictures),
        "pictures": len(pictures),
        "labelled": labelling.n_labelled,
        "without_landmark": len(pictures) - labelling.n_labelled,
        **labels.describe_counts(counts),
        "most_frequent": _landmarks(data, labels.most_frequent(counts, N_SHOWN)),
        "least_frequent": _landmarks(data, labels.least_frequent(counts, N_SHOWN)),
        "histogram": labels.histogram(counts),
        "density": labels.density(counts),
        "long_tail": labels.long_tail(counts),
        "blanks": dict(data.blanks.blanks) if data.blanks else {},
        "kinds": _counted(pictures.kind),
        "usages": _counted(pictures.usage),
        "hosts": None if pictures.url is None else describe_hosts(pictures.url, N_HOSTS),
        "subsets": _subsets(data),
        "hierarchy": _rolled_up(data),
        "open_images": _open_images(data),
        "boxes": _boxes(data),
    }


def _landmarks(data: "Data", shown: Any) -> list[dict[str, Any]]:
    counts, image_id = data.labelling.counts, data.pictures.image_id
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


def _subsets(data: "Data") -> list[dict[str, Any]] | None:
    if data.subset is None:
        return None
    boxes = data.box_rows
    per_picture = None if boxes is None else open_images.boxes_per_picture(boxes, data.pictures.image_id)
    compared = open_images.compare_subsets(data.labelling, data.subset, per_picture)
    return [{**row, "top_labels": _named_shares(data, row["top_labels"])} for row in compared]


def _named_shares(data: "Data", shares: dict[str, float]) -> list[dict[str, Any]]:
    return [{"landmark_id": label, "name": data.names.get(label), "share": share} for label, share in shares.items()]


def _rolled_up(data: "Data") -> list[dict[str, Any]] | None:
    """The labels of the hierarchy with most pictures, kinds included."""
    if data.hierarchy is None:
        return None
    below = {label: data.hierarchy.below(label) for label in data.hierarchy.children}
    total = labels.rolled_up(data.labelling, below)
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


def _open_images(data: "Data") -> dict[str, Any] | None:
    if data.label_rows is None:
        return None
    content = open_images.describe_labels(data.label_rows, data.labelling, data.min_label_confidence)
    return {**content, "top_labels": _named(data, content["top_labels"])}


def _boxes(data: "Data") -> dict[str, Any] | None:
    if data.box_rows is None:
        return None
    content = open_images.describe_boxes(data.box_rows, data.pictures.image_id)
    return {**content, "top_labels": _named(data, content["top_labels"])}


def _named(data: "Data", rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "name": data.names.get(row["landmark_id"])} for row in rows]
