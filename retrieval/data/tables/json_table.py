"""Tables of JSON: records one a line or in an array, and the lists of COCO, as iNaturalist has them."""

from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from retrieval.arrays import BoolArray
from retrieval.data.csv_table import BadRows, NoBadRows, file_errors, told_text
from retrieval.data.pipes import MAX_LINE_BYTES, Place, place_of
from retrieval.data.tables.json_text import BrokenJsonError, JsonText, cells, decode
from retrieval.errors import LmrError
from retrieval.files.urls import text_of
from retrieval.progress import SILENT, Progress
from retrieval.texts import Texts, TextsWriter, equal_pairs

BATCH_ROWS = 512  # as of CSV files
MOST_COLUMNS = 1000
_FIRST_LINE = 1 << 16  # characters within which a file of a record a line has its first one
_IMAGES, _ANNOTATIONS, _CATEGORIES = "images", "annotations", "categories"
_NOT_LABELS = frozenset(("license", "rights_holder", "location_uncertainty", "coco_url", "flickr_url"))


class JsonTable:
    """Records of one JSON file, whose keys are the columns; those of an object within are `outer.inner`.

    Bad ones are named by their line, or by their number where two begin on one line. Raises LmrError when the file is
    missing, holds no record, or has too many columns.
    """

    image_columns: frozenset[str] = frozenset()
    vector_columns: frozenset[str] = frozenset()

    def __init__(self, path: str | Path, progress: Progress = SILENT, place: Place | None = None) -> None:
        self.source, self._progress = text_of(path), progress
        with file_errors(self.source):
            self._place = place or place_of(path, progress)
        self.header: list[str] = []
        self.notes: list[str] = []
        self.names: Mapping[str, str] = {}
        self._by_line, self._lists, self._label_column = True, set[str](), ""
        self._look()
        if not self.header:
            bad = BadRows(self.source)
            for _ in self.numbered(bad):
                pass
            bad.refuse_any()
            raise LmrError(f"{self.source} holds no records; a manifest has one for each picture")

    @property
    def list_columns(self) -> frozenset[str]:
        """Names of the columns in which a record has a list."""
        return frozenset(self._lists)

    def set_label(self, column: str) -> None:
        """Lists in this column are cells as of `listed`."""
        self._label_column = column

    def batches(self) -> Iterator[list[list[str]]]:
        """Lists of at most 512 rows."""
        bad, rows = NoBadRows(self.source), []
        for _, row in self.numbered(bad):
            rows.append(row)
            if len(rows) == BATCH_ROWS:
                yield rows
                rows = []
        if rows:
            yield rows

    def numbered(self, bad: BadRows) -> Iterator[tuple[int, list[str]]]:
        """Each record by its line or number."""
        with self._text(self._progress) as text:
            for number, (line, record) in enumerate(self._records(text), start=1):
                try:
                    found = _cells(record, self._lists, self._label_column)
                except ValueError as problem:
                    bad.add(line if self._by_line else number, str(problem))
                    continue
                yield line if self._by_line else number, [found.get(name, "") for name in self.header]

    def _look(self) -> None:
        """Finds the columns, and whether each record begins on a line of its own."""
        names: dict[str, None] = {}
        last = 0
        with self._text() as text:
            for line, record in self._records(text):
                self._by_line &= line > last
                last = line
                try:
                    if not (found := _cells(record, self._lists, self._label_column)).keys() <= names.keys():
                        names.update(dict.fromkeys(found))
                except ValueError:
                    continue  # told with the others, by `numbered`
                if len(names) > MOST_COLUMNS:
                    raise LmrError(f"{self.source}: its records have more than {MOST_COLUMNS:,} keys; it is no table")
        self.header = list(names)

    def _records(self, text: TextIO) -> Iterator[tuple[int, Any]]:
        """The line and value of each record, or the BrokenJsonError that says what is wrong with one."""
        first = text.readline(_FIRST_LINE)
        n_blank = 0
        while first and not first.strip():
            n_blank += 1
            first = text.readline(_FIRST_LINE)
        if first.endswith("\n") and _is_record(first):
            yield from _lines(text, first, n_blank + 1)
            return
        given = JsonText(text, first, n_blank + 1)
        try:
            if given.next_letter() == "[":
                yield from given.each_item()
            while given.next_letter():
                yield given.line, given.value()
        except BrokenJsonError as error:
            yield error.line, error

    @contextmanager
    def _text(self, progress: Progress = SILENT) -> Iterator[TextIO]:
        with told_text(self._place, self.source, progress, is_json=True) as text:
            yield text


def _cells(record: Any, lists: set[str], label: str = "") -> dict[str, str]:
    """As `cells`, of a record that may be broken."""
    if isinstance(record, BrokenJsonError):
        raise ValueError(str(record))
    return cells(record, lists, label)


def _lines(text: TextIO, first: str, number: int) -> Iterator[tuple[int, Any]]:
    """A record a line: after a broken one it goes on."""
    line = first
    while line:
        if line.strip():
            try:
                if len(line) >= MAX_LINE_BYTES:
                    raise BrokenJsonError(number, f"a line of more than {MAX_LINE_BYTES >> 20} MiB; this is no table")
                yield number, decode(line)
            except BrokenJsonError as error:
                yield number, error
        number += line.endswith("\n")
        line = text.readline(MAX_LINE_BYTES)


def _is_record(line: str) -> bool:
    try:
        return not isinstance(decode(line), list)
    except BrokenJsonError:
        return False


class CocoTable(JsonTable):
    """The images of a file in the form of COCO, each with the category of its annotations.

    The column is `category_id` where no image has several categories, else `landmarks`. Raises LmrError for lists that
    do not go together, with the lines or numbers of what is wrong.
    """

    def _look(self) -> None:
        self._bad = BadRows(self.source)
        self._categories: dict[str, str] = {}
        self._known: dict[str, int] = {}
        self._label = array("i")
        self._more: dict[int, dict[int, None]] = {}
        images, shown = _Ids(), _Ids()
        names: dict[str, None] = {}
        has_images = False
        for key, number, record in self._entries():
            try:
                found = _cells(record, self._lists if key == _IMAGES else set())
                if key == _IMAGES:
                    if not found.keys() <= names.keys():
                        names.update(dict.fromkeys(found))
                    images.add(found.get("id", ""), 0, number)
                elif key == _CATEGORIES and found.get("id"):
                    name = found.get("name", "")
                    if self._categories.setdefault(found["id"], name) != name:
                        raise ValueError(f"id {found['id']} is there with another name")
                elif key == _ANNOTATIONS:
                    shown.add(_needed(found, "image_id"), self._code(_needed(found, "category_id")), number)
            except ValueError as problem:
                self._bad.add(number, f"{key}: {problem}")
            has_images = has_images or key == _IMAGES
        self._bad.refuse_any()
        if not has_images:
            raise LmrError(f"{self.source} is one JSON object, and has no list {_IMAGES} as COCO does; give records")
        self._join(images, shown)
        self._bad.refuse_any()
        self._set_header(list(names))

    def _set_header(self, names: list[str]) -> None:
        self.names = {label: name for label, name in self._categories.items() if name}
        self._labels = [*self._known, ""]
        if not self._known:
            self._columns = [name for name in names if name not in _NOT_LABELS]
            self.header = self._columns
            return
        self._columns = names
        self.header = [*names, "landmarks", "Usage"] if self._more else [*names, "category_id"]

    def numbered(self, bad: BadRows) -> Iterator[tuple[int, list[str]]]:
        """Each image by its line or number."""
        row = -1
        for key, number, record in self._entries(self._progress):
            if key != _IMAGES:
                continue
            row += 1
            found = _cells(record, self._lists, self._label_column)
            yield number, [*(found.get(name, "") for name in self._columns), *self._label_cells(row)]

    def _label_cells(self, row: int) -> list[str]:
        if not self._known:
            return []
        codes = [self._label[row], *self._more.get(row, ())]
        if not self._more:
            return [self._labels[codes[0]]]
        return [" ".join("_".join(self._labels[code].split()) for code in codes), "Public"]

    def _entries(self, progress: Progress = SILENT) -> Iterator[tuple[str, int, Any]]:
        """Name of the list, line or number in it, and value of each entry."""
        with self._text(progress) as text:
            given, last = JsonText(text), 0
            try:
                for key in given.each_key():
                    if key not in (_IMAGES, _ANNOTATIONS, _CATEGORIES) or given.next_letter() != "[":
                        given.value()
                        continue
                    for number, (line, record) in enumerate(given.each_item(), start=1):
                        self._by_line &= line > last
                        last = line
                        yield key, line if self._by_line else number, record
            except BrokenJsonError as error:
                raise LmrError(f"{self.source}:{error.line}: {error}; nothing of the file was used") from error

    def _code(self, category: str) -> int:
        return self._known.setdefault(category, len(self._known))

    def _join(self, images: "_Ids", shown: "_Ids") -> None:
        """Gives each image the categories of its annotations, in their order."""
        ids, asked = images.texts(), shown.texts()
        self._label = array("i", [-1]) * len(ids)
        is_known: BoolArray = np.zeros(len(asked), dtype=np.bool_)
        for pairs in equal_pairs(ids, asked):
            is_known[pairs[:, 1]] = True
            for row, annotation in pairs.tolist():
                code, first = shown.codes[annotation], self._label[row]
                if first < 0:
                    self._label[row] = code
                elif code != first:
                    self._more.setdefault(row, {})[code] = None
        for annotation in np.flatnonzero(~is_known).tolist():
            self._bad.add(shown.numbers[annotation], f"{_ANNOTATIONS}: image_id {asked[annotation]} is no image of it")
        if self._categories and (strange := self._known.keys() - self._categories.keys()):
            labels = list(self._known)
            for annotation, code in enumerate(shown.codes):
                if (category := labels[code]) in strange:
                    problem = f"{_ANNOTATIONS}: category_id {category} is no category of it"
                    self._bad.add(shown.numbers[annotation], problem)


class _Ids:
    """Ids of a list, with a code and a number for each."""

    def __init__(self) -> None:
        self._texts, self._block = TextsWriter(), list[str]()
        self.codes, self.numbers = array("i"), array("q")

    def add(self, name: str, code: int, number: int) -> None:
        """One more."""
        self._block.append(name)
        self.codes.append(code)
        self.numbers.append(number)
        if len(self._block) == BATCH_ROWS:
            self._flush()

    def texts(self) -> Texts:
        """All of them."""
        self._flush()
        return self._texts.texts()

    def _flush(self) -> None:
        self._texts.add(self._block)
        self._block = []


def _needed(found: Mapping[str, str], key: str) -> str:
    if text := found.get(key, ""):
        return text
    raise ValueError(f"{key} is missing")
