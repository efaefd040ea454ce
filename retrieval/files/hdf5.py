"""HDF5 files: written so that a full disk is an error like any other, read so that what is broken has a name.

Reading takes no lock: many file systems have none, and a reader needs none.
"""

import contextlib
import errno
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from retrieval.arrays import ObjArray, read_only
from retrieval.errors import LmrError
from retrieval.texts import BLOCK, Texts
from retrieval.words import counted

_TEXT_REFERENCE = np.dtype([("length", "<u4"), ("heap", "<u8"), ("index", "<u4")])  # of a text in a file: HDF5, IV.B
ENDS = "_ends"  # after the name of a column: where each of its texts ends
_SMALLEST_BYTES = 512  # fewer than any whole file has
_REASON_CHARACTERS = 200  # of what the library says


@contextlib.contextmanager
def new_hdf5(path: Path, user_block: int = 0) -> Iterator[Any]:
    """An empty HDF5 file to fill; at the end it is on disk. Raises the OSError of the first write that failed.

    user_block: bytes in front of HDF5's own, zeros; a power of two from 512 on.
    """
    with path.open("w+b", buffering=0) as raw:
        target = _Target(raw)
        try:
            with h5py.File(target, "w", userblock_size=user_block) as file:
                yield file
        finally:
            if target.error is not None:  # what HDF5 says after it is of no use
                raise target.error
        os.fsync(raw.fileno())  # HDF5 may hang on a structure of which a power cut left a part


@contextlib.contextmanager
def open_hdf5(path: Path, what: str, remedy: str, mistaken: str | None = None) -> Iterator[Any]:
    """An HDF5 file to read.

    what: the file should be ("a descriptor store"). remedy: for a file that is proven to be damaged. mistaken: for a
    file of another kind, which may be the user's own; None = the same.
    Raises LmrError: it cannot be read, is no HDF5 file, is cut short, or what the block reads in it is broken
    (ValueError, KeyError, TypeError and what h5py finds).
    """
    try:
        if not path.is_file():
            raise FileNotFoundError
        with path.open("rb") as raw:  # the system's own word on what cannot be read, not the library's
            raw.read(1)
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise _opening_error(
            path, error, remedy, f"{path} is not {what} (no HDF5 file); {mistaken or remedy}"
        ) from error
    with file:
        try:
            yield file
        except MemoryError as error:  # which proves nothing of the file
            raise LmrError(
                f"{path} cannot be read: it asks for more memory than there is here; free some, or use a larger machine"
            ) from error
        except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
            if getattr(error, "errno", None):
                raise read_error(path, error) from error
            reason = str(error.args[0] if error.args else "").split("\n")[0][:_REASON_CHARACTERS]
            raise LmrError(f"{path} is damaged ({reason}); {remedy}") from error


def numbers(file: Any, name: str, types: Sequence[str | np.dtype[Any]], shape: tuple[int | None, ...]) -> Any:
    """A dataset of one of these types (`float16`, `S120`) and this shape, None = any length.

    Raises ValueError for another one, and for one of which the file does not hold every byte.
    """
    dataset = _dataset(file, name)
    sizes = dataset.shape
    fits = len(sizes) == len(shape) and all(want in (None, size) for size, want in zip(sizes, shape, strict=True))
    if not fits:
        raise ValueError(f"{name} must have {_shown(shape)}, got {_shown(sizes)}")
    if dataset.dtype not in [np.dtype(kind).newbyteorder("<") for kind in types]:
        raise ValueError(f"{name} must be {' or '.join(map(str, types))}, got {dataset.dtype}")
    _require_space(file, name, dataset, dataset.dtype.itemsize)
    return dataset


def texts(file: Any, name: str, n: int | None = None) -> Any:
    """A dataset of n texts, None = any number. Raises ValueError as `numbers`, and for texts larger than the file."""
    dataset = _dataset(file, name)
    if dataset.ndim != 1 or n not in (None, len(dataset)):
        raise ValueError(f"{name} must have {_shown((n,))}, got {_shown(dataset.shape)}")
    kind = h5py.check_string_dtype(dataset.dtype)
    if kind is None:
        raise ValueError(f"{name} must be text, got {dataset.dtype}")
    if kind.length is not None:
        _require_space(file, name, dataset, kind.length)
        return dataset
    _require_space(file, name, dataset, _TEXT_REFERENCE.itemsize)
    if len(dataset):
        known = np.memmap(file.filename, _TEXT_REFERENCE, "r", dataset.id.get_offset(), dataset.shape)
        if int(known["length"].sum(dtype=np.int64)) > file.id.get_filesize():
            raise ValueError(f"{name} says that its texts are longer than the file")
    return dataset


def read_texts(dataset: Any) -> ObjArray:
    """(n,) str. Raises ValueError that names the row of one that is no UTF-8."""
    return pack_texts(dataset, is_utf8=True)[:]


def write_column(file: Any, name: str, column: Texts) -> None:
    """Puts a column of texts into a file, as the two arrays that it is."""
    file.create_dataset(name, data=column.data)
    file.create_dataset(name + ENDS, data=column.ends.astype("<i8", copy=False))


def read_column(file: Any, name: str, n: int | None = None, *, is_utf8: bool = False) -> Texts:
    """A column of n texts, None = any number: one that `write_column` wrote stays in the file, others are packed.

    is_utf8: of those that are packed, as `pack_texts`. Raises ValueError as `texts`.
    """
    if _dataset(file, name).dtype != np.uint8:
        return pack_texts(texts(file, name, n), is_utf8=is_utf8)
    return Texts(mapped(numbers(file, name, ("uint8",), (None,))), mapped(numbers(file, name + ENDS, ("int64",), (n,))))


def pack_texts(dataset: Any, *, is_utf8: bool = False) -> Texts:
    """A dataset of texts as a column. is_utf8: raises ValueError that names the row of one that is no UTF-8."""

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(dataset), BLOCK):
            block = dataset[start : start + BLOCK].tolist()
            if is_utf8:
                _require_utf8(block, dataset.name.lstrip("/"), start)
            yield from block

    return Texts.of_bytes(pieces())


def mapped(dataset: Any) -> NDArray[Any]:
    """The numbers of a contiguous dataset, read-only; they stay in the file, which processes share."""
    if not dataset.size:
        return np.zeros(dataset.shape, dataset.dtype)
    found = np.memmap(dataset.file.filename, dataset.dtype, "r", dataset.id.get_offset(), dataset.shape)
    return read_only(np.asarray(found))


def read_error(path: Path, error: Any) -> LmrError:
    """The error of a file that the system does not let be read: what it says, which tells nothing of the content."""
    hints = {errno.EACCES: "change its permissions", errno.EIO: "check the disk or the network, the file may be whole"}
    locked = (errno.ENOLCK, errno.EAGAIN)
    if error.errno in locked:
        return LmrError(
            f"{path} cannot be locked ({os.strerror(error.errno)}); set HDF5_USE_FILE_LOCKING=FALSE, or close it where "
            "it is open"
        )
    hint = hints.get(error.errno, "the file itself may be whole; try again")
    return LmrError(f"{path} cannot be read: {os.strerror(error.errno)}; {hint}")


def _dataset(file: Any, name: str) -> Any:
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"it has no dataset {name}")
    return found


def _require_space(file: Any, name: str, dataset: Any, itemsize: int) -> None:
    """Raises ValueError where the file cannot hold what the dataset declares, before anything is allocated."""
    n_bytes, size = dataset.size * itemsize, file.id.get_filesize()
    if n_bytes == 0:
        return
    offset = dataset.id.get_offset()
    if n_bytes > size:
        raise ValueError(f"{name} declares {_shown(dataset.shape)}, {n_bytes:,} bytes, in a file of {size:,}")
    if offset is None:
        raise ValueError(f"{name} is packed in chunks or lies elsewhere, which lmr does not write")
    if offset + n_bytes > size:
        raise ValueError(f"{name} ends {offset + n_bytes - size:,} bytes behind the end of the file")


def _require_utf8(block: list[bytes], name: str, first: int) -> None:
    """Raises ValueError that names the row of a text that is no UTF-8. first: row of the block's first text."""
    try:
        b"\n".join(block).decode()
    except UnicodeDecodeError:
        row = next(i for i, text in enumerate(block) if not _is_utf8(text))
        raise ValueError(f"{name} of row {first + row} is not UTF-8: {block[row][:40]!r}") from None


def _shown(shape: tuple[int | None, ...]) -> str:
    if len(shape) == 1:
        return "rows" if shape[0] is None else counted(shape[0], "row")
    return "the shape (" + ", ".join("any" if size is None else f"{size:,}" for size in shape) + ")"


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _opening_error(path: Path, error: OSError, remedy: str, another_kind: str) -> LmrError:
    said = str(error)
    if isinstance(error, FileNotFoundError):
        return LmrError(f"{path}: there is no such file; {remedy}")
    if error.errno:
        return read_error(path, error)
    if "already open for" in said:
        return LmrError(f"{path} is marked as being written by another program; close it there and try again")
    if "truncated" in said or ("signature" not in said and path.stat().st_size < _SMALLEST_BYTES):
        return LmrError(f"{path} is cut short; copy it again if it is a copy, else {remedy}")
    if "signature not found" in said:
        return LmrError(another_kind)
    return LmrError(f"{path} is damaged ({said.split(chr(10))[0][:_REASON_CHARACTERS]}); {remedy}")


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
