"""Which column of a table holds what, as its user says it: `landmark_id=class`."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from retrieval.data.header.names import ALIASES, COORDINATES, LATITUDE, LONGITUDE, ROLES, key_of
from retrieval.errors import LmrError
from retrieval.jobs import InvalidValueError

# What a user may name a column for, and what that is to who reads tables.
MEANT = {
    "image_id": "image_id",
    "landmark_id": "landmark",
    "landmarks": "landmarks",
    "path": "path",
    "url": "url",
    "kind": "kind",
    "usage": "usage",
    "name": "name",
    LATITUDE: LATITUDE,
    LONGITUDE: LONGITUDE,
}
_SYNONYMS = {**ALIASES, **ROLES, **COORDINATES}
_SHOWN = 12  # columns that an error lists


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """Names of columns. told: role and column, by role; a blank column = none holds that.

    is_main: of the table that it is for. Another one that has none of these columns is read by its own header.
    """

    told: tuple[tuple[str, str], ...] = ()
    is_main: bool = True

    @property
    def texts(self) -> tuple[str, ...]:
        """`role=column` of each, as it is given and stored."""
        return tuple(f"{role}={name}" for role, name in self.told)

    def of_others(self) -> "ColumnMap":
        """The same for other tables than the main one."""
        return ColumnMap(self.told, is_main=False)

    def on(self, header: Sequence[str], source: str) -> Mapping[str, int | None]:
        """Position of the column of each role; None = there is none. Empty for a table without any of them.

        Raises LmrError where a column is not there, or there twice.
        """
        wanted = [name for _, name in self.told if name]
        missing = [(role, name) for role, name in self.told if name and name not in header]
        if not self.is_main and len(missing) == len(wanted):
            return {}
        if missing:
            raise LmrError(_missing(*missing[0], header, source, is_main=self.is_main))
        if twice := [name for name in wanted if header.count(name) > 1]:
            raise LmrError(f"{source} has two columns {twice[0]!r}; rename one of them")
        return {role: header.index(name) if name else None for role, name in self.told}

    def refuse(self, source: object, what: str) -> None:
        """Raises LmrError where columns are named for something that has none."""
        if self.told and self.is_main:
            raise LmrError(f"{source} is {what} and has no columns; leave `column` {self.texts[0]} out")


BY_HEADER = ColumnMap()


def parse_columns(given: Iterable[str] | Mapping[str, str]) -> ColumnMap:
    """The columns of texts `role=column`, or of a mapping. Raises InvalidValueError, which names the word `column`."""
    if isinstance(given, str):
        given = [given]
    pairs = given.items() if isinstance(given, Mapping) else map(_pair, given)
    told: dict[str, str] = {}
    for role, name in pairs:
        if role not in MEANT:
            raise InvalidValueError(f"`column` {role}={name}: {_unknown(role)}")
        if told.setdefault(role, name) != name:
            raise InvalidValueError(
                f"`column` {role} is given twice, as {told[role] or 'none'} and as {name or 'none'}; keep one of them"
            )
    if told.get("landmark_id") and told.get("landmarks"):
        raise InvalidValueError("`column` landmark_id and landmarks are two columns for one; keep one of them")
    return ColumnMap(tuple(sorted(told.items())))


def _pair(text: str) -> tuple[str, str]:
    role, equals, name = text.partition("=")
    if not equals:
        raise InvalidValueError(f"`column` {text}: expected ROLE=NAME, such as landmark_id=class")
    return role.strip(), name.strip()


def _unknown(role: str) -> str:
    """There is no such role, and which may be meant."""
    meant = {value: key for key, value in MEANT.items()}.get(_SYNONYMS.get(key_of(role), ""))
    near = [meant] if meant else difflib.get_close_matches(role, MEANT, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(MEANT)}"
    return f"a column cannot be {role!r}; {hint}"


def _missing(role: str, name: str, header: Sequence[str], source: str, *, is_main: bool) -> str:
    near = difflib.get_close_matches(name, header, n=1) or [one for one in header if key_of(one) == key_of(name)]
    more = ", …" if len(header) > _SHOWN else ""
    hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(header[:_SHOWN])}{more}"
    others = "" if is_main else "; a table beside the main one has all of the columns that `column` names, or none"
    return f"{source}: there is no column {name!r} (`column` {role}={name}); {hint}{others}"
