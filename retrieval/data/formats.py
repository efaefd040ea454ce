"""The manifest formats that lmr knows, told apart by their header whatever the order of the columns."""

import difflib
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from retrieval.data.csv_table import Table
from retrieval.data.header.mapping import BY_HEADER, MEANT, ColumnMap
from retrieval.data.header.names import (
    ALIASES,
    AS_IN_KNOWN_FILES,
    COORDINATES,
    DEGREES,
    HARMLESS,
    LATITUDE,
    LONGITUDE,
    MEANINGS,
    NOBODYS,
    PICTURE_ROLES,
    PLANE,
    ROLES,
    ROW_NUMBERS,
    UNUSED,
    key_of,
)
from retrieval.errors import LmrError

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
_LABELS = frozenset(("landmark", "landmarks"))
_PICTURES = frozenset(("image_id", "path", "content"))  # each of which tells the images of a table apart
_OTHER_FORMATS = frozenset(("images", "label_name"))  # of which a table of images has none
_KEPT_TOO = frozenset(("name", LATITUDE, LONGITUDE))  # under these names, beside what is made of them
_PASSED_OVER = "comment"  # a name of which nothing is taken
_MOST_OWN = 64
_SHOWN = 10
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
    are not lmr's own, and what they are taken as. own: a user's own columns, name and position. mapped: `role=column`
    of each that was named for the file.
    """

    format: Format
    columns: Mapping[str, int]
    ignored: tuple[str, ...]
    taken: tuple[tuple[str, str], ...] = ()
    own: tuple[tuple[str, int], ...] = ()
    mapped: tuple[str, ...] = ()
    is_one_text: bool = False

    @property
    def names_landmarks(self) -> bool:
        """True where a column was said to hold the names of landmarks."""
        return any(text.startswith("name=") for text in self.mapped)

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
    if file_format != "pictures":
        return Layout(file_format, columns, ignored)
    _refuse_unknown_labels(columns, ignored, source)
    return _pictures(header, columns, images, tuple(_taken(header, columns)), source=source)


def recognise_manifest(
    header: Sequence[str], source: str, images: AbstractSet[str] = frozenset(), names: ColumnMap = BY_HEADER
) -> Layout:
    """Like `recognise`, and refuses the known files that are no manifests by naming what they are for.

    names: which column holds what, where that was said.
    """
    if mapped := names.on(header, source):
        return _mapped_layout(header, source, images, mapped, names.texts)
    layout = recognise(header, source, images)
    if layout.format in _REFUSED:
        raise LmrError(_REFUSED[layout.format].format(source))
    return layout


def read_layout(table: Table, names: ColumnMap = BY_HEADER) -> Layout:
    """As `recognise_manifest`, of a table; descriptors of others are not kept as a user's own columns.

    A column of lists that is taken for the landmark holds several landmarks.
    """
    layout = recognise_manifest(table.header, table.source, table.image_columns, names)
    layout = _with_lists(layout, table)
    own = tuple((name, at) for name, at in layout.own if table.header[at] not in table.vector_columns)
    left = tuple(name for name, at in layout.own if table.header[at] in table.vector_columns)
    return replace(layout, own=own, ignored=layout.ignored + left)


def _with_lists(layout: Layout, table: Table) -> Layout:
    """The layout of a table whose labels may be lists: these are several landmarks, and a text beside them is one.

    In a column of landmarks a text is several, as ever.
    """
    role = next((role for role in ("landmark", "landmarks") if role in layout.columns), None)
    if layout.format != "pictures" or role is None:
        return layout
    name = table.header[layout.columns[role]]
    is_list = name in table.list_columns
    if is_list or role == "landmarks":
        table.set_label(name)
    if not is_list or role == "landmarks":
        return layout
    columns = {"landmarks" if held == role else held: at for held, at in layout.columns.items()}
    others = (one for one in layout.taken if one[0] != name)
    taken = (*others, (name, "landmarks, as it holds lists"))
    return replace(layout, columns=columns, taken=taken, is_one_text=True)


def _mapped_layout(
    header: Sequence[str],
    source: str,
    images: AbstractSet[str],
    places: Mapping[str, int | None],
    mapped: tuple[str, ...],
) -> Layout:
    """The layout of a table of images of which it was said what some columns hold; the others are read as ever.

    places: as of `ColumnMap.on`. A column of a name for what another one was said to hold is a user's own.
    """
    said = {MEANT[role] for role in places}
    said |= _LABELS if said & _LABELS else set()
    left_out = {MEANT[role] for role, place in places.items() if place is None}
    known, names = list(header), dict[int, str]()
    for at, name in enumerate(header):
        meant, how = _meant(name, images)
        is_free = meant in said or meant not in PICTURE_ROLES
        renamed = {"own": meant in said | _OTHER_FORMATS, "alias": meant in left_out, "near": is_free, "": False}
        if renamed[how] or COORDINATES.get(key_of(name)) in said:
            names[at] = f"{name}_"  # so that it says the same where lmr has written it
        if how and is_free:
            known[at] = _PASSED_OVER
    for role, place in places.items():
        if place is not None:
            known[place] = _PASSED_OVER if role in _KEPT_TOO else role
            names[place] = role
    columns, ignored = _columns(known, source, images)
    if not columns.keys() & _PICTURES:
        raise LmrError(f"{source}: no column is known to name the images; give `column` image_id=NAME or path=NAME")
    if not said & _LABELS:
        placed = [role for role, at in places.items() if role in DEGREES and at is not None]
        _refuse_unknown_labels(columns, [*ignored, *placed], source)
    taken = [(header[at], role) for role, at in places.items() if at is not None and header[at] != role]
    taken += _taken(known, columns)
    if (place := places.get("name")) is not None:
        columns["name"] = place
    return _pictures(header, columns, images, tuple(taken), names, mapped, source=source)


def _meant(name: str, images: AbstractSet[str]) -> tuple[str, Literal["own", "alias", "near", ""]]:
    """What a column would hold by its name, and whether that is one of lmr's own, an alias, or near to one of these."""
    if role := _role(name, images):
        return role, "own"
    if role := ALIASES.get(key_of(name)):
        return role, "alias"
    near = _misspelt(name, {})
    return (ROLES.get(near) or ALIASES.get(near, "")), "near" if near else ""


def _pictures(
    header: Sequence[str],
    columns: Mapping[str, int],
    images: AbstractSet[str],
    taken: tuple[tuple[str, str], ...],
    names: Mapping[int, str] = MappingProxyType({}),
    mapped: tuple[str, ...] = (),
    *,
    source: str,
) -> Layout:
    """The layout of a table of images, with a user's own columns. names: of these, where they are not the header's."""
    own = _own(header, columns, images, names, source)
    held = {at: role for role, at in columns.items()}
    kept = {at for _, at in own}
    left = [name for at, name in enumerate(header) if at not in kept and _is_left(name, held.get(at))]
    return Layout("pictures", columns, tuple(left), taken, own, mapped)


def _taken(header: Sequence[str], columns: Mapping[str, int]) -> list[tuple[str, str]]:
    """Columns that are not of lmr's own names, and what they are taken as."""
    held = {at: role for role, at in columns.items()}
    return [
        (name, MEANINGS[held[at]])
        for at, name in enumerate(header)
        if held.get(at) in MEANINGS and _is_said(name, held[at])
    ]


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
    if "landmark" in held and not held & _PICTURES:
        if "images" in held:
            return "clean"
        if "name" in held:
            return "names"
    if {"image_id", "images"} <= held:
        return "retrieval"
    if not held & _PICTURES or {"landmark", "landmarks"} <= held:
        return None
    is_bare = held.isdisjoint(("usage", "path", "content"))
    return "submission" if "landmarks" in held and is_bare else "pictures"


def _columns(header: Sequence[str], source: str, images: AbstractSet[str]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Positions by what the columns hold, and the names of those that are not used."""
    roles = [_role(name, images) for name in header]
    columns: dict[str, int] = {}
    for position, role in enumerate(roles):
        if role is not None and role in columns:
            other = header[columns[role]]
            choice = f", or give `column` {MEANINGS[role]}={header[position]}" if role in MEANINGS else ""
            raise LmrError(
                f"{source}: the columns {other} and {header[position]} mean the same; keep one of them{choice}"
            )
        if role is not None:
            columns[role] = position
    ignored = [name for name, role in zip(header, roles, strict=True) if role is None]
    for name in [name for name in ignored if key_of(name) in ALIASES or key_of(name) == "category"]:
        if _take(name, columns, header, source):
            ignored.remove(name)
    for name in ignored:
        if key_of(name) not in UNUSED | ALIASES.keys() and (meant := _misspelt(name, columns)):
            raise LmrError(f"{source}: there is no column {name!r}; did you mean {meant}?")
    return columns, tuple(name for name in ignored if key_of(name) not in UNUSED)


def _own(
    header: Sequence[str], columns: Mapping[str, int], images: AbstractSet[str], names: Mapping[int, str], source: str
) -> tuple[tuple[str, int], ...]:
    """The columns that lmr has no use for: names and positions, coordinates by their one name."""
    used = {at for role, at in columns.items() if role in PICTURE_ROLES}
    own = {name: at for at, name in names.items() if at not in used}
    own |= _coordinates(header, used | set(own.values()), own.keys(), source)
    for at, name in enumerate(header):
        key = key_of(name)
        if at in used or at in own.values() or name in images or key in NOBODYS or ROW_NUMBERS.fullmatch(key):
            continue
        own[f"{name}_" if name in own else name] = at
    in_order = sorted(own.items(), key=lambda item: item[1])
    return tuple(in_order[:_MOST_OWN])


def _coordinates(header: Sequence[str], used: AbstractSet[int], told: AbstractSet[str], source: str) -> dict[str, int]:
    """Columns of coordinates by their one name, unless that is told; one that is called so goes before other names.

    Raises LmrError where two may be meant.
    """
    found: dict[str, int] = {}
    for meant in (name for name in DEGREES if name not in told):
        keys = {at: key_of(name) for at, name in enumerate(header) if at not in used}
        places = [at for at, key in keys.items() if COORDINATES.get(key) == meant]
        places = [at for at in places if keys[at] == meant] or places
        if len(places) > 1:
            one, other = header[places[0]], header[places[1]]
            raise LmrError(
                f"{source}: the columns {one} and {other} may both be the {meant}; "
                f"name the right one {meant}, or give `column` {meant}={one}"
            )
        found.update((meant, at) for at in places)
    return found


def _is_left(name: str, role: str | None) -> bool:
    """Tells whether a column that is neither used nor kept is to be named."""
    return role not in PICTURE_ROLES and key_of(name) != "cause"


def _listed(names: Sequence[str]) -> str:
    """Names of columns for people."""
    shown = ", ".join(name or "a column without a name" for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def _role(name: str, images: AbstractSet[str]) -> str | None:
    """Content of a column of one of lmr's own names; None for another name."""
    return "content" if name in images else ROLES.get(key_of(name))


def _take(name: str, columns: dict[str, int], header: Sequence[str], source: str) -> bool:
    """Puts a column of an alias where it belongs. False where a column of lmr's own name says the same already."""
    role = ALIASES[key_of(name)]
    if key_of(name) == "category" and not _has_images(header, columns):
        role = "name"
    if role == "landmark" and columns.keys() & {"landmarks", "label_name"}:
        return False
    if role not in columns:
        columns[role] = header.index(name)
        return True
    other = header[columns[role]]
    if key_of(other) in ALIASES or key_of(other) == "label":
        raise LmrError(
            f"{source}: the columns {other} and {name} may both be the {MEANINGS[role]}; "
            f"name the right one {MEANINGS[role]}, or give `column` {MEANINGS[role]}={name}"
        )
    return False


def _has_images(header: Sequence[str], columns: Mapping[str, int]) -> bool:
    """Tells whether there is a column that names one image; without, a category is the name of a landmark."""
    return bool(columns.keys() & {"image_id", "path", "content"}) or any(
        ALIASES.get(key_of(name)) in ("image_id", "path") for name in header
    )


def _refuse_unknown_labels(columns: Mapping[str, int], ignored: Sequence[str], source: str) -> None:
    """Raises LmrError where no column is known to hold labels and one that is not known may.

    Where pictures were taken says enough of them; the columns that are no labels are told.
    """
    names = {COORDINATES.get(key_of(name), key_of(name)) for name in ignored}
    if columns.keys() & {"landmark", "landmarks"} or any(set(pair) <= names for pair in (DEGREES, PLANE)):
        return
    known = HARMLESS | ALIASES.keys()
    unknown = [name for name in ignored if key_of(name) not in known and not ROW_NUMBERS.fullmatch(key_of(name))]
    unknown += ["name"] if "name" in columns else []
    if unknown:
        raise LmrError(
            f"{source}: no column is known to hold the landmarks, and {' or '.join(unknown)} may; "
            f"name that one landmark_id, give `column` landmark_id={unknown[0]}, or landmark_id= where none does"
        )


def _is_said(name: str, role: str) -> bool:
    return key_of(name) not in AS_IN_KNOWN_FILES and not (role == "content" and key_of(name) == "image")


def _misspelt(name: str, columns: Mapping[str, int]) -> str:
    """The known column that the name is nearest to, unless the file has that one; '' if none is near.

    One that ends in _ is called so because another column was named instead of it.
    """
    if _OTHER_SEPARATORS & set(name) or key_of(name) in HARMLESS or name.endswith("_"):
        return ""
    missing = [known for known, role in ROLES.items() if role not in columns]
    missing += [known for known in ("class", "category", "species") if "landmark" not in columns]
    missing += [known for known in ("filename",) if "path" not in columns]
    near = difflib.get_close_matches(key_of(name), missing, n=1, cutoff=_LIKENESS)
    return near[0] if near else ""


def _unknown_header(header: Sequence[str], source: str) -> str:
    given = ",".join(header)
    shown = given if len(given) <= 100 else given[:97] + "..."
    near = max(_KNOWN_HEADERS, key=lambda known: _likeness(given, known))
    is_split_otherwise = len(header) == 1 and _OTHER_SEPARATORS & set(given)
    hint = "columns are separated by commas" if is_split_otherwise else "`column` path=NAME takes another name"
    nearest = f"{near!r} ({_KNOWN_HEADERS[near]})"
    return f"{source}: no known manifest has the header {shown!r}; the nearest is {nearest}; {hint}"


def _likeness(one: str, other: str) -> tuple[float, float]:
    """Share of common words, then of common letters."""
    words, others = set(re.split(r"\W+", one.lower())), set(re.split(r"\W+", other.lower()))
    return len(words & others) / len(words | others), difflib.SequenceMatcher(None, one, other).ratio()
