"""JSON files, read strictly: an object, no key twice, no NaN, and of the type that is asked for."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from retrieval.errors import DamageError, LmrError
from retrieval.files.atomic import write_bytes
from retrieval.files.digest import sha256_json

T = TypeVar("T")

MAX_BYTES = 1 << 30  # of names.json with 5 million landmarks and their addresses
_OWN = "sha256"  # the key of an object's own digest


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """The object in a file. remedy: what to do when it is damaged (`run lmr build-index again`).

    Raises LmrError that names the file: missing, unreadable, too large, not one JSON object.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise LmrError(f"{path} has {size:,} bytes, over the {MAX_BYTES:,} that a JSON file may have; {remedy}")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise DamageError(f"{path} is missing; {remedy}") from error
    except OSError as error:
        raise LmrError(f"{path} cannot be read: {error.strerror}") from error
    return parse_json(data, str(path), remedy)


def parse_json(data: bytes | str, source: str, remedy: str) -> dict[str, Any]:
    """As `read_json`, of bytes that are there already. source: where they are from, for messages."""
    try:
        content = json.loads(
            data, object_pairs_hook=_without_twins, parse_constant=_refuse_constant, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else error
        raise DamageError(f"{source} is not JSON ({reason}); {remedy}") from error
    if not isinstance(content, dict):
        raise DamageError(f"{source} is not a JSON object; {remedy}")
    return content


def require_type(content: dict[str, Any], kind: type[Any], source: str, remedy: str) -> dict[str, Any]:
    """The content itself, further entries too, where those that a typed dictionary names are of its types.

    Raises LmrError that names the entry which does not fit.
    """
    convert(content, kind, source, remedy)
    return content


def convert(content: Any, kind: type[T], source: str, remedy: str) -> T:
    """The content as a dataclass or typed dictionary. Raises LmrError that names the entry which does not fit."""
    try:
        return msgspec.convert(content, kind, str_keys=True)
    except (msgspec.ValidationError, ValueError, TypeError) as error:
        raise DamageError(f"{source} is damaged or of another version ({error}); {remedy}") from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes an object, whole or not at all. Raises LmrError as `write_text`.

    What is not UTF-8 in the name of a file stands there as an escape of JSON, `\\udcff`.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, f"{text}\n".encode(errors="backslashreplace"))


def signed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The object with its own sha256, as `require_signed` compares it."""
    return {**content, _OWN: sha256_json(content)}


def require_signed(content: dict[str, Any], source: str, remedy: str, *, may_lack: bool = False) -> dict[str, Any]:
    """The object without its own sha256.

    may_lack: it may be of an lmr that wrote none. Raises LmrError where it was changed.
    """
    plain = {name: value for name, value in content.items() if name != _OWN}
    if may_lack and _OWN not in content:
        return plain
    if content.get(_OWN) != sha256_json(plain):
        raise DamageError(f"{source} was changed or damaged: its sha256 differs; {remedy}")
    return plain


def require_version(content: Mapping[str, Any], version: int, source: str, remedy: str) -> None:
    """Raises LmrError for an object of another format version; remedy: for one that has none."""
    found = content.get("format_version")
    if found != version:
        kind, what = (LmrError, "use the lmr that made it") if type(found) is int else (DamageError, remedy)
        raise kind(f"{source} has format_version {found!s:.20}, this program reads {version}; {what}")


def write_signed_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes an object, its format_version among it, with its own sha256, which `read_signed_json` checks."""
    write_json(path, signed(content))


def read_signed_json(path: Path, version: int, remedy: str) -> dict[str, Any]:
    """An object that `write_signed_json` wrote, without its sha256.

    Raises LmrError as `read_json`, for another version, and when it was changed.
    """
    content = read_json(path, remedy)
    require_version(content, version, str(path), remedy)
    return require_signed(content, str(path), remedy)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return content


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large a number")
    return number


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")
