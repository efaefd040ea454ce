"""Parquet files: manifests with the columns of the CSV formats, and images embedded in an `image` column."""

import csv
import itertools
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.data.csv_table import BadRows
from retrieval.data.labels import labels_in, listed
from retrieval.data.pipes import Place, place_of
from retrieval.errors import LmrError
from retrieval.files.urls import remote_url, status_of
from retrieval.images.parquet_parts import (
    EmbeddedImages,
    PartFile,
    longest_in_dictionaries,
    open_parquet,
    part_files,
    told,
)
from retrieval.images.signatures import IMAGE_SUFFIXES
from retrieval.words import counted

_IMAGE_NAMES = frozenset(("image", "img", "picture", "photo", "bytes", "content"))
_BATCH_ROWS = 512  # as in csv_rows: few enough that Python's search for garbage does not set in
_FREE_ROWS = 1 << 20  # beyond these a file has a row for at most so many bits:
_ROWS_A_BYTE = 8
_FREE_TEXT_BYTES = 1 << 28  # beyond these the text of a file is at most so many times as large as the file:
_MAX_INFLATION = 40
_MAX_BATCH_BYTES = 1 << 26
_BATCH_ROWS_OF_LONG = 8  # where a row group's column is longer than a batch may be by far
_LONG_BYTES = 1 << 28
_FOOTERS_AT_ONCE = 16  # of files at a URL each takes some requests
_VALUE_BYTES = 8  # that a value takes at least; lists hold many in a row


class ParquetTable:
    """The text columns of a Parquet file, or of the part files of a folder, here or at a URL.

    Raises LmrError when it cannot be read or pyarrow is missing.
    """

    def __init__(self, path: str | Path, place: Place | None = None) -> None:
        """place: where it is read, if that is known."""
        url = remote_url(str(path))
        self.source = url or str(path)
        with told(self.source):
            self._place = place or (place_of(path) if url is None else Place(url))
            parts = part_files(path) or [self._place.path]
        with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
            looked = list(pool.map(_look, parts))
        self._parts = tuple(part for part, _ in looked)
        self._n_rows = sum(part.n_rows for part in self._parts)
        self._max_text_bytes = _FREE_TEXT_BYTES + _MAX_INFLATION * sum(part.n_bytes for part in self._parts)
        self._schema = looked[0][1]
        self.header: list[str] = list(self._schema.names)
        if twice := [name for name in self.header if self.header.count(name) > 1]:
            raise LmrError(f"{self.source} has two columns {twice[0]!r}; keep one of them")
        for part, schema in looked:
            if schema.names != self._schema.names:
                raise LmrError(
                    f"{part.path} has the columns {', '.join(schema.names)}, {self._parts[0].path} has "
                    f"{', '.join(self.header)}; give the part files of one table"
                )
        with told(self.source):
            self.image_columns = frozenset(name for name in self.header if self._holds_images(name))
            self.vector_columns = frozenset(name for name in self.header if _is_vector(self._schema.field(name).type))
            self.list_columns = frozenset(name for name in self.header if _is_list(self._schema.field(name).type))
        self._label = ""
        self._classes = _classes(self._schema.metadata or {}, self.header)
        for column, names in self._classes.items():
            if names and (most := Counter(names).most_common(1)[0])[1] > 1:
                raise LmrError(f"{self.source}: two classes of {column} are called {most[0]!r}; rename one of them")
        for part, schema in looked[1:]:
            if (
                schema.metadata != self._schema.metadata
                and _classes(schema.metadata or {}, self.header) != self._classes
            ):
                raise LmrError(
                    f"{part.path} names other classes than {self._parts[0].path}; give the part files of one table"
                )

    @property
    def notes(self) -> list[str]:
        """A line for each column of numbers for which the file has names, as Hugging Face's class labels."""
        return [
            f"{self.source}: {column} read as the names of its {counted(len(names), 'class')}"
            for column, names in self._classes.items()
        ]

    @property
    def names(self) -> Mapping[str, str]:
        """None: where the file names its labels, these names are the labels."""
        return {}

    def batches(self) -> Iterator[list[list[str]]]:
        """Rows as text; numbers as they are written, null as blank, lists separated by spaces, images blank.

        Numbers of classes as their names; csv.Error for one that has none.
        """
        for rows in self._batches():
            try:
                yield [self._named(row) for row in rows] if self._classes else rows
            except ValueError as problem:
                raise csv.Error(str(problem)) from problem

    def _named(self, row: list[str]) -> list[str]:
        """A row with the names of classes for their numbers. ValueError for a number without one."""
        return [
            self._class_name(text, name) if name in self._classes else text
            for name, text in zip(self.header, row, strict=True)
        ]

    def _class_name(self, text: str, column: str) -> str:
        """Name of a class by its number, or of several; blank for a blank and for -1, which stands for no class."""
        names = self._classes[column]
        numbers = [number for number in labels_in(text, is_one=False) if number != "-1"]
        if any(not number.isdecimal() or int(number) >= len(names) for number in numbers):
            shown = " ".join(labels_in(text, is_one=False))
            raise ValueError(f"{column} is {shown}, and the file names {counted(len(names), 'class')}, from 0 on")
        found = [names[int(number)] for number in numbers]
        return listed(found) if column == self._label else " ".join(found)

    def _batches(self) -> Iterator[list[list[str]]]:
        names = [name for name in self.header if name not in self.image_columns]
        if not names:
            yield from ([[""] * len(self.header)] * n for n in _counts(self._n_rows))
            return
        n_read = n_bytes = 0
        for part in self._parts:
            with told(part.path):
                file = open_parquet(part.path)
                for batch in file.iter_batches(batch_size=self._batch_rows(file, part.path, names), columns=names):
                    values = [_decoded(column) for column in batch.columns]
                    n_bytes += sum(column.nbytes for column in values)
                    self._require_text(n_bytes)
                    try:
                        given = {
                            name: self._label_texts(column) if name == self._label else _texts(column)
                            for name, column in zip(batch.schema.names, values, strict=True)
                        }
                    except UnicodeDecodeError as error:
                        raise LmrError(f"{part.path}: a column of text holds bytes that are not UTF-8") from error
                    columns = [given.get(name, [""] * batch.num_rows) for name in self.header]
                    n_read += batch.num_rows
                    yield list(map(list, zip(*columns, strict=True)))
        if n_read != self._n_rows:
            raise LmrError(
                f"{self.source} is damaged: it says that it has {counted(self._n_rows, 'row')}, and holds {n_read}"
            )

    def set_label(self, column: str) -> None:
        """Lists and classes in this column are as of `listed`. Raises LmrError for lists of what is no label."""
        held = self._schema.field(column).type
        if _is_list(held) and (_is_nested(held.value_type) or _is_vector(held)):
            raise LmrError(f"{self.source}: {column} holds lists of {held.value_type}, not labels")
        self._label = column

    def _label_texts(self, column: Any) -> list[str]:
        if not _is_list(column.type):
            return _texts(column)
        return ["" if value is None else listed(map(_as_text, value)) for value in column.to_pylist()]

    def numbered(self, bad: BadRows) -> Iterator[tuple[int, list[str]]]:
        """Rows counted from 1; none can have another number of fields."""
        for number, row in enumerate(itertools.chain.from_iterable(self._batches()), start=1):
            try:
                yield number, self._named(row)
            except ValueError as problem:
                bad.add(number, str(problem))

    def images(self, column: str) -> EmbeddedImages:
        """The embedded images of all rows."""
        rows = np.arange(self._n_rows, dtype=np.int64)
        return EmbeddedImages(self._parts, column, rows, self._place)

    def _batch_rows(self, file: Any, path: str, names: list[str]) -> int:
        """Number of rows that are read at once: few where one value, repeated, may be huge.

        Raises LmrError where the file says that the columns unpack to more than a table does.
        """
        metadata, n_bytes, n_values, largest, longest_column = file.metadata, 0, 0, 0, 0
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            for chunk in map(group.column, range(group.num_columns)):
                if chunk.path_in_schema.split(".")[0] in names:
                    n_bytes += chunk.total_uncompressed_size
                    n_values = max(n_values, chunk.num_values)
                    longest_column = max(longest_column, chunk.total_uncompressed_size)
                    if chunk.total_uncompressed_size > _MAX_INFLATION * chunk.total_compressed_size:
                        largest = max(largest, chunk.total_uncompressed_size)
        self._require_text(max(n_bytes, n_values * _VALUE_BYTES))
        for longest, n_in_lists in longest_in_dictionaries(path, names, _MAX_BATCH_BYTES // _BATCH_ROWS):
            self._require_text(longest * n_in_lists)
            largest = max(largest, longest)
        most = _BATCH_ROWS_OF_LONG if longest_column > _LONG_BYTES else _BATCH_ROWS
        return min(most, max(1, _MAX_BATCH_BYTES // max(1, largest)))

    def _require_text(self, n_bytes: int) -> None:
        if n_bytes > self._max_text_bytes:
            raise LmrError(
                f"{self.source} unpacks to more than {self._max_text_bytes / 1e6:,.0f} MB of text; "
                "if it really is a table, give it as a csv file"
            )

    def _holds_images(self, column: str) -> bool:
        """Tells whether it is of bytes that are no text. Some programs write text without saying that it is text."""
        column_type = self._schema.field(column).type
        if not _is_binary(column_type):
            return False
        import pyarrow.types as types

        values = self._first_values(column)
        if types.is_struct(column_type) or not values or not all(map(_is_text, values)):
            return True
        suffixes = {os.path.splitext(value.decode())[1].lower() for value in values}
        return column.lower() in _IMAGE_NAMES and not suffixes <= IMAGE_SUFFIXES

    def _first_values(self, column: str) -> list[bytes]:
        """Values of the first rows, those that are there."""
        path = next((part.path for part in self._parts if part.n_rows), self._parts[0].path)
        file = open_parquet(path)
        first_group = range(min(1, file.metadata.num_row_groups))
        batch = next(file.iter_batches(batch_size=8, row_groups=first_group, columns=[column]), None)
        return [] if batch is None else [value for value in batch.column(0).to_pylist() if value]


def _classes(metadata: Mapping[bytes, bytes], header: Sequence[str]) -> dict[str, list[str]]:
    """Names of the classes by column, as the data sets library of Hugging Face writes them beside its numbers."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        found = {name: _class_names(features[name]) for name in header if name in features}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}  # no description, or one of another form: then numbers are numbers
    return {name: names for name, names in found.items() if names}


def _class_names(feature: Any) -> list[str]:
    if isinstance(feature, list):  # how older releases write a list of something
        return _class_names(feature[0]) if len(feature) == 1 else []
    if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
        return _class_names(feature["feature"]) if isinstance(feature, dict) and "feature" in feature else []
    names = feature.get("names")
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []


def _look(path: str) -> tuple[PartFile, Any]:
    """A file, and its schema by what it says of itself."""
    with told(path):
        file, status = open_parquet(path), status_of(path)
        _require_possible(path, file.metadata.num_rows, status.st_size)
        part = PartFile(path, file.metadata.num_rows, status.st_size, status.st_mtime_ns)
        return part, file.schema_arrow


def _require_possible(source: str, n_rows: int, n_bytes: int) -> None:
    """Raises LmrError where a file says that it has more rows than can be in it."""
    if not 0 <= n_rows <= _FREE_ROWS + _ROWS_A_BYTE * n_bytes:
        raise LmrError(
            f"{source} is damaged: it says that it has {counted(n_rows, 'row')}, in {counted(n_bytes, 'byte')}"
        )


def _is_binary(column_type: Any) -> bool:
    import pyarrow.types as types

    if types.is_struct(column_type):
        return any(_is_binary(column_type.field(i).type) for i in range(column_type.num_fields))
    return bool(types.is_binary(column_type) or types.is_large_binary(column_type))


def _is_vector(column_type: Any) -> bool:
    """Tells whether it is of lists of floating-point numbers, as descriptors are."""
    import pyarrow.types as types

    return _is_list(column_type) and (types.is_floating(column_type.value_type) or _is_vector(column_type.value_type))


def _is_list(column_type: Any) -> bool:
    import pyarrow.types as types

    kinds = ("is_list", "is_large_list", "is_fixed_size_list", "is_list_view", "is_large_list_view")  # of some versions
    return any(getattr(types, kind)(column_type) for kind in kinds if hasattr(types, kind))


def _is_nested(column_type: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_nested(column_type))


def _is_text(value: bytes) -> bool:
    try:
        return value.decode().isprintable()
    except UnicodeDecodeError:
        return False


def _counts(n_rows: int) -> Iterator[int]:
    yield from (min(_BATCH_ROWS, n_rows - done) for done in range(0, n_rows, _BATCH_ROWS))


def _decoded(column: Any) -> Any:
    """Values one by one, where the file keeps a dictionary of them."""
    import pyarrow.types

    return column.dictionary_decode() if pyarrow.types.is_dictionary(column.type) else column


def _texts(column: Any) -> list[str]:
    import pyarrow

    if column.type in (pyarrow.string(), pyarrow.large_string()) or pyarrow.types.is_integer(column.type):
        texts: list[str] = column.cast("string").fill_null("").to_numpy(zero_copy_only=False).tolist()
        return texts
    if pyarrow.types.is_temporal(column.type):  # Python's own times hold no nanoseconds
        return [value or "" for value in column.cast("string").to_pylist()]
    return list(map(_as_text, column.to_pylist()))


def _as_text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, float) and math.isnan(value):
        return ""
    if isinstance(value, float) and value.is_integer():  # what pandas makes of whole numbers beside a null
        return str(int(value))
    return " ".join(map(_as_text, value)) if isinstance(value, list) else str(value)
