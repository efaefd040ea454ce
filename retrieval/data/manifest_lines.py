"""Manifests and solutions as lines of CSV."""

from collections.abc import Iterator, Sequence

import numpy as np

from retrieval.arrays import ObjArray
from retrieval.data.manifest import Manifest
from retrieval.texts import Texts

_ROWS_AT_ONCE = 1 << 14
_TO_QUOTE = (",", '"', "\r", "\n")


def manifest_lines(manifest: Manifest) -> Iterator[str]:
    """The text of a CSV file, in pieces: image_id, landmark_id, path, url, kind and Usage, as far as there are any.

    The user's own columns come last.

    Where a row has several landmarks the column is `landmarks` and holds all of them, separated by spaces; a column
    Usage is then there too (Public, if the manifest has none), as it tells such a file from a submission.
    ValueError for images that are held inside another file, which no CSV file can name.
    """
    _refuse_content(manifest)
    columns: list[tuple[str, Texts | ObjArray | None]] = [("image_id", manifest.image_id)]
    usage = manifest.usage
    if manifest.has_labels and manifest.more_landmarks:
        columns.append(("landmarks", _all_labels(manifest)))
        usage = np.full(len(manifest), "Public", dtype=object) if usage is None else usage
    elif manifest.has_labels:
        columns.append(("landmark_id", _first_labels(manifest)))
    yield from csv_lines([*columns, *_further(manifest), ("Usage", usage), *manifest.columns.items()])


def solution_lines(manifest: Manifest) -> Iterator[str]:
    """The text of a recognition solution: id, landmarks, Usage, then path, url, kind and the user's own columns, as far
    as there are any.

    ValueError for a manifest without usage, or with images held inside another file.
    """
    _refuse_content(manifest)
    if manifest.usage is None:
        raise ValueError("a solution needs the usage of each row")
    labels = _all_labels(manifest)
    yield from csv_lines(
        [
            ("id", manifest.image_id),
            ("landmarks", labels),
            ("Usage", manifest.usage),
            *_further(manifest),
            *manifest.columns.items(),
        ]
    )


def csv_lines(columns: Sequence[tuple[str, Texts | ObjArray | None]]) -> Iterator[str]:
    """The text of a CSV file with these columns (n,) of str, in pieces; those that are None are left out."""
    there = [(name, values) for name, values in columns if values is not None]
    yield ",".join(_cells([name for name, _ in there])) + "\n"
    for start in range(0, len(there[0][1]), _ROWS_AT_ONCE):
        cells = [_cells(values[start : start + _ROWS_AT_ONCE].tolist()) for _, values in there]
        yield "\n".join(map(",".join, zip(*cells, strict=True))) + "\n"


def _refuse_content(manifest: Manifest) -> None:
    if manifest.content is not None:
        raise ValueError(f"{manifest.source} holds the pictures themselves; a CSV file cannot name them")


def _further(manifest: Manifest) -> list[tuple[str, Texts | ObjArray | None]]:
    return [("path", manifest.path), ("url", manifest.url), ("kind", manifest.kind)]


def _first_labels(manifest: Manifest) -> ObjArray:
    names: ObjArray = np.array((*manifest.landmarks, ""), dtype=object)
    return names[manifest.landmark]  # the code -1 finds the last one


def _all_labels(manifest: Manifest) -> ObjArray:
    labels = _first_labels(manifest)
    for row in manifest.more_landmarks:
        labels[row] = " ".join(manifest.landmarks[code] for code in manifest.truths(row))
    return labels


def _cells(values: list[str]) -> list[str]:
    """Quoted as RFC 4180 asks for, which few columns need."""
    if not _needs_quotes("".join(values)):
        return values
    return ['"' + value.replace('"', '""') + '"' if _needs_quotes(value) else value for value in values]


def _needs_quotes(text: str) -> bool:
    return any(mark in text for mark in _TO_QUOTE)
