"""The manifest formats that lmr knows, told apart by their header whatever the order of the columns."""

import difflib
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

from retrieval.data.csv_table import Table
from retrieval.errors import LmrError
from retrieval.own_columns import LATITUDE, LONGITUDE

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
    "labelname": "label_name",
    "confidence": "confidence",
    "xmin": "box",
    "name": "name",
    "displayname": "name",
    "address": "address",
}
# The same by the names that others give them. Where a file has a column of the names above, that one counts; two of
# these for one thing are refused, as either may be meant.
_ALIASES = {
    **dict.fromkeys(("img_id", "photo_id", "picture_id", "image_key"), "image_id"),
    **dict.fromkeys(
        (
            *("image", "img", "photo", "picture", "file", "filename", "file_name", "fname", "filepath", "file_path"),
            *("image_path", "img_path", "imagepath", "image_file", "image_name", "img_name", "imagename", "photo_path"),
            *("full_path", "relative_path", "rel_path"),
        ),
        "path",
    ),
    **dict.fromkeys(
        (
            *("class", "class_id", "class_name", "classname", "class_label", "category", "category_id", "target"),
            *(
                "category_name",
                "species",
                "label_id",
                "label_name",
                "landmark_name",
                "place",
                "place_id",
                "met_id",
                "cls",
                "txt",
            ),
        ),
        "landmark",
    ),
    **dict.fromkeys(("image_url", "img_url", "photo_url"), "url"),
}
_MEANINGS = {"image_id": "image_id", "path": "path", "landmark": "landmark_id", "url": "url", "content": "the pictures"}
_AS_IN_KNOWN_FILES = frozenset(("id", "image_id", "imageid", "landmark_id", "path", "url", "originalurl"))
# Columns that say something of an image, but not what it shows.
_HARMLESS = frozenset(
    (
        *("width", "height", "size", "bytes", "channels", "mode", "format", "md5", "sha1", "sha256", "hash", "phash"),
        *("date", "time", "timestamp", "year", "lat", "lon", "lng", "latitude", "longitude", "camera", "photographer"),
        *("caption", "description", "comment", "split", "subset", "fold", "index", "level_0"),
    )
)
# Coordinates in degrees (WGS84), by the names that others give them.
_COORDINATES = {
    **dict.fromkeys(("lat", "latitude"), LATITUDE),
    **dict.fromkeys(("lon", "lng", "long", "longitude"), LONGITUDE),
}
_PICTURE_ROLES = frozenset(("image_id", "landmark", "landmarks", "path", "url", "kind", "usage", "content"))
_NOBODYS = frozenset(("cause", "level_0"))  # of lmr's failed.csv, and pandas' index: nothing that a person wrote
_MOST_OWN = 64
_SHOWN = 10
_ROW_NUMBERS = re.compile(r"(unnamed:[ _]?\d+)?")  # the name of pandas' index in a file, once written and once read
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
    "names": "{0} holds names of landmarks, it is not a manifest; give it as `names` {0}",
    "retrieval": f"{{0}} is a retrieval solution or submission, {_SCORED_WITH}",
    "submission": f"{{0}} is a submission, {_SCORED_WITH}",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """Format of a file and places of its columns.

    columns: from what a column holds to its position. ignored: names of columns that are not used. taken: names that
    are not lmr's own, and what they are taken as. own: a user's own columns, name and position.
    """

    format: Format
    columns: Mapping[str, int]
    ignored: tuple[str, ...]
    taken: tuple[tuple[str, str], ...] = ()
    own: tuple[tuple[str, int], ...] = ()

    def notes(self, source: str) -> list[str]:
        """Lines, at most three, on how the file's columns are understood."""
        taken = ", ".join(f"{name} taken as {meaning}" for name, meaning in self.taken)
        kept, ignored = (_listed(names) for names in ([name for name, _ in self.own], self.ignored))
        lines = (taken, f"kept for the answers: {kept}" if kept else "", f"not used: {ignored}" if ignored else "")
        return [f"{source}: {line}" for line in lines if line]


def recognise(header: Sequence[str], source: str, images: AbstractSet[str] = frozenset()) -> Layout:
    """The layout of a file by its header. images: the columns that hold encoded images.

    Raises LmrError on a header that no known format has, and on one that can be understood in two ways.
    """
    if len(header) == 2 and has_no_header(header):
        return Layout("names", {"label_name": 0, "name": 1}, ())
    columns, ignored = _columns(header, source, images)
    file_format = _format(set(columns))
    if file_format is None:
        raise LmrError(_unknown_header(header, source))
    if file_format == "pictures":
        _refuse_unknown_labels(columns, ignored, source)
    held = {position: role for role, position in columns.items()}
    taken = tuple(
        (name, _MEANINGS[held[position]])
        for position, name in enumerate(header)
        if held.get(position) in _MEANINGS and _is_said(name, held[position])
    )
    if file_format != "pictures":
        return Layout(file_format, columns, ignored)
    own = _own(header, columns, images)
    kept = {position for _, position in own}
    left = [name for at, name in enumerate(header) if at not in kept and _is_left(name, held.get(at))]
    return Layout(file_format, columns, tuple(left), taken, own)


def recognise_manifest(header: Sequence[str], source: str, images: AbstractSet[str] = frozenset()) -> Layout:
    """Like `recognise`, and refuses the known files that are no manifests by naming what they are for."""
    layout = recognise(header, source, images)
    if layout.format in _REFUSED:
        raise LmrError(_REFUSED[layout.format].format(source))
    return layout


def read_layout(table: Table) -> Layout:
    """As `recognise_manifest`, of a table."""
    return recognise_manifest(table.header, table.source, table.image_columns)


def holds_labels(header: Sequence[str], source: str) -> bool:
    """Tells whether one of these columns is known to hold labels, or two may."""
    try:
        return not recognise(header, source).columns.keys().isdisjoint(("landmark", "landmarks"))
    except LmrError:
        return True


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


def _columns(header: Sequence[str], source: str, images: AbstractSet[str]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Positions by what the columns hold, and the names of those that are not used."""
    roles = [_role(name, images) for name in header]
    columns: dict[str, int] = {}
    for position, role in enumerate(roles):
        if role is not None and role in columns:
            other = header[columns[role]]
            raise LmrError(f"{source}: the columns {other} and {header[position]} mean the same; keep one of them")
        if role is not None:
            columns[role] = position
    ignored = [name for name, role in zip(header, roles, strict=True) if role is None]
    for name in [name for name in ignored if _key(name) in _ALIASES or _key(name) == "category"]:
        if _take(name, columns, header, source):
            ignored.remove(name)
    for name in ignored:
        if _key(name) not in _UNUSED | _ALIASES.keys() and (meant := _misspelt(name, columns)):
            raise LmrError(f"{source}: there is no column {name!r}; did you mean {meant}?")
    return columns, tuple(name for name in ignored if _key(name) not in _UNUSED)


def _own(header: Sequence[str], columns: Mapping[str, int], images: AbstractSet[str]) -> tuple[tuple[str, int], ...]:
    """The columns that lmr has no use for: names and positions, coordinates by their one name."""
    used = {position for role, position in columns.items() if role in _PICTURE_ROLES}
    own: dict[str, int] = {}
    for position, name in enumerate(header):
        key = _key(name)
        if position in used or name in images or key in _NOBODYS or _ROW_NUMBERS.fullmatch(key):
            continue
        meant = _COORDINATES.get(key, name)
        own.setdefault(name if meant in own else meant, position)
    return tuple(own.items())[:_MOST_OWN]


def _is_left(name: str, role: str | None) -> bool:
    """Tells whether a column that is neither used nor kept is to be named."""
    return role not in _PICTURE_ROLES and _key(name) != "cause"


def _listed(names: Sequence[str]) -> str:
    """Names of columns for people."""
    shown = ", ".join(name or "a column without a name" for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def _role(name: str, images: AbstractSet[str]) -> str | None:
    """Content of a column of one of lmr's own names; None for another name."""
    return "content" if name in images else _ROLES.get(_key(name))


def _take(name: str, columns: dict[str, int], header: Sequence[str], source: str) -> bool:
    """Puts a column of an alias where it belongs. False where a column of lmr's own name says the same already."""
    role = _ALIASES[_key(name)]
    if _key(name) == "category" and not _has_images(header, columns):
        role = "name"
    if role == "landmark" and columns.keys() & {"landmarks", "label_name"}:
        return False
    if role not in columns:
        columns[role] = header.index(name)
        return True
    other = header[columns[role]]
    if _key(other) in _ALIASES or _key(other) == "label":
        raise LmrError(
            f"{source}: the columns {other} and {name} may both be the {_MEANINGS[role]}; "
            f"name the right one {_MEANINGS[role]}"
        )
    return False


def _has_images(header: Sequence[str], columns: Mapping[str, int]) -> bool:
    """Tells whether there is a column that names one image; without, a category is the name of a landmark."""
    return bool(columns.keys() & {"image_id", "path", "content"}) or any(
        _ALIASES.get(_key(name)) in ("image_id", "path") for name in header
    )


def _refuse_unknown_labels(columns: Mapping[str, int], ignored: Sequence[str], source: str) -> None:
    """Raises LmrError where no column is known to hold labels and one that is not known may."""
    if columns.keys() & {"landmark", "landmarks"}:
        return
    known = _HARMLESS | _ALIASES.keys()
    unknown = [name for name in ignored if _key(name) not in known and not _ROW_NUMBERS.fullmatch(_key(name))]
    unknown += ["name"] if "name" in columns else []
    if unknown:
        raise LmrError(
            f"{source}: no column is known to hold the landmarks, and {' or '.join(unknown)} may; "
            "name that one landmark_id, or leave it out"
        )


def _key(name: str) -> str:
    """A name as it is looked up: case, spaces and hyphens do not count."""
    return re.sub(r"[ -]+", "_", name.lower())


def _is_said(name: str, role: str) -> bool:
    return _key(name) not in _AS_IN_KNOWN_FILES and not (role == "content" and _key(name) == "image")


def _misspelt(name: str, columns: Mapping[str, int]) -> str:
    """The known column that the name is nearest to, unless the file has that one; '' if none is near."""
    if _OTHER_SEPARATORS & set(name) or _key(name) in _HARMLESS:
        return ""
    missing = [known for known, role in _ROLES.items() if role not in columns]
    missing += [known for known in ("class", "category", "species") if "landmark" not in columns]
    missing += [known for known in ("filename",) if "path" not in columns]
    near = difflib.get_close_matches(_key(name), missing, n=1, cutoff=_LIKENESS)
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
