"""Reads a store without digests in a process of its own before this one does, as a damaged structure can make HDF5
hang, die or fill the memory; run as a script, it is that process.
"""

import signal
import subprocess
import sys
from pathlib import Path

from retrieval.errors import LmrError
from retrieval.own_process import limit_computing, limit_memory, start_environment, start_words

_WALL_S = 55  # until it has read all, on a machine that does other work too; more for large files on slow disks
_WALL_BYTES_PER_S = 20 << 20
_READY = b"ready\n"  # what the process says when it begins to read
_REFUSED = 3  # its exit code when it has said what is wrong
_LEAST_S, _MOST_S = 6, 50  # of computing, for a small and for the largest store
_BYTES_PER_S = 100 << 20  # slower than any machine reads
_LEAST_MEMORY = 1 << 29
_MEMORY_FACTOR = 8  # texts in memory, over their bytes in a file
_whole: set[tuple[int, int, int, int]] = set()  # what was read already, by what tells files and their changes apart


def require_readable(path: Path, remedy: str) -> None:
    """Raises LmrError where a store, all but its descriptors, cannot be read, or not without harm; it says why.

    remedy: for a file that is proven to be damaged. Each file is read once.
    """
    known = path.stat()
    key = known.st_dev, known.st_ino, known.st_size, known.st_mtime_ns
    if key in _whole:
        return
    seconds = limit_of(known.st_size)
    words = [*start_words("retrieval.store_probe"), str(path), str(seconds)]
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
    from retrieval.store_file import read_without_digests

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
