"""Values of recipes as text: KEY=VALUE as it is typed, and TOML as it is written."""

import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

import tomli_w

from retrieval.errors import LmrError


def parse_spec(text: str) -> tuple[str, dict[str, Any]]:
    """`slides:backbone=resnet101,optimizer=sgd` -> the name or path of a recipe, and values by key.

    A part without `=` belongs to the value before it: `knn-imagenet:mean=0.5,0.5,0.5`.
    """
    name, _, rest = text.partition(":")
    return name, parse_values(text, rest.split(",")) if rest else {}


def parse_values(where: str, parts: Iterable[str]) -> dict[str, Any]:
    """KEY=VALUE each -> values by key, a list for a key that is there more than once. where: for messages."""
    texts: dict[str, list[str]] = {}
    last: list[str] = []
    for part in parts:
        key, equals, value = part.partition("=")
        if equals and key.strip():
            last = texts.setdefault(key.strip(), [])
            last.append(value.strip())
        elif last and not equals:
            last[-1] += f",{part.strip()}"
        else:
            raise LmrError(f"{where}: {part} is not KEY=VALUE, such as backbone=resnet50")
    values = {key: [_value(text) for text in found] for key, found in texts.items()}
    return {key: found if len(found) > 1 else found[0] for key, found in values.items()}


def texts(value: Any) -> list[str]:
    """A text, or all of those in lists of texts: what a key that takes one or several was given."""
    return [text for item in value for text in texts(item)] if isinstance(value, list) else [str(value)]


def to_toml(table: Mapping[str, Any], stages: Iterable[Mapping[str, Any]] = ()) -> str:
    """Text that TOML reads back as this table and these `[[stage]]` tables."""
    written = {key: _plain(value) for key, value in table.items()}
    tables = [{key: _plain(value) for key, value in stage.items()} for stage in stages]
    return tomli_w.dumps(written | ({"stage": tables} if tables else {}))


def _value(text: str) -> Any:
    """A number or true or false as TOML writes them, else the text."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return text
    return value if isinstance(value, bool | int | float) else text


def _plain(value: Any) -> Any:
    """A value as TOML has it; what it has no form for as text."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float) else str(value)
