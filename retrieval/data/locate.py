"""Places of the images of a manifest, looked up once so that manifests written elsewhere still find them."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from retrieval.data.image_source import ImageSource, images_folder
from retrieval.data.manifest import Manifest
from retrieval.errors import LmrError
from retrieval.files.utf8_path import is_utf8
from retrieval.progress import Progress
from retrieval.texts import Texts

_N_PROBED = 200  # images looked for, spread over the manifest, before all are
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class LocatedImages:
    """A manifest with the absolute path of each image that was found, and where they were looked for (None = there
    are none)."""

    manifest: Manifest
    folder: Path | None


def locate_images(manifest: Manifest, images: Path | None, progress: Progress) -> LocatedImages:
    """Looks for all images, unless a look for some of them finds none; without them a path counts from the folder.

    LmrError where images is given and holds none of them, and where no table can name them.
    """
    if manifest.content is not None:
        raise LmrError(
            f"{manifest.source} holds the pictures themselves, which manifests cannot name; save them as files first"
        )
    folder = images_folder(images, Path(manifest.source), progress)
    _require_utf8(folder)
    source = ImageSource(manifest, folder)
    probed = np.unique(np.linspace(0, len(manifest) - 1, min(_N_PROBED, len(manifest))).astype(np.int64))
    if not any(source.where(row) for row in probed.tolist()):
        if images is not None:
            raise LmrError(f"`images` {images}: has none of the pictures of {manifest.source} ({len(probed)} tried)")
        return LocatedImages(replace(manifest, path=_absolute(manifest.path, folder)), None)
    given = _absolute(manifest.path, folder)
    path = [""] * len(manifest) if given is None else given.tolist()
    progress.begin("looking for images", len(manifest))
    for start in range(0, len(manifest), _ROWS_AT_ONCE):
        rows = range(start, min(start + _ROWS_AT_ONCE, len(manifest)))
        for row in rows:
            if place := source.where(row):
                path[row] = os.path.abspath(place)
        progress.add(len(rows))
    progress.end()
    return LocatedImages(replace(manifest, path=Texts.of(path)), folder)


def _require_utf8(folder: Path) -> None:
    """Raises LmrError for a folder whose images cannot be named in a manifest, which is UTF-8."""
    place = os.path.abspath(folder)
    if not is_utf8(place):
        raise LmrError(
            f"{place}: the name of a folder in it is not UTF-8, and the manifests that are written could not name its "
            "pictures; rename that folder"
        )


def _absolute(path: Texts | None, folder: Path) -> Texts | None:
    if path is None:
        return None
    root = os.path.abspath(folder)
    return Texts.of(os.path.normpath(os.path.join(root, place)) if place else "" for place in path)
