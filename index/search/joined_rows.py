"""Rows in two files: those of a large index, which stay where they are, and what was added to them since.

The second file goes on where whole pages of the first one end, so that both are mapped one behind the other, as if they
were one file: an addition writes what is new, and a search sees one array of rows.
"""

import ctypes
import mmap
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from index.search.faiss_io import read_outline
from retrieval.arrays import FloatArray, UInt8Array
from retrieval.errors import LmrError

PAGE = 1 << 16  # bytes: a multiple of the page of memory of every common system
LEAST_LINKED = 1 << 26  # bytes of the first file; a smaller one is copied in no time
MOST_ADDED = 1 / 8  # of the bytes of the first file; then all rows are written into one

_MAP_FIXED = 0x10  # of Linux and macOS


def is_linked(rows: Path, added: Path, n_bytes: int) -> bool:
    """Tells whether so many more bytes are written beside a file of rows, not behind them. added: may not be there."""
    size = rows.stat().st_size
    n_added = added.stat().st_size if added.exists() else size - _n_linked(size)
    return size >= LEAST_LINKED and n_added + n_bytes <= MOST_ADDED * size


def write_added(file: BinaryIO, rows: Path, added: Path, vectors: FloatArray) -> None:
    """Writes the second file of rows: what it is now, or the end of the first one, then new rows (n, d) as stored."""
    before = added if added.exists() else rows
    with before.open("rb") as source:
        source.seek(0 if before == added else _n_linked(rows.stat().st_size))
        shutil.copyfileobj(source, file, 1 << 20)
    file.write(np.ascontiguousarray(vectors).reshape(-1).data)


def read_joined(rows: Path, added: Path) -> Any:
    """The FAISS index of the rows of both files, which stay there. Raises LmrError where they do not fit."""
    from index.search.library import faiss

    outline, begin = read_outline(rows), _n_linked(rows.stat().st_size)
    n_bytes = begin + added.stat().st_size
    row_bytes = 0 if outline is None else (outline.n_bytes - outline.start) // max(1, outline.n)
    if outline is None or not row_bytes or begin < PAGE or (n_bytes - outline.start) % row_bytes:
        raise LmrError(f"{added} does not go on where {rows} ends; copy the folder again or run lmr build-index again")
    memory = _one_behind_other(rows, begin, added, n_bytes)
    header = replace(outline, n=(n_bytes - outline.start) // row_bytes).header
    memory[: len(header)] = np.frombuffer(header, np.uint8)
    library: Any = faiss
    reader = library.ZeroCopyIOReader(faiss.swig_ptr(memory), len(memory))
    index = library.read_index(reader, faiss.IO_FLAG_MMAP_IFC)
    index.referenced_objects = [memory]
    return index


def _n_linked(size: int) -> int:
    """Bytes of the first file that are in whole pages."""
    return size // PAGE * PAGE


def _one_behind_other(one: Path, n: int, other: Path, n_bytes: int) -> UInt8Array:
    """The first n bytes of a file and all of another; the first page is a copy, which may be written to."""
    if os.name != "posix":
        return np.concatenate([np.fromfile(one, np.uint8, n), np.fromfile(other, np.uint8)])
    no_reserve = getattr(mmap, "MAP_NORESERVE", 0)
    memory = np.frombuffer(mmap.mmap(-1, n_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve), np.uint8)
    memory[:PAGE] = np.fromfile(one, np.uint8, PAGE)
    for path, start, place, length in ((one, PAGE, PAGE, n - PAGE), (other, 0, n, n_bytes - n)):
        if length:
            _map_at(path, start, memory.ctypes.data + place, length)
    return memory


def _map_at(path: Path, start: int, address: int, length: int) -> None:
    """Maps a part of a file, to read, over memory that is there. Raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_longlong)
    with path.open("rb") as file:
        flags = mmap.MAP_SHARED | _MAP_FIXED
        if library.mmap(address, length, mmap.PROT_READ, flags, file.fileno(), start) != address:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(path))
