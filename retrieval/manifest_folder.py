"""A folder of pictures as a manifest: the folder a picture lies in is its landmark."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from retrieval.errors import LmrError
from retrieval.manifest_rows import Codes, Columns, ids_of_paths
from retrieval.signatures import PICTURE_SUFFIXES

Warn = Callable[[str], None]

_NOT_DATA = frozenset(("__MACOSX", "Thumbs.db", "desktop.ini"))


def read_folder(folder: Path, warn: Warn) -> Columns:
    """`<label>/.../<picture>`: the topmost folder is the landmark; pictures directly in the folder have none.

    White space in a folder's name becomes `_` and the name as it was is kept for people. An image id is the file's
    name without suffix where all of them differ, else the path within the folder. Ordered by path.
    Raises LmrError when there is no picture, or two folders get one name.
    """
    paths = list(walk_pictures(folder, warn))
    if not paths:
        raise LmrError(f"{folder}: no pictures in this folder; give one that holds <landmark>/<picture>")
    label_of = _labels(folder, sorted({path.split("/", 1)[0] for path in paths if "/" in path}))
    codes = Codes()
    label = [codes[label_of[path.split("/", 1)[0]]] if "/" in path else -1 for path in paths]
    root = os.path.abspath(folder)
    return Columns(
        ids_of_paths(paths),
        label,
        codes.names(),
        has_labels=bool(label_of),
        path=[os.path.join(root, path) for path in paths],
        names={label: name for name, label in label_of.items() if label != name},
    )


def read_single(path: Path) -> Columns:
    """One picture, without a landmark."""
    return Columns([path.stem], [-1], [], has_labels=False, path=[os.path.abspath(path)])


def walk_pictures(folder: Path, warn: Warn) -> Iterator[str]:
    """Paths of the pictures within the folder, with `/`, told by their suffix and sorted; hidden files left out."""
    n_other, n_nameless = 0, 0
    for path in _walk(str(folder), "", set()):
        if os.path.splitext(path)[1].lower() not in PICTURE_SUFFIXES:
            n_other += 1
        elif not _is_text(path):
            n_nameless += 1
        else:
            yield path
    if n_nameless:
        raise LmrError(f"{folder}: {n_nameless} file names are not UTF-8 or hold control characters; rename them")
    if n_other:
        warn(f"{folder}: {n_other} files that are not pictures by their suffix were passed over")


def _walk(folder: str, prefix: str, above: set[tuple[int, int]]) -> Iterator[str]:
    """Files below, links to folders followed but not in circles."""
    status = os.stat(folder)
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise LmrError(f"{folder} cannot be read: {error.strerror}") from error
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _NOT_DATA:
            continue
        if entry.is_dir():
            yield from _walk(entry.path, f"{prefix}{entry.name}/", above | {identity})
        else:
            yield prefix + entry.name


def _labels(folder: Path, names: list[str]) -> dict[str, str]:
    """From folder name to landmark_id."""
    label_of: dict[str, str] = {}
    folder_of: dict[str, str] = {}
    for name in names:
        label = re.sub(r"\s+", "_", name.strip())
        if label in folder_of:
            raise LmrError(
                f"{folder}: the folders {folder_of[label]!r} and {name!r} are both the landmark {label}; rename one"
            )
        folder_of[label], label_of[name] = name, label
    return label_of


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return not re.search(r"[\t\r\n]", path)
