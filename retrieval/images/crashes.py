"""Images that kill the process that decodes them: which ones were under way is written down beside what is made.

Decoders are native code, and one that crashes takes its process along. The next run has the images that were under way
decoded by other processes first; what decodes well is used as ever, and what kills these too is unreadable.
"""

import io
import signal
import struct
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from retrieval.errors import LmrError, UnreadableError
from retrieval.own_process import Apart, EndedError
from retrieval.parallel import KilledError
from retrieval.progress import SILENT, Progress
from retrieval.words import counted

T = TypeVar("T")

CRASHED = "its decoder crashed"  # how such a reason begins
_KEY_BYTES = 64
_SLOT = struct.Struct("<Q")  # 0 = none, a row + 1, or:
_CAREFUL = 2**64 - 1  # a process died before this one began
_N_NAMED = 5  # images that a line names
_IN_ORDER = (LmrError, KeyboardInterrupt)  # ends of a run in which no decoder died, unless a worker did
_KILLED = getattr(signal, "SIGKILL", 9)
_TIRED = getattr(signal, "SIGXCPU", 24)


class Flight:
    """The rows that are under way, a slot for each thread or process, in a file that outlives them. Can be pickled.

    path: of the file. key: of what the rows are counted in; what was written for another key counts for nothing. Where
    the file cannot be written, and without one, nothing is known after a crash.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self.path, self.key = path, key
        self._thread, self._files = threading.local(), list[BinaryIO]()

    def __reduce__(self) -> tuple[Any, ...]:
        return Flight, (self.path, self.key)

    def begin(self) -> tuple[list[int], bool]:
        """Begins the file with what is left in it: the rows, and whether two processes died one after the other."""
        left = self._left()
        kept = sorted(left | {_CAREFUL}) if left else []
        if self.path is not None:
            with suppress(OSError):
                self.path.write_bytes(self._head + b"".join(map(_SLOT.pack, kept)))
        return sorted(slot - 1 for slot in left - {_CAREFUL}), _CAREFUL in left

    def note(self, row: int) -> None:
        """Writes down what this thread has under way from now on; what it had before is done."""
        self._write(row + 1)

    def close(self) -> None:
        """Leaves the file as it is."""
        while self._files:
            with suppress(OSError):
                self._files.pop().close()

    def end(self) -> None:
        """Removes the file: nothing is under way any more."""
        self.close()
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink()

    @property
    def _head(self) -> bytes:
        return self.key.encode()[:_KEY_BYTES].ljust(_KEY_BYTES)

    def _left(self) -> set[int]:
        try:
            data = b"" if self.path is None else self.path.read_bytes()
        except OSError:
            return set()
        if data[:_KEY_BYTES] != self._head:
            return set()
        whole = len(data) - (len(data) - _KEY_BYTES) % _SLOT.size
        return {slot for (slot,) in _SLOT.iter_unpack(data[_KEY_BYTES:whole])} - {0}

    def _write(self, slot: int) -> None:
        here = self._thread
        if not hasattr(here, "file"):
            here.file, here.place = self._open_slot()
            self._files.append(here.file)
        with suppress(OSError, ValueError):  # it may be closed when a run ends with an error
            here.file.seek(here.place)
            here.file.write(_SLOT.pack(slot))

    def _open_slot(self) -> tuple[BinaryIO, int]:
        """A file of this thread's own, and where its slot is; in memory where there can be none on disk."""
        if self.path is None:
            return io.BytesIO(), 0
        try:
            with self.path.open("ab", buffering=0) as file:
                file.write(_SLOT.pack(0))
                place = file.tell() - _SLOT.size
            return self.path.open("r+b", buffering=0), place
        except OSError:
            return io.BytesIO(), 0


class Careful(Generic[T]):
    """Decoding that an image may crash once: not again in the run that follows. A context manager.

    decode: an encoded image to what is made of it, a function that can be pickled, or a `partial` of one. n_workers:
    processes at once. name: of a row, for people. Leaving it removes the file of what is under way; by Ctrl-C or an
    error that a user can act on unless a process died in this run, or before it. is_apart: other processes decode all
    images, as one is known to crash, or two runs died one after the other.
    """

    def __init__(
        self,
        flight: Flight,
        decode: Callable[[Any], T],
        name: Callable[[int], str],
        *,
        n_workers: int = 1,
        progress: Progress = SILENT,
    ) -> None:
        self.flight, self.n_workers, self.progress = flight, n_workers, progress
        self._decode, self._name = decode, name
        self._tried: dict[int, T | str] = {}
        self.is_apart = self._follows_death = False
        self._idle: list[Apart] = []

    def __enter__(self) -> "Careful[T]":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        while self._idle:
            self._idle.pop().end()
        in_order = kind is not None and issubclass(kind, _IN_ORDER) and not issubclass(kind, KilledError)
        if kind is None or (in_order and not self._follows_death):
            self.flight.end()
        else:
            self.flight.close()

    def begin(
        self, rows: Iterable[int], read: Callable[[int], bytes], crashed: Iterable[int] = ()
    ) -> dict[int, T | str]:
        """Has other processes decode those of these rows that were under way when a process died.

        crashed: rows that are known to have crashed, which is tried in the same way. Gives what came of each, or why it
        cannot be read; `read_row` gives the same once more.
        """
        left, self.is_apart = self.flight.begin()
        self._follows_death = bool(left) or self.is_apart
        due, known = set(rows), set(crashed)
        left, known_left = [row for row in left if row in due and row not in known], sorted(known & due)
        for what, found in (("under way when a process died", left), ("known to crash", known_left)):
            if found:
                self.progress.tell(
                    f"{counted(len(found), 'picture')} {what}: {self._named(found)}; other processes try first"
                )
        with ThreadPoolExecutor(max(1, self.n_workers)) as pool:
            made = pool.map(lambda row: self._made(partial(read, row), self.apart), left + known_left)
            self._tried = dict(zip(left + known_left, made, strict=True))
        if self.is_apart and len(due) > len(self._tried):
            self.progress.tell(
                "the rest is decoded in other processes too, so that no picture ends this run, which takes longer"
            )
        return dict(self._tried)

    def read_row(self, row: int, read: Callable[[], bytes], decode: Callable[[bytes], T]) -> T | str:
        """What is made of an image, by `decode` in this process where no image is known to crash; or the reason."""
        if row in self._tried:
            return self._tried.pop(row)
        self.flight.note(row)
        return self._made(read, self.apart if self.is_apart else decode)

    def _made(self, read: Callable[[], bytes], decode: Callable[[bytes], T]) -> T | str:
        try:
            return decode(read())
        except UnreadableError as error:
            return str(error)

    def apart(self, data: Any) -> T:
        """As `decode`, in another process: if it dies, once more in one that has done nothing else before."""
        for process in (self._idle_one(), None):
            try:
                return self._done_by(process or Apart(self._decode), data)
            except EndedError as error:
                ended = error
        raise UnreadableError(self._why(ended)) from ended

    def _idle_one(self) -> Apart | None:
        try:
            return self._idle.pop()
        except IndexError:  # asked for before it is known, as other threads take from the same list
            return None

    def _done_by(self, process: Apart, data: Any) -> T:
        """What is made of an image by a process, which is kept for the next one if it lives."""
        lives = False
        try:
            made: T = process.do(data)
            lives = True
            return made
        except UnreadableError:
            lives = True
            raise
        finally:
            if lives:
                self._idle.append(process)
            else:
                process.end()

    def _why(self, error: EndedError) -> str:
        if error.signal == _TIRED:
            return f"takes more than {Apart.MAX_SECONDS} s to decode"
        self.is_apart = True
        if error.signal == _KILLED:
            return f"{CRASHED} (signal {_KILLED}), most often for want of memory"
        return f"{CRASHED} ({f'signal {error.signal}' if error.signal else f'exit code {error.code}'})"

    def _named(self, rows: list[int]) -> str:
        more = f" and {len(rows) - _N_NAMED:,} more" if len(rows) > _N_NAMED else ""
        return ", ".join(map(self._name, rows[:_N_NAMED])) + more
