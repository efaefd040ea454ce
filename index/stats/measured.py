"""Statistics that need images: what was measured, duplicates, leakage."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from index.stats import duplicates
from index.stats import images as statistics
from retrieval.arrays import LongArray, ObjArray
from retrieval.data.csv_cells import csv_line

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

    image_id: ObjArray
    landmark: ObjArray
    table: "FactsTable"
    measures: statistics.Measures


def describe_images(measured: Measured) -> dict[str, Any]:
    """Sizes, measures, rankings, outliers and unreadable images, as a JSON object."""
    measures, unreadable = measured.measures, measured.table.unreadable
    reasons = {measured.image_id[row]: reason for row, reason in list(unreadable.items())[:N_REASONS]}
    content: dict[str, Any] = {"readable": len(measures), "unreadable": len(unreadable), "reasons": reasons}
    if not len(measures):
        return {**content, "sizes": None, "measures": {}, "histograms": {}, "ranking": {}, "outliers": {}}
    return {
        **content,
        **statistics.describe_measures(measures),
        "ranking": {name: _ends(measured, name) for name in statistics.RANKED},
        "outliers": {kind: _outliers(measured, kind, at) for kind, at in statistics.outliers(measures).items()},
    }


def describe_duplicates(measured: Measured) -> dict[str, Any]:
    """Images of the same bytes, and of the same look; those of several landmarks apart."""
    row = measured.measures.row
    found = {
        "same_bytes": duplicates.same_bytes(measured.table.column("sha256")),
        "same_look": duplicates.same_look(measured.table.hashes),
    }
    return {
        name: describe_groups([row[group] for group in groups], measured.image_id, measured.landmark)
        for name, groups in found.items()
    }


def describe_groups(groups: Sequence[LongArray], image_id: ObjArray, landmark: ObjArray) -> dict[str, Any]:
    """Counts, and the first groups with their images. groups: rows of image_id and landmark (n,)."""
    codes = np.unique(landmark.astype(str), return_inverse=True)[1] - int("" in set(landmark.tolist()))
    across = duplicates.across(tuple(groups), codes)
    return {
        **duplicates.describe_groups(tuple(groups)),
        "across_landmarks": len(across),
        "examples": [_group(group, image_id, landmark) for group in _first(across, groups)],
    }


def describe_leakage(train: "Manifest", test: "Manifest", measured: tuple[Measured, Measured] | None) -> dict[str, Any]:
    """Images of a test set that the training set has too: by id, by address and, where measured, by look."""
    shared = sorted(set(train.image_id.tolist()) & set(test.image_id.tolist()))
    urls = sorted(_urls(train) & _urls(test))
    content: dict[str, Any] = {
        "test_pictures": len(test),
        "same_id": {"pictures": len(shared), "examples": shared[:N_GROUPS]},
        "same_url": {"pictures": len(urls), "examples": urls[:N_GROUPS]},
        "same_bytes": None,
        "same_look": None,
    }
    if measured is not None:
        sides = [measured[0].table.column("sha256"), measured[1].table.column("sha256")]
        content["same_bytes"] = _leaks(duplicates.same_bytes(np.concatenate(sides)), measured)
        hashes = np.concatenate([measured[0].table.hashes, measured[1].table.hashes])
        content["same_look"] = _leaks(duplicates.same_look(hashes), measured)
    return content


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


def _leaks(groups: Iterable[LongArray], measured: tuple[Measured, Measured]) -> dict[str, Any]:
    n_train = len(measured[0].measures)
    both = duplicates.on_both_sides(tuple(groups), n_train)
    ids = [side.image_id[side.measures.row] for side in measured]
    parts = [(ids[0][group[group < n_train]], ids[1][group[group >= n_train] - n_train]) for group in both]
    return {
        "groups": len(both),
        "test_pictures": sum(len(test) for _, test in parts),
        "train_pictures": sum(len(train) for train, _ in parts),
        "examples": [{"train": train.tolist(), "test": test.tolist()} for train, test in parts[:N_GROUPS]],
    }


def _ends(measured: Measured, name: str) -> dict[str, list[dict[str, Any]]]:
    """The images with the largest and the smallest values."""
    order = statistics.ranking(measured.measures, name)
    return {
        "highest": [_valued(measured, name, at) for at in order[:N_RANKED].tolist()],
        "lowest": [_valued(measured, name, at) for at in order[::-1][:N_RANKED].tolist()],
    }


_OUTLIER_MEASURE = {"dark": "brightness", "bright": "brightness", "flat": "contrast", "blurred": "sharpness"}


def _outliers(measured: Measured, kind: str, at: LongArray) -> dict[str, Any]:
    name = _OUTLIER_MEASURE[kind]
    shown = [_valued(measured, name, position) for position in at[:N_OUTLIERS].tolist()]
    return {"pictures": len(at), "measure": name, "examples": shown}


def _valued(measured: Measured, name: str, at: int) -> dict[str, Any]:
    row, value = measured.measures.row[at], float(measured.measures.values[name][at])
    return {"image_id": measured.image_id[row], "value": value}


def _first(across: Sequence[LongArray], groups: Sequence[LongArray]) -> list[LongArray]:
    """Groups of several landmarks first: they are errors of the labels."""
    begun = {int(group[0]) for group in across}
    return [*across, *(group for group in groups if int(group[0]) not in begun)][:N_GROUPS]


def _group(group: LongArray, image_id: ObjArray, landmark: ObjArray) -> list[dict[str, str | None]]:
    return [{"image_id": image_id[row], "landmark_id": landmark[row] or None} for row in group[:N_GROUPS].tolist()]


def _urls(manifest: "Manifest") -> set[str]:
    return set() if manifest.url is None else set(manifest.url.tolist()) - {""}
