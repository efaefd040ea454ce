"""Queries that look the same as rows near them, told by the pictures themselves."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from index.folder.folder import IndexFolder
from index.folder.thumbnails import Thumbnails
from retrieval.arrays import BoolArray, LongArray, ObjArray
from retrieval.data.near_duplicates import NEAR_BITS
from retrieval.errors import UnreadableError
from retrieval.images.source import read_picture
from retrieval.parallel import run_tasks

# Of 64 bits by which the hash of a thumbnail may differ from its picture's: of 120 photographs 0 to 4, where two of
# them have 18 between them and more. Below so many pixels on the shorter side it says too little (up to 26 bits).
_THUMBNAIL_BITS = 8
_THUMBNAIL_PX = 64
_PICTURES_A_TASK = 64  # fewer are done before other processes are there

_Looked = tuple[str, int]  # the path of a picture, and the row whose thumbnail does in its place, -1 = none


@dataclass(frozen=True, slots=True)
class Looking:
    """How pictures are looked at: by n_workers processes.

    on_begin: told how many there are, before the first, and again for those that are looked at closely. on_done: told
    of each n more.
    """

    n_workers: int = 1
    on_begin: Callable[[int], None] = lambda _: None
    on_done: Callable[[int], None] = lambda _: None


def look_the_same(folder: IndexFolder, path: ObjArray, pairs: LongArray, looking: Looking) -> BoolArray:
    """(p,) bool: whether the perceptual hashes of the two pictures of a pair are those of copies.

    path: (q,) of the queries, "" = none. pairs: (p, 2), a query and a row of the index. The thumbnails of the folder
    rule out most; pictures that are left are read themselves, where they can be. False where there is neither.
    """
    thumbnail_of = {} if folder.thumbnails is None else {name: row for row, name in enumerate(folder.rows.path)}
    both = [(str(path[query]), str(folder.rows.path[row])) for query, row in pairs.tolist()]
    rough = _hashes(both, thumbnail_of, folder.thumbnails, looking)
    left = [pair for pair in both if _bits(rough, pair) <= NEAR_BITS + _THUMBNAIL_BITS]
    again = [tuple(name for name in pair if name in thumbnail_of) for pair in left]
    exact = {name: found for name, found in _hashes(again, {}, None, looking).items() if found is not None}
    hashes = rough | exact
    return np.array([_bits(hashes, pair) <= NEAR_BITS for pair in both], dtype=np.bool_)


def _bits(hashes: dict[str, int | None], pair: tuple[str, str]) -> int:
    """How many bits differ; more than there are where one has no hash."""
    one, other = (hashes[path] for path in pair)
    return 65 if one is None or other is None else (one ^ other).bit_count()


def _hashes(
    groups: Iterable[tuple[str, ...]], thumbnail_of: dict[str, int], thumbnails: Thumbnails | None, looking: Looking
) -> dict[str, int | None]:
    """The hash of each picture once, by its path; None where it cannot be read."""
    paths = list(dict.fromkeys(path for group in groups for path in group))
    asked = [(path, thumbnail_of.get(path, -1)) for path in paths]
    tasks = [asked[i : i + _PICTURES_A_TASK] for i in range(0, len(asked), _PICTURES_A_TASK)]
    found: list[int | None] = []
    if tasks:
        looking.on_begin(len(paths))
    for hashes in run_tasks(_look, tasks, thumbnails, looking.n_workers):
        found += hashes
        looking.on_done(len(hashes))
    return dict(zip(paths, found, strict=True))


def _look(asked: list[_Looked], thumbnails: Thumbnails | None) -> list[int | None]:
    return [_hash(path, row, thumbnails) for path, row in asked]


def _hash(path: str, row: int, thumbnails: Thumbnails | None) -> int | None:
    from retrieval.images.decode import picture_size
    from retrieval.images.quality import hash_picture  # scipy waits until there are pictures to compare

    small = thumbnails.read(row) if thumbnails is not None and row >= 0 else None
    try:
        if small is not None and (min(picture_size(small)) >= _THUMBNAIL_PX or not os.path.exists(path)):
            return hash_picture(small)
        return hash_picture(read_picture(path)) if path else None
    except UnreadableError:
        return None
