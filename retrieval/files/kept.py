"""Rows kept block by block in a file while they are made, so that a killed run goes on:

what they are made of | n | n rows | sha256 of all before, and so on for each block
"""

import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import LmrError
from retrieval.files.atomic import flush_folder, write_error

_LENGTH = struct.Struct("<I")
_DIGEST_BYTES = 32


class Kept:
    """The rows kept in one file. head: what they are made of; those of another one count for nothing."""

    def __init__(self, path: Path, head: bytes, dtype: np.dtype[Any]) -> None:
        self.path, self._head, self._dtype = path, head, dtype
        self._known = hashlib.sha256(head)
        self._end = 0

    def read(self) -> list[NDArray[Any]]:
        """The blocks that are there and whole, up to the first that is not; they stay in the file."""
        blocks: list[NDArray[Any]] = []
        if not self.path.is_file() or self.path.stat().st_size < len(self._head):
            return blocks
        data = np.memmap(self.path, np.uint8, "r")
        if data[: len(self._head)].tobytes() != self._head:
            return blocks
        self._end = len(self._head)
        while len(data) >= self._end + _LENGTH.size:
            (n,) = _LENGTH.unpack(data[self._end : self._end + _LENGTH.size].tobytes())
            begin, end = self._end + _LENGTH.size, self._end + _LENGTH.size + n * self._dtype.itemsize
            known = self._known.copy()
            known.update(data[self._end : end].data)
            if len(data) < end or data[end : end + _DIGEST_BYTES].tobytes() != known.digest():
                break
            blocks.append(data[begin:end].view(self._dtype))
            self._known, self._end = known, end + _DIGEST_BYTES
        return blocks

    @property
    def n_torn(self) -> int:
        """Bytes of the file behind the blocks that were read."""
        return self.path.stat().st_size - self._end

    def append(self, block: NDArray[Any]) -> None:
        """Keeps one more block behind those that were read or kept. Raises LmrError where that is not possible."""
        begun = b"" if self._end else self._head
        content = _packed(block, self._known)
        try:
            with self.path.open("r+b" if self._end else "wb") as file:
                file.seek(self._end)
                file.truncate()
                file.write(begun + content)
                file.flush()
                os.fsync(file.fileno())
                self._end = file.tell()
        except OSError as error:
            raise write_error(self.path, error) from error

    def finish(self, output: Path) -> None:
        """Gives the file its name, now that all rows are there. Raises LmrError where that is not possible."""
        try:
            os.replace(self.path, output)
            flush_folder(output.parent)
        except OSError as error:
            raise write_error(output, error) from error

    def remove(self) -> None:
        """Forgets the rows. Raises LmrError where that is not possible."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise LmrError(f"{self.path} cannot be removed: {error.strerror}; remove it") from error


def kept_bytes(head: bytes, blocks: Iterator[NDArray[Any]]) -> Iterator[bytes]:
    """The content of a file of these blocks, part by part."""
    known = hashlib.sha256(head)
    yield head
    for block in blocks:
        yield _packed(block, known)


def _packed(block: NDArray[Any], known: "hashlib._Hash") -> bytes:
    content = _LENGTH.pack(len(block)) + block.tobytes()
    known.update(content)
    return content + known.digest()
