"""An index on a server: what an export says of it, and all but its rows, fetched once into a folder of the cache.

The collection NAME_files holds texts. `export` says which listing is valid; it is written last, so that what is
unfinished is never answered from. A listing is the JSON of an Export; it and files are kept in parts, by the sha256 of
the whole, `SHA256/0`, `SHA256/1` …, so that equal files are sent and fetched once. `writing` says which rows are on
their way.
"""

import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from index.folder.info import (
    ADDED,
    INFO,
    SAMPLE,
    THUMBNAILS,
    FolderInfo,
    Listed,
    files_of_local,
    list_file,
    require_inside,
)
from index.folder.info import read_info as read_folder_info
from index.search.address import Address
from index.search.config import MilvusKind, Storage
from index.search.engine import AUGMENTED, VECTOR, Engine, ServedIndex, Table, open_engine
from retrieval.errors import DamageError, LmrError
from retrieval.files.atomic import replacing
from retrieval.files.folders import link_or_copy, replacing_folder
from retrieval.files.json_file import convert, parse_json
from retrieval.files.lock import output_locks
from retrieval.files.urls import cache_folder
from retrieval.progress import Progress

FORMAT_VERSION = 1
MARKER, WRITING = "export", "writing"  # keys of texts
CACHE = "indexes"  # the folder of the cache
LISTING = "export.json"  # the file in each of its folders
PART_BYTES = 45_000  # of a file in one text, which base64 makes 60,000 characters
PARTS = 32  # asked or written at once
N_TRIES = 10  # readings of an index that is replaced meanwhile, before that is an error
KEPT_S = 30 * 86_400  # what is in the cache and was not in use for so long makes room

_SHA256 = re.compile("[0-9a-f]{64}")
_AGAIN = "run lmr index export with `overwrite`"


@dataclass(frozen=True, slots=True)
class Export:
    """An index on a server. table: the collection of its rows; fields: of their vectors.

    exact, coded, effort, recall: of its `kind`, as `Table` has them; recall is measured. files: those that lie beside
    the rows; left_out: of which kinds there are none by choice.
    """

    fingerprint: str
    inputs_digest: str
    table: str
    fields: tuple[str, ...]
    n_rows: int
    d: int
    storage: Storage
    kind: MilvusKind
    exact: bool
    coded: bool
    largest_norms: tuple[float, ...]
    files: Mapping[str, Listed]
    effort: int = 0
    recall: float = 1.0
    left_out: tuple[str, ...] = ()
    engine: str = ""
    program_version: str = ""
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if not len(self.fields) == len(self.largest_norms) >= 1:
            raise ValueError(f"{len(self.fields)} fields have {len(self.largest_norms)} largest norms")
        require_inside(self.files)
        for listed in self.files.values():
            _require_found(listed)

    def to_text(self) -> str:
        """As a text, the same for the same export."""
        return json.dumps(asdict(self), ensure_ascii=True, sort_keys=True)

    def table_of(self, name: str) -> Table:
        """The rows, by one of their fields."""
        norm = self.largest_norms[self.fields.index(name)]
        return Table(self.table, self.n_rows, self.d, self.storage, self.exact, self.coded, self.effort, norm)


@dataclass(frozen=True, slots=True)
class Served:
    """An index on a server, opened. folder: of the cache, which holds its files but the rows."""

    address: Address
    engine: Engine = field(repr=False)
    export: Export
    folder: Path

    @property
    def searched(self) -> tuple[ServedIndex, ServedIndex | None, None]:
        """Search of the images' own descriptors, and of the augmented rows; no inverted file is here."""
        own = ServedIndex(self.engine, self.export.table_of(VECTOR), VECTOR)
        if AUGMENTED not in self.export.fields:
            return own, None, None
        return own, ServedIndex(self.engine, self.export.table_of(AUGMENTED), AUGMENTED), None

    def absent(self, info: FolderInfo) -> set[str]:
        """Files that index.json lists and the folder need not have."""
        return (info.files.keys() - self.export.files.keys()) | later_files(info)

    def fetch_later(self, info: FolderInfo, progress: Progress, *, local: bool) -> None:
        """Puts local features into the folder, or thumbnails, unless they are there. Raises LmrError."""
        names = files_of_local(info) if local else {THUMBNAILS}
        wanted = [name for name in sorted(names & self.export.files.keys()) if not (self.folder / name).exists()]
        if wanted:
            with output_locks(self.folder, wait=True, progress=progress):
                _fetch(self.engine, self.address, self.export, self.folder, wanted, progress)


def is_row_file(name: str) -> bool:
    """True for a file of an index folder that holds rows, or what finds them here."""
    return name.endswith(".faiss") or name in (ADDED, SAMPLE)


def later_files(info: FolderInfo) -> set[str]:
    """Files that are fetched when they are asked for: of local features, and thumbnails."""
    return files_of_local(info) | ({THUMBNAILS} & set(info.files))


def part_keys(listed: Listed) -> list[str]:
    """Keys of the parts of a file."""
    return [f"{listed['sha256']}/{i}" for i in range(-(-listed["size"] // PART_BYTES))]


def _require_found(listed: Listed) -> None:
    """Raises ValueError for a file that has no digest to find its parts by, or to name a folder."""
    if not _SHA256.fullmatch(listed["sha256"]) or listed["size"] < 0:
        raise ValueError(f"{listed['sha256'][:70]!r} of {listed['size']} bytes is no digest")


def listing_of(export: Export) -> tuple[bytes, Listed]:
    """The listing of an export, and how its parts are found."""
    content = export.to_text().encode()
    return content, {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def read_marker(engine: Engine, address: Address) -> Listed | None:
    """How the valid listing is found, None where there is none. Raises LmrError for a collection that is not lmr's."""
    held = engine.held(address.files)
    if held == "nothing":
        return None
    if held != "files":
        raise LmrError(
            f"{address}: {engine.told()} has a collection {address.files} that is not of lmr; choose another name"
        )
    text = engine.get(address.files, [MARKER]).get(MARKER)
    if text is None:
        return None
    source = f"{address}: {MARKER}"
    marker = convert(parse_json(text, source, _AGAIN), Listed, source, _AGAIN)
    try:
        _require_found(marker)
    except ValueError as error:
        raise DamageError(f"{source} is damaged ({error}); {_AGAIN}") from error
    return marker


def read_export(engine: Engine, address: Address, marker: Listed) -> Export:
    """The export that a marker stands for. Raises LmrError for one that is damaged or of another version."""
    content = parse_json(b"".join(_parts(engine, address, marker)), str(address), _AGAIN)
    if content.get("format_version") != FORMAT_VERSION:
        raise LmrError(
            f"{address} has format version {content.get('format_version')!s:.20}, this lmr reads {FORMAT_VERSION}; "
            f"use that version of lmr, or {_AGAIN}"
        )
    return convert(content, Export, str(address), _AGAIN)


def state_at(address: Address) -> object:
    """Tells the index at an address from any other that takes its place; its files in the cache are in use.

    Raises LmrError where it cannot be asked.
    """
    marker = read_marker(_engine_of(address), address)
    if marker is not None:
        with contextlib.suppress(OSError):  # it is not there yet
            os.utime(_folder_of(marker))
    return marker


def open_served(address: Address, progress: Progress) -> Served:
    """The index at an address, its files but the later ones in the cache.

    Raises LmrError where there is none, its export was not finished, its rows are not those of the export, or a file is
    not what was sent.
    """
    engine = _engine_of(address)
    for last_try in range(N_TRIES):
        marker = read_marker(engine, address)
        if marker is None:
            raise LmrError(
                f"{address}: there is no index, or its export was not finished; run lmr index export {address} with "
                "the index folder as `index`"
            )
        try:
            return _open(engine, address, marker, progress)
        except LmrError:
            # Another export may have taken its place while it was read; then that is read.
            if last_try == N_TRIES - 1 or read_marker(engine, address) == marker:
                raise
    raise AssertionError("the last try returns or raises")


def _open(engine: Engine, address: Address, marker: Listed, progress: Progress) -> Served:
    """The index that a marker stands for."""
    export = read_export(engine, address, marker)
    _require_rows(engine, address, export)
    folder = _folder_of(marker)
    with output_locks(folder, wait=True, progress=progress):
        if not (folder / LISTING).is_file():
            with replacing_folder(folder) as target:
                _fill(engine, address, export, target, progress)
        os.utime(folder)
        _make_room(folder)
    return Served(address, engine, export, folder)


def _folder_of(marker: Listed) -> Path:
    return cache_folder(CACHE) / marker["sha256"][:32]


_engines: dict[Address, Engine] = {}


def _engine_of(address: Address) -> Engine:
    """The connection of this process to an address."""
    if address not in _engines:
        _engines[address] = open_engine(address)
    return _engines[address]


def _require_rows(engine: Engine, address: Address, export: Export) -> None:
    """Raises LmrError where the rows on the server are not those of the export."""
    held = engine.held(export.table)
    if held != "rows":
        state = "gone" if held == "nothing" else "not of lmr"
        raise LmrError(f"{address}: the collection {export.table} of its rows is {state}; {_AGAIN}")
    for name in export.fields:
        if (d := engine.length(export.table, name)) != export.d:
            raise LmrError(
                f"{address}: vectors of {export.table} have {d} numbers, the export says {export.d}; {_AGAIN}"
            )
    if (n := engine.count(export.table)) != export.n_rows:
        raise LmrError(f"{address}: {export.table} has {n:,} rows, the export says {export.n_rows:,}; {_AGAIN}")


def _fill(engine: Engine, address: Address, export: Export, target: Path, progress: Progress) -> None:
    """Fills a folder with all but the later files; index.json is read first, to know which those are."""
    _fetch(engine, address, export, target, [INFO], progress)
    info = read_folder_info(target)
    if (info.fingerprint, info.inputs_digest) != (export.fingerprint, export.inputs_digest):
        raise LmrError(f"{address}: {INFO} is of another index than its rows; {_AGAIN}")
    later = later_files(info)
    _fetch(engine, address, export, target, [name for name in export.files if name not in {INFO, *later}], progress)
    (target / LISTING).write_text(export.to_text(), encoding="ascii")


def _fetch(
    engine: Engine, address: Address, export: Export, target: Path, names: Iterable[str], progress: Progress
) -> None:
    """Puts files into a folder, from the cache where it has the same one, each whole or not at all."""
    names = list(names)
    progress.begin(f"fetching from {address.host}", sum(export.files[name]["size"] for name in names), "B")
    known = _known_files()
    for name in names:
        listed, path = export.files[name], target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        same = known.get(listed["sha256"])
        if same is not None and list_file(same) == listed:
            link_or_copy(same, path)
            progress.add(listed["size"])
            continue
        with replacing(path) as file:
            for part in _parts(engine, address, listed):
                file.write(part)
                progress.add(len(part))
    progress.end()


def _parts(engine: Engine, address: Address, listed: Listed) -> Iterator[bytes]:
    """The parts of a file. Raises LmrError where one is gone, or they are not those that were sent."""
    keys, total = part_keys(listed), hashlib.sha256()
    for start in range(0, len(keys), PARTS):
        asked = keys[start : start + PARTS]
        found = engine.get(address.files, asked)
        if missing := [key for key in asked if key not in found]:
            raise DamageError(
                f"{address}: {missing[0][:16]} of its files is gone: another export took its place, or it is damaged; "
                f"run this again, then {_AGAIN}"
            )
        for key in asked:
            try:
                part = base64.b64decode(found[key], validate=True)
            except ValueError as error:
                raise DamageError(f"{address}: {key[:16]} of its files is damaged; {_AGAIN}") from error
            total.update(part)
            yield part
    if total.hexdigest() != listed["sha256"]:
        raise DamageError(f"{address}: a file is not the one that was sent: its sha256 differs; {_AGAIN}")


def _known_files() -> Mapping[str, Path]:
    """Files of the cache, by their sha256 as the export there lists them."""
    found: dict[str, Path] = {}
    for place in cache_folder(CACHE).glob(f"*/{LISTING}"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            for name, listed in json.loads(place.read_text(encoding="ascii"))["files"].items():
                if (path := place.parent / name).is_file():
                    found[listed["sha256"]] = path
    return found


def _make_room(but: Path) -> None:
    """Removes indexes of the cache that nobody opened or served for long."""
    for place in cache_folder(CACHE).iterdir():
        with contextlib.suppress(OSError):
            if place != but and place.is_dir() and place.stat().st_mtime < time.time() - KEPT_S:
                shutil.rmtree(place, ignore_errors=True)
