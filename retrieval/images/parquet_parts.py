"""Parquet tables as files: one, or the part files that Spark writes into a folder, here or at a URL, read in place."""

import bisect
import contextlib
import functools
import itertools
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrieval.arrays import BoolArray, LongArray, read_only
from retrieval.errors import LmrError, UnreadableError
from retrieval.extras import install_hint
from retrieval.files.urls import joined, names_in, open_url, reason_of, remote_url

_SUFFIXES = (".parquet", ".parq", ".pq")
_UNFINISHED = "_temporary"  # the folder in which Spark and Hadoop write what is not committed yet
_SPLIT = re.compile(
    r"([\w.]+)-\d{5}-of-\d{5}(?:-[0-9a-f]+)?\.parquet"
)  # how Hugging Face names files of train and test
_BUFFER_BYTES = 1 << 24  # of a column that is read at once
_REASON_LETTERS = 200


def is_folder(path: Path) -> bool:
    """True for a folder here that is not one of the part files of a Parquet table."""
    return path.is_dir() and not part_files(path)


def part_files(folder: str | Path) -> list[str]:
    """Paths or URLs of the part files of a table, sorted: everything visible in a folder must be one; else none.

    LmrError for a table that is still being written, and for parts of a data set that are not one table.
    """
    url = remote_url(str(folder))
    try:
        names = sorted(os.listdir(folder)) if url is None else names_in(url)
    except OSError:
        return []
    shown = [name for name in names if not name.startswith((".", "_"))]
    if not shown or not all(name.lower().endswith(_SUFFIXES) for name in shown):
        return []
    if _UNFINISHED in names:
        raise LmrError(f"{url or folder} is not finished, it holds {_UNFINISHED}; wait until it is, or remove that")
    splits = sorted({found[1] for name in shown if (found := _SPLIT.fullmatch(name))})
    if len(splits) > 1:
        raise LmrError(
            f"{url or folder} holds the parts {', '.join(splits)} of a data set; give each a folder of its own"
        )
    return [joined(folder, name) for name in shown]


@dataclass(frozen=True, slots=True)
class PartFile:
    """A file of a table as it was when the table was read. n_bytes, changed_ns: its size and time of change."""

    path: str
    n_rows: int
    n_bytes: int
    changed_ns: int


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedImages:
    """Encoded images inside Parquet files, read when asked for.

    parts: the files. column: of bytes, or of {bytes, path} as Hugging Face writes it. rows: (n,) int64 rows of all
    files, one after the other.
    """

    parts: tuple[PartFile, ...]
    column: str
    rows: LongArray
    holder: object = field(default=None, repr=False)  # keeps the file where the images came through a pipe

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", read_only(self.rows))

    def select(self, rows: LongArray | BoolArray) -> "EmbeddedImages":
        """The images of the given rows."""
        return EmbeddedImages(self.parts, self.column, self.rows[rows], self.holder)

    def read(self, row: int) -> bytes:
        """Raises UnreadableError when there is no image, LmrError when the file is not the one it was."""
        part, in_part = self._place(row)
        ends = _ends_of_groups(part)
        group = bisect.bisect_right(ends, in_part)
        if group == len(ends):
            raise LmrError(f"{part.path} has changed: it had a row {in_part + 1}, and has {max(ends, default=0)}")
        values = _group(part, self.column, group)
        if isinstance(values, LmrError):
            raise UnreadableError(f"row {in_part + 1}: {values}")
        begin = ends[group - 1] if group else 0
        value = values[in_part - begin].as_py() if in_part - begin < len(values) else None
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes) or not data:
            only = f", only its path {value['path']!r}" if isinstance(value, dict) and value.get("path") else ""
            raise UnreadableError(f"no picture in row {in_part + 1} of {part.path}{only}")
        return data

    def changed_ns(self, row: int) -> int:
        """Time of change of the file that an image is in, when the table was read."""
        return self._place(row)[0].changed_ns

    def known_as(self, row: int) -> tuple[str, str]:
        """Name of an image, of which there is no other, and what changes when its file does."""
        part, in_part = self._place(row)
        path = part.path if remote_url(part.path) else os.path.abspath(part.path)
        return f"{path}#{in_part}", f"{part.n_bytes} {part.changed_ns}"

    def _place(self, row: int) -> tuple[PartFile, int]:
        """The file that an image is in, and its row there."""
        ends, in_all = _ends_of_parts(self.parts), int(self.rows[row])
        at = bisect.bisect_right(ends, in_all)
        return self.parts[at], in_all - (ends[at - 1] if at else 0)


@contextlib.contextmanager
def told(source: str) -> Iterator[None]:
    """Reading with pyarrow, of which anything that it raises is told as an LmrError of one line."""
    try:
        yield
    except LmrError:
        raise
    except MemoryError as error:
        raise LmrError(f"{source} asks for more memory than there is; it is damaged or no manifest") from error
    except Exception as error:  # on damaged files pyarrow raises errors of its own and of nearly every kind of Python's
        reason = " ".join(str(error).split())[:_REASON_LETTERS] or type(error).__name__
        raise LmrError(f"{source} is not a Parquet file that can be read: {reason}") from error


def open_parquet(path: str, as_dictionaries: Sequence[str] = ()) -> Any:
    """A file for pyarrow, at a URL too, of which what is asked for is read. LmrError where pyarrow is missing.

    as_dictionaries: columns that are left as dictionaries.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise LmrError(f"{path}: Parquet needs pyarrow; {install_hint('parquet')}") from error
    return pyarrow.parquet.ParquetFile(
        path if remote_url(path) is None else open_url(path),
        read_dictionary=list(as_dictionaries),
        buffer_size=_BUFFER_BYTES,
        page_checksum_verification=True,
    )


def longest_in_dictionaries(source: str, names: Collection[str], above: int) -> Iterator[tuple[int, int]]:
    """Bytes of the longest text of each dictionary of these columns, and how many there are in a list at most.

    above: bytes; dictionaries that can hold no text of that length are left out. For a column without lists the
    second number is 1. pyarrow's errors are raised as they are.
    """
    metadata = open_parquet(source).metadata
    columns = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    chosen = [(i, path) for i, path in enumerate(columns) if path.split(".")[0] in names]
    file = None
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for i, path in chosen:
            chunk = group.column(i)
            if not chunk.has_dictionary_page or chunk.total_uncompressed_size <= above:
                continue
            file = file or open_parquet(source, [path for _, path in chosen])
            if longest := _longest_text(file, number, path.split(".")[0]):
                yield longest, chunk.num_values if "." in path else 1


def _longest_text(file: Any, group: int, column: str) -> int:
    """Bytes of the longest text in the dictionary of a column; 0 where it holds no texts."""
    import pyarrow.compute
    import pyarrow.types as types

    batch = next(file.iter_batches(batch_size=1, row_groups=[group], columns=[column]), None)
    values = None if batch is None else batch.column(0)
    while values is not None and (types.is_list(values.type) or types.is_large_list(values.type)):
        values = values.values
    if values is None or not types.is_dictionary(values.type) or not len(values.dictionary):
        return 0
    kind = values.type.value_type
    if not any(is_kind(kind) for is_kind in (types.is_string, types.is_binary, types.is_large_string)):
        return 0
    return int(pyarrow.compute.max(pyarrow.compute.binary_length(values.dictionary)).as_py() or 0)


@functools.lru_cache(maxsize=4)
def _ends_of_parts(parts: tuple[PartFile, ...]) -> list[int]:
    """Row after the last of each file, of all files one after the other."""
    return list(itertools.accumulate(part.n_rows for part in parts))


@functools.lru_cache(maxsize=16)
def _ends_of_groups(part: PartFile) -> list[int]:
    """Row after the last of each row group of a file. LmrError when it cannot be read."""
    with told(part.path):
        metadata = open_parquet(part.path).metadata
        return list(itertools.accumulate(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)))


@functools.lru_cache(maxsize=2)  # a row group can hold hundreds of megabytes
def _group(part: PartFile, column: str, group: int) -> Any:
    """The values of a column in a row group, or the LmrError that says why they cannot be read.

    Raises LmrError where a file system cannot be asked any more: then the images are not to blame.
    """
    try:
        with told(part.path):
            return open_parquet(part.path).read_row_group(group, columns=[column]).column(0)
    except LmrError as error:
        if remote_url(part.path) is not None:
            try:
                open_url(part.path).read(1)
            except (OSError, LmrError) as reason:
                raise LmrError(
                    f"{part.path} cannot be read: {reason_of(reason)}; once it can be, the same command goes on"
                ) from reason
        return error
