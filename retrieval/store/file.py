"""The file of a descriptor store: begun, and opened with every way in which it can be broken."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.arrays import ObjArray
from retrieval.errors import LmrError
from retrieval.files.atomic import private_path, remove_leftovers
from retrieval.files.hdf5 import mapped, new_hdf5, open_hdf5, pack_texts
from retrieval.files.hdf5_digests import Digests, read_digests, room_for_digests
from retrieval.files.hdf5_outline import require_outline, write_outline
from retrieval.files.json_file import convert, parse_json
from retrieval.own_process import limit_computing, limit_memory, start_environment, start_words
from retrieval.shard import Shard, parse_shard
from retrieval.store.info import StoreInfo
from retrieval.store.layout import (
    DIGESTS,
    FACTS,
    FORMAT_VERSION,
    MAPPED,
    ROW_DIGEST,
    SHARD,
    UNREADABLE,
    Columns,
    ImageFacts,
    has_facts,
    make_layout,
    places_filled,
    require_layout,
)

REMEDY = "make it again with lmr embed `overwrite`"  # for a store that is proven to be damaged
PARTIAL = ".partial"  # the ending of an unfinished store's name

_REASON_ROWS = 65536  # read at a time; those of unread images only
_WALL_S = 55  # until it has read all, on a machine that does other work too; more for large files on slow disks
_WALL_BYTES_PER_S = 20 << 20
_READY = b"ready\n"  # what the process says when it begins to read
_REFUSED = 3  # its exit code when it has said what is wrong
_LEAST_S, _MOST_S = 6, 50  # of computing, for a small and for the largest store
_BYTES_PER_S = 100 << 20  # slower than any machine reads
_LEAST_MEMORY = 1 << 29
_MEMORY_FACTOR = 8  # texts in memory, over their bytes in a file
_whole: set[tuple[int, int, int, int]] = set()  # what was read already, by what tells files and their changes apart


def lay_out(partial: Path, columns: Columns, info: StoreInfo) -> None:
    """Writes the whole structure under a private name, so that `partial` is never half a structure."""
    _require_utf8(partial, columns)
    begun = private_path(partial)
    try:
        remove_leftovers(partial)
        room = room_for_digests(len(columns.landmark) * info.d * np.dtype(info.dtype).itemsize)
        with new_hdf5(begun, room) as file:
            make_layout(file, columns, info)
            places = places_filled(file)
        with begun.open("r+b") as raw:
            write_outline(raw, room, places)
        os.replace(begun, partial)
    except (OSError, RuntimeError, ValueError) as error:  # ValueError: a NUL in a name
        with contextlib.suppress(OSError):
            begun.unlink()
        code = getattr(error, "errno", None)
        reason = os.strerror(code) if code else str(error).split("\n")[0]
        raise LmrError(f"{partial}: cannot be written: {reason}; choose another place or make room") from error


@contextlib.contextmanager
def open_store(path: Path) -> Iterator[tuple[Any, Digests | None]]:
    """The HDF5 file of a store, to read, and its digests; all but the descriptors is checked, values and digests.

    Where the name is that of an unfinished store, rows may be to do, and there need not be digests.
    LmrError: missing, not a store, cut short, of another format version, or damaged, with what is wrong.
    """
    if not path.is_file():
        raise LmrError(f"{path}: there is no such descriptor store; lmr embed makes one")
    with _replacement_named(path):
        digests = _read_digests(path)  # before HDF5 meets a damaged structure, on which it may hang
        is_outlined = False
        if digests is None:
            with damage_named(path):
                is_outlined = require_outline(path)
            if not is_outlined:
                require_readable(path, REMEDY)
        with _opened(path) as file:
            needs = ROW_DIGEST if path.name.endswith(PARTIAL) else DIGESTS
            if digests is None and not (is_outlined and needs == ROW_DIGEST) and (needs in file or needs in file.attrs):
                raise ValueError("its digests are missing")
            yield file, digests


@contextlib.contextmanager
def _replacement_named(path: Path) -> Iterator[None]:
    """A block that reads a file in several steps; LmrError where another one of that name came between them."""
    before = _identity(path)
    replaced = LmrError(f"{path} was replaced while it was read; run the same command again")
    try:
        yield
    except LmrError as error:
        if _identity(path) == before:
            raise
        raise replaced from error
    if _identity(path) not in (before, None):
        raise replaced


def _identity(path: Path) -> tuple[int, int] | None:
    """Tells the file of this name from another one that takes its place; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def read_without_digests(path: Path) -> None:
    """Reads all of a store but its descriptors, as `open_store` and who opens with it do. Raises LmrError as that."""
    with _opened(path) as file:
        read_info(file)
        read_reasons(file)
        read_facts(file)
        for name in ("landmarks", "landmark_name", "image_id", "kind"):
            if name in file:
                pack_texts(file[name], is_utf8=True)
        pack_texts(file["path"])


@contextlib.contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """A block in which what differs from the digests (ValueError) is an LmrError of this store."""
    try:
        yield
    except ValueError as error:
        raise LmrError(f"{path} is damaged ({error}); copy it again if it is a copy, else {REMEDY}") from error


def require_whole(path: Path) -> bool:
    """Reads the whole store. False where it carries no digests. Raises LmrError as `open_store`."""
    with open_store(path) as (_, digests):
        if digests is not None:
            with damage_named(path):
                digests.require_bulk()
        return digests is not None


def has_digests(path: Path) -> bool:
    """Tells whether the store carries digests. Raises LmrError when it cannot be read or they are damaged."""
    with damage_named(path):
        return read_digests(path) is not None


def read_info(file: Any) -> StoreInfo:
    """Reads what made the file."""
    vectors = file["vectors"]
    return StoreInfo(
        fingerprint=str(file.attrs["fingerprint"]),
        model=parse_json(file.attrs["model"], f"{file.filename}: model", REMEDY),
        image_spec=parse_json(file.attrs["image_spec"], f"{file.filename}: image_spec", REMEDY),
        program_version=str(file.attrs["program_version"]),
        manifest_digest=str(file.attrs["manifest_digest"]),
        dtype=vectors.dtype.name,
        d=vectors.shape[1],
        shard=_read_shard(file),
        mapped=_read_mapped(file),
    )


def _read_mapped(file: Any) -> tuple[str, ...]:
    source = f"{file.filename}: {MAPPED}"
    told = convert(parse_json(file.attrs.get(MAPPED, "{}"), source, REMEDY), dict[str, str], source, REMEDY)
    return tuple(f"{role}={name}" for role, name in sorted(told.items()))


def _read_shard(file: Any) -> Shard | None:
    text = file.attrs.get(SHARD)
    try:
        return None if text is None else parse_shard(text)
    except LmrError as error:
        raise ValueError(f"its attribute {SHARD} is {text!r:.40}, which is no share") from error


def read_reasons(file: Any) -> ObjArray:
    """(n,) str, why an image is unreadable; '' where it is not."""
    unreadable = file["state"][:] == UNREADABLE
    texts = np.full(unreadable.shape, "", dtype=object)
    for start in range(0, len(unreadable), _REASON_ROWS):
        rows = np.flatnonzero(unreadable[start : start + _REASON_ROWS])
        if len(rows):
            texts[start + rows] = [text.decode() for text in file["reason"][start : start + _REASON_ROWS][rows]]
    return texts


def read_facts(file: Any) -> ImageFacts | None:
    """State of the images' files, which stays in the store; None in one from before that was written down."""
    return ImageFacts(*(mapped(file[name]) for name in FACTS)) if has_facts(file) else None


def _require_utf8(partial: Path, columns: Columns) -> None:
    """Raises LmrError for what a store could not be read again with; names of files may be of any bytes."""
    told = {
        "image_id": columns.image_id,
        "kind": () if columns.kind is None else columns.kind,
        "landmark": columns.landmarks,
    }
    for name, texts in told.items():
        for text in texts:
            try:
                text.encode()
            except UnicodeEncodeError:
                raise LmrError(f"{partial}: the {name} {text!a} is not UTF-8; rename it") from None


def _read_digests(path: Path) -> Digests | None:
    """With everything but the descriptors found whole."""
    with damage_named(path):
        digests = read_digests(path)
        if digests is not None:
            digests.require_rest()
    return digests


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with open_hdf5(path, "a descriptor store", REMEDY, "give the right file") as file:
        _require_version(path, file)
        require_layout(file, unfinished=path.name.endswith(PARTIAL))
        yield file


def _require_version(path: Path, file: Any) -> None:
    version = file.attrs.get("format_version")
    if version is None or "vectors" not in file:
        raise LmrError(f"{path} is an HDF5 file but not a descriptor store; lmr embed makes one")
    if version != FORMAT_VERSION:
        raise LmrError(
            f"{path} has format_version {version}, this program reads {FORMAT_VERSION}; "
            "use the lmr that made it, or embed into another file"
        )


def require_readable(path: Path, remedy: str) -> None:
    """Raises LmrError where a store, all but its descriptors, cannot be read, or not without harm; it says why.

    remedy: for a file that is proven to be damaged. Each file is read once.
    """
    known = path.stat()
    key = known.st_dev, known.st_ino, known.st_size, known.st_mtime_ns
    if key in _whole:
        return
    seconds = limit_of(known.st_size)
    words = [*start_words("retrieval.store.file"), str(path), str(seconds)]
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=start_environment(),
        )
    except OSError as error:
        raise LmrError(f"a process that reads {path} cannot be started: {error.strerror}") from error
    wall_s = _WALL_S + known.st_size // _WALL_BYTES_PER_S
    try:
        said, _ = process.communicate(timeout=wall_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise LmrError(
            f"{path} was not read within {wall_s} s; the machine or the disk may be busy, the file may be whole: try "
            "again"
        ) from None
    except BaseException:
        process.kill()
        process.communicate()
        raise
    if not said.startswith(_READY):
        raise LmrError(f"a process that reads {path} ended at its start with exit code {process.returncode}")
    if process.returncode == _REFUSED:
        raise LmrError(said.removeprefix(_READY).decode(errors="surrogateescape"))
    if process.returncode == -getattr(signal, "SIGXCPU", 0):
        raise LmrError(f"{path} cannot be read within {seconds} s: its HDF5 structure is damaged; {remedy}")
    if process.returncode in (-getattr(signal, "SIGSEGV", 0), -getattr(signal, "SIGABRT", 0)):
        raise LmrError(f"{path} is damaged (HDF5 crashes on its structure); {remedy}")
    if process.returncode:
        raise LmrError(f"a process that reads {path} ended with exit code {process.returncode}; try again")
    _whole.add(key)


def limit_of(n_bytes: int) -> int:
    """Seconds of computing after which reading a store of this size is known not to end."""
    return min(_MOST_S, _LEAST_S + n_bytes // _BYTES_PER_S)


def main(path: Path, seconds: int) -> int:
    """Reads the store. Returns the exit code; what is wrong is on stdout."""

    sys.stdout.buffer.write(_READY)
    sys.stdout.buffer.flush()
    limit_computing(seconds)
    try:
        limit_memory(_LEAST_MEMORY + _MEMORY_FACTOR * path.stat().st_size)
        read_without_digests(path)
    except LmrError as error:
        sys.stdout.buffer.write(str(error).encode(errors="surrogateescape"))
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
