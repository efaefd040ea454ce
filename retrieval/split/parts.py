"""The files of a split: the manifest of each part."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from retrieval.arrays import LongArray, ObjArray
from retrieval.data.manifest import Manifest
from retrieval.data.manifest_lines import csv_lines, manifest_lines, solution_lines
from retrieval.split.split import Split
from retrieval.split.stratify import TEST, TRAIN, VAL


def part_manifests(split: Split, *, with_kind: bool) -> dict[str, Manifest]:
    """Manifests of train, background, val and test, as far as they have rows.

    with_kind: whether the input had kinds; train has them only then.
    """
    rows = {
        "train": split.rows(TRAIN, of_landmarks=True),
        "background": split.rows(TRAIN, of_landmarks=False),
        "val": split.rows(VAL),
        "test": split.rows(TEST),
    }
    return {name: _part(split, name, of, with_kind) for name, of in rows.items() if len(of)}


def files_of(parts: Mapping[str, Manifest]) -> dict[str, Iterable[str]]:
    """Texts by file name: the parts, test with ids alone and once more as a solution, and names where there are any."""
    files: dict[str, Iterable[str]] = {
        f"{name}.csv": manifest_lines(part) for name, part in parts.items() if name != "test"
    }
    if "test" in parts:
        files["test.csv"] = manifest_lines(_without_answers(parts["test"]))
        files["test_solution.csv"] = solution_lines(parts["test"])
    names = next(iter(parts.values())).names
    if names:
        files["names.csv"] = name_lines(names)
    return files


def name_lines(names: Mapping[str, str]) -> Iterable[str]:
    """Text of a file of names, as build-index takes it."""
    labels = sorted(names)
    shown = [names[label] for label in labels]
    return csv_lines([("landmark_id", _objects(labels)), ("name", _objects(shown))])


def _part(split: Split, name: str, rows: LongArray, with_kind: bool) -> Manifest:
    part = split.manifest.select(rows)
    if name == "test":
        return part
    return replace(part, usage=None, kind=None if name == "train" and not with_kind else part.kind)


def _without_answers(part: Manifest) -> Manifest:
    landmark = np.full(len(part), -1, dtype=np.int32)
    return replace(part, landmark=landmark, more_landmarks={}, has_labels=False, kind=None, usage=None, columns={})


def _objects(values: list[str]) -> ObjArray:
    return np.array(values, dtype=object)
