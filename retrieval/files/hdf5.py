"""New HDF5 files, written so that a full disk is an error like any other."""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py


@contextlib.contextmanager
def new_hdf5(path: Path) -> Iterator[Any]:
    """An empty HDF5 file to fill; at the end it is on disk. Raises the OSError of the first write that failed."""
    with path.open("w+b", buffering=0) as raw:
        target = _Target(raw)
        try:
            with h5py.File(target, "w") as file:
                yield file
        finally:
            if target.error is not None:  # what HDF5 says after it is of no use
                raise target.error
        os.fsync(raw.fileno())  # HDF5 may hang on a structure of which a power cut left a part


class _Target:
    """A file to which HDF5 can write without ever seeing an error.

    The library cannot let go of a file that it failed to write: on a full disk it ends the process (segmentation
    fault, HDF5 1.14). So the first error is kept in `error`, and what could not be written is kept in memory, as the
    library reads some of it again.
    """

    def __init__(self, raw: io.FileIO) -> None:
        self.error: OSError | None = None
        self._raw = raw
        self._kept: dict[int, bytes] = {}  # position -> what could not be written there, oldest first
        self.seek, self.tell, self.flush = raw.seek, raw.tell, raw.flush

    def read(self, n: int) -> bytes:
        """n bytes; h5py knows a file by this method."""
        data = bytearray(n)
        self.readinto(data)
        return bytes(data)

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fills the buffer; zeros where nothing was written."""
        start, view = self._raw.tell(), memoryview(buffer)
        n_read = self._raw.readinto(view)
        view[n_read:] = bytes(len(view) - n_read)
        for position, data in self._kept.items():
            first, last = max(start, position), min(start + len(view), position + len(data))
            if first < last:
                view[first - start : last - start] = data[first - position : last - position]
        return len(view)

    def write(self, data: bytes | memoryview) -> int:
        """All of the data, or it is kept with the error."""
        position, left = self._raw.tell(), memoryview(data)
        try:
            while left:
                left = left[self._raw.write(left) :]
        except OSError as error:
            self.error = self.error or error
            self._kept.pop(position, None)
            self._kept[position] = bytes(data)
        return len(data)

    def truncate(self, size: int) -> int:
        """Sets the file's length, or the error is kept."""
        try:
            self._raw.truncate(size)
        except OSError as error:
            self.error = self.error or error
        return size
