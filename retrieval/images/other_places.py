"""Where a picture may be whose path counts from another folder or is spelt as elsewhere; never by its name alone."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from retrieval.errors import UnreadableError
from retrieval.images.candidates import has_picture_suffix, places_of_path

_WINDOWS_ROOT = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_SLASHES = "\\ in paths is read as /"
OTHER_LETTERS = "suffixes are read in capital or small letters, as the files have them"


@dataclass(frozen=True, slots=True)
class Otherwise:
    """Places that are equally likely. how: a line on how the path was read."""

    how: str
    places: list[str]


def is_windows_root(path: str) -> bool:
    """Whether a path begins at a drive or a share of Windows."""
    return _WINDOWS_ROOT.match(path) is not None


def others_of_path(
    path: str, roots: Sequence[str], images: str | None, beside: str, letters: Sequence[str]
) -> Iterator[Otherwise]:
    """How else a path may be read, the likeliest first; an absolute one in no other way.

    roots: where it counts from. images: the folder if one was named; then a path may also count from `beside`, the
    table's own folder, or begin with names that the images folder ends in. letters: it with its suffix otherwise.
    """
    if os.path.isabs(path) or is_windows_root(path):
        return
    for name, how in ((path, _SLASHES if "\\" in path else ""), *((other, OTHER_LETTERS) for other in letters)):
        plain = re.sub(r"^(\./+)+", "", name.replace("\\", "/"))
        if how:
            yield Otherwise(how, places_of_path(plain, roots))
        if images is not None:
            cut = [place for rest in _without_folder(plain, images) for place in places_of_path(rest, [images])]
            yield Otherwise(
                f"paths that lead nowhere below {images} are read without its name, or from the table's own folder",
                [*cut, *places_of_path(plain, [beside])],
            )


def other_letters(name: str) -> list[str]:
    """The name with its picture's suffix in small and in capital letters, where it has one."""
    if not has_picture_suffix(name):
        return []
    stem, suffix = os.path.splitext(name)
    return [stem + other for other in (suffix.lower(), suffix.upper(), suffix.title()) if other != suffix]


def the_only(places: Sequence[str]) -> str:
    """The one of these files that is there; '' = none. Raises UnreadableError when two that differ are."""
    there = list(filter(os.path.isfile, places))
    for other in there[1:]:
        if not os.path.samefile(there[0], other):
            raise UnreadableError(f"may be {there[0]} or {other}; give its whole path")
    return there[0] if there else ""


def _without_folder(path: str, folder: str) -> list[str]:
    """What remains of a path that begins with the names in which a folder's path ends, longest first."""
    parts, names = path.split("/"), os.path.abspath(folder).split(os.sep)
    return ["/".join(parts[n:]) for n in range(1, len(parts)) if parts[:n] == names[-n:]]
