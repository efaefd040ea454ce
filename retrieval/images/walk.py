"""The pictures below a folder, in its tars too, or in one tar: walked through in the order of their names."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from retrieval.errors import LmrError
from retrieval.images.signatures import PICTURE_SUFFIXES, is_hidden, is_text_name
from retrieval.tar_indexing import Listener
from retrieval.tars import TarSet, is_tar_name, open_tar

Warn = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PicturePath:
    """Where a picture is within the place that was walked through.

    path: with `/`; `<tar>/<path in it>` for one in a tar of a folder. unpacked: the same without the tar, as if that
    were unpacked where it lies.
    """

    path: str
    unpacked: str


def walk_pictures(place: Path, warn: Warn) -> Iterator[PicturePath]:
    """The pictures below a folder or in a tar, told by their suffix and sorted; hidden files left out.

    warn: is given a line for each thing that was passed over. Raises LmrError for names that are no text, a folder
    that cannot be read, and a tar that cannot be used where it is the place itself.
    """
    passed: Counter[str] = Counter()
    if place.is_dir():
        walk = _walk(str(place), PicturePath("", ""), frozenset(), (warn, passed))
    else:
        walk = _walk_tar(place, warn, passed)
    for found in walk:
        if os.path.splitext(found.path)[1].lower() not in PICTURE_SUFFIXES:
            passed["other"] += 1
        elif not is_text_name(found.path):
            passed["nameless"] += 1
        else:
            yield found
    if passed["nameless"]:
        raise LmrError(
            f"{place}: {passed['nameless']} file names are not UTF-8 or hold control characters; rename them"
        )
    if passed["other"]:
        warn(f"{place}: {passed['other']} files that are not pictures by their suffix were passed over")


def _walk(
    folder: str, above: PicturePath, identities: frozenset[tuple[int, int]], told: tuple[Warn, Counter[str]]
) -> Iterator[PicturePath]:
    """Files below, links to folders followed but not in circles. above: what the paths begin with."""
    status = os.stat(folder)
    identity = (status.st_dev, status.st_ino)
    if identity in identities:
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise LmrError(f"{folder} cannot be read: {error.strerror}") from error
    entries = [entry for entry in entries if not is_hidden(entry.name)]
    tars = _open([Path(entry.path) for entry in entries if is_tar_name(entry.name) and entry.is_file()], *told)
    for entry in entries:
        path, unpacked = above.path + entry.name, above.unpacked + entry.name
        if entry.is_dir():
            yield from _walk(entry.path, PicturePath(f"{path}/", f"{unpacked}/"), identities | {identity}, told)
        elif tars is not None and is_tar_name(entry.name):
            yield from (PicturePath(f"{path}/{name}", above.unpacked + name) for name in tars.names(entry.path))
        else:
            yield PicturePath(path, unpacked)


def _walk_tar(tar: Path, warn: Warn, passed: Counter[str]) -> Iterator[PicturePath]:
    """Its pictures. One folder around all others, as `tar cf photos.tar photos` makes, is left out of `unpacked`."""
    tars = open_tar(tar, Listener(on_warning=warn))
    for line in tars.warnings():
        warn(line)
    passed["other"] += tars.n_other
    names = tars.names(str(tar))
    tops = {name.split("/", 1)[0] for name in names}
    if len(tops) == 1 and all(name.count("/") >= 2 for name in names):
        warn(f"{tar}: all pictures are below {tops.pop()}/; the folders in that are taken for the landmarks")
        yield from (PicturePath(name, name.split("/", 1)[1]) for name in names)
    else:
        yield from (PicturePath(name, name) for name in names)


def _open(paths: list[Path], warn: Warn, passed: Counter[str]) -> TarSet | None:
    if not paths:
        return None
    tars = TarSet(paths, Listener(on_warning=warn))
    for line in tars.warnings():
        warn(line)
    passed["other"] += tars.n_other
    return tars
