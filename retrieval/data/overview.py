"""Overview of a manifest as it is loaded: what it holds, in one line, and what of it looks like a mistake."""

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from retrieval.data.header.mapping import BY_HEADER, ColumnMap
from retrieval.data.manifest import Manifest, read_manifest
from retrieval.data.pipes import STDIN
from retrieval.errors import LmrError
from retrieval.files.urls import remote_url, status_of
from retrieval.images.parquet_parts import is_folder
from retrieval.progress import Progress
from retrieval.words import counted

_SHOWN_BYTES = 10_000_000  # of a file from which on reading it takes about a second

# Names of the parts of a data set and of what holds one: as landmarks they mean that the folder above was given.
_NO_LANDMARKS = re.compile(
    r"(train(ing)?|val(id(ation)?)?|test(ing)?|dev|query|queries|index|gallery|database|base|"
    r"images?|imgs?|photos?|pictures?|pics|data(set)?|jpe?gs?|raw|original|all|unlabell?ed|labell?ed)[_-]?(set|data|images|\d+)?",
    re.IGNORECASE,
)

_SHORTENED = re.compile(r"\d(\.\d+)?[eE]\+\d+")  # a long number as a spreadsheet saves it, equal to its like


def load_manifest(
    path: Path, progress: Progress, names: ColumnMap = BY_HEADER, *, labels_expected: bool = True
) -> Manifest:
    """As `read_manifest`; says what is in it, what is taken as what, and what looks wrong.

    labels_expected: False where its images are known to have no landmarks, or none but by their places.
    """
    with reading(path, progress):
        manifest = read_manifest(path, progress, names)
    progress.warn(overview(manifest))
    for line in doubts(manifest, is_folder=is_folder(path), labels_expected=labels_expected):
        progress.warn(f"warning: {line}")
    return manifest


@contextmanager
def reading(path: Path, progress: Progress) -> Iterator[None]:
    """A stretch over the bytes of a large file, to which what reads it adds."""
    if path.is_file() and path.stat().st_size >= _SHOWN_BYTES:
        progress.begin(f"reading {path.name}", path.stat().st_size, "B")
    yield
    progress.end()


def require_there(path: Path) -> None:
    """LmrError for a manifest that is not there, before anything that takes long; a store's reader tells of a store."""
    url = remote_url(str(path))
    try:
        is_there = path.exists() if url is None else bool(status_of(url))
    except FileNotFoundError:
        is_there = False
    if str(path) != STDIN and path.suffix not in (".h5", ".hdf5") and not is_there:
        raise LmrError(f"{url or path}: there is no such file or folder")


def overview(manifest: Manifest) -> str:
    """`train.csv: 356 images of 7 landmarks, 0 without`."""
    if not manifest.has_labels:
        return f"{manifest.source}: {counted(len(manifest), 'image')}, no labels"
    n_without = int((manifest.landmark < 0).sum())
    return overview_line(manifest.source, len(manifest), n_landmarks=len(_used(manifest)), n_without=n_without)


def overview_line(source: str, n_images: int, *, n_landmarks: int, n_without: int) -> str:
    """As `overview`, of counts. n_without: images that have no landmark."""
    return f"{source}: {counted(n_images, 'image')} of {counted(n_landmarks, 'landmark')}, {n_without:,} without"


def doubts(manifest: Manifest, *, is_folder: bool = False, labels_expected: bool = True) -> list[str]:
    """A line for each thing that is hardly meant.

    is_folder: the landmarks are names of folders. labels_expected: as of `load_manifest`.
    """
    used = _used(manifest)
    named = [name for name in used if _NO_LANDMARKS.fullmatch(name)]
    above = f"; give {manifest.source}/{named[0]} instead?" if is_folder and named else ""
    if named and 2 * len(named) >= len(used):
        what = (
            "are landmarks by name, but look like parts of a data set"
            if len(named) > 1
            else "is a landmark by name, but looks like a part of a data set"
        )
        return [f"{manifest.source}: {', '.join(named[:5])} {what}{above}"]
    if shortened := [name for name in used if _SHORTENED.fullmatch(name)]:
        return [
            f"{manifest.source}: {', '.join(shortened[:5])} look like long numbers that a spreadsheet shortened, so "
            "that landmarks may have become one; take the labels from the file before that"
        ]
    if not used and (not labels_expected or (is_folder and manifest.columns)):  # which are places
        return []
    if not used and is_folder:
        return [f"{manifest.source}: no image lies in a folder of a landmark; give the folder above {manifest.source}?"]
    if not used and manifest.has_labels:
        return [f"{manifest.source}: no image has a landmark: right for a background, else look at its columns"]
    if len(used) == 1 and len(manifest) > 1:
        return [f"{manifest.source}: all landmarks are {used[0]}; with one alone there is nothing to tell apart"]
    return []


def _used(manifest: Manifest) -> list[str]:
    """The landmarks that any image has, in their order."""
    first = np.unique(manifest.landmark[manifest.landmark >= 0]).tolist()
    further = itertools.chain.from_iterable(manifest.more_landmarks.values())
    return [manifest.landmarks[code] for code in sorted({*first, *further})]
