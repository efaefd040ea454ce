"""The manifest formats that lmr knows, told apart by their header whatever the order of the columns."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from retrieval.errors import LmrError

# Column names as they are read (case does not count) and what they hold.
_ROLES = {
    "id": "image_id",
    "image_id": "image_id",
    "imageid": "image_id",
    "landmark_id": "landmark",
    "landmark": "landmark",
    "label": "landmark",
    "landmarks": "landmarks",
    "images": "images",
    "url": "url",
    "originalurl": "url",
    "path": "path",
    "kind": "kind",
    "usage": "usage",
    "image": "content",
    "labelname": "label_name",
    "confidence": "confidence",
    "xmin": "box",
    "category": "name",
    "name": "name",
    "displayname": "name",
    "address": "address",
}
# Columns of known files that lmr has no use for.
_UNUSED = frozenset(
    (
        "cause",  # of lmr's failed.csv
        *("supercategory", "hierarchical_label", "natural_or_human_made"),  # train_label_to_hierarchical.csv
        *("source", "xmax", "ymin", "ymax", "isoccluded", "istruncated", "isgroupof", "isdepiction", "isinside"),
        *("subset", "originallandingurl", "license", "authorprofileurl", "author", "title", "originalsize"),
        *("originalmd5", "thumbnail300kurl", "rotation"),  # Open Images' boxes (the line before) and image lists
    )
)
_KNOWN_HEADERS = {
    "id": "test.csv",
    "id,url": "Kaggle 2018 test.csv",
    "id,landmark_id": "Kaggle 2020 train.csv",
    "id,url,landmark_id": "GLDv2 train.csv",
    "landmark_id,images": "GLDv2 train_clean.csv",
    "id,landmarks,Usage": "recognition solution",
    "image_id,landmark_id,path,kind": "lmr's own",
    "path,landmark_id": "pictures by path",
    "ImageID,Source,LabelName,Confidence": "Open Images labels",
}
_FREEBASE = ("/m/", "/g/")  # how the label names of Open Images begin
_OTHER_SEPARATORS = frozenset(";\t|")
_LIKENESS = 0.75  # difflib ratio from which an unknown column is taken for a misspelt one

Format = Literal["pictures", "clean", "open_images", "names", "retrieval", "submission"]

_SCORED_WITH = "not a manifest; compare a submission with a solution with lmr score SUBMISSION SOLUTION"
_REFUSED = {
    "names": "{0} holds names of landmarks, it is not a manifest; give it as --names {0}",
    "retrieval": f"{{0}} is a retrieval solution or submission, {_SCORED_WITH}",
    "submission": f"{{0}} is a submission, {_SCORED_WITH}",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """What a file is and where its columns are.

    columns: from what a column holds to its position. ignored: names of columns that are not used.
    """

    format: Format
    columns: Mapping[str, int]
    ignored: tuple[str, ...]


def recognise(header: Sequence[str], source: str) -> Layout:
    """The layout of a file by its header. Raises LmrError on a header that no known format has."""
    if len(header) == 2 and has_no_header(header):
        return Layout("names", {"label_name": 0, "name": 1}, ())
    columns, ignored = _columns(header, source)
    file_format = _format(set(columns))
    if file_format is None:
        raise LmrError(_unknown_header(header, source))
    return Layout(file_format, columns, ignored)


def recognise_manifest(header: Sequence[str], source: str) -> Layout:
    """Like `recognise`, and refuses the known files that are no manifests by naming what they are for."""
    layout = recognise(header, source)
    if layout.format in _REFUSED:
        raise LmrError(_REFUSED[layout.format].format(source))
    return layout


def has_no_header(header: Sequence[str]) -> bool:
    """Older class descriptions of Open Images begin with their first class."""
    return header[0].startswith(_FREEBASE)


def _format(held: set[str]) -> Format | None:
    """The format that has columns for exactly these things, and perhaps more that it can do without."""
    if "label_name" in held:
        if {"image_id", "confidence"} <= held:
            return "open_images"
        return "names" if "name" in held and "image_id" not in held else None
    if "image_id" not in held and "landmark" in held:
        if "images" in held:
            return "clean"
        if "name" in held:
            return "names"
    if {"image_id", "images"} <= held:
        return "retrieval"
    if not held & {"image_id", "path", "content"} or {"landmark", "landmarks"} <= held:
        return None
    return "submission" if "landmarks" in held and "usage" not in held else "pictures"


def _columns(header: Sequence[str], source: str) -> tuple[dict[str, int], tuple[str, ...]]:
    columns: dict[str, int] = {}
    ignored: list[str] = []
    for position, name in enumerate(header):
        role = _ROLES.get(name.lower())
        if role is None:
            ignored.append(name)
        elif role in columns:
            other = header[columns[role]]
            raise LmrError(f"{source}: the columns {other} and {name} mean the same; keep one of them")
        else:
            columns[role] = position
    for name in ignored:
        if name.lower() not in _UNUSED and (meant := _misspelt(name, columns)):
            raise LmrError(f"{source}: there is no column {name!r}; did you mean {meant}?")
    return columns, tuple(name for name in ignored if name.lower() not in _UNUSED)


def _misspelt(name: str, columns: Mapping[str, int]) -> str:
    """The known column that the name is nearest to, unless the file has that one; '' if none is near."""
    if _OTHER_SEPARATORS & set(name):
        return ""
    missing = [known for known, role in _ROLES.items() if role not in columns]
    near = difflib.get_close_matches(name.lower(), missing, n=1, cutoff=_LIKENESS)
    return near[0] if near else ""


def _unknown_header(header: Sequence[str], source: str) -> str:
    given = ",".join(header)
    shown = given if len(given) <= 100 else given[:97] + "..."
    near = max(_KNOWN_HEADERS, key=lambda known: _likeness(given, known))
    hint = "; columns are separated by commas" if len(header) == 1 and _OTHER_SEPARATORS & set(given) else ""
    return (
        f"{source}: no known manifest has the header {shown!r}; the nearest is {near!r} ({_KNOWN_HEADERS[near]}){hint}"
    )


def _likeness(one: str, other: str) -> tuple[float, float]:
    """Share of common words, then of common letters."""
    words, others = set(re.split(r"\W+", one.lower())), set(re.split(r"\W+", other.lower()))
    return len(words & others) / len(words | others), difflib.SequenceMatcher(None, one, other).ratio()
