"""The rows of an index folder and the inverted file over them as they are opened, also a shard of them alone."""

from dataclasses import dataclass
from pathlib import Path

from index.folder.info import (
    ADDED,
    AUGMENTED,
    CALIBRATION,
    INDEX,
    INFO,
    FolderInfo,
    check_files,
    read_info,
    search_names,
)
from index.search.address import address_of
from index.search.config import SearchInfo
from index.search.flat import FlatIndex
from index.search.ivf import IvfIndex, IvfShards, SearchSettings
from index.search.shards import Shard, first_rows, shard_sizes
from retrieval.errors import LmrError
from retrieval.files.folders import current_folder
from retrieval.progress import PYTHON_WARNINGS, Progress
from retrieval.words import counted

Identity = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Searching:
    """What a search computes on. threads: None = all cores; progress: is told of GPUs that take rows, or cannot."""

    device: str = "auto"
    threads: int | None = None
    progress: Progress = PYTHON_WARNINGS


def load_rows(folder: Path, info: FolderInfo, how: Searching) -> FlatIndex:
    """The images' own descriptors. Raises LmrError for a file that is missing or damaged."""
    added = folder / ADDED if ADDED in info.files else None
    norm = info.largest_norm or None
    return FlatIndex.load(folder / INDEX, how.device, how.threads, norm, how.progress, added=added)


def load_augmented(folder: Path, info: FolderInfo, how: Searching) -> FlatIndex | None:
    """The rows with what they borrow, None where they do not. Raises LmrError as `load_rows`."""
    if AUGMENTED not in info.files:
        return None
    norm = info.largest_augmented_norm or None
    return FlatIndex.load(folder / AUGMENTED, how.device, how.threads, norm, how.progress)


def load_ivf(folder: Path, info: FolderInfo, rows: FlatIndex, how: Searching) -> IvfShards | None:
    """The inverted files over the rows that are searched, None where all are compared. LmrError as `load_rows`."""
    if info.search is None:
        return None
    paths = [folder / name for name in search_names(info.n_shards)]
    return IvfShards.load(paths, rows, info.shard_sizes, _settings(info.search), how.threads)


def _settings(search: SearchInfo) -> SearchSettings:
    return SearchSettings(search.n_probe, search.n_candidates)


def load_searched(
    folder: Path, info: FolderInfo, how: Searching, *, searched: bool
) -> tuple[FlatIndex, FlatIndex | None, IvfShards | None]:
    """All three of them; `searched` False leaves the inverted file closed."""
    index, augmented = load_rows(folder, info, how), load_augmented(folder, info, how)
    ivf = load_ivf(folder, info, index if augmented is None else augmented, how) if searched else None
    return index, augmented, ivf


def open_shard(path: Path, i: int, n: int, how: Searching, *, own: bool = False) -> tuple[FolderInfo, Shard]:
    """What an index folder is, and stretch i of n of its rows, counted from 0; nothing else of it is read.

    own: of the images' own descriptors, compared exactly, whatever else answers are found by. An inverted file has
    shards of its own, so n is their number, and only that one is read. Raises LmrError that names the file: missing,
    cut short, of another format version.
    """
    folder = current_folder(path)
    before, info = identity(folder), read_info(folder)
    check_files(folder, info, "size")
    augmented = None if own else load_augmented(folder, info, how)
    rows = load_rows(folder, info, how) if augmented is None else augmented
    search = None if own else info.search
    if search is not None and n != info.n_shards:
        raise ValueError(f"the inverted file of {folder} has {counted(info.n_shards, 'shard')}, not {n}")
    sizes = info.shard_sizes if n == info.n_shards else shard_sizes(len(rows), n)
    first = first_rows(sizes)[i]
    part: FlatIndex | IvfIndex = rows.part(first, sizes[i])
    if search is not None:
        part = IvfIndex.load(folder / search_names(n)[i], rows.part(first, sizes[i]), _settings(search), how.threads)
    shard = Shard(part, first)
    if identity(folder) != before or read_info(folder) != info:
        raise LmrError(f"{folder} was replaced while it was read; run the command again")
    return info, shard


def state_of(path: str | Path) -> object:
    """Tells the folder at a path from any other that takes its place, and from itself with another calibration.

    Raises LmrError for an address whose server cannot be asked.
    """
    if (address := address_of(path)) is not None:
        from index.folder.served import state_at

        return state_at(address)
    folder = current_folder(Path(path))
    return tuple(identity(place) for place in (folder, folder / INFO, folder / CALIBRATION))


def identity(place: Path) -> Identity | None:
    """Tells a folder or file from another one of its name, also from one with the same content; None without one."""
    try:
        known = place.stat()
    except OSError:
        return None
    return known.st_dev, known.st_ino, known.st_ctime_ns
