"""Images inside tars, read in place: by id, by their path in the tar, or by `<tar>/<path in it>` like any file."""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from retrieval.errors import LmrError, UnreadableError
from retrieval.files.urls import FileStatus, is_folder_url, joined, read_range, remote_url, status_of
from retrieval.images.limits import DEFAULT_LIMITS, Limits
from retrieval.images.signatures import IMAGE_SUFFIXES, is_hidden
from retrieval.images.tars.build_index import open_index
from retrieval.images.tars.headers import Member
from retrieval.images.tars.headers import is_tar as is_tar
from retrieval.images.tars.index import TarEntry, TarIndex
from retrieval.progress import SILENT, Progress
from retrieval.words import agreeing, counted

_SHOWN_WARNINGS = 10
_LEADING_OUT = (
    "link, device or name that leads out of it was",
    "links, devices and names that lead out of it were",
)
_MAX_OPEN = 32  # index files; one holds the tars of a folder

_open_indexes: dict[str, TarIndex] = {}  # by folder, so that a path in a tar is found without opening it again


@dataclass(frozen=True, slots=True)
class Found:
    """An image in a tar. tar: its path or URL. entry: the tar as it was indexed."""

    tar: str
    entry: TarEntry
    member: Member

    @property
    def path(self) -> str:
        """`<tar>/<path in it>`."""
        return f"{self.tar}/{self.member.name}"

    def read(self, limits: Limits = DEFAULT_LIMITS, n_bytes: int | None = None) -> bytes:
        """The encoded image, or its first bytes. Raises UnreadableError with the reason."""
        size = self.member.size
        if size > limits.max_bytes:
            raise UnreadableError(f"{size:,} bytes, over the limit of {limits.max_bytes:,}")
        size = size if n_bytes is None else min(size, n_bytes)
        data = self._read(size) if remote_url(self.tar) is None else self._read_range(size)
        if len(data) < size:
            raise UnreadableError(f"{self.tar} ends within it")
        return data

    def _read(self, size: int) -> bytes:
        try:
            file = os.open(self.tar, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            try:
                if not self.entry.is_of(os.fstat(file)):
                    raise UnreadableError(f"{self.tar} was changed meanwhile; run the same command again")
                return os.pread(file, size, self.member.offset)
            finally:
                os.close(file)
        except OSError as error:
            raise UnreadableError(f"{self.tar}: {error.strerror}") from error

    def _read_range(self, size: int) -> bytes:
        """The same at a URL, where only its opening tells whether the tar was changed."""
        try:
            return read_range(self.tar, self.member.offset, self.member.offset + size)
        except FileNotFoundError as error:
            raise UnreadableError(f"{self.tar} is gone") from error


class TarSet:
    """The images in some tars of one folder, here or at a URL. Can be pickled, and used in threads.

    paths: of the tars. Raises LmrError when one of them cannot be read. Those that are refused hold nothing.
    """

    def __init__(self, paths: Sequence[Path], progress: Progress = SILENT) -> None:
        folder = paths[0].parent
        self._index, entries = open_index(folder, [path.name for path in paths], progress)
        self._tars = {entry.id: (joined(folder, entry.path), entry) for entry in entries}

    def __len__(self) -> int:
        return len(self._tars)

    @property
    def paths(self) -> list[str]:
        """Of the tars that can be used, here or at a URL."""
        return [path for path, entry in self._tars.values() if not entry.is_refused]

    @property
    def n_bytes(self) -> int:
        """Size of these."""
        return sum(entry.size for _, entry in self._tars.values() if not entry.is_refused)

    @property
    def n_other(self) -> int:
        """Files in the tars that are not images by their suffix."""
        return sum(entry.n_other for _, entry in self._tars.values())

    @property
    def n_pictures(self) -> int:
        """Images in the tars, those that occur again in a tar counted again."""
        return sum(entry.end_row - entry.first_row for _, entry in self._tars.values())

    @property
    def refusal(self) -> str:
        """Why the first tar that cannot be used cannot be; '' when all can."""
        return next((f"{path} {entry.problem}" for path, entry in self._tars.values() if entry.is_refused), "")

    def warnings(self) -> list[str]:
        """A line for each tar that something is wrong with: the first ones by name, then a count."""
        lines = [line for path, entry in self._tars.values() for line in _warnings(path, entry)]
        more = len(lines) - _SHOWN_WARNINGS
        return [*lines[:_SHOWN_WARNINGS], f"and {counted(more, 'more such line')} about tars"] if more > 0 else lines

    def names(self, path: str) -> list[str]:
        """The images in one of the tars, by their paths in it, as a walk through its folders meets them."""
        entries = [entry for tar, entry in self._tars.values() if tar == path]
        return [name for entry in entries for name in self._index.names(entry)]

    def find_id(self, image_id: str) -> Found | None:
        """The image `<id>`, with or without a suffix: at the top, in a/b/c folders of its first letters, or deeper.

        Raises UnreadableError when there are several.
        """
        google = "/".join((*image_id[:3], image_id))
        found: tuple[list[Found], list[Found]] = ([], [])
        for one in self._find(image_id):
            names = (one.member.name, _stem(one.member.name))
            if image_id in names or google in names:
                found[0].append(one)
            elif any(name.endswith(f"/{image_id}") for name in names):
                found[1].append(one)
        return self._known(_single(found[0] or found[1]))

    def find_path(self, path: str) -> Found | None:
        """The image at a path within one of the tars. Raises UnreadableError when several hold one."""
        return self._known(_single([one for one in self._find(path) if one.member.name == path]))

    def _find(self, name: str) -> list[Found]:
        return [Found(*self._tars[tar], member) for tar, member in self._index.find(name) if tar in self._tars]

    def _known(self, found: Found | None) -> Found | None:
        """An image that was found. LmrError where it was not, because the index is damaged."""
        if found is None:
            self._index.verify()
        return found


def is_tar_name(name: str) -> bool:
    """True for a file in a folder that counts as a tar."""
    return name.lower().endswith(".tar") and not is_hidden(name)


def list_tars(folder: str | Path) -> list[Path]:
    """The tars directly in a folder, sorted; none in what is no folder."""
    try:
        names = sorted(filter(is_tar_name, os.listdir(folder)))
    except OSError:
        return []
    return [path for name in names if (path := Path(folder, name)).is_file()]


def open_tar(path: str | Path, progress: Progress = SILENT) -> TarSet:
    """The images in one tar. Raises LmrError when it cannot be used."""
    tars = TarSet([Path(path)], progress)
    if tars.refusal:
        raise LmrError(tars.refusal)
    return tars


def find_member(path: str) -> Found | None:
    """The image that `<tar>/<path in it>` names; None when there is no such tar or image.

    Raises UnreadableError for a tar that cannot be used.
    """
    split = _split(path)
    if split is None:
        return None
    tar, name, status = split
    folder = os.path.dirname(tar)
    index = _open_indexes.get(folder)
    entry = index.entry(os.path.basename(tar), status) if index else None
    if index is None or entry is None:
        try:
            if remote_url(tar) is None and not is_tar(tar):
                return None
            index, (entry,) = open_index(Path(folder), [os.path.basename(tar)])
        except LmrError as error:
            raise UnreadableError(str(error)) from error
        while len(_open_indexes) >= _MAX_OPEN:
            _open_indexes.pop(next(iter(_open_indexes)), None)
        _open_indexes[folder] = index
    if entry.is_refused:
        raise UnreadableError(f"{tar} {entry.problem}")
    members = [member for tar_id, member in index.find(name) if tar_id == entry.id and member.name == name]
    if not members:
        index.verify()
    return Found(tar, entry, members[0]) if members else None


def _split(path: str) -> tuple[str, str, os.stat_result | FileStatus] | None:
    """The file that stands where a path has a folder, the rest of the path, and what the file is; None without one."""
    if remote_url(path) == path:
        return _split_url(path)
    cut = len(path)
    while (cut := path.rfind("/", 0, cut)) > 0:
        try:
            status = os.stat(path[:cut])
        except NotADirectoryError:
            continue
        except (OSError, ValueError):
            return None
        return (path[:cut], path[cut + 1 :], status) if stat.S_ISREG(status.st_mode) else None
    return None


def _split_url(url: str) -> tuple[str, str, FileStatus] | None:
    """As `_split`; only what is named like a tar is looked for."""
    cut = 0
    while (cut := url.lower().find(".tar/", cut) + 4) > 4:
        with suppress(FileNotFoundError):
            if not is_folder_url(url[:cut]):
                status = status_of(url[:cut])
                return url[:cut], url[cut + 1 :], FileStatus(status.st_size, status.st_mtime_ns)
    return None


def _single(found: Sequence[Found]) -> Found | None:
    if len(found) > 1:
        first, second, *others = sorted(one.path for one in found)
        more = f" and {len(others)} more" if others else ""
        raise UnreadableError(f"it is there more than once: {first}, {second}{more}; keep one, or give a path column")
    return found[0] if found else None


def _stem(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in IMAGE_SUFFIXES else name


def _warnings(path: str, entry: TarEntry) -> Iterator[str]:
    if entry.is_refused:
        yield f"{path} {entry.problem}; it is passed over"
    elif entry.problem:
        n = entry.end_row - entry.first_row
        yield f"{path} {entry.problem}; of its pictures the {n:,} up to there are used"
    if entry.n_unsafe:
        yield f"{path}: {entry.n_unsafe:,} {agreeing(entry.n_unsafe, *_LEADING_OUT)} passed over"
