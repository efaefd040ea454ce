"""Labels, boxes and subsets of Open Images, and what a hierarchy rolls up."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from index.stats.labels import Labelling, Spread, most_frequent, spread
from retrieval.arrays import LongArray, ObjArray
from retrieval.data.open_images import Hierarchy, LabelRows
from retrieval.texts import Texts

N_TOP = 40
N_COMPARED = 10  # labels whose shares are set side by side for the subsets


def labelling_of_rows(rows: LabelRows, image_id: Texts, min_confidence: float) -> Labelling:
    """Labels of at least this confidence on these images (n,), each pair once; labels in the order of their text.

    Rows of other images are left out.
    """
    order = sorted(range(len(rows.labels)), key=rows.labels.__getitem__)
    sorted_code = np.empty(len(order) + 1, dtype=np.int64)
    sorted_code[order] = np.arange(len(order))
    sorted_code[-1] = -1
    image, label = _places(rows, image_id), sorted_code[rows.label]
    kept = (rows.confidence >= np.float32(min_confidence)) & (label >= 0) & (image >= 0)
    pairs = np.unique(image[kept] * max(1, len(order)) + label[kept])
    names = tuple(rows.labels[code] for code in order)
    return Labelling(len(image_id), names, *np.divmod(pairs, max(1, len(order))))


@dataclass(frozen=True, slots=True)
class TopLabel:
    """A frequent label. share: of all images, or of all boxes. name: for people, None where it has none."""

    landmark_id: str
    count: int
    share: float
    name: str | None


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """Rows of labels by what they say.

    kept: rows of at least min_label_confidence, which count. rejected: rows of confidence 0, which say that the label
    was looked for and is not there. blank: rows without a label. labels_per_picture: of the labels that count.
    """

    min_label_confidence: float
    rows: int
    kept: int
    rejected: int
    blank: int
    pictures_without_label: int
    labels_per_picture: Spread
    top_labels: tuple[TopLabel, ...]


def count_labels(rows: LabelRows, labelling: Labelling, min_confidence: float, names: Mapping[str, str]) -> LabelCounts:
    """Rows by confidence, images without a label, labels per image and the 40 most frequent. names: of labels."""
    rejected = int((rows.confidence == 0).sum())
    kept = int(((rows.confidence >= np.float32(min_confidence)) & (rows.label >= 0)).sum())
    return LabelCounts(
        min_label_confidence=min_confidence,
        rows=len(rows.image),
        kept=kept,
        rejected=rejected,
        blank=int((rows.label < 0).sum()),
        pictures_without_label=labelling.n_pictures - labelling.n_labelled,
        labels_per_picture=spread(np.bincount(labelling.image, minlength=labelling.n_pictures)),
        top_labels=_top_labels(labelling.counts, labelling.names, labelling.n_pictures, names),
    )


@dataclass(frozen=True, slots=True)
class BoxCounts:
    """Boxes and the images that they are on.

    on_other_pictures: boxes on images that are not listed. boxes_per_picture: of all listed images. area: share of
    the image that a box covers, None where it is not known. flags: share of the boxes that have each.
    """

    boxes: int
    pictures_with_boxes: int
    on_other_pictures: int
    boxes_per_picture: Spread
    area: Spread | None
    flags: Mapping[str, float]
    top_labels: tuple[TopLabel, ...]


def count_boxes(rows: LabelRows, image_id: Texts, names: Mapping[str, str]) -> BoxCounts:
    """Boxes per image, their areas, flags and labels. image_id: (n,) the listed images. names: of labels."""
    image = _places(rows, image_id)
    counts = np.bincount(rows.label[rows.label >= 0], minlength=len(rows.labels)).astype(np.int64)
    return BoxCounts(
        boxes=len(rows.image),
        pictures_with_boxes=len(rows.image_id),
        on_other_pictures=int((image < 0).sum()),
        boxes_per_picture=spread(np.bincount(image[image >= 0], minlength=len(image_id))),
        area=None if rows.area is None else spread(rows.area.astype(np.float64)),
        flags={name: float(values.mean()) for name, values in rows.flags.items()},
        top_labels=_top_labels(counts, rows.labels, len(rows.image), names),
    )


def _top_labels(
    counts: LongArray, labels: tuple[str, ...], n_of: int, names: Mapping[str, str]
) -> tuple[TopLabel, ...]:
    """The 40 most frequent labels with their share of n_of."""
    shown = most_frequent(counts, N_TOP).tolist()
    return tuple(TopLabel(labels[i], int(counts[i]), float(counts[i] / n_of), names.get(labels[i])) for i in shown)


@dataclass(frozen=True, slots=True)
class LabelShare:
    """Share of a subset's images that have a label. name: for people, None where it has none."""

    landmark_id: str
    name: str | None
    share: float


@dataclass(frozen=True, slots=True)
class Subset:
    """Images of a subset. labelled: those with a label. top_labels: the ten most frequent of all subsets."""

    subset: str
    pictures: int
    labelled: int
    labels_per_picture: float
    boxes_per_picture: float | None
    top_labels: tuple[LabelShare, ...]


def compare_subsets(
    labelling: Labelling, subset: ObjArray, boxes: LongArray | None, names: Mapping[str, str]
) -> tuple[Subset, ...]:
    """For each subset its images, labels and boxes, and its shares of the ten most frequent labels of all.

    subset: (n_pictures,) str. boxes: (n_pictures,) boxes of each. names: of labels. Largest subset first.
    """
    import pandas as pd  # slow to import

    subsets, code = np.unique(subset.astype(str), return_inverse=True)
    n_labels = np.bincount(labelling.image, minlength=labelling.n_pictures)
    columns = {"labels": n_labels, "labelled": n_labels > 0, "boxes": np.nan if boxes is None else boxes}
    by_subset = pd.DataFrame(columns).groupby(code)
    table = by_subset.mean().assign(pictures=by_subset.size(), labelled=by_subset["labelled"].sum())
    top = most_frequent(labelling.counts, N_COMPARED)
    shown = np.isin(labelling.landmark, top)
    counts = pd.crosstab(code[labelling.image[shown]], labelling.landmark[shown])
    shares = counts.reindex(index=table.index, columns=top, fill_value=0).div(table["pictures"], axis=0)
    of_label, top_labels = shares.to_numpy().tolist(), [labelling.names[i] for i in top.tolist()]
    table = table.sort_values("pictures", ascending=False, kind="stable")
    return tuple(
        Subset(
            subset=str(subsets[number]),
            pictures=int(row["pictures"]),
            labelled=int(row["labelled"]),
            labels_per_picture=float(row["labels"]),
            boxes_per_picture=None if boxes is None else float(row["boxes"]),
            top_labels=tuple(
                LabelShare(label, names.get(label), share)
                for label, share in zip(top_labels, of_label[number], strict=True)
            ),
        )
        for number, row in zip(table.index.tolist(), table.to_dict("records"), strict=True)
    )


@dataclass(frozen=True, slots=True)
class RolledUp:
    """A label of a hierarchy.

    pictures: images with it or any kind of it, each counted once. own: with the label itself. kinds: labels below it.
    """

    landmark_id: str
    name: str | None
    pictures: int
    own: int
    kinds: int


def roll_up(labelling: Labelling, hierarchy: Hierarchy, names: Mapping[str, str]) -> tuple[RolledUp, ...]:
    """The 40 labels of the hierarchy with most images, kinds included. names: of labels."""
    below = {label: hierarchy.below(label) for label in hierarchy.children}
    total = rolled_up(labelling, below)
    own = dict(zip(labelling.names, labelling.counts.tolist(), strict=True))
    shown = sorted(total, key=lambda label: (-total[label], -len(below[label]), label))[:N_TOP]
    return tuple(
        RolledUp(label, names.get(label), total[label], own.get(label, 0), len(below[label]) - 1) for label in shown
    )


def rolled_up(labelling: Labelling, below: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """Images that show a label or any kind of it, each counted once for each label above it.

    below: label -> itself and all kinds of it.
    """
    order = np.argsort(labelling.landmark, kind="stable")
    code = {name: number for number, name in enumerate(labelling.names)}
    of_label = np.split(labelling.image[order], np.cumsum(labelling.counts)[:-1])
    total = {}
    for label, kinds in below.items():
        found: Sequence[LongArray] = [of_label[code[kind]] for kind in kinds if kind in code]
        total[label] = len(np.unique(np.concatenate(found))) if found else 0
    return total


def boxes_per_picture(rows: LabelRows, image_id: Texts) -> LongArray:
    """(n,) boxes of each of these images."""
    image = _places(rows, image_id)
    return np.bincount(image[image >= 0], minlength=len(image_id)).astype(np.int64)


def _places(rows: LabelRows, image_id: Texts) -> LongArray:
    """(m,) for each row where its image is in image_id, -1 where it is not."""
    if image_id is rows.image_id:
        return rows.image.astype(np.int64)
    import pandas as pd  # slow to import

    listed, named = pd.Index(image_id[:], dtype=object), pd.Index(rows.image_id[:], dtype=object)
    return np.asarray(listed.get_indexer(named).astype(np.int64)[rows.image])
