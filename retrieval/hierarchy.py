"""Which label is a kind of which: the class hierarchy of Open Images, or any JSON file of its form."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.errors import LmrError

_NAME, _KINDS, _PARTS = "LabelName", "Subcategory", "Part"
_KNOWN = frozenset((_NAME, _KINDS, _PARTS))
_FORM = '{"LabelName": ..., "Subcategory": [...]}'


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """children: label -> the labels that are kinds of it, each once. Labels without kinds are there too.

    A part (a hand of a person) is no kind of the whole and does not count as one.
    """

    children: Mapping[str, tuple[str, ...]]

    def below(self, label: str) -> frozenset[str]:
        """The label and all kinds of it, however deep."""
        found: set[str] = set()
        left = [label]
        while left:
            if (one := left.pop()) not in found:
                found.add(one)
                left += self.children.get(one, ())
        return frozenset(found)


def read_hierarchy(path: str | Path) -> Hierarchy:
    """Reads a JSON file of nested {"LabelName", "Subcategory", "Part"}. Raises LmrError for another file."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise LmrError(f"{path}: there is no such file") from error
    except OSError as error:
        raise LmrError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise LmrError(f"{path} is not JSON ({reason}); a hierarchy is {_FORM}") from error
    children: dict[str, dict[str, None]] = {}
    for parent, label in _edges(content, str(path)):
        children.setdefault(label, {})
        if parent:
            children.setdefault(parent, {})[label] = None
    return Hierarchy({label: tuple(kinds) for label, kinds in children.items()})


def _edges(content: Any, source: str) -> Iterator[tuple[str, str]]:
    """(label above or '', label) of every entry."""
    left: list[tuple[str, Any]] = [("", content)]
    while left:
        parent, entry = left.pop()
        if not isinstance(entry, dict) or not isinstance(entry.get(_NAME), str):
            raise LmrError(f"{source} is not a hierarchy: {_shown(entry)} has no {_NAME}; it is {_FORM}")
        if unknown := sorted(set(entry) - _KNOWN):
            raise LmrError(f"{source}: {entry[_NAME]} has {unknown[0]!r}; known are {', '.join(sorted(_KNOWN))}")
        yield parent, entry[_NAME]
        for key, above in ((_KINDS, entry[_NAME]), (_PARTS, "")):
            inner = entry.get(key, [])
            if not isinstance(inner, list):
                raise LmrError(f"{source}: {key} of {entry[_NAME]} is not a list; it is {_FORM}")
            left += [(above, item) for item in inner]


def _shown(entry: Any) -> str:
    text = json.dumps(entry)
    return text if len(text) <= 60 else text[:57] + "..."
