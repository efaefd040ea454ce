"""CSV files row by row: fast in batches while all is well, with line numbers once something is not."""

import csv
import itertools
import lzma
import re
import threading
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

from retrieval.data.pipes import MAX_LINE_BYTES, Place, open_text, place_of, place_of_broken_text
from retrieval.errors import LmrError
from retrieval.files.urls import text_of
from retrieval.progress import SILENT, Progress
from retrieval.words import counted

# 512 rows: below the 700 new objects at which Python 3.11 starts to look for garbage among them.
# 8192 took twice as long for 4.1 million rows.
_BATCH_ROWS = 512
_SHOWN_ROWS = 10
_NAMES = {";": "semicolons", "\t": "tabs", "|": "bars"}
_TOLD = re.compile(r"sep=(.?)")  # what Excel understands in a first line, and writes there
_MAX_LINES = 64  # of a header, whose names may hold line breaks
_MAX_LETTERS = 1 << 20
_guard = threading.Lock()
_limits: list[int] = []  # of csv, as each table that is open found it


class BadRows:
    """The bad rows of one file, gathered into one message."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._shown: list[str] = []
        self._n = 0

    def add(self, line: int, problem: str) -> None:
        """line: where the row begins, from 1."""
        self._n += 1
        if self._n <= _SHOWN_ROWS:
            self._shown.append(f"{self._source}:{line}: {problem}")

    def refuse_any(self) -> None:
        """Raises LmrError that names the first bad rows and counts the others; nothing if there are none."""
        if not self._n:
            return
        count = counted(self._n, "bad row")
        lines = [f"{self._source}: {count}; correct or remove, nothing of the file was used", *self._shown]
        if self._n > _SHOWN_ROWS:
            lines.append(f"and {self._n - _SHOWN_ROWS:,} more")
        raise LmrError(*lines)


class NoBadRows(BadRows):
    """Rows of which none may be bad: csv.Error at the first one."""

    def add(self, line: int, problem: str) -> None:
        """Raises csv.Error."""
        raise csv.Error(f"{line}: {problem}")


class Table(Protocol):
    """Rows of text under a header, wherever they are kept."""

    @property
    def source(self) -> str:
        """Path as given, for messages."""

    @property
    def header(self) -> list[str]:
        """Names of the columns."""

    @property
    def image_columns(self) -> frozenset[str]:
        """Names of the columns that hold encoded images."""

    @property
    def vector_columns(self) -> frozenset[str]:
        """Names of the columns that hold lists of numbers, which nobody reads."""

    @property
    def list_columns(self) -> frozenset[str]:
        """Names of the columns that hold lists, in some rows or all."""

    def set_label(self, column: str) -> None:
        """From now on lists and names of classes in this column are as of `listed`; others are separated by spaces."""

    @property
    def notes(self) -> list[str]:
        """Lines on how the table is read, where that is not as usual."""

    @property
    def names(self) -> Mapping[str, str]:
        """What the file itself says that people call its labels."""

    def batches(self) -> Iterator[list[list[str]]]:
        """All rows but the blank ones. Raises csv.Error where one cannot be read."""

    def numbered(self, bad: BadRows) -> Iterator[tuple[int, list[str]]]:
        """Each row with the line that it begins on; rows without the header's number of fields go to `bad`."""
        ...


class CsvTable:
    """A CSV file with a header: UTF-8 (also with a byte order mark) or UTF-16, plain, gzip or zip.

    Its columns are separated by commas, or by what its header shows (`read_head`).

    path: may be a pipe, or - for standard input. progress: is told of the bytes of the file that were
    read for its rows. place: where it is read, if that is known.
    Raises LmrError when the file is missing, empty, not text, or broken.
    """

    def __init__(self, path: str | Path, progress: Progress = SILENT, place: Place | None = None) -> None:
        self.source = text_of(path)
        self._progress = progress
        with file_errors(self.source):
            self._place = place or place_of(path, progress)
        with self._text() as text:
            try:
                self._head = read_head(text)
            except csv.Error as error:
                raise LmrError(f"{self.source}:1: the header cannot be read: {error}") from error
        self.notes = self._head.notes(self.source)
        self.header = [name.strip() for name in self._head.names]
        if not any(self.header):
            raise LmrError(f"{self.source} is empty; a manifest begins with a header such as id,landmark_id")

    @property
    def image_columns(self) -> frozenset[str]:
        """None: a CSV file holds text."""
        return frozenset()

    @property
    def vector_columns(self) -> frozenset[str]:
        """None."""
        return frozenset()

    @property
    def list_columns(self) -> frozenset[str]:
        """None."""
        return frozenset()

    def set_label(self, column: str) -> None:
        """Nothing: a CSV file holds no lists."""

    @property
    def names(self) -> Mapping[str, str]:
        """None: they are in files of their own."""
        return {}

    def batches(self) -> Iterator[list[list[str]]]:
        """Lists of at most 512 rows."""
        with self._reader(self._progress) as reader:
            rows_read = filter(None, reader)
            for _ in range(self._head.n_rows):
                next(rows_read)
            while rows := list(itertools.islice(reader, _BATCH_ROWS)):
                yield rows if all(rows) else [row for row in rows if row]

    def numbered(self, bad: BadRows) -> Iterator[tuple[int, list[str]]]:
        """Lines are counted from 1, the header's."""
        with self._reader(self._progress) as reader:
            n_before = self._head.n_rows
            while True:
                line = reader.line_num + 1
                try:
                    row = next(reader, None)
                except csv.Error as error:
                    bad.add(line, _quoting_problem(error))
                    continue
                if row is None:
                    return
                if row and not n_before:
                    if len(row) == len(self.header):
                        yield line, row
                    else:
                        fields = counted(len(row), "field")
                        bad.add(line, f"{fields}, the header has {len(self.header)}")
                n_before -= bool(row and n_before)

    @contextmanager
    def _reader(self, progress: Progress) -> Iterator[Any]:  # csv.reader, whose type has no public name
        with self._text(progress) as text:
            yield csv.reader(text, delimiter=self._head.delimiter, strict=True)

    @contextmanager
    def _text(self, progress: Progress = SILENT) -> Iterator[TextIO]:
        with _long_fields(), told_text(self._place, self.source, progress) as text:
            yield text


@contextmanager
def told_text(place: Place, source: str, progress: Progress = SILENT, *, is_json: bool = False) -> Iterator[TextIO]:
    """As `open_text`; whatever is wrong with the file, also with its letters, becomes an LmrError."""
    with file_errors(source):
        try:
            with open_text(place.path, source, progress, is_json=is_json) as text:
                yield text
        except UnicodeDecodeError as error:
            raise LmrError(
                f"{place_of_broken_text(place.path, source)}: not UTF-8 "
                f"(byte 0x{error.object[error.start]:02x}); save the file as UTF-8"
            ) from error


@contextmanager
def _long_fields() -> Iterator[None]:
    """Lets csv read long fields while any table is open; this limit of its own is the whole process's.

    It stops at 131,072 characters, less than the images of one landmark in train_clean.csv.
    """
    with _guard:
        _limits.append(csv.field_size_limit(MAX_LINE_BYTES))
    try:
        yield
    finally:
        with _guard:
            before = _limits[0]
            _limits.pop()
            if not _limits:
                csv.field_size_limit(before)


@contextmanager
def file_errors(source: str) -> Iterator[None]:
    """Makes an LmrError of what goes wrong with a file."""
    try:
        yield
    except FileNotFoundError as error:
        raise LmrError(f"{source}: there is no such file") from error
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise LmrError(f"{source} cannot be read: {reason}") from error


def _quoting_problem(error: csv.Error) -> str:
    if "unexpected end of data" in str(error):
        return "a quotation mark is opened and never closed"
    return f"broken quoting ({error})"


@dataclass(frozen=True, slots=True)
class Head:
    """Beginning of a table. n_rows: that stand before its data, blank ones not counted. names: of its columns."""

    delimiter: str
    n_rows: int
    names: list[str]

    def notes(self, source: str) -> list[str]:
        """A line where the columns are not separated by commas."""
        return [f"{source}: columns separated by {_NAMES[self.delimiter]}"] if self.delimiter in _NAMES else []


def read_head(text: Iterable[str]) -> Head:
    """The head of a table of these lines; without names where it is empty.

    The header is separated by commas unless it holds two columns by one other character and no two by commas. Raises
    csv.Error where it can be read in no way.
    """
    lines = _first_lines(text)
    first = _tried_row(lines, ",")
    told = _TOLD.fullmatch("".join(first[:1])) if len(first) < 3 and not any(first[1:]) else None
    if told is not None and (delimiter := told[1] or ",") in (",", *_NAMES):
        return Head(delimiter, 2, _first_row(lines, delimiter, 1))
    found = [Head(other, 1, names) for other in _NAMES if len(names := _tried_row(lines, other)) > 1]
    if len(found) == 1 and len(_tried_row(lines, ",")) < 2:
        return found[0]
    return Head(",", 1, _first_row(lines, ",", 0))


def _first_lines(text: Iterable[str]) -> list[str]:
    """As many as a header may have, from the first that is not blank."""
    lines: list[str] = []
    n_letters = 0
    for line in itertools.islice(itertools.dropwhile(lambda line: not line.strip("\r\n"), text), _MAX_LINES):
        lines.append(line)
        n_letters += len(line)
        if n_letters > _MAX_LETTERS:
            break
    return lines


def _first_row(lines: Sequence[str], delimiter: str, number: int) -> list[str]:
    """The row of that number among those that are not blank, from 0; empty when there is none."""
    rows = (row for row in csv.reader(lines, delimiter=delimiter, strict=True) if row)
    return next((row for at, row in enumerate(rows) if at == number), [])


def _tried_row(lines: Sequence[str], delimiter: str) -> list[str]:
    try:
        return _first_row(lines, delimiter, 0)
    except csv.Error:
        return []
