"""The folder of a split: its manifests, and split.json, which says what made them and is finished last."""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypedDict

from retrieval.errors import LmrError
from retrieval.files.atomic import remove_leftovers, replacing, write_error
from retrieval.files.digest import sha256_file
from retrieval.files.json_file import read_json, require_signed, require_type, require_version, signed, write_json

RECORD = "split.json"
FORMAT_VERSION = 1
NAMES = ("train.csv", "val.csv", "test.csv", "test_solution.csv", "background.csv", "names.csv")


class _Record(TypedDict, total=False):
    """Entries of split.json beside the identity of the split."""

    state: Literal["finished", "unfinished"]
    files: dict[str, dict[str, str | int]]
    replaces: list[str]
    options: dict[str, Any]


_TOLD = {  # what of a record must agree for two splits to be the same, and what it is called
    "input_sha256": "another input",
    "images": "another folder of pictures",
    "near_duplicates_sha256": "other near-duplicates",
}


def require_place(folder: Path, identity: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Raises LmrError where the folder holds another split, or files that are of no split, unless overwrite.

    identity: any of input_sha256, images, near_duplicates_sha256, and options, a mapping by the name of each option.
    """
    if folder.exists() and not folder.is_dir():
        raise LmrError(f"{folder} is a file; give another `output`")
    if overwrite:
        return
    record = _read_record(folder)
    if record is None:
        there = [name for name in NAMES if (folder / name).exists()]
        if there:
            raise LmrError(f"{folder / there[0]} exists and is of no split; give another `output` or `overwrite`")
    elif difference := _difference(record, identity):
        raise LmrError(f"{folder} holds a split with {difference}; give another `output` or `overwrite`")


def is_finished(folder: Path) -> bool:
    """Tells whether a split is there whole. LmrError where files of it were changed or taken away since."""
    record = _read_record(folder)
    if record is None or record.get("state") != "finished":
        return False
    for name, facts in record["files"].items():
        path = folder / name
        if not path.exists() or _facts_of_file(path) != facts:
            what = "was changed since it was written" if path.exists() else "is missing"
            raise LmrError(f"{path} {what}; `overwrite` writes the split anew")
    return True


def write_split(folder: Path, files: Mapping[str, Iterable[str]], record: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the manifests and the record; returns the record with the size and digest of each file.

    Everything is written under private names first. Then the record says unfinished, the old manifests go, the new
    ones get their names, and the record says finished: a kill leaves the old split, or one that does not look finished.
    Raises LmrError when something cannot be written.
    """
    if not set(files) <= set(NAMES):
        raise ValueError(f"files must be of {NAMES}, got {sorted(files)}")
    complete = {"format_version": FORMAT_VERSION, **record, "state": "finished"}
    replaced = sorted({*files, *_written_before(folder)})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in NAMES:
            remove_leftovers(folder / name)
        with contextlib.ExitStack() as begun:
            written = {name: begun.enter_context(replacing(folder / name)) for name in files}
            complete["files"] = {name: _write(folder, written[name], lines) for name, lines in files.items()}
            _write_record(folder, {**complete, "state": "unfinished", "replaces": replaced})
            for name in replaced:
                (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error
    _write_record(folder, complete)
    return complete


def _difference(record: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
    for name, what in _TOLD.items():
        if name in identity and record.get(name) != identity[name]:
            return what
    before, now = record.get("options", {}), identity["options"]
    changed = [name for name in now if before.get(name) != now[name]]
    if not changed:
        return ""
    return f"another `{changed[0].replace('-', '_')}` ({_told(before.get(changed[0]))}, now {_told(now[changed[0]])})"


def _told(value: Any) -> str:
    return "none" if value is None else str(value)


def _written_before(folder: Path) -> set[str]:
    """The manifests of the split that was there, or was about to be replaced when it was cut off.

    All that may be of one, where its record cannot be read.
    """
    try:
        record = _read_record(folder) or {}
    except LmrError:
        return {name for name in NAMES if (folder / name).exists()}
    return {*record.get("files", ()), *record.get("replaces", ())} & set(NAMES)


def _read_record(folder: Path) -> dict[str, Any] | None:
    path = folder / RECORD
    if not path.exists():
        return None
    remedy = "`overwrite` writes the split anew"
    record = read_json(path, remedy)
    require_version(record, FORMAT_VERSION, str(path), remedy)
    return require_type(require_signed(record, str(path), remedy, may_lack=True), _Record, str(path), remedy)


def _write_record(folder: Path, record: Mapping[str, Any]) -> None:
    write_json(folder / RECORD, signed(record))


def _write(folder: Path, file: BinaryIO, lines: Iterable[str]) -> dict[str, Any]:
    """Writes a manifest to the disk, so that nothing of the old split goes before all of the new one is there."""
    digest, size = hashlib.sha256(), 0
    try:
        for text in lines:
            data = text.encode()
            digest.update(data)
            size += len(data)
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    except OSError as error:
        raise write_error(folder, error) from error
    return {"sha256": digest.hexdigest(), "size": size}


def _facts_of_file(path: Path) -> dict[str, Any]:
    return {"sha256": sha256_file(path), "size": path.stat().st_size}
