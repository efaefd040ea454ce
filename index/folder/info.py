"""The files of an index folder: their names, and index.json, which lists them and says what the folder is."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from fnmatch import fnmatch
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypedDict, get_args

from index.folder.changes import Changes
from index.search.config import SearchInfo, Storage
from index.vote_rule import MOST_NEIGHBOURS
from retrieval.errors import DamageError, LmrError
from retrieval.files.digest import sha256_file
from retrieval.files.folders import current_folder
from retrieval.files.json_file import convert, read_signed_json, write_signed_json
from retrieval.shard import Shard

FORMAT_VERSION = 1
REBUILD = "run lmr build-index again"  # what to do with a damaged folder
INDEX, ADDED, ROWS, BACKGROUND, WHITENING = "index.faiss", "added.rows", "rows.h5", "background.h5", "whiten.h5"
AUGMENTED, SEARCH, SAMPLE, THUMBNAILS = "augmented.faiss", "search.faiss", "sample.h5", "thumbnails.h5"
MODEL, NAMES, CALIBRATION, INFO = "model", "names.json", "calibration.json", "index.json"
LOCAL, LOCAL_ROWS, LOCAL_STORE, LOCAL_WEIGHTS = "local.json", "local-rows.h5", "local-", "local"
EXPORT = f"{MODEL}/model.onnx"
HASHED_BYTES = 1 << 24  # files up to this size are compared by sha256 whenever a folder is opened
MODEL_CARD, MODEL_FILES = "model.json", ("weights-*.safetensors", "model.onnx")  # of retrieval
_OF_LOCAL = (LOCAL, f"{LOCAL_STORE}*", f"{LOCAL_WEIGHTS}/*")
_LEFT = (f"{MODEL}/weights-*", *_OF_LOCAL)  # to who loads them


class Listed(TypedDict):
    """A file as index.json lists it."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class ExportInfo:
    """The exported network beside the weights (model/model.onnx), or why there is none.

    weights_sha256: of the weights that it was made of, one for each member of an ensemble. difference: the largest from
    torch in float32 of any number of a descriptor; tolerance: what was allowed. n_rows: rows whose images were embedded
    again; least_cosine: the least with their rows, None without any. refused: why there is none, '' where there is one.
    """

    weights_sha256: tuple[str, ...]
    difference: float | None = None
    tolerance: float | None = None
    n_rows: int = 0
    least_cosine: float | None = None
    refused: str = ""


@dataclass(frozen=True, slots=True)
class LocalSummary:
    """Local features of the rows. kind: of features; fingerprint: of their settings; n: rows that have them.

    files: local stores, as local-rows.h5 numbers them. n_gone: rows removed since these were written, whose features
    are in them still.
    """

    kind: str
    fingerprint: str
    n: int
    files: tuple[str, ...]
    n_gone: int = 0


@dataclass(frozen=True, slots=True)
class FolderInfo:
    """The content of index.json.

    inputs_digest: sha256 (hex) over everything the folder was built from, and how. answers_digest: over what changes
    answers alone, so without names and places; '' in a folder from before it was kept. files: path in the folder ->
    sha256 and size in bytes. recall: share of the exact float32 neighbours that the stored index finds.
    thumbnails: `side_px`, 0 = none were asked for, and how many rows have one (`n`); {} in a folder from before them.
    search: the inverted file that proposes rows, None = exact search. largest_norm: length of the longest row, and of
    the longest augmented one; 0 in a folder from before they were kept. rows_digest: as answers_digest, whatever the
    kind of index and the storage of its rows. changes: of its rows since it was built, None = there was none. export:
    of its network, None where none was tried. local: local features of its rows, None where it has none. shards: rows
    of each of the stretches that they are searched in, () = they are searched as one. mapped: `role=column` of each
    column that was named for a role where the manifests of its stores were read.
    """

    fingerprint: str
    inputs_digest: str
    options: Mapping[str, Any]
    n_rows: int
    n_landmarks: int
    n_background: int
    d: int
    recall: float
    program_version: str
    built_at: str
    files: Mapping[str, Listed]
    thumbnails: Mapping[str, int] = field(default_factory=dict)
    answers_digest: str = ""
    rows_digest: str = ""
    search: SearchInfo | None = None
    largest_norm: float = 0.0
    largest_augmented_norm: float = 0.0
    changes: Changes | None = None
    export: ExportInfo | None = None
    local: LocalSummary | None = None
    shards: tuple[int, ...] = ()
    mapped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if min(self.n_rows, self.n_landmarks, self.d) < 1 or self.n_background < 0 or not 0 <= self.recall <= 1:
            raise ValueError("n_rows, n_landmarks, n_background, d or recall is out of its range")
        m = self.options.get("m")
        if type(m) is not int or not 1 <= m <= MOST_NEIGHBOURS:
            raise ValueError(f"options.m must lie in [1, {MOST_NEIGHBOURS:,}], got {m!s:.20}")
        if self.options.get("storage") not in get_args(Storage):
            raise ValueError(f"options.storage must be one of {', '.join(get_args(Storage))}")
        if self.shards and (min(self.shards) < 0 or sum(self.shards) != self.n_rows):
            raise ValueError(f"shards must be rows of {self.n_rows} in all")
        others = (*(search_names(self.n_shards) if self.search else ()), *((EXPORT,) if self.is_exported else ()))
        others += (LOCAL, LOCAL_ROWS, *self.local.files) if self.local else ()
        for name in (INDEX, ROWS, f"{MODEL}/{MODEL_CARD}", *others):
            if name not in self.files:
                raise ValueError(f"files does not list {name}")
        require_inside(self.files)
        if self.thumbnails and set(self.thumbnails) != {"side_px", "n"}:
            raise ValueError("thumbnails must be side_px and n")

    @property
    def n_shards(self) -> int:
        """Stretches that the rows are searched in, one behind the other."""
        return max(1, len(self.shards))

    @property
    def shard_sizes(self) -> tuple[int, ...]:
        """Rows of each of them."""
        return self.shards or (self.n_rows,)

    @property
    def is_exported(self) -> bool:
        """True where an exported network lies beside the weights."""
        return self.export is not None and not self.export.refused

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; `read_info` gives it back."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("search", "changes", "export", "local"):
            values[name] = None if values[name] is None else asdict(values[name])
        return {"format_version": FORMAT_VERSION} | values


def require_inside(names: Iterable[str]) -> None:
    """Raises ValueError for a name of a file that does not lie in its folder."""
    for name in names:
        place = Path(name)
        if place.is_absolute() or ".." in place.parts or not place.name or "\0" in name:
            raise ValueError(f"files lists {name[:100]!r}, which is not in the folder")


def search_names(n_shards: int) -> tuple[str, ...]:
    """Names of the files of an inverted file: `search.faiss`, or `search-1-of-4.faiss` and so on."""
    if n_shards == 1:
        return (SEARCH,)
    return tuple(Shard(i, n_shards).beside(Path(SEARCH)).name for i in range(1, n_shards + 1))


def write_info(folder: Path, info: FolderInfo) -> None:
    """Writes index.json. Raises LmrError when the folder cannot be written."""
    write_signed_json(folder / INFO, info.to_json())


def read_info(folder: Path) -> FolderInfo:
    """Reads index.json. Raises LmrError: not an index folder, damaged, of another format version."""
    path = current_folder(folder) / INFO
    if not path.is_file():
        what = "there is no such index folder" if not folder.exists() else f"not an index folder (no {INFO})"
        raise LmrError(f"{folder}: {what}; lmr build-index makes one")
    content = read_signed_json(path, FORMAT_VERSION, REBUILD)
    return convert(content, FolderInfo, str(path), REBUILD)


def check_files(
    folder: Path, info: FolderInfo, verify: Literal["full", "small", "size"], but: Container[str] = ()
) -> None:
    """Compares the sizes of the files with index.json, and their sha256 too.

    verify: `full` compares the sha256 of all, `small` of those that take no time (HASHED_BYTES), `size` of none. With
    `small` a network is left to who loads it: of weights and an exported network beside them only one is read. So are
    local features, which most queries do without. but: files that need not be there.

    Raises LmrError that names the first one that differs.
    """
    for name, listed in info.files.items():
        if name in but:
            continue
        path = folder / name
        if not path.is_file():
            raise DamageError(f"{path} is missing; copy the whole folder or run lmr build-index again")
        size = path.stat().st_size
        if size != listed["size"]:
            raise DamageError(
                f"{path} has {size} bytes, {INFO} says {listed['size']}; "
                "copy the folder again or run lmr build-index again"
            )
        is_left = any(fnmatch(name, one) for one in _LEFT) or (name == EXPORT and info.is_exported)
        is_small = size <= HASHED_BYTES and not is_left
        if (verify == "full" or (verify == "small" and is_small)) and sha256_file(path) != listed["sha256"]:
            raise DamageError(
                f"{path} was changed or damaged: its sha256 is not that of {INFO}; "
                "copy the folder again or run lmr build-index again"
            )


def list_files(folder: Path, known: Mapping[str, Listed] = MappingProxyType({})) -> dict[str, Listed]:
    """sha256 and size of every file of a folder that is being written. known: files whose sha256 is known."""
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    return {name: known.get(name) or list_file(folder / name) for name in names}


def files_of_local(info: FolderInfo) -> set[str]:
    """Names of the files of local features."""
    return {name for name in info.files if any(fnmatch(name, one) for one in _OF_LOCAL)}


def local_facts(info: FolderInfo) -> dict[str, Any]:
    """What an index has of local features, for people: kind, rows that have them, local stores and their bytes."""
    local = info.local
    assert local is not None
    n_bytes = sum(info.files[name]["size"] for name in local.files)
    return {"kind": local.kind, "images": local.n, "stores": len(local.files), "MB": round(n_bytes / 1e6, 1)}


def list_file(path: Path) -> Listed:
    """sha256 and size of a file."""
    return {"sha256": sha256_file(path), "size": path.stat().st_size}


def is_index_folder(path: Path) -> bool:
    """True for an index folder, perhaps a damaged one; another program's index.json does not make one."""
    folder = current_folder(path)
    return (folder / INFO).is_file() and ((folder / INDEX).is_file() or (folder / ROWS).is_file())
