"""Files of tables as text: kept where they come through a pipe, unpacked within limits, and decoded."""

import contextlib
import gzip
import io
import os
import re
import stat
import sys
import tempfile
import weakref
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, TextIO

from retrieval.errors import LmrError
from retrieval.files.urls import fetched, remote_url
from retrieval.progress import SILENT, Progress
from retrieval.words import counted

STDIN = "-"
MAX_BYTES = 1 << 33  # that a pipe may hold; the train.csv of four million images is 0.6 GB
_CHUNK_BYTES = 1 << 20

_kept: dict[str, "Place"] | None = None
# How JSON files of these kinds begin.
_COCO = re.compile(rb'\{\s*"(info|licenses|images|annotations|categories)"\s*:\s*(\{|\[\s*[\]{])')
_HIERARCHY = re.compile(rb'\{\s*"(LabelName|Subcategory)"\s*:(?![^\n]*\}\s*\n\s*\{)')
_NEXT_RECORD = re.compile(rb"\}\s*\n\s*\{")
_AS_CSV = "not a table; write its records as a csv file with a header such as path,landmark_id"
_SAID = {
    "coco": f"JSON in the form of COCO, {_AS_CSV}",
    "hierarchy": "JSON, Open Images' class hierarchy; give the csv file of labels as the table",
    "lines": f"JSON Lines, {_AS_CSV}",
    "json": f"JSON, {_AS_CSV}",
}
JsonForm = Literal["", "records", "coco"]
MAX_LINE_BYTES = 1 << 26  # 64 MiB: a landmark's images in train_clean.csv take 0.2 MB
_FREE_INFLATED_BYTES = 1 << 24
_MAX_INFLATION = 40  # a table of ids and labels shrinks to a quarter, one of like paths to a tenth
_BUFFER_BYTES = 1 << 17
_COMPRESSED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip"}
_NOT_TEXT = {b"\x89HDF": "an HDF5 file", b"SQLi": "an SQLite database", b"%PDF": "a PDF"}


class Place:
    """A file to read. It is removed with this object where it holds what came through a pipe."""

    def __init__(self, path: str, is_ours: bool = False) -> None:
        self.path = path
        if is_ours:
            weakref.finalize(self, _remove, path)


@contextlib.contextmanager
def pipes_read_once() -> Iterator[None]:
    """Within this, a pipe that was read is what it was however often it is opened, as by a command."""
    global _kept
    before, _kept = _kept, {}
    try:
        yield
    finally:
        _kept = before


def is_pipe(path: str | Path) -> bool:
    """Tells whether a path is standard input (`-`), a pipe or a terminal. OSError when it is not there."""
    if str(path) == STDIN:
        return True
    mode = os.stat(path).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)


def folder_beside(path: str | Path) -> Path:
    """The folder that a file lies in; for what comes through a pipe or from a URL, the one where the program runs."""
    folder = Path(path).parent
    return Path() if str(folder).startswith(("/dev", "/proc")) or remote_url(str(path)) else folder


def place_of(path: str | Path, progress: Progress = SILENT) -> Place:
    """Place to read a path from: itself, a copy of what is at a URL, or a temporary file of what a pipe held.

    OSError when it cannot be read, LmrError for a device and for more than 8 GiB.
    """
    name = str(path)
    if _kept is not None and name in _kept:
        return _kept[name]
    if url := remote_url(name):
        return Place(fetched(url, progress))
    if not is_pipe(name):
        return Place(name)
    place = _spool(name)
    if _kept is not None:
        _kept[name] = place
    return place


def _spool(name: str) -> Place:
    with _open(name) as pipe:
        handle, path = tempfile.mkstemp(prefix="lmr-pipe-")
        place, n_bytes = Place(path, is_ours=True), 0
        with open(handle, "wb") as file:
            while chunk := pipe.read(_CHUNK_BYTES):
                n_bytes += len(chunk)
                if n_bytes > MAX_BYTES:
                    raise LmrError(f"{name} holds more than {MAX_BYTES >> 30} GiB; give a file instead of a pipe")
                file.write(chunk)
    return place


@contextlib.contextmanager
def _open(name: str) -> Iterator[IO[bytes]]:
    if name == STDIN:
        if sys.stdin is None:
            raise LmrError("-: standard input is closed here; give a file")
        yield sys.stdin.buffer
        return
    with open(name, "rb") as pipe:
        is_device = stat.S_ISCHR(os.fstat(pipe.fileno()).st_mode)
        if is_device and not pipe.isatty() and os.path.realpath(name) != os.devnull:
            raise LmrError(f"{name} is a device; give a file, a pipe or -")
        yield pipe


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


class _WatchedFile(io.FileIO):
    """A file that tells how much is read of it."""

    def __init__(self, path: str, progress: Progress) -> None:
        super().__init__(path)
        self._progress = progress

    def readinto(self, buffer: Any) -> int:
        """Reads into the buffer and tells the progress how many bytes."""
        n = super().readinto(buffer)
        self._progress.add(n)
        return n


class _Limited(io.RawIOBase):
    """Yields what a stream gives, up to a number of bytes in all and to the longest line. LmrError beyond."""

    def __init__(self, stream: IO[bytes], source: str, max_bytes: int | None, *, any_line: bool) -> None:
        self._stream, self._source, self._max_bytes, self._any_line = stream, source, max_bytes, any_line
        self._n_bytes = self._line_bytes = 0

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Reads into the buffer. Raises LmrError beyond the limits."""
        chunk = self._stream.read(len(buffer))
        buffer[: len(chunk)] = chunk
        self._n_bytes += len(chunk)
        if self._max_bytes is not None and self._n_bytes > self._max_bytes:
            raise LmrError(
                f"{self._source} unpacks to more than {_MAX_INFLATION} times its size; "
                "if it really is a table, unpack it and give that"
            )
        end = max(chunk.rfind(b"\n"), chunk.rfind(b"\r"))
        self._line_bytes = len(chunk) - end - 1 + (self._line_bytes if end < 0 else 0)
        if self._line_bytes > MAX_LINE_BYTES and not self._any_line:
            raise LmrError(f"{self._source} has a line of more than {MAX_LINE_BYTES >> 20} MiB; it is no table")
        return len(chunk)


@contextmanager
def open_text(path: str, source: str, progress: Progress = SILENT, *, is_json: bool = False) -> Iterator[TextIO]:
    """The text of a file: UTF-8 or UTF-16, plain, gzip or zip of one file.

    source: what messages call it. progress: is told of the bytes of the file. is_json: it is known to be JSON, whose
    lines may have any length.
    """
    with open_unpacked(path, source, progress, any_line=is_json) as file:
        head = file.peek(1024)[:1024]
        for start, kind in _NOT_TEXT.items():
            if head.startswith(start):
                raise LmrError(f"{source} is {kind}, not a manifest; give a csv file, a Parquet file or a folder")
        if not is_json:
            _refuse_json(head, source)
        encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
        if encoding != "utf-16" and b"\0" in head:
            raise LmrError(f"{source} is not a text file; give a csv file, a Parquet file or a folder")
        with io.TextIOWrapper(file, encoding=encoding, newline="") as text:
            yield text


@contextmanager
def open_unpacked(
    path: str, source: str, progress: Progress = SILENT, *, any_line: bool = False
) -> Iterator[io.BufferedReader]:
    """The file's bytes, unpacked when it is gzip or a zip archive of one file. any_line: lines of any length."""
    with io.BufferedReader(_WatchedFile(path, progress), _BUFFER_BYTES) as file:
        head = file.peek(4)[:4]
        kind = next((kind for start, kind in _COMPRESSED.items() if head.startswith(start)), "")
        max_bytes = _FREE_INFLATED_BYTES + _MAX_INFLATION * os.fstat(file.fileno()).st_size if kind else None
        with _unpacked(file, kind, source) as stream:
            yield io.BufferedReader(_Limited(stream, source, max_bytes, any_line=any_line), _BUFFER_BYTES)


@contextmanager
def _unpacked(file: IO[bytes], kind: str, source: str) -> Iterator[IO[bytes]]:
    if kind == "gzip":
        with gzip.open(file) as unpacked:
            yield unpacked  # type: ignore[misc]  # a GzipFile serves as IO[bytes]
    elif kind == "zip":
        with _zip_archive(file) as archive:
            members = [name for name in archive.namelist() if not name.endswith("/")]
            if len(members) != 1:
                raise LmrError(
                    f"{source} holds {counted(len(members), 'file')}; give a zip archive of one csv, or unpack it"
                )
            with archive.open(members[0]) as unpacked_member:
                yield unpacked_member
    else:
        yield file


def _zip_archive(file: IO[bytes]) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except UnicodeDecodeError as error:  # of a name in it, not of the text that is looked for
        raise zipfile.BadZipFile(f"a name in it is not UTF-8: {error.object[:40]!r}") from error


def json_form(path: str, source: str) -> JsonForm:
    """What a file holds by its first bytes: records of JSON, one object in the form of COCO, or no JSON.

    LmrError for Open Images' class hierarchy.
    """
    with open_unpacked(path, source, any_line=True) as file:
        head = file.peek(1024)[:1024]
    form = _form(head)
    if form == "hierarchy":
        raise LmrError(f"{source} is {_SAID[form]}")
    return "" if form == "" else "coco" if form == "coco" else "records"


def _form(head: bytes) -> str:
    """`coco`, `hierarchy`, `lines`, `json`; '' for another text. head: its first bytes."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not text.startswith((b"{", b"[")):
        return ""
    if _COCO.match(text):
        return "coco"
    if _HIERARCHY.match(text):
        return "hierarchy"
    return "lines" if text.startswith(b"{") and _NEXT_RECORD.search(text) else "json"


def _refuse_json(head: bytes, source: str) -> None:
    """Raises LmrError for JSON where only a table of text is read, with what to write instead."""
    if form := _form(head):
        raise LmrError(f"{source} is {_SAID[form]}")


def place_of_broken_text(path: str, source: str) -> str:
    """`source:line` of the first line that is not UTF-8."""
    with open_unpacked(path, source, any_line=True) as file:
        line = 1
        while content := file.readline(MAX_LINE_BYTES):
            try:
                content.decode("utf-8-sig")
            except UnicodeDecodeError:
                return f"{source}:{line}"
            line += content.endswith(b"\n")
    return source
