"""Places where the file of an image may be: by its id under any suffix, by its path, in either form of its letters."""

import functools
import itertools
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from retrieval.errors import UnreadableError
from retrieval.images.signatures import IMAGE_SUFFIXES

_COMMON = (".jpg", ".jpeg", ".png", ".webp")
_QUICK = (*_COMMON, *(s.upper() for s in _COMMON), *(s.title() for s in _COMMON))  # tried before a folder is listed
_SETS = ("train", "test", "index")
_FIRST_ENTRIES = 1000  # of a folder, by which it is told whether it holds tars
_WINDOWS_ROOT = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_SLASHES = "\\ in paths is read as /"
OTHER_LETTERS = "suffixes are read in capital or small letters, as the files have them"


def forms(name: str) -> list[str]:
    """A name as it is, composed (NFC) and decomposed (NFD), each once: for the eye they are one name."""
    if name.isascii():
        return [name]
    return list(dict.fromkeys((name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))))


def places_of_path(path: str, roots: Sequence[str]) -> list[str]:
    """Places where an image with a path may be: there, and under the common suffixes where it has no image's suffix."""
    names = forms(path)
    if not has_image_suffix(path):
        names += [name + suffix for name in names for suffix in _QUICK]
    return [os.path.join(root, name) for name in names for root in roots]


def places_of_id(image_id: str, roots: Sequence[str], *, names_itself: bool) -> list[str]:
    """Places where an image with an id may be, under the common suffixes. names_itself: the id may be a whole name."""
    names = []
    for name in forms(image_id):
        names += [name] if names_itself else []
        names += [name + suffix for suffix in _QUICK]
    return [f"{folder}{name}" for folder in _folders(image_id, roots) for name in names]


def places_in_sets(image_id: str, folders: Sequence[str]) -> list[str]:
    """Places where an image with an id may be in the folders of sets: as Google has it, and directly in them."""
    inner = "" if "/" in image_id or len(image_id) < 3 else "/".join(image_id[:3]) + "/"
    layouts = [inner, ""] if inner else [""]
    return [f"{folder}/{layout}{name}.jpg" for layout in layouts for name in forms(image_id) for folder in folders]


def sets_in(folder: str, table: str) -> list[str]:
    """Folders of Google's and Kaggle's sets in a folder, that of a table's own name or set first.

    A set is a folder `train`, `test` or `index` with an a/b/c layout or tars in it; that of a table's own name may have
    any. table: its path.
    """
    if os.path.isdir(table):
        return []
    stem = os.path.basename(table).split(".")[0]
    of_test = stem.startswith(("sample_submission", "recognition_solution", "retrieval_solution"))
    of_set = "test" if of_test else next((name for name in _SETS if re.match(rf"{name}[_-]", stem)), "")
    found = [name for name in (stem, of_set) if name and os.path.isdir(f"{folder}/{name}")]
    found += [name for name in _SETS if name not in found and _is_set(f"{folder}/{name}")]
    return [f"{folder}/{name}" for name in found]


def _is_set(folder: str) -> bool:
    if not os.path.isdir(folder):
        return False
    if any(os.path.isdir(f"{folder}/{digit}") for digit in "0123456789abcdef"):
        return True
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(".tar") for entry in itertools.islice(entries, _FIRST_ENTRIES))


def find_listed(image_id: str, roots: Sequence[str]) -> str:
    """The file `<id>` with a rarer suffix of an image, in capital letters or small ones; '' when there is none."""
    above, _, stem = image_id.rpartition("/")
    for folder in _folders(image_id, roots):
        place = os.path.join(folder, above)
        if name := _listing(place, _changed(place)).get(unicodedata.normalize("NFC", stem)):
            return os.path.join(place, name)
    return ""


def has_image_suffix(name: str) -> bool:
    """True for a name that ends as those of images do, in letters of any size."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _folders(image_id: str, roots: Sequence[str]) -> list[str]:
    """The folders themselves, then the a/b/c of Google's layout in them; each ends with a slash."""
    layouts = ["/"] if "/" in image_id or len(image_id) < 3 else ["/", "/{}/{}/{}/".format(*image_id[:3])]
    return [f"{root}{layout}" for layout in layouts for root in roots]


def _changed(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except (OSError, ValueError):
        return 0


@functools.lru_cache(maxsize=4096)
def _listing(folder: str, _changed_ns: int) -> dict[str, str]:
    """The images of a folder whose suffix is none of the common ones, by their names without it."""
    try:
        names = sorted(os.listdir(folder), reverse=True)
    except (OSError, ValueError):
        return {}
    rare = (name for name in names if has_image_suffix(name) and not name.endswith(_QUICK))
    return {unicodedata.normalize("NFC", os.path.splitext(name)[0]): name for name in rare}


@dataclass(frozen=True, slots=True)
class Otherwise:
    """Places that are equally likely. how: a line on how the path was read."""

    how: str
    places: list[str]


def is_windows_root(path: str) -> bool:
    """True for a path that begins at a drive or a share of Windows."""
    return _WINDOWS_ROOT.match(path) is not None


def others_of_path(
    path: str, roots: Sequence[str], images: str | None, beside: str, letters: Sequence[str]
) -> Iterator[Otherwise]:
    """Other readings of a path, the likeliest first; an absolute one has none.

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
    """The name with its image's suffix in small and in capital letters, where it has one."""
    if not has_image_suffix(name):
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
    """Remainders of a path that begins with the names in which a folder's path ends, longest first."""
    parts, names = path.split("/"), os.path.abspath(folder).split(os.sep)
    return ["/".join(parts[n:]) for n in range(1, len(parts)) if parts[:n] == names[-n:]]
