"""Writing an index folder to a server: its rows, then its files, then that it is whole."""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

import numpy as np

from index.folder.changes import JOURNAL
from index.folder.folder import IndexFolder, is_current
from index.folder.info import CALIBRATION, INFO, ROWS, THUMBNAILS, Listed, files_of_local, list_file
from index.folder.served import (
    MARKER,
    PART_BYTES,
    PARTS,
    WRITING,
    Export,
    is_row_file,
    listing_of,
    part_keys,
    read_export,
    read_marker,
)
from index.search.address import Address
from index.search.base import SearchIndex
from index.search.choose import find_sample, take_sample
from index.search.config import MilvusKind
from index.search.engine import AUGMENTED, VECTOR, Batch, Engine, ServedIndex, open_engine
from index.search.milvus import KINDS
from retrieval.errors import LmrError
from retrieval.files.digest import sha256_json
from retrieval.files.json_file import convert, parse_json
from retrieval.progress import Progress
from retrieval.version import program_version

if TYPE_CHECKING:
    from index.update.inspect import IndexExportJob

BATCH_BYTES = 1 << 22  # of vectors sent at once
RECALL = 0.99  # of the exact 10 nearest, that is asked of a kind that is not exact
N_ASKED = 200  # rows by which that is measured; the standard error of 0.99 is then below 0.003
EFFORTS = tuple(2**i for i in range(4, 13))  # lists read, or rows looked at, for a query
_RESUME = "run the command again"


class _Writing(TypedDict):
    """Rows on their way. table: their collection; written: how many are there; before: the listing that is replaced."""

    table: str
    written: int
    before: Listed | None


@dataclass(frozen=True, slots=True)
class Sent:
    """An export. state: `unchanged` where the server had the same one already. engine: what the server is."""

    state: Literal["written", "unchanged"]
    export: Export
    engine: str


def send_index(folder: IndexFolder, address: Address, job: "IndexExportJob") -> Sent:
    """Writes an index folder to a server, or what of it is not there; killed at any moment, it goes on from there.

    Raises LmrError for another index at the address, or a collection that is not lmr's, unless `overwrite` is given; a
    kind that the server has not; a folder that is changed meanwhile. What was there before answers until the end.
    """
    engine = open_engine(address)
    kind: MilvusKind = job.kind or "flat"
    engine.require_kind(kind)
    _take_names(engine, address, overwrite=job.overwrite)
    wanted = _planned(folder, address, kind, job.leave_out)
    marker = read_marker(engine, address)
    old = None if marker is None else read_export(engine, address, marker)
    is_there = old is not None and _has_rows(engine, old)
    if old is not None and not job.overwrite:
        _require_same(address, old, wanted, is_there=is_there)
    if old is not None and is_there and _unmeasured(old) == wanted:
        _finish(engine, address, old)
        return Sent("unchanged", old, engine.told())
    before = _begin(engine, address, wanted, marker)
    if old is None or not is_there or old.table != wanted.table:
        _send_rows(engine, address, folder, wanted, before, job.progress)
        old = None
    export = replace(wanted, engine=engine.told(), program_version=program_version())
    if old is not None:
        export = replace(export, effort=old.effort, recall=old.recall)
    elif not export.exact:
        export = _tuned(engine, address, folder, export, RECALL if job.recall is None else job.recall, job.progress)
    _send_files(engine, address, folder, export, job.progress)
    if not is_current(folder):
        raise LmrError(f"{folder} was changed while it was exported; {_RESUME}")
    _mark(engine, address, export)
    _finish(engine, address, export)
    return Sent("written", export, engine.told())


def kind_words(kind: str, recall: float) -> str:
    """A kind on a server and what it finds, for people: `flat, exact`."""
    return f"{kind}, {'exact' if kind == 'flat' else f'recall@10 {recall:.3f}'}"


def _take_names(engine: Engine, address: Address, *, overwrite: bool) -> None:
    """Raises LmrError where a collection of a name that is needed is not lmr's; with `overwrite` it is removed."""
    for name, right in ((address.collection, "rows"), (address.files, "files")):
        if engine.held(name) in ("nothing", right):
            continue
        if not overwrite:
            raise LmrError(
                f"{address}: {engine.told()} has a collection {name} that is not of lmr; choose another name, or give "
                "`overwrite` to remove it"
            )
        engine.drop(name)
    if engine.held(address.files) == "nothing":
        engine.create(address.files, 0, ())


def _planned(folder: IndexFolder, address: Address, kind: MilvusKind, leave_out: tuple[str, ...]) -> Export:
    """What is to be on the server, nothing of it measured. Rows are told by the sha256 of the files that hold them."""
    info = folder.info
    names = [name for name in info.files if is_row_file(name) or name == ROWS]
    digest = sha256_json([kind, {name: info.files[name]["sha256"] for name in sorted(names)}])
    norms = [info.largest_norm or folder.own_flat.largest_norm]
    if folder.augmented is not None:
        norms.append(info.largest_augmented_norm or folder.searched_flat.largest_norm)
    return Export(
        fingerprint=info.fingerprint,
        inputs_digest=info.inputs_digest,
        table=f"{address.collection}_{digest[:12]}",
        fields=(VECTOR,) if folder.augmented is None else (VECTOR, AUGMENTED),
        n_rows=info.n_rows,
        d=info.d,
        storage=folder.index.storage,
        kind=kind,
        exact=not KINDS[kind].word,
        coded=KINDS[kind].coded,
        largest_norms=tuple(norms),
        files=_files(folder, leave_out),
        left_out=tuple(sorted(set(leave_out))),
    )


def _files(folder: IndexFolder, leave_out: tuple[str, ...]) -> Mapping[str, Listed]:
    """The files that go with the rows."""
    info = folder.info
    out = files_of_local(info) if "local" in leave_out else set()
    out |= {THUMBNAILS} if "thumbnails" in leave_out else set()
    found = {name: one for name, one in info.files.items() if not is_row_file(name) and name not in out}
    for name in (INFO, CALIBRATION, JOURNAL):
        if (folder.path / name).is_file():
            found[name] = list_file(folder.path / name)
    return found


def _has_rows(engine: Engine, export: Export) -> bool:
    return engine.held(export.table) == "rows" and engine.count(export.table) == export.n_rows


def _unmeasured(export: Export) -> Export:
    return replace(export, effort=0, recall=1.0, engine="", program_version="")


def _require_same(address: Address, old: Export, wanted: Export, *, is_there: bool) -> None:
    """Raises LmrError where something else is on the server than what is to be there."""
    if old.fingerprint != wanted.fingerprint:
        problem = f"holds an index of model {old.fingerprint[:8]}, this one is of {wanted.fingerprint[:8]}"
    elif old.inputs_digest != wanted.inputs_digest:
        problem = f"holds another index of this model, or this one before it was changed ({old.n_rows:,} images)"
    elif not is_there:
        problem = f"lacks rows of its collection {old.table}"
    elif _unmeasured(old) != wanted:
        problem = f"holds this index otherwise (`kind` {old.kind}, or another calibration or files)"
    else:
        return
    raise LmrError(f"{address} {problem}; `overwrite` replaces it, and sends only what differs")


def _begin(engine: Engine, address: Address, wanted: Export, marker: Listed | None) -> _Writing:
    """The state of the rows on their way. Those of another index that were never finished are removed."""
    left = _read_writing(engine, address)
    before = _Writing(table=wanted.table, written=0, before=marker)
    if left is not None and left["table"] == wanted.table:
        before["written"] = left["written"]
    elif left is not None and (marker is None or read_export(engine, address, marker).table != left["table"]):
        engine.drop(left["table"])
    _note(engine, address, before)
    return before


def _read_writing(engine: Engine, address: Address) -> _Writing | None:
    text = engine.get(address.files, [WRITING]).get(WRITING)
    source = f"{address}: {WRITING}"
    return None if text is None else convert(parse_json(text, source, _RESUME), _Writing, source, _RESUME)


def _note(engine: Engine, address: Address, state: _Writing) -> None:
    engine.put(address.files, {WRITING: json.dumps(state)})


def _send_rows(
    engine: Engine, address: Address, folder: IndexFolder, wanted: Export, state: _Writing, progress: Progress
) -> None:
    """Writes the rows that are not there yet, and makes all of them searchable."""
    held = engine.held(wanted.table)
    if held != "rows" or engine.length(wanted.table, VECTOR) != wanted.d:
        engine.drop(wanted.table)
        engine.create(wanted.table, wanted.d, wanted.fields)
        state["written"] = 0
    progress.begin(f"sending to {address.host}", wanted.n_rows - state["written"], "rows")
    for batch in _batches(folder, wanted, state["written"]):
        engine.write(wanted.table, batch)
        state["written"] = batch.first + len(batch.image_id)
        _note(engine, address, state)
        progress.add(len(batch.image_id))
    progress.end()
    engine.build(wanted.table, wanted.fields, wanted.kind, wanted.n_rows)


def _batches(folder: IndexFolder, wanted: Export, first: int) -> Iterator[Batch]:
    """The rows from one on, in batches."""
    rows, n = folder.rows, wanted.n_rows
    sources: dict[str, SearchIndex] = {VECTOR: folder.index}
    if folder.augmented is not None:
        sources[AUGMENTED] = folder.augmented
    step = max(1, BATCH_BYTES // (4 * wanted.d * len(sources)))
    for start in range(first, n, step):
        own = np.arange(start, min(start + step, n))
        yield Batch(
            start,
            {name: source.vectors(own) for name, source in sources.items()},
            list(rows.image_id.select(own)),
            [rows.landmarks[code] for code in rows.landmark[own].tolist()],
        )


def _tuned(
    engine: Engine, address: Address, folder: IndexFolder, export: Export, target: float, progress: Progress
) -> Export:
    """The export with the least effort that reaches the recall, measured on a sample of the rows."""
    sample = take_sample(folder.searched_flat, N_ASKED)
    progress.begin("measuring", len(EFFORTS), "efforts")
    for effort in EFFORTS:
        export = replace(export, effort=effort)
        field = export.fields[-1]
        recall, _ = find_sample(ServedIndex(engine, export.table_of(field), field), sample)
        export = replace(export, recall=recall)
        progress.add(1)
        if recall >= target:
            break
    progress.end()
    if export.recall < target:
        progress.warn(
            f"warning: {address}: `kind` {export.kind} finds {export.recall:.3f} of the 10 nearest, `recall` asks for "
            f"{target:g}; `kind` flat finds all"
        )
    return export


def _send_files(engine: Engine, address: Address, folder: IndexFolder, export: Export, progress: Progress) -> None:
    """Writes the files, and the listing that names them, but those parts that are there."""
    progress.begin(f"sending to {address.host}", sum(one["size"] for one in export.files.values()), "B")
    for name, listed in export.files.items():
        _send_parts(engine, address, listed, _read_parts(folder.path / name, listed), progress)
    progress.end()
    content, listed = listing_of(export)
    parts = [content[start : start + PART_BYTES] for start in range(0, len(content), PART_BYTES)]
    _send_parts(engine, address, listed, iter(parts), progress)


def _send_parts(engine: Engine, address: Address, listed: Listed, parts: Iterator[bytes], progress: Progress) -> None:
    keys = part_keys(listed)
    for start in range(0, len(keys), PARTS):
        asked = keys[start : start + PARTS]
        there, texts = engine.there(address.files, asked), {}
        for key, part in zip(asked, parts, strict=False):
            if key not in there:
                texts[key] = base64.b64encode(part).decode("ascii")
            progress.add(len(part))
        if texts:
            engine.put(address.files, texts)
    next(parts, None)  # a file is compared with its digest at its end


def _read_parts(path: Path, listed: Listed) -> Iterator[bytes]:
    """The parts of a file. Raises LmrError where it is not what its index lists, which others may have replaced."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(PART_BYTES):
            total.update(part)
            yield part
    if total.hexdigest() != listed["sha256"]:
        raise LmrError(f"{path} was changed while it was exported, or is damaged; {_RESUME}, or lmr index verify")


def _mark(engine: Engine, address: Address, export: Export) -> None:
    """Makes an export the one that answers, in one step."""
    engine.put(address.files, {MARKER: json.dumps(listing_of(export)[1])})


def _finish(engine: Engine, address: Address, export: Export) -> None:
    """Has the name stand for the rows, and removes what took their place; again changes nothing."""
    engine.publish(address.collection, export.table)
    left = _read_writing(engine, address)
    if left is None:
        return
    if left["before"] is not None and left["before"] != listing_of(export)[1]:
        _remove(engine, address, left["before"], export)
    engine.delete(address.files, [WRITING])


def _remove(engine: Engine, address: Address, marker: Listed, but: Export) -> None:
    """Removes an export that another one replaced, as far as it is still there."""
    keys = part_keys(marker)
    if engine.there(address.files, keys) < set(keys):
        return
    old = read_export(engine, address, marker)
    if old.table != but.table:
        engine.drop(old.table)
    kept = {key for listed in but.files.values() for key in part_keys(listed)} | set(part_keys(listing_of(but)[1]))
    gone = sorted({key for listed in old.files.values() for key in part_keys(listed)} - kept)
    for start in range(0, len(gone), PARTS):
        engine.delete(address.files, gone[start : start + PARTS])
    engine.delete(address.files, sorted(set(keys) - kept))
