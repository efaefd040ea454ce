"""The name of the store of a manifest, beside it."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.data.pipes import STDIN, folder_beside
from retrieval.errors import LmrError

if TYPE_CHECKING:
    from retrieval.progress import Progress

STORES = (".h5", ".hdf5")  # how the name of a store ends
# What follows the name of a manifest. `a.1.csv` and `a.2.csv` are two names, as are folders that hold a point.
_ENDINGS = re.compile(r"(?<=.)(\.(csv|tsv|txt|json|jsonl|ndjson|parquet|pq|tar|tgz|zip|gz))+\Z", re.IGNORECASE)


def store_name(manifest: Path, word: str) -> Path:
    """The store of a manifest, beside it: `data/val.csv` -> `data/val.h5`, `data/photos/` -> `data/photos.h5`.

    Of standard input and other open files `stdin.h5` in the working folder, where that of a URL lies too.
    LmrError that names `word`, which gives another, where it is not there and nothing can be written.
    """
    folder, name = folder_beside(manifest), _bare_name(manifest)
    is_open_file = str(manifest) == STDIN or str(manifest).startswith(("/dev/", "/proc/"))
    store = folder / ("stdin.h5" if is_open_file else f"{name}.h5")
    if folder.is_dir() and not os.access(folder, os.W_OK) and not store.exists():
        raise LmrError(f"{folder}: nothing can be written beside {manifest.name}; give `{word}` STORE.h5")
    return store


def _bare_name(manifest: Path) -> str:
    from retrieval.images.parquet_parts import is_folder  # not at the top: it imports numpy, which help does not need

    name = os.path.basename(os.path.abspath(manifest))
    return name if is_folder(manifest) else _ENDINGS.sub("", name)


def find_store(manifest: Path, word: str, progress: "Progress") -> Path:
    """The path that `store_name` gives; warns where one of its name lies in the working folder instead."""
    store, other = store_name(manifest, word), Path(_bare_name(manifest) + ".h5")
    made = (store, store.with_name(store.name + ".partial"))
    if other.exists() and not any(path.exists() for path in made):
        progress.warn(
            f"{other} is there, but stores lie beside their manifests: {store} is made; `{word}` {other} takes it"
        )
    return store
