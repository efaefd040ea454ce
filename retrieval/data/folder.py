"""A folder or tar of images as a manifest: the folder an image lies in is its landmark."""

import os
import re
from pathlib import Path

from retrieval.data.labels import compose
from retrieval.data.rows import Codes, Columns, ids_of_paths
from retrieval.errors import LmrError
from retrieval.images.walk import ImagePath, walk_images
from retrieval.progress import Progress


def read_folder(folder: Path, progress: Progress) -> Columns:
    """`<label>/.../<image>`: the topmost folder is the landmark; images directly in the folder have none.

    folder: may be a tar; tars in a folder count as unpacked where they lie. White space in a folder's name
    becomes `_` and the name as it was is kept for people. An image id is the file's name without suffix where all of
    them differ, else the path within the folder. Ordered by path.
    Raises LmrError when there is no image, one is there twice, or two folders get one name.
    """
    found = list(walk_images(folder, progress))
    if not found:
        kind = "folder" if folder.is_dir() else "tar"
        raise LmrError(f"{folder}: no pictures in this {kind}; give one that holds <landmark>/<picture>")
    paths = [image.unpacked for image in found]
    if len(set(map(compose, paths))) < len(paths):
        _refuse_doubles(folder, found)
    label_of = _labels(folder, sorted({path.split("/", 1)[0] for path in paths if "/" in path}))
    codes = Codes()
    label = [codes[label_of[path.split("/", 1)[0]]] if "/" in path else -1 for path in paths]
    root = os.path.abspath(folder)
    return Columns(
        ids_of_paths(paths),
        label,
        codes.names(),
        has_labels=bool(label_of),
        path=[os.path.join(root, image.path) for image in found],
        names={label: name for name, label in label_of.items() if label != name},
    )


def read_single(path: Path) -> Columns:
    """One image, without a landmark."""
    return Columns([path.stem], [-1], [], has_labels=False, path=[os.path.abspath(path)])


def _labels(folder: Path, names: list[str]) -> dict[str, str]:
    """From folder name to landmark_id."""
    label_of: dict[str, str] = {}
    folder_of: dict[str, str] = {}
    for name in names:
        label = compose(re.sub(r"\s+", "_", name.strip()))
        if label in folder_of:
            raise LmrError(
                f"{folder}: the folders {folder_of[label]!r} and {name!r} are both the landmark {label}; rename one"
            )
        folder_of[label], label_of[name] = name, label
    return label_of


def _refuse_doubles(folder: Path, found: list[ImagePath]) -> None:
    """Names two images that would lie in one place if the tars were unpacked."""
    first: dict[str, str] = {}
    for image in found:
        if (other := first.setdefault(compose(image.unpacked), image.path)) != image.path:
            raise LmrError(f"{folder}: {other} and {image.path} are both {image.unpacked}; keep one of them")
