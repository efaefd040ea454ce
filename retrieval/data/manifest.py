"""The manifest: a table of images, read from any of the files and folders that lmr knows."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from retrieval.arrays import BoolArray, IntArray, LongArray, ObjArray, read_only
from retrieval.data.csv_table import Table
from retrieval.data.formats import Layout, read_layout
from retrieval.data.header.mapping import BY_HEADER, ColumnMap
from retrieval.data.header.place_names import columns_of_names
from retrieval.data.labels import compose
from retrieval.data.names import Name as Name  # names of landmarks are read beside manifests
from retrieval.data.names import read_names as read_names
from retrieval.data.parquet import ParquetTable
from retrieval.data.rows import Codes, Columns, ids_of_paths, read_clean, read_images, read_open_images
from retrieval.data.tables.opening import open_table
from retrieval.errors import LmrError
from retrieval.images.parquet_parts import EmbeddedImages
from retrieval.images.tars.headers import is_tar
from retrieval.images.walk import ImagePath, walk_images
from retrieval.own_columns import OwnColumns, require_rows, select_columns
from retrieval.progress import SILENT, Progress
from retrieval.shard import Shard
from retrieval.texts import Texts, repeated, to_texts

_DIGEST_ROWS = 65536  # texts joined at a time
_TEXTS = ("image_id", "path", "url")


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """Images, in order.

    source: where it was read from, for messages. image_id: (n,) texts, unique. landmark: (n,) int32 into landmarks,
    -1 = none. landmarks: sorted as text. more_landmarks: row -> further codes, of the few rows that have several.
    path: (n,) texts, absolute or within the images folder, '' = none. url: (n,) texts; kind, usage: (n,) str; None = no
    such column.
    names: landmark_id -> what people call it, where that differs. has_labels: whether there was a place for labels.
    columns: the user's own columns by name, (n,) texts each; coordinates are `lat` and `lon`. mapped: `role=column` of
    each column that was named for a role.
    content: encoded images, where the file itself holds them. shard, whole: where these are a share of the rows, which
    one, and all rows.
    """

    source: str
    image_id: Texts
    landmark: IntArray
    landmarks: tuple[str, ...]
    more_landmarks: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    path: Texts | None = None
    url: Texts | None = None
    kind: ObjArray | None = None
    usage: ObjArray | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    has_labels: bool = True
    columns: OwnColumns = field(default_factory=dict)
    mapped: tuple[str, ...] = ()
    content: EmbeddedImages | None = None
    shard: Shard | None = None
    whole: "Manifest | None" = None

    def __post_init__(self) -> None:
        n = len(self.image_id)
        for name in ("image_id", "landmark", "path", "url", "kind", "usage"):
            array = getattr(self, name)
            if array is None:
                continue
            if array.shape != (n,):
                raise ValueError(f"{name} must have {n} rows, got {array.shape}")
            object.__setattr__(self, name, to_texts(array) if name in _TEXTS else read_only(array))
        require_rows(self.columns, n)
        if repeated(self.image_id):
            raise ValueError("image_id must be unique")
        if list(self.landmarks) != sorted(set(self.landmarks)):
            raise ValueError("landmarks must be unique and sorted")
        if n and not (self.landmark.min() >= -1 and self.landmark.max() < len(self.landmarks)):
            raise ValueError(f"landmark must lie in [-1, {len(self.landmarks)})")

    def __len__(self) -> int:
        return len(self.image_id)

    def name_unreadable(self, row: int, reason: str) -> str:
        """Name of an unreadable image in messages: its image_id, and its path unless the reason holds that."""
        path = "" if self.path is None else str(self.path[row])
        return str(self.image_id[row]) if path in reason else f"{self.image_id[row]} ({path})"

    def truths(self, row: int) -> tuple[int, ...]:
        """All landmarks of a row, the first one first; empty for a non-landmark."""
        first = int(self.landmark[row])
        return () if first < 0 else (first, *self.more_landmarks.get(row, ()))

    def select(self, rows: LongArray | BoolArray) -> "Manifest":
        """The given rows in the given order, with the same landmarks."""
        rows = np.flatnonzero(rows) if rows.dtype == np.bool_ else np.asarray(rows, dtype=np.int64)
        more = {i: self.more_landmarks[row] for i, row in enumerate(rows.tolist()) if row in self.more_landmarks}
        return Manifest(
            source=self.source,
            image_id=self.image_id.select(rows),
            landmark=self.landmark[rows],
            landmarks=self.landmarks,
            more_landmarks=more,
            names=self.names,
            has_labels=self.has_labels,
            columns=select_columns(self.columns, rows),
            mapped=self.mapped,
            content=None if self.content is None else self.content.select(rows),
            path=None if self.path is None else self.path.select(rows),
            url=None if self.url is None else self.url.select(rows),
            kind=None if self.kind is None else self.kind[rows],
            usage=None if self.usage is None else self.usage[rows],
        )

    def share(self, shard: Shard | None) -> "Manifest":
        """The rows of a share, which know the whole; all of them for None. LmrError for more shares than rows."""
        if shard is None:
            return self
        rows = np.array(shard.rows_of(self.source, len(self)))
        return replace(self.select(rows), shard=shard, whole=self)

    @property
    def digest(self) -> str:
        """sha256 (hex) over what embed depends on: ids, landmarks, paths and kinds, in order; of a share the whole's.

        Paths below a folder that was read count from that folder, so that it can be moved.
        """
        if self.whole is not None:
            return self.whole.digest
        total = hashlib.sha256()
        _add_texts(total.update, self.image_id)
        total.update(self.landmark.tobytes())
        _add_texts(total.update, Texts.of(self.landmarks))
        for row in sorted(self.more_landmarks):
            total.update(np.array([row, *self.more_landmarks[row]], dtype=np.int64).tobytes())
        root = os.path.join(os.path.abspath(self.source), "")
        paths: Iterable[str] = () if self.path is None else self.path
        _add_texts(total.update, Texts.of(path.removeprefix(root) for path in paths))
        _add_texts(total.update, Texts.of(() if self.kind is None else self.kind))
        return total.hexdigest()


def read_manifest(path: str | Path, progress: Progress = SILENT, names: ColumnMap = BY_HEADER) -> Manifest:
    """Reads a CSV, JSON or Parquet file, a folder or tar of images or one image; files are told by their content.

    A table may be at a URL, and a folder of Parquet's part files is one.
    progress: is warned of each thing that was passed over, and told of the bytes of a file of text as they are read.
    names: which column of a table holds what, where that was said.
    Raises LmrError when anything of it cannot be used; its message names the bad rows by line.
    """
    table = open_table(path, progress)
    if table is None:
        source = Path(path)
        holds_many = source.is_dir() or is_tar(source)
        names.refuse(source, ("a folder" if source.is_dir() else "a tar") if holds_many else "a picture")
        return _manifest(str(path), read_folder(source, progress) if holds_many else read_single(source))
    layout = read_layout(table, names)
    return _manifest(table.source, _read_table(table, layout, progress), layout.mapped)


def _read_table(table: Table, layout: Layout, progress: Progress) -> Columns:
    for line in (*table.notes, *layout.notes(table.source)):
        progress.warn(line)
    if layout.format == "clean":
        columns = read_clean(table, layout)
    elif layout.format == "open_images":
        columns = read_open_images(table, layout)
        if "box" in layout.columns:
            progress.warn(f"{table.source}: of the boxes only their labels are used")
    else:
        columns = read_images(table, layout)
    if not len(columns.image_id):
        raise LmrError(f"{table.source} holds a header and no pictures; add a row for each picture")
    if table.names:
        known = {label: name for label in columns.label_names if (name := table.names.get(label))}
        columns.names = known | dict(columns.names)
    for line in columns.spell_out(table.source):
        progress.warn(line)
    if isinstance(table, ParquetTable) and layout.format == "pictures" and "content" in layout.columns:
        columns.content = table.images(table.header[layout.columns["content"]])
    return columns


def _manifest(source: str, columns: Columns, mapped: tuple[str, ...] = ()) -> Manifest:
    """The columns with landmarks in the order of their text."""
    order = sorted(range(len(columns.label_names)), key=columns.label_names.__getitem__)
    sorted_code = np.empty(len(order) + 1, dtype=np.int32)
    sorted_code[order] = np.arange(len(order), dtype=np.int32)
    sorted_code[-1] = -1  # the code -1 finds it
    return Manifest(
        source=source,
        image_id=columns.image_id,
        landmark=sorted_code[np.array(columns.label, dtype=np.int32)],
        landmarks=tuple(columns.label_names[code] for code in order),
        more_landmarks={row: tuple(sorted_code[list(codes)].tolist()) for row, codes in columns.more.items()},
        path=columns.path,
        url=columns.url,
        kind=None if columns.kind is None else _objects(columns.kind),
        usage=None if columns.usage is None else _objects(columns.usage),
        names=dict(columns.names),
        has_labels=columns.has_labels,
        columns=columns.own,
        mapped=mapped,
        content=columns.content,
    )


def _objects(values: list[str]) -> ObjArray:
    return np.array(values, dtype=object)


def _add_texts(update: Callable[[bytes], None], texts: Texts) -> None:
    """Hashes texts so that no two lists of them look alike: count, lengths, content."""
    update(len(texts).to_bytes(8, "little"))
    for start in range(0, len(texts), _DIGEST_ROWS):
        part = texts.select(slice(start, start + _DIGEST_ROWS))
        update(part.n_bytes.tobytes())
        update(part.data.tobytes())


def read_folder(folder: Path, progress: Progress) -> Columns:
    """`<label>/.../<image>`: the topmost folder is the landmark; images directly in the folder have none.

    folder: may be a tar; tars in a folder count as unpacked where they lie. White space in a folder's name
    becomes `_` and the name as it was is kept for people. An image id is the file's name without suffix where all of
    them differ, else the path within the folder. Coordinates are as of `columns_of_names`. Ordered by path.
    Raises LmrError when there is no image, one is there twice, or two folders get one name.
    """
    found = list(walk_images(folder, progress))
    if not found:
        kind = "folder" if folder.is_dir() else "tar"
        raise LmrError(f"{folder}: no pictures in this {kind}; give one that holds <landmark>/<picture>")
    paths = [image.unpacked for image in found]
    if len(set(map(compose, paths))) < len(paths):
        _refuse_doubles(folder, found)
    label_of = _labels(folder, sorted({path.split("/", 1)[0] for path in paths if "/" in path}))
    codes = Codes()
    label = [codes[label_of[path.split("/", 1)[0]]] if "/" in path else -1 for path in paths]
    root = os.path.abspath(folder)
    return Columns(
        ids_of_paths(Texts.of(paths)),
        label,
        codes.names(),
        has_labels=bool(label_of),
        path=Texts.of(os.path.join(root, image.path) for image in found),
        names={label: name for name, label in label_of.items() if label != name},
        own=columns_of_names([path.rpartition("/")[2] for path in paths], str(folder), progress),
    )


def read_single(path: Path) -> Columns:
    """One image, without a landmark."""
    path_of = Texts.of([os.path.abspath(path)])
    return Columns(Texts.of([path.stem]), [-1], [], has_labels=False, path=path_of)


def _labels(folder: Path, names: list[str]) -> dict[str, str]:
    """From folder name to landmark_id."""
    label_of: dict[str, str] = {}
    folder_of: dict[str, str] = {}
    for name in names:
        label = compose(re.sub(r"\s+", "_", name.strip()))
        if label in folder_of:
            raise LmrError(
                f"{folder}: the folders {folder_of[label]!r} and {name!r} are both the landmark {label}; rename one"
            )
        folder_of[label], label_of[name] = name, label
    return label_of


def _refuse_doubles(folder: Path, found: list[ImagePath]) -> None:
    """Names two images that would lie in one place if the tars were unpacked."""
    first: dict[str, str] = {}
    for image in found:
        if (other := first.setdefault(compose(image.unpacked), image.path)) != image.path:
            raise LmrError(f"{folder}: {other} and {image.path} are both {image.unpacked}; keep one of them")
