"""The members of a tar by their headers alone: names, places and sizes, without reading what is in them."""

import io
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from retrieval.errors import LmrError
from retrieval.files.urls import open_url, remote_url, status_of
from retrieval.images.candidates import has_image_suffix
from retrieval.images.signatures import is_hidden, is_text_name

BLOCK_BYTES = 512  # POSIX.1-1988, ustar: headers and contents fill whole blocks
_MAGIC_AT = 257
_LONGEST_HEADER_BYTES = 1 << 20  # of a long name or pax records; longer ones are made to fill the memory
_TELL_EVERY = 1000  # members
_END = bytes(BLOCK_BYTES)  # what stands where headers end
# Names about which there is nothing to think: of visible folders and images, in letters, digits and a few signs.
_PLAIN_NAME = re.compile(r"(?:\w[\w .+-]*/)*\w[\w .+-]*\.(?:jpg|jpeg|png|webp)", re.ASCII | re.IGNORECASE)
_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ\0": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
}
_FIELDS = {"path", "size", "GNU.sparse.name", "GNU.sparse.size"}  # of pax, that change where and what a member is


class RefusedTarError(Exception):
    """A file whose members cannot be read in place; the message is the reason and what to do."""


@dataclass(frozen=True, slots=True)
class Member:
    """An image in a tar. name: its path in it, with `/`. offset, size: of its content, bytes."""

    name: str
    offset: int
    size: int


class TarScan:
    """One pass over the headers of a tar, which yields its images as they come, a repeated name again.

    Images are told by their suffix, as `takes` tells what is yielded; hidden files are left out. After the pass:
    n_other: files that are not images; n_unsafe: links and devices, and names that are absolute, lead out through
    `..`, or are no UTF-8 text; problem: where the tar is damaged or cut short, '' = nowhere. on_bytes: is given the
    bytes gone through since the last call. Raises RefusedTarError for what is no tar, compressed, or holds a sparse
    image; OSError.
    """

    def __init__(self, path: str | Path, on_bytes: Callable[[int], None] = lambda _: None) -> None:
        self._path, self._on_bytes = str(path), on_bytes
        self.takes: Callable[[str], bool] = has_image_suffix
        self.n_other, self.n_unsafe, self.problem = 0, 0, ""

    def __iter__(self) -> Iterator[Member]:
        with _open(self._path) as file:
            n_bytes = status_of(self._path).st_size
            if n_bytes == 0:
                self.problem = "is empty"
                return
            _require_tar(file.read(BLOCK_BYTES))
            told, headers = 0, _Headers(file)
            for i, (name, offset, size, kind) in enumerate(headers):
                if i % _TELL_EVERY == 0:
                    self._on_bytes(offset - told)
                    told = offset
                if kind == "file" and _PLAIN_NAME.fullmatch(name):
                    yield Member(name, offset, size)
                elif self._is_image(name, kind):
                    yield Member(_normal(name), offset, size)
                if offset + size > n_bytes:
                    self.problem = f"is cut short in {name!r}"
                    break
            else:
                self.problem = headers.problem
            self._on_bytes(n_bytes - told)

    def _is_image(self, name: str, kind: str) -> bool:
        if kind == "folder":
            return False
        parts = name.split("/")
        if kind == "other" or name.startswith("/") or ".." in parts or not (is_text_name(name) and _normal(name)):
            self.n_unsafe += 1
            return False
        if any(is_hidden(part) and part != "." for part in parts):
            return False
        if not self.takes(parts[-1]):
            self.n_other += 1
            return False
        if kind == "sparse":
            reason = f"holds the sparse file {name}, which cannot be read in place; pack it without -S"
            raise RefusedTarError(reason)
        return True


def plain_files(path: str | Path, on_bytes: Callable[[int], None] = lambda _: None) -> Iterator[Member]:
    """The files in a tar, of whatever kind, as far as it is whole; not hidden ones, nor those whose names lead out.

    on_bytes: as of `TarScan`. RefusedTarError for what is no tar or compressed; OSError.
    """
    scan = TarScan(path, on_bytes)
    scan.takes = is_text_name
    yield from scan


def _open(path: str) -> BinaryIO:
    url = remote_url(path)
    return open(path, "rb", buffering=0) if url is None else open_url(url)


def is_tar(path: str | Path) -> bool:
    """True for a file that is meant to be a tar: by its suffix, or by the mark in its first header.

    Raises LmrError for a compressed one by its name.
    """
    text = str(path)
    if not os.path.isfile(text):
        return False
    if text.lower().endswith(".tar"):
        return True
    try:
        with open(text, "rb", buffering=0) as file:
            start = file.read(BLOCK_BYTES)
    except OSError:
        return False
    if compressed := _compression(start):
        if text.lower().endswith((".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")):
            raise LmrError(f"{path} {_unpack(*compressed)}")
        return False
    return start[_MAGIC_AT : _MAGIC_AT + 5] == b"ustar"


class _Headers:
    """(name, offset, size, kind) of each member; kind: `file`, `sparse`, `folder` or `other`.

    The common headers are read here; those with long names, pax records and whatever else is in one way or another
    special are left to tarfile, which takes four times as long for each.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.problem = ""
        self._file = file
        self._tar = tarfile.TarFile(fileobj=io.BytesIO(bytes(BLOCK_BYTES)))
        self._tar.fileobj = _Bounded(file)  # type: ignore[assignment]

    def __iter__(self) -> Iterator[tuple[str, int, int, str]]:
        at = 0
        while True:
            self._file.seek(at)
            block = self._file.read(BLOCK_BYTES)
            if len(block) < BLOCK_BYTES:
                self.problem = f"is cut short after {at:,} bytes"
                return
            if block == _END:
                return
            has_fields = self._tar.pax_headers and _FIELDS & self._tar.pax_headers.keys()
            plain = None if has_fields else _plain(block)
            if plain is None:
                try:
                    member, after = self._special(at)
                except (tarfile.TarError, ValueError, OverflowError, RecursionError, EOFError) as error:
                    if at == 0:
                        raise RefusedTarError(_NO_TAR) from error
                    self.problem = f"is damaged after {at:,} bytes"
                    return
            else:
                member = (plain[0], at + BLOCK_BYTES, plain[1], "file")
                after = at + BLOCK_BYTES + _in_blocks(plain[1])
            yield member
            at = after

    def _special(self, at: int) -> tuple[tuple[str, int, int, str], int]:
        """The member whose headers begin at a place, and where the next ones begin."""
        self._file.seek(at)
        self._tar.offset = at
        info = tarfile.TarInfo.fromtarfile(self._tar)
        if info.size < 0 or self._tar.offset <= at:
            raise tarfile.ReadError("it leads backwards")
        kind = "sparse" if info.issparse() else "file" if info.isreg() else "folder" if info.isdir() else "other"
        size = info.size if kind == "file" else 0
        return (info.name, info.offset_data, size, kind), self._tar.offset


class _Bounded:
    """A file for tarfile that reads no more at once than headers have."""

    def __init__(self, file: BinaryIO) -> None:
        self.tell, self.seek, self._file = file.tell, file.seek, file

    def read(self, size: int) -> bytes:
        """Reads as a file does. Raises tarfile.ReadError for more than headers have."""
        if not 0 <= size <= _LONGEST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)


_NO_TAR = "is no tar; fetch or pack it again"


def _plain(block: bytes) -> tuple[str, int] | None:
    """Name and size of a file that the header alone describes; None where there may be more to it."""
    if block[156] not in b"0\0" or block[_MAGIC_AT : _MAGIC_AT + 5] != b"ustar":
        return None
    digits = block[124:136].strip(b" \0")
    checksum_field = block[148:156]
    try:
        size, expected = int(digits, 8), int(checksum_field.strip(b" \0"), 8)
        name = block[:100].split(b"\0", 1)[0].decode()
        prefix = block[345:500].split(b"\0", 1)[0].decode()
    except ValueError:
        return None
    if not digits.isdigit() or _sum(block) - sum(checksum_field) + 8 * 32 != expected or name.endswith("/"):
        return None
    return (f"{prefix}/{name}" if prefix else name), size


def _sum(block: bytes) -> int:
    """The sum of a block's bytes: what Adler-32 adds up in its lower half, which 256 bytes do not fill (RFC 1950)."""
    return (zlib.adler32(block[:256]) & 0xFFFF) + (zlib.adler32(block[256:]) & 0xFFFF) - 2


def _in_blocks(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _require_tar(start: bytes) -> None:
    if compressed := _compression(start):
        raise RefusedTarError(_unpack(*compressed))
    if len(start) < BLOCK_BYTES:
        raise RefusedTarError(_NO_TAR)


def _compression(start: bytes) -> tuple[str, str] | None:
    return next((how for magic, how in _COMPRESSED.items() if start.startswith(magic)), None)


def _unpack(name: str, tool: str) -> str:
    return f"is compressed ({name}), and only plain tars are read in place; use {tool} first"


def _normal(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))
