"""Statistics that need images: what was measured, duplicates, leakage."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from index.stats import duplicates
from index.stats import images as statistics
from index.stats.duplicates import GroupCounts
from index.stats.images import Histogram, Sizes
from index.stats.labels import Spread
from retrieval.arrays import LongArray, ObjArray
from retrieval.data.csv_cells import csv_line
from retrieval.texts import Texts

if TYPE_CHECKING:
    from retrieval.data.manifest import Manifest
    from retrieval.data.quality_cache import FactsTable

N_RANKED = 4  # images at each end of a ranking
N_OUTLIERS = 100  # that the document names of each kind
N_GROUPS = 100
N_REASONS = 100


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Facts of the images of a manifest. landmark: (n,) the name of the first landmark of each, '' = none."""

    image_id: Texts
    landmark: ObjArray
    table: "FactsTable"
    measures: statistics.Measures


@dataclass(frozen=True, slots=True)
class ValuedImage:
    """An image with its value of a measure, in the unit of the measure."""

    image_id: str
    value: float


@dataclass(frozen=True, slots=True)
class Ends:
    """The images with the largest and the smallest values of a measure, the most extreme first."""

    highest: tuple[ValuedImage, ...]
    lowest: tuple[ValuedImage, ...]


@dataclass(frozen=True, slots=True)
class Outliers:
    """Number of images beyond Tukey's fences of a measure, and the hundred most extreme of them."""

    pictures: int
    measure: str
    examples: tuple[ValuedImage, ...]


@dataclass(frozen=True, slots=True)
class ImageCounts:
    """All that was measured. sizes is None, and nothing is in the mappings but reasons, where no image can be read.

    reasons: why the first hundred images cannot be read, by image_id. measures, histograms, ranking: by measure.
    outliers: by kind.
    """

    readable: int
    unreadable: int
    reasons: Mapping[str, str]
    sizes: Sizes | None
    measures: Mapping[str, Spread]
    histograms: Mapping[str, Histogram]
    ranking: Mapping[str, Ends]
    outliers: Mapping[str, Outliers]


def count_images(measured: Measured) -> ImageCounts:
    """Sizes, measures, rankings, outliers and unreadable images."""
    measures, unreadable = measured.measures, measured.table.unreadable
    reasons = {measured.image_id[row]: reason for row, reason in list(unreadable.items())[:N_REASONS]}
    if not len(measures):
        return ImageCounts(0, len(unreadable), reasons, None, {}, {}, {}, {})
    return ImageCounts(
        readable=len(measures),
        unreadable=len(unreadable),
        reasons=reasons,
        sizes=statistics.count_sizes(measures),
        measures=statistics.spreads(measures),
        histograms=statistics.histograms(measures),
        ranking={name: _ends(measured, name) for name in statistics.RANKED},
        outliers={kind: _outliers(measured, kind, at) for kind, at in statistics.outliers(measures).items()},
    )


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image with its first landmark, None where it has none."""

    image_id: str
    landmark_id: str | None


@dataclass(frozen=True, slots=True)
class ImageGroups(GroupCounts):
    """Groups of images that are alike.

    across_landmarks: groups of several landmarks. examples: the first hundred groups, those of several landmarks first,
    with at most a hundred images each.
    """

    across_landmarks: int
    examples: tuple[tuple[LabelledImage, ...], ...]


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Groups of images of the same bytes, and of the same look."""

    same_bytes: ImageGroups
    same_look: ImageGroups


def count_duplicates(measured: Measured) -> Duplicates:
    """Images of the same bytes, and of the same look; those of several landmarks apart."""
    row = measured.measures.row

    def counted(groups: duplicates.Groups) -> ImageGroups:
        return name_groups([row[group] for group in groups], measured.image_id, measured.landmark)

    return Duplicates(
        counted(duplicates.same_bytes(measured.table.column("sha256"))),
        counted(duplicates.same_look(measured.table.hashes)),
    )


def name_groups(groups: Sequence[LongArray], image_id: Texts | ObjArray, landmark: ObjArray) -> ImageGroups:
    """Counts, and the first groups with their images. groups: rows of image_id and landmark (n,)."""
    codes = np.unique(landmark.astype(str), return_inverse=True)[1] - int("" in set(landmark.tolist()))
    across = duplicates.across(tuple(groups), codes)
    counts = duplicates.count_groups(tuple(groups))
    return ImageGroups(
        groups=counts.groups,
        pictures=counts.pictures,
        surplus=counts.surplus,
        across_landmarks=len(across),
        examples=tuple(_group(group, image_id, landmark) for group in _first(across, groups)),
    )


@dataclass(frozen=True, slots=True)
class SharedNames:
    """Number of ids or addresses that both sets have, and the first hundred of them in order."""

    pictures: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SharedGroup:
    """Images that are alike: ids of the training set, and of the test set."""

    train: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SharedImages:
    """Groups of images that lie in both sets, the images of each set in them, and the first hundred groups."""

    groups: int
    test_pictures: int
    train_pictures: int
    examples: tuple[SharedGroup, ...]


@dataclass(frozen=True, slots=True)
class Leakage:
    """Images of a test set that the training set has too. same_bytes, same_look: None where none were measured."""

    test_pictures: int
    same_id: SharedNames
    same_url: SharedNames
    same_bytes: SharedImages | None
    same_look: SharedImages | None


def find_leakage(train: "Manifest", test: "Manifest", measured: tuple[Measured, Measured] | None) -> Leakage:
    """Images of a test set that the training set has too: by id, by address and, where measured, by look."""
    shared = sorted(set(train.image_id.tolist()) & set(test.image_id.tolist()))
    urls = sorted(_urls(train) & _urls(test))
    same_bytes = same_look = None
    if measured is not None:
        sides = [measured[0].table.column("sha256"), measured[1].table.column("sha256")]
        same_bytes = _shared(duplicates.same_bytes(np.concatenate(sides)), measured)
        hashes = np.concatenate([measured[0].table.hashes, measured[1].table.hashes])
        same_look = _shared(duplicates.same_look(hashes), measured)
    return Leakage(
        test_pictures=len(test),
        same_id=SharedNames(len(shared), tuple(shared[:N_GROUPS])),
        same_url=SharedNames(len(urls), tuple(urls[:N_GROUPS])),
        same_bytes=same_bytes,
        same_look=same_look,
    )


def image_lines(measured: Measured) -> Iterator[str]:
    """CSV lines of the images, best resolution first, unreadable ones last."""
    measures, row = measured.measures, measured.measures.row
    outlier: dict[int, list[str]] = {}
    for kind, found in statistics.outliers(measures).items():
        for at in found.tolist():
            outlier.setdefault(at, []).append(kind)
    copies = {}
    for groups in (duplicates.same_look(measured.table.hashes), duplicates.same_bytes(measured.table.column("sha256"))):
        copies.update({int(at): measured.image_id[row[group[0]]] for group in groups for at in group[1:]})
    names = [*statistics.MEASURES, "outlier", "copy_of", "unreadable"]
    yield csv_line(["image_id", "landmark_id", "width", "height", *names])
    for at in statistics.ranking(measures, "pixels_per_inch").tolist():
        values = [_number(measures.values[name][at]) for name in statistics.MEASURES]
        size = [int(measures.width[at]), int(measures.height[at])]
        ends = [" ".join(outlier.get(at, ())), copies.get(at, ""), ""]
        yield csv_line([measured.image_id[row[at]], measured.landmark[row[at]], *size, *values, *ends])
    blank = [""] * (len(statistics.MEASURES) + 4)
    for at, reason in measured.table.unreadable.items():
        yield csv_line([measured.image_id[at], measured.landmark[at], *blank, reason])


def _number(value: float) -> str:
    """Six digits, whole numbers in full."""
    return str(int(value)) if float(value).is_integer() else f"{value:.6g}"


def _shared(groups: Iterable[LongArray], measured: tuple[Measured, Measured]) -> SharedImages:
    n_train = len(measured[0].measures)
    both = duplicates.on_both_sides(tuple(groups), n_train)
    ids = [side.image_id[side.measures.row] for side in measured]
    parts = [(ids[0][group[group < n_train]], ids[1][group[group >= n_train] - n_train]) for group in both]
    return SharedImages(
        groups=len(both),
        test_pictures=sum(len(test) for _, test in parts),
        train_pictures=sum(len(train) for train, _ in parts),
        examples=tuple(SharedGroup(tuple(train), tuple(test)) for train, test in parts[:N_GROUPS]),
    )


def _ends(measured: Measured, name: str) -> Ends:
    order = statistics.ranking(measured.measures, name)
    return Ends(_valued(measured, name, order[:N_RANKED]), _valued(measured, name, order[::-1][:N_RANKED]))


_OUTLIER_MEASURE = {"dark": "brightness", "bright": "brightness", "flat": "contrast", "blurred": "sharpness"}


def _outliers(measured: Measured, kind: str, at: LongArray) -> Outliers:
    name = _OUTLIER_MEASURE[kind]
    return Outliers(len(at), name, _valued(measured, name, at[:N_OUTLIERS]))


def _valued(measured: Measured, name: str, at: LongArray) -> tuple[ValuedImage, ...]:
    image_id, values = measured.image_id[measured.measures.row[at]], measured.measures.values[name][at]
    return tuple(ValuedImage(*pair) for pair in zip(image_id.tolist(), values.tolist(), strict=True))


def _first(across: Sequence[LongArray], groups: Sequence[LongArray]) -> list[LongArray]:
    """Groups of several landmarks first: they are errors of the labels."""
    begun = {int(group[0]) for group in across}
    return [*across, *(group for group in groups if int(group[0]) not in begun)][:N_GROUPS]


def _group(group: LongArray, image_id: Texts | ObjArray, landmark: ObjArray) -> tuple[LabelledImage, ...]:
    return tuple(LabelledImage(image_id[row], landmark[row] or None) for row in group[:N_GROUPS].tolist())


def _urls(manifest: "Manifest") -> set[str]:
    return set() if manifest.url is None else set(manifest.url.tolist()) - {""}
