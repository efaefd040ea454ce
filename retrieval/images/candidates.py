"""Where the file of a picture may be: by its id under any suffix, by its path, in either form of its letters."""

import functools
import os
import unicodedata
from collections.abc import Sequence

from retrieval.images.signatures import PICTURE_SUFFIXES

_COMMON = (".jpg", ".jpeg", ".png", ".webp")
_QUICK = (*_COMMON, *(s.upper() for s in _COMMON), *(s.title() for s in _COMMON))  # tried before a folder is listed


def forms(name: str) -> list[str]:
    """A name as it is, composed (NFC) and decomposed (NFD), each once: for the eye they are one name."""
    if name.isascii():
        return [name]
    return list(dict.fromkeys((name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))))


def places_of_path(path: str, roots: Sequence[str]) -> list[str]:
    """Where a picture with a path may be: there, and under the common suffixes where it has no picture's suffix."""
    names = forms(path)
    if not has_picture_suffix(path):
        names += [name + suffix for name in names for suffix in _QUICK]
    return [os.path.join(root, name) for name in names for root in roots]


def places_of_id(image_id: str, roots: Sequence[str], *, names_itself: bool) -> list[str]:
    """Where a picture with an id may be under the common suffixes. names_itself: the id may be a whole name."""
    names = []
    for name in forms(image_id):
        names += [name] if names_itself else []
        names += [name + suffix for suffix in _QUICK]
    return [f"{folder}{name}" for folder in _folders(image_id, roots) for name in names]


def find_listed(image_id: str, roots: Sequence[str]) -> str:
    """The file `<id>` with a rarer suffix of a picture, in capital letters or small ones; '' when there is none."""
    above, _, stem = image_id.rpartition("/")
    for folder in _folders(image_id, roots):
        place = os.path.join(folder, above)
        if name := _listing(place, _changed(place)).get(unicodedata.normalize("NFC", stem)):
            return os.path.join(place, name)
    return ""


def has_picture_suffix(name: str) -> bool:
    """Whether a name ends as those of pictures do, in letters of any size."""
    return os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES


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
    """The pictures of a folder whose suffix is none of the common ones, by their names without it."""
    try:
        names = sorted(os.listdir(folder), reverse=True)
    except (OSError, ValueError):
        return {}
    rare = (name for name in names if has_picture_suffix(name) and not name.endswith(_QUICK))
    return {unicodedata.normalize("NFC", os.path.splitext(name)[0]): name for name in rare}
