"""Digests of an HDF5 file in front of it, in its user block: checking one part of a large file does not read all of it.

    header | sha256 of the rest | sha256 of each block of the bulk | padding | what HDF5 wrote

The bulk is one long dataset, of which parts are checked where they are read; the rest is checked at once, before HDF5
meets a damaged structure, on which it may hang or die. The header carries a sha256 of itself and of the digests. Room
is made when the file is begun and filled when it is finished; programs that know nothing of it read the file as ever.
"""

import contextlib
import hashlib
import io
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from retrieval.arrays import BoolArray, LongArray
from retrieval.files.hdf5 import read_error

BLOCK_BYTES = 1 << 18  # read to check one descriptor; a digest of 32 bytes for each

_MAGIC = b"lmr digests 1\r\n\0"
_NUMBERS = struct.Struct("<QQQQQ")  # of _Place
_HEADER = struct.Struct(f"<16s{_NUMBERS.size}s32s")  # magic, numbers, sha256 of numbers and digests
_DIGEST_BYTES = 32
_SMALLEST_ROOM = 512  # of HDF5, which wants a power of two from here on
_OPEN_FLAG = 20  # byte of the superblock (version 0) in which HDF5 marks that somebody has the file open to write
_PIECE_BYTES = 1 << 20  # read at a time


@dataclass(frozen=True, slots=True)
class _Place:
    """Layout of the file. room: bytes in front of HDF5's own. n_bytes: of the whole file. begin, end: of the bulk."""

    room: int
    n_bytes: int
    begin: int
    end: int
    block_bytes: int = BLOCK_BYTES

    @property
    def numbers(self) -> bytes:
        """The layout as it is stored."""
        return _NUMBERS.pack(self.room, self.n_bytes, self.begin, self.end, self.block_bytes)

    @property
    def n_digests(self) -> int:
        """Number of digests: one of what surrounds the bulk, one of each of its blocks."""
        return 1 + -(-(self.end - self.begin) // self.block_bytes)


class Digests:
    """The digests of one file. Remembers which blocks were found whole, so that each is read once for it."""

    def __init__(self, path: Path, place: _Place, digests: bytes) -> None:
        self.path = path
        self._place, self._digests = place, digests
        self._whole: BoolArray = np.zeros(place.n_digests - 1, dtype=np.bool_)

    @property
    def identity(self) -> str:
        """sha256 (hex) of the digests, which tells the content of the file from any other."""
        return hashlib.sha256(self._place.numbers + self._digests).hexdigest()

    def require_rest(self) -> None:
        """Raises ValueError where anything but the bulk is not as it was written. LmrError: it cannot be read."""
        with readable(self.path) as file:
            size = file.seek(0, os.SEEK_END)
            if size < self._place.n_bytes:
                raise ValueError(f"it is cut short: {size:,} of {self._place.n_bytes:,} bytes")
            if size > self._place.n_bytes:
                raise ValueError(f"it has {size:,} bytes, not the {self._place.n_bytes:,} that were written")
            if digest_outside(file, self._place.room, [(self._place.begin, self._place.end)], size) != self._digest(0):
                raise ValueError("what it says of its pictures, or its structure, is not as it was written")

    def require_bulk(self) -> None:
        """As `require_rest`, of the whole bulk."""
        self._require(np.arange(len(self._whole)))

    def require_rows(self, rows: LongArray, row_bytes: int) -> None:
        """As `require_rest`, of these rows of the bulk."""
        if not len(rows):
            return
        first = rows * row_bytes // self._place.block_bytes
        last = ((rows + 1) * row_bytes - 1) // self._place.block_bytes
        reach = range(int((last - first).max()) + 1)
        self._require(np.unique(np.concatenate([np.minimum(first + i, last) for i in reach])))

    def _require(self, blocks: LongArray) -> None:
        left = blocks[~self._whole[blocks]]
        if not len(left):
            return
        with readable(self.path) as file:
            for block in left.tolist():
                first, last = _block(self._place, block)
                file.seek(first)
                if hashlib.sha256(file.read(last - first)).digest() != self._digest(1 + block):
                    raise ValueError(f"its bytes {first:,} to {last:,} are not those that were written")
                self._whole[block] = True

    def _digest(self, i: int) -> bytes:
        return self._digests[i * _DIGEST_BYTES : (i + 1) * _DIGEST_BYTES]


def room_for_digests(bulk_bytes: int) -> int:
    """Size of the user block for the digests of a file with a bulk of so many bytes."""
    needed = _HEADER.size + _Place(0, 0, 0, bulk_bytes).n_digests * _DIGEST_BYTES
    return max(_SMALLEST_ROOM, 1 << (needed - 1).bit_length())


def read_digests(path: Path) -> Digests | None:
    """The digests of a file; None where it carries none.

    Raises LmrError when the file cannot be read, ValueError when the digests themselves are damaged.
    """
    with readable(path) as file:
        head = file.read(_HEADER.size)
        if len(head) < _HEADER.size or not head.startswith(_MAGIC):
            return None
        _, numbers, own = _HEADER.unpack(head)
        place = _Place(*_NUMBERS.unpack(numbers))
        size = file.seek(0, os.SEEK_END)
        if not _fits(place, size):
            raise ValueError("its digests themselves were changed")
        file.seek(_HEADER.size)
        digests = file.read(place.room - _HEADER.size)
    if hashlib.sha256(numbers + digests).digest() != own:
        raise ValueError("its digests themselves were changed")
    return Digests(path, place, digests)


def write_digests(file: BinaryIO, room: int, begin: int, end: int) -> None:
    """Reads a file, open to read and write, and puts the digests of what it holds into its user block.

    room: size of the user block; where it is too small, as in a file that was begun without, nothing is written.
    begin, end: bytes of the bulk in the file. Raises OSError.
    """
    file.flush()
    size = file.seek(0, os.SEEK_END)
    place = _Place(room, size, begin, end) if begin < end else _Place(room, size, size, size)
    if not _fits(place, size):
        return
    digests = bytearray(digest_outside(file, room, [(place.begin, place.end)], size))
    for block in range(place.n_digests - 1):
        first, last = _block(place, block)
        file.seek(first)
        digests += hashlib.sha256(file.read(last - first)).digest()
    digests = digests.ljust(room - _HEADER.size, b"\0")
    file.seek(0)
    file.write(_HEADER.pack(_MAGIC, place.numbers, hashlib.sha256(place.numbers + digests).digest()) + digests)
    file.flush()


def digest_outside(file: BinaryIO | io.FileIO, room: int, holes: Sequence[tuple[int, int]], n_bytes: int) -> bytes:
    """sha256 of what HDF5 wrote, behind a user block of this size, but for some holes (begin, end) in it."""
    known = hashlib.sha256()
    flag = room + _OPEN_FLAG
    begin = room
    for hole, after in (*sorted([(flag, flag + 1), *holes]), (n_bytes, n_bytes)):
        for start in range(begin, hole, _PIECE_BYTES):
            file.seek(start)
            known.update(file.read(min(_PIECE_BYTES, hole - start)))
        begin = max(begin, after)
    return known.digest()


@contextlib.contextmanager
def readable(path: Path) -> Iterator[io.FileIO]:
    """A file that is open to read; what the system refuses is an LmrError."""
    try:
        with path.open("rb", buffering=0) as file:
            yield file
    except OSError as error:
        raise read_error(path, error) from error


def _fits(place: _Place, size: int) -> bool:
    """Tells whether the digests of a file of this size have room."""
    if place.block_bytes < 1 or not place.begin <= place.end:
        return False
    return _HEADER.size + place.n_digests * _DIGEST_BYTES <= place.room <= size


def _block(place: _Place, block: int) -> tuple[int, int]:
    first = place.begin + block * place.block_bytes
    return first, min(first + place.block_bytes, place.end)
