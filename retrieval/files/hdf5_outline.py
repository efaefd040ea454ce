"""The digest of an HDF5 file that is being filled, in its user block: of all but what is still written.

    header with the holes | sha256 of everything outside of them | padding | what HDF5 wrote

The holes are datasets whose content changes; the structure, and all that is known before, does not. The digests of the
finished file (`hdf5_digests`) take the place of this one, and this one takes theirs when the file is filled further.
"""

import hashlib
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from retrieval.files.hdf5_digests import digest_outside, readable

MOST_HOLES = 8

_MAGIC = b"lmr filling 1\r\n\0"
_NUMBERS = struct.Struct(f"<QQ{2 * MOST_HOLES}Q")  # user block, whole file, begin and end of each hole
_HEADER = struct.Struct(f"<16s{_NUMBERS.size}s32s32s")  # magic, numbers, sha256 outside of the holes, sha256 of the two

Hole = tuple[int, int]  # begin and end, bytes


def write_outline(file: BinaryIO, room: int, holes: Sequence[Hole]) -> None:
    """Puts the digest of a file, open to read and write, into its user block; on disk when this returns.

    room: size of the user block; where there is none, nothing is written. Raises OSError.
    """
    if room < _HEADER.size:
        return
    file.flush()
    size = file.seek(0, os.SEEK_END)
    ends = [end for hole in (*holes, *((0, 0) for _ in range(MOST_HOLES - len(holes)))) for end in hole]
    numbers = _NUMBERS.pack(room, size, *ends)
    outside = digest_outside(file, room, holes, size)
    file.seek(0)
    file.write(_HEADER.pack(_MAGIC, numbers, outside, hashlib.sha256(numbers + outside).digest()))
    file.flush()
    os.fsync(file.fileno())


def require_outline(path: Path) -> bool:
    """Compares a file with the digest of what was there before it was filled; False where it carries none.

    Raises ValueError where it differs, LmrError when the file cannot be read.
    """
    with readable(path) as file:
        head = file.read(_HEADER.size)
        if len(head) < _HEADER.size or not head.startswith(_MAGIC):
            return False
        _, numbers, outside, own = _HEADER.unpack(head)
        if hashlib.sha256(numbers + outside).digest() != own:
            raise ValueError("its digests themselves were changed")
        room, n_bytes, *ends = _NUMBERS.unpack(numbers)
        size = file.seek(0, os.SEEK_END)
        if size != n_bytes:
            raise ValueError(f"it has {size:,} bytes, not the {n_bytes:,} that were written")
        holes = [hole for hole in zip(ends[::2], ends[1::2], strict=True) if any(hole)]
        if digest_outside(file, room, holes, size) != outside:
            raise ValueError("what it says of its pictures, or its structure, is not as it was written")
    return True
