"""Record of what a file was made of, kept beside it, or of a folder, kept in it: the same command finds it finished."""

import errno
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from retrieval.errors import LmrError
from retrieval.files.atomic import replacing, write_error
from retrieval.files.digest import sha256_file
from retrieval.files.folders import current_folder
from retrieval.files.json_file import read_signed_json, write_signed_json

FORMAT_VERSION = 1
FOLDER_RECORD = "made-of.json"

Inputs = Mapping[str, Any]  # by the words that tell them to people; values as JSON has them


def record_path(path: Path) -> Path:
    """The file beside it that says what it was made of."""
    return path.with_name(f".{path.name}.made-of.json")


def write_with_record(path: Path, text: Iterable[str], inputs: Inputs) -> None:
    """Writes a text, part by part, and what it was made of.

    A kill leaves the file that was there, known by what it was made of, or the new one, or none.

    Raises LmrError as `write_text`.
    """
    write_bytes_with_record(path, (part.encode() for part in text), inputs)


def write_bytes_with_record(path: Path, data: Iterable[bytes], inputs: Inputs) -> None:
    """As `write_with_record`."""
    content = hashlib.sha256()
    with replacing(path) as file:
        for part in data:
            file.write(part)
            content.update(part)
        digest = content.hexdigest()
        file.flush()  # a full disk leaves the old file and its record
        # Before the file has its name: a record without its file is none.
        # It also tells the file that it replaces, which is known by it until then.
        before = _record_of_content(path)
        replaced = {} if before is None or before["content"] == digest else {"replaced": before}
        record = {"format_version": FORMAT_VERSION, "of": dict(inputs), "content": digest, **replaced}
        write_signed_json(record_path(path), record)


def holds_text(path: Path, text: Iterable[str]) -> bool:
    """Tells whether a file is there and holds this text."""
    if not path.is_file():
        return False
    content = hashlib.sha256()
    for part in text:
        content.update(part.encode())
    return sha256_file(path) == content.hexdigest()


def require_no_folder(path: Path) -> None:
    """Raises LmrError where a folder is in the place of a file, which nothing replaces."""
    if path.is_dir():
        raise LmrError(f"{path} is a folder; give the file another name")


def require_place(path: Path) -> None:
    """Raises LmrError, before the work, for a file that could not be written after it."""
    require_no_folder(path)
    if not path.absolute().parent.is_dir():
        code = errno.ENOTDIR if path.absolute().parent.exists() else errno.ENOENT
        raise write_error(path, OSError(code, os.strerror(code)))


def is_made_of(path: Path, inputs: Inputs, other: str) -> bool:
    """Tells whether a file is there, whole, and made of these inputs; False where there is none.

    inputs: all of them, or those that are known already. other: what to do about another file, for messages.
    Raises LmrError: a file without a record, changed since it was written, or of other inputs, which are named.
    """
    require_no_folder(path)
    if not path.exists():
        return False
    if _read_record(path) is None:
        raise LmrError(f"{path} exists; {other}")
    record = _record_of_content(path)
    if record is None:
        raise LmrError(f"{path} was changed since it was written; {other}")
    before = record["of"]
    if before is None:  # a file of somebody else that was about to be replaced
        raise LmrError(f"{path} exists; {other}")
    _require_same(path, before, inputs, other)
    return True


def is_folder_made_of(folder: Path, inputs: Inputs, other: str, *, overwrite: bool) -> bool:
    """Tells whether a folder is there, whole, and made of these inputs; False where it may be written.

    inputs, other: as of `is_made_of`. Raises LmrError as that, unless overwrite; and for a folder that holds what was
    not written with it, which nothing replaces.
    """
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise LmrError(f"{folder} is not a folder; give another name")
    place = current_folder(folder)
    there = _files_below(place)
    if not there:
        return False
    record = _folder_record(place)
    if record is None:
        raise LmrError(f"{folder} exists and holds other things; give another name")
    if more := sorted(there - record["files"].keys()):
        raise LmrError(f"{place / more[0]} was not written with {folder}; move it away or give another name")
    if overwrite:
        return False
    _require_unchanged(place, record, other)
    _require_same(folder, record["of"], inputs, other)
    return True


def require_folder(folder: Path, other: str) -> int:
    """Number of files that were written into a folder with its record. other: as of `is_made_of`.

    Raises LmrError where one of them, or the record, is missing or was changed.
    """
    place = current_folder(folder)
    record = _folder_record(place)
    if record is None:
        raise LmrError(f"{place / FOLDER_RECORD} is missing or was changed since it was written; {other}")
    _require_unchanged(place, record, other)
    return len(record["files"])


def write_folder_record(folder: Path, inputs: Inputs) -> None:
    """Writes into a folder that is complete what it was made of, and the digests of its files."""
    files = {name: sha256_file(folder / name) for name in sorted(_files_below(folder))}
    write_signed_json(folder / FOLDER_RECORD, {"format_version": FORMAT_VERSION, "of": dict(inputs), "files": files})


def _require_unchanged(folder: Path, record: Mapping[str, Any], other: str) -> None:
    for name, digest in record["files"].items():
        if not (folder / name).is_file() or sha256_file(folder / name) != digest:
            raise LmrError(f"{folder / name} was changed since it was written; {other}")


def _folder_record(folder: Path) -> dict[str, Any] | None:
    """None where there is none that can be trusted."""
    try:
        content = read_signed_json(folder / FOLDER_RECORD, FORMAT_VERSION, "")
    except LmrError:
        return None
    return content if isinstance(content.get("of"), dict) and isinstance(content.get("files"), dict) else None


def _files_below(folder: Path) -> set[str]:
    """The files in a folder by their path in it, without its record and hidden ones."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    shown = (path for path in paths if not any(part.startswith(".") for part in path.parts))
    return {path.as_posix() for path in shown} - {FOLDER_RECORD}


def _require_same(path: Path, before: Inputs, inputs: Inputs, other: str) -> None:
    for name, value in inputs.items():
        if before.get(name) != value:
            raise LmrError(f"{path} was made {_told(name, before.get(name), value)}; {other}")


def recorded_inputs(path: Path) -> Inputs:
    """The inputs that the record of a file tells; none where it has no record that can be trusted."""
    record = _read_record(path)
    return {} if record is None else record["of"]


def _record_of_content(path: Path) -> dict[str, Any] | None:
    """The inputs (`of`) and the digest (`content`) of the file as it is; None where the record is of another content.

    Without a record its inputs are None; without a file there is nothing.
    """
    if not path.is_file():
        return None
    digest, record = sha256_file(path), _read_record(path)
    if record is None:
        return {"of": None, "content": digest}
    for told in (record, record.get("replaced")):
        if isinstance(told, dict) and told.get("content") == digest:
            return {"of": told.get("of"), "content": digest}
    return None


def _told(name: str, before: Any, now: Any) -> str:
    """With or without which flag it was made, or with another what: the values where they say something to people."""
    if name.startswith("--") and {type(before), type(now)} <= {bool, type(None)}:
        return f"{'with' if before else 'without'} {name}"
    if any(isinstance(value, str) and len(value) == 64 for value in (before, now)):  # digests
        return f"with another {name}"
    return f"with another {name} ({'none' if before is None else before}, now {'none' if now is None else now})"


def _read_record(path: Path) -> dict[str, Any] | None:
    """None where there is none that can be trusted."""
    try:
        content = read_signed_json(record_path(path), FORMAT_VERSION, "")
    except LmrError:
        return None
    return content if path.is_file() and isinstance(content.get("of"), dict) else None
