"""The images below a folder, in its tars too, or in one tar: walked through in the order of their names."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from retrieval.errors import LmrError
from retrieval.images.candidates import has_image_suffix
from retrieval.images.signatures import IMAGE_SUFFIXES, is_hidden, is_text_name
from retrieval.images.tars.archive import TarSet, is_tar_name, open_tar
from retrieval.progress import Progress
from retrieval.words import agreeing, counted

_SHOWN = 10
_DEEPEST = 200  # levels of folders


@dataclass(frozen=True, slots=True)
class ImagePath:
    """Path of an image within the place that was walked through.

    path: with `/`; `<tar>/<path in it>` for one in a tar of a folder. unpacked: the same without the tar, as if that
    were unpacked where it lies.
    """

    path: str
    unpacked: str


def walk_images(place: Path, progress: Progress) -> Iterator[ImagePath]:
    """The images below a folder or in a tar, told by their suffix and sorted; hidden files left out.

    What has an image's name and is none, such as a link that leads nowhere, is among them. progress: is warned of
    each kind of thing that was passed over. Raises LmrError for a folder or tar that cannot be used where it is the
    place itself.
    """
    passed = _Passed()
    if place.is_dir():
        walk = _walk(str(place), ImagePath("", ""), frozenset(), (progress, passed))
    else:
        walk = _walk_tar(place, progress, passed)
    for found in walk:
        suffix = os.path.splitext(found.path)[1].lower()
        if not is_text_name(found.path):
            passed.nameless.append(found.path)
        elif suffix not in IMAGE_SUFFIXES:
            passed.suffixes[suffix] += 1
        else:
            yield found
    for line in passed.lines(place):
        progress.warn(line)


@dataclass(slots=True)
class _Passed:
    """Files that were passed over. suffixes: of files that are no images. shut: what cannot be entered, and why."""

    suffixes: Counter[str] = field(default_factory=Counter)
    n_in_tars: int = 0
    nameless: list[str] = field(default_factory=list)
    shut: list[tuple[str, str]] = field(default_factory=list)

    def lines(self, place: Path) -> Iterator[str]:
        """For people."""
        if self.shut:
            named = "; ".join(f"{_escaped(path)}: {reason}" for path, reason in self.shut[:_SHOWN])
            yield (
                f"{place}: {len(self.shut):,} unreadable "
                f"{agreeing(len(self.shut), 'folder or link was', 'folders or links were')} passed over: {named}"
            )
        if self.nameless:
            named = ", ".join(map(_escaped, self.nameless[:_SHOWN]))
            yield (
                f"{place}: {counted(len(self.nameless), 'file')} whose "
                f"{agreeing(len(self.nameless), 'name is', 'names are')} not UTF-8 or "
                f"{agreeing(len(self.nameless), 'holds control characters was', 'hold control characters were')} "
                f"passed over; rename {agreeing(len(self.nameless), 'it', 'them')}: {named}"
            )
        n_other = self.suffixes.total() + self.n_in_tars
        if n_other:
            kinds = [f"{n} {suffix or 'without a suffix'}" for suffix, n in self.suffixes.most_common(_SHOWN)]
            kinds += [f"{self.n_in_tars} in tars"] if self.n_in_tars else []
            named = ", ".join(map(_escaped, kinds))
            yield (
                f"{place}: {counted(n_other, 'file')} that "
                f"{agreeing(n_other, 'is not a picture by its suffix was', 'are not pictures by their suffix were')} "
                f"passed over: {named}"
            )


def _escaped(path: str) -> str:
    """A path of any characters, as it can be printed."""
    return path if is_text_name(path) and path.isprintable() else ascii(path)[1:-1]


def _walk(
    folder: str, above: ImagePath, identities: frozenset[tuple[int, int]], told: tuple[Progress, _Passed]
) -> Iterator[ImagePath]:
    """Files below, links to folders followed but not in circles. above: what the paths begin with."""
    if above.path.count("/") > _DEEPEST:
        told[1].shut.append((folder, f"below more than {_DEEPEST} folders"))
        return
    try:
        status = os.stat(folder)
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        if not above.path:
            raise LmrError(f"{folder} cannot be read: {error.strerror}") from error
        told[1].shut.append((folder, str(error.strerror)))
        return
    identity = (status.st_dev, status.st_ino)
    if identity in identities:
        return
    entries = [entry for entry in entries if not is_hidden(entry.name)]
    tars = _open([Path(entry.path) for entry in entries if is_tar_name(entry.name) and not _kind(entry)], *told)
    for entry in entries:
        path, unpacked, kind = above.path + entry.name, above.unpacked + entry.name, _kind(entry)
        if kind == "folder":
            yield from _walk(entry.path, ImagePath(f"{path}/", f"{unpacked}/"), identities | {identity}, told)
        elif kind and not has_image_suffix(entry.name):
            told[1].shut.append((entry.path, kind))
        elif tars is not None and is_tar_name(entry.name):
            yield from (ImagePath(f"{path}/{name}", above.unpacked + name) for name in tars.names(entry.path))
        else:
            yield ImagePath(path, unpacked)


def _kind(entry: "os.DirEntry[str]") -> str:
    """`folder`, '' for a file, or why it is neither: a link in a circle, into a forbidden folder, a pipe as a tar."""
    try:
        if entry.is_dir():
            return "folder"
        return "not a file" if is_tar_name(entry.name) and not entry.is_file() else ""
    except OSError as error:
        return str(error.strerror)


def _walk_tar(tar: Path, progress: Progress, passed: _Passed) -> Iterator[ImagePath]:
    """Its images. One folder around all others, as `tar cf photos.tar photos` makes, is left out of `unpacked`."""
    tars = open_tar(tar, progress)
    for line in tars.warnings():
        progress.warn(line)
    passed.n_in_tars += tars.n_other
    names = tars.names(str(tar))
    tops = {name.split("/", 1)[0] for name in names}
    if len(tops) == 1 and all(name.count("/") >= 2 for name in names):
        progress.warn(f"{tar}: all pictures are below {tops.pop()}/; the folders in that are taken for the landmarks")
        yield from (ImagePath(name, name.split("/", 1)[1]) for name in names)
    else:
        yield from (ImagePath(name, name) for name in names)


def _open(paths: list[Path], progress: Progress, passed: _Passed) -> TarSet | None:
    if not paths:
        return None
    tars = TarSet(paths, progress)
    for line in tars.warnings():
        progress.warn(line)
    passed.n_in_tars += tars.n_other
    return tars
