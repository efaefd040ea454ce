"""CSV files row by row: fast in batches while all is well, with line numbers once something is not."""

import csv
import gzip
import io
import itertools
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol, TextIO

from retrieval.errors import LmrError

# 512 rows: below the 700 new objects at which Python 3.11 starts to look for garbage among them.
# 8192 took twice as long for 4.1 million rows.
_BATCH_ROWS = 512
_FIELD_CHARACTERS = 2**31 - 1  # csv stops at 131,072, less than the images of one landmark in train_clean.csv
_SHOWN_ROWS = 10
_BUFFER_BYTES = 1 << 17

_COMPRESSED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip"}
_NOT_TEXT = {b"\x89HDF": "an HDF5 file", b"SQLi": "an SQLite database", b"%PDF": "a PDF"}


OnRead = Callable[[int], None]


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
        count = "1 bad row" if self._n == 1 else f"{self._n:,} bad rows"
        lines = [f"{self._source}: {count}; correct or remove, nothing of the file was used", *self._shown]
        if self._n > _SHOWN_ROWS:
            lines.append(f"and {self._n - _SHOWN_ROWS:,} more")
        raise LmrError("\n".join(lines))


class Table(Protocol):
    """Rows of text under a header, wherever they are kept."""

    @property
    def source(self) -> str: ...  # the path as given, for messages

    @property
    def header(self) -> list[str]: ...

    def batches(self) -> Iterator[list[list[str]]]:
        """All rows but the blank ones. Raises csv.Error where the quoting is broken."""
        ...

    def numbered(self, bad: BadRows) -> Iterator[tuple[int, list[str]]]:
        """Each row with the line that it begins on; rows without the header's number of fields go to `bad`."""
        ...


class CsvTable:
    """A CSV file with a header: UTF-8 (also with a byte order mark) or UTF-16, plain, gzip or zip.

    on_read: is called with the number of bytes of the file that were just read for its rows.
    Raises LmrError when the file is missing, empty, not text, or broken.
    """

    def __init__(self, path: str | Path, on_read: OnRead = lambda _: None) -> None:
        self.source = str(path)
        self._on_read = on_read
        with self._reader() as reader:
            try:
                names: list[str] = next((row for row in reader if row), [])
            except csv.Error as error:
                raise LmrError(f"{self.source}:1: the header cannot be read: {error}") from error
        self.header = [name.strip() for name in names]
        if not any(self.header):
            raise LmrError(f"{self.source} is empty; a manifest begins with a header such as id,landmark_id")

    def batches(self) -> Iterator[list[list[str]]]:
        """Lists of at most 512 rows."""
        with self._reader(self._on_read) as reader:
            next(row for row in reader if row)
            while rows := list(itertools.islice(reader, _BATCH_ROWS)):
                yield rows if all(rows) else [row for row in rows if row]

    def numbered(self, bad: BadRows) -> Iterator[tuple[int, list[str]]]:
        """Lines are counted from 1, the header's."""
        with self._reader(self._on_read) as reader:
            is_header = True
            while True:
                line = reader.line_num + 1
                try:
                    row = next(reader, None)
                except csv.Error as error:
                    bad.add(line, _quoting_problem(error))
                    continue
                if row is None:
                    return
                if row and not is_header:
                    if len(row) == len(self.header):
                        yield line, row
                    else:
                        fields = "1 field" if len(row) == 1 else f"{len(row)} fields"
                        bad.add(line, f"{fields}, the header has {len(self.header)}")
                is_header = is_header and not row

    @contextmanager
    def _reader(self, on_read: OnRead = lambda _: None) -> Iterator[Any]:  # csv.reader, whose type has no public name
        csv.field_size_limit(_FIELD_CHARACTERS)
        try:
            with _open_bytes(self.source, on_read) as file, _open_text(file, self.source) as text:
                yield csv.reader(text, strict=True)
        except FileNotFoundError as error:
            raise LmrError(f"{self.source}: there is no such file") from error
        except UnicodeDecodeError as error:
            raise LmrError(
                f"{_place_of_broken_text(self.source)}: not UTF-8 (byte 0x{error.object[error.start]:02x}); "
                "save the file as UTF-8"
            ) from error
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise LmrError(f"{self.source} cannot be read: {reason}") from error


class _WatchedFile(io.FileIO):
    """A file that tells how much is read of it."""

    def __init__(self, source: str, on_read: OnRead) -> None:
        super().__init__(source)
        self._on_read = on_read

    def readinto(self, buffer: Any) -> int:
        n = super().readinto(buffer)
        self._on_read(n)
        return n


@contextmanager
def _open_bytes(source: str, on_read: OnRead = lambda _: None) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked when it is gzip or a zip archive of one file."""
    with io.BufferedReader(_WatchedFile(source, on_read), _BUFFER_BYTES) as file:
        head = file.peek(4)[:4]
        kind = next((kind for start, kind in _COMPRESSED.items() if head.startswith(start)), "")
        if kind == "gzip":
            with gzip.open(file) as unpacked:
                yield unpacked  # type: ignore[misc]  # a GzipFile serves as IO[bytes]
        elif kind == "zip":
            with zipfile.ZipFile(file) as archive:
                members = [name for name in archive.namelist() if not name.endswith("/")]
                if len(members) != 1:
                    raise LmrError(f"{source} holds {len(members)} files; give a zip archive of one csv, or unpack it")
                with archive.open(members[0]) as unpacked_member:
                    yield unpacked_member
        else:
            yield file


def _open_text(file: IO[bytes], source: str) -> TextIO:
    buffered = io.BufferedReader(file)  # type: ignore[type-var]  # for its peek
    head = buffered.peek(1024)[:1024]
    for start, kind in _NOT_TEXT.items():
        if head.startswith(start):
            raise LmrError(f"{source} is {kind}, not a manifest; give a csv file, a Parquet file or a folder")
    encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    if encoding != "utf-16" and b"\0" in head:
        raise LmrError(f"{source} is not a text file; give a csv file, a Parquet file or a folder")
    return io.TextIOWrapper(buffered, encoding=encoding, newline="")


def _place_of_broken_text(source: str) -> str:
    """`source:line` of the first line that is not UTF-8."""
    with _open_bytes(source) as file:
        for line, content in enumerate(file, start=1):
            try:
                content.decode("utf-8-sig")
            except UnicodeDecodeError:
                return f"{source}:{line}"
    return source


def _quoting_problem(error: csv.Error) -> str:
    if "unexpected end of data" in str(error):
        return "a quotation mark is opened and never closed"
    return f"broken quoting ({error})"
