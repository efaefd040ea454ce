"""Files moved into a folder, each move written down before it happens, so that all of them can be undone."""

import contextlib
import errno
import filecmp
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from retrieval.errors import LmrError
from retrieval.files.atomic import flush_folder, replacing, write_text
from retrieval.files.digest import sha256_json

JOURNAL = ".lmr-moves.jsonl"  # in the folder that files are moved into
_DIGEST_CHARACTERS = 16  # of sha256, of each line
_ESCAPE_CUT = re.compile(rb"\\(u[0-9a-f]{0,3})?$")


@dataclass(frozen=True, slots=True)
class Move:
    """source: where a file was, absolute. target: where it went, within the folder."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Undone:
    """n_back: files that are where they were. left: moves that could not be undone, each with the reason."""

    n_back: int
    left: tuple[tuple[Move, str], ...]


class MoveJournal:
    """The moves into one folder, whose lock must be held. Raises LmrError for a journal that is not one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / JOURNAL
        self.moves = self._read()

    def move(self, source: Path, target: Path) -> None:
        """Moves a file; `target` is a free name in the folder. OSError as of the system; the file is then at `source`.

        Between file systems it is copied, and removed from `source` when the copy is on disk.
        """
        entry = Move(os.path.abspath(source), os.path.relpath(target, self.folder))
        self._append(entry)
        _move(Path(entry.source), target)
        self.moves.append(entry)

    def finish(self) -> None:
        """Ends a move between file systems that was cut off after the copy: the same file at both places is one.

        Only the last move can have been cut off.
        """
        for entry in self.moves[-1:]:
            source, target = Path(entry.source), self.folder / entry.target
            both = source.is_file() and target.is_file() and not source.samefile(target)
            if both and filecmp.cmp(source, target, shallow=False):
                source.unlink()
                flush_folder(source.parent)

    def undo(self) -> Undone:
        """Moves everything back, the last first, but for files whose old place is taken; goes on after a stop."""
        left: list[tuple[Move, str]] = []
        n_back = 0
        for entry in reversed(self.moves):
            source, target = Path(entry.source), self.folder / entry.target
            if not os.path.lexists(target):  # moved back before, or never moved
                if not os.path.lexists(source):
                    left.append((entry, "is at neither place"))
                continue
            if os.path.lexists(source):
                left.append((entry, "its old place is taken"))
                continue
            try:
                source.parent.mkdir(parents=True, exist_ok=True)
                _move(target, source)
            except OSError as error:
                left.append((entry, error.strerror or str(error)))
                continue
            n_back += 1
        self._keep([entry for entry, _ in reversed(left)])
        return Undone(n_back, tuple(reversed(left)))

    def _keep(self, moves: list[Move]) -> None:
        """Makes these the whole journal; without any there is none, and folders that are empty go too."""
        parents = {(self.folder / entry.target).parent for entry in self.moves}
        self.moves = moves
        if moves:
            write_text(self.path, map(_line, moves))
        else:
            self.path.unlink(missing_ok=True)
        for folder in (*sorted(parents, reverse=True), self.folder):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def _append(self, entry: Move) -> None:
        is_new = not self.path.exists()
        with self.path.open("ab") as file:
            if file.tell() and not self._ends_a_line():
                file.write(b"\n")  # after a line that a kill or a full disk cut off
            file.write(_line(entry).encode())
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            flush_folder(self.folder)

    def _ends_a_line(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _read(self) -> list[Move]:
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise LmrError(f"{self.path} cannot be read: {error.strerror}") from error
        moves = []
        for number, line in enumerate(lines, start=1):
            if _is_cut_off(line):
                continue  # before it was on disk: its move did not begin
            try:
                moves.append(_parse(line))
            except (ValueError, TypeError) as error:
                raise LmrError(
                    f"{self.path}:{number}: not a line of moved files ({error}); nothing was moved now, mend that line"
                ) from error
        return moves


def _parse(line: bytes) -> Move:
    """Raises ValueError or TypeError for a line that was not written as it is."""
    content = json.loads(line)
    if not isinstance(content, list) or len(content) not in (2, 3):
        raise ValueError("two paths are expected")
    source, target, *digest = content
    if not (isinstance(source, str) and isinstance(target, str)) or "\0" in source + target:
        raise ValueError("two paths are expected")
    if digest and digest != [_digest(source, target)]:
        raise ValueError("it was changed since it was written")
    if not os.path.isabs(source) or os.path.isabs(target) or os.pardir in Path(target).parts:
        raise ValueError("a file was moved from an absolute path into the folder")
    return Move(source, target)


def _is_cut_off(line: bytes) -> bool:
    """Tells whether this is the beginning of a line, and no more of it."""
    if line.endswith(b"]"):
        return False
    begun = _ESCAPE_CUT.sub(b"", line)
    ends = (b"", b'"', b'""') if begun == line else (b'"',)  # an escape stands between quotes
    for end in ends:
        with contextlib.suppress(ValueError):
            json.loads(begun.rstrip(b", ") + end + b"]")
            return True
    return not line or line == b"["


def _digest(source: str, target: str) -> str:
    return sha256_json([source, target])[:_DIGEST_CHARACTERS]


def _move(source: Path, target: Path) -> None:
    """Renames, or copies, flushes and removes. OSError; FileExistsError where the target is there."""
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with replacing(target) as copy, source.open("rb") as file:
            shutil.copyfileobj(file, copy)
        shutil.copystat(source, target)
        source.unlink()
    flush_folder(target.parent)
    flush_folder(source.parent)


def _line(entry: Move) -> str:
    """In ASCII, in which names that are not UTF-8 have a form too."""
    return json.dumps([entry.source, entry.target, _digest(entry.source, entry.target)]) + "\n"
