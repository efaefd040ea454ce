"""Thumbnails of an index's rows, so that a folder copied elsewhere still shows them: the file thumbnails.h5."""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from index.folder.config import ThumbnailPlan
from retrieval.arrays import BoolArray, LongArray, UInt8Array
from retrieval.errors import LmrError, UnreadableError
from retrieval.files.atomic import write_error
from retrieval.files.hdf5 import new_hdf5, open_hdf5
from retrieval.images.decode import decode
from retrieval.images.given import read_image
from retrieval.images.limits import contain
from retrieval.parallel import run_tasks
from retrieval.progress import SILENT, Progress
from retrieval.texts import Texts

_QUALITY = 78  # of the JPEGs
_BLOCK_BYTES = 1 << 20  # of JPEGs, gathered before they are written
_CHUNK_BYTES = 1 << 16  # of the file; the last one is padded
_DIGEST = "index_digest"
_IMAGES_A_WORKER = (
    50  # 5 ms for each of 800 x 600 pixels, 20 ms of 4000 x 3000: about as long as a process takes to start
)

Kept = Callable[[], bytes | None]  # reads the thumbnail of one row, None = there is none


@dataclass(frozen=True, slots=True)
class Thumbnails:
    """The thumbnails of one index. digest: of its inputs; a file of another index shows nothing.

    fetch: puts the file where it belongs before it is read; None = it is there.
    """

    path: Path
    digest: str
    fetch: Callable[[], None] | None = None

    def read(self, row: int) -> bytes | None:
        """The JPEG of a row, None where it has none, or the folder is gone or holds another index by now."""
        try:
            if self.fetch is not None:
                self.fetch()
            with open_hdf5(self.path, "a file of thumbnails", "run lmr build-index again") as file:
                if file.attrs[_DIGEST] != self.digest:
                    return None
                start, end = (int(place) for place in file["offset"][row : row + 2])
                return bytes(file["jpeg"][start:end]) or None
        except LmrError:
            return None


def read_shown(image: str, kept: Kept | None) -> bytes:
    """The encoded image at a path, or the thumbnail of it where it cannot be read.

    Raises UnreadableError as `read_image` where there is neither.
    """
    try:
        return read_image(image)
    except UnreadableError:
        small = None if kept is None else kept()
        if small is None:
            raise
        return small


def write_thumbnails(
    path: Path, images: Sequence[str] | Texts, plan: ThumbnailPlan, digest: str, progress: Progress = SILENT
) -> int:
    """Writes the thumbnails of images by their paths, one after the other; returns how many could be made.

    Memory holds about a megabyte of them. Raises LmrError when the file cannot be written.
    """
    offset = np.zeros(len(images) + 1, dtype=np.int64)
    n_made, block = 0, bytearray()
    progress.begin("thumbnails", len(images))
    try:
        with new_hdf5(path) as file:
            file.attrs[_DIGEST] = digest
            file.create_dataset("jpeg", (0,), np.uint8, maxshape=(None,), chunks=(_CHUNK_BYTES,))
            for row, jpeg in enumerate(make_thumbnails(images, plan.side_px, plan.n_workers)):
                offset[row + 1] = offset[row] + len(jpeg)
                n_made += bool(jpeg)
                block += jpeg
                if len(block) >= _BLOCK_BYTES:
                    _append(file["jpeg"], block)
                    block = bytearray()
                progress.add(1)
            _append(file["jpeg"], block)
            file["offset"] = offset
    except OSError as error:
        raise write_error(path, error) from error
    progress.end()
    return n_made


def change_thumbnails(old: Path, new: Path, kept: BoolArray, added: Iterable[bytes], digest: str) -> int:
    """Writes the thumbnails of the rows of a file that stay, then further ones; returns how many there are now.

    kept: (n,) of the rows of the old file. added: JPEGs, b"" = none. Raises LmrError where one cannot be read or
    written.
    """
    with open_hdf5(old, "a file of thumbnails", "run lmr build-index again") as source:
        size = np.diff(source["offset"][:])
        try:
            with new_hdf5(new) as file:
                file.attrs[_DIGEST] = digest
                file.create_dataset("jpeg", (0,), np.uint8, maxshape=(None,), chunks=(_CHUNK_BYTES,))
                start = 0
                for part in _blocks(size):
                    n_bytes = int(size[part].sum())
                    block = source["jpeg"][start : start + n_bytes]
                    _append(file["jpeg"], block if kept[part].all() else block[np.repeat(kept[part], size[part])])
                    start += n_bytes
                sizes = [*size[kept].tolist()]
                for jpeg in added:
                    sizes.append(len(jpeg))
                    _append(file["jpeg"], jpeg)
                file["offset"] = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        except OSError as error:
            raise write_error(new, error) from error
    return int(np.count_nonzero(sizes))


def _blocks(size: LongArray) -> list[slice]:
    """Successive rows whose thumbnails are about as large as a block."""
    number = np.cumsum(size) // (_BLOCK_BYTES << 4)
    cuts = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(size)]
    return [slice(one, other) for one, other in pairwise(cuts) if other > one]


def make_thumbnails(images: Sequence[str] | Texts, side_px: int, n_workers: int) -> Iterator[bytes]:
    """As `make_thumbnail`, of each image in order, by processes where there are enough images for their start."""
    return run_tasks(make_thumbnail, images, side_px, n_workers, n_worth=_IMAGES_A_WORKER)


def make_thumbnail(image: str, side_px: int) -> bytes:
    """A JPEG of the image at a path, its longer side at most side_px; b"" where that cannot be read."""
    if not image:
        return b""
    try:
        small = decode(read_image(image), side_px, measured="longer")
    except UnreadableError:
        return b""
    if max(small.size) > side_px:
        small = contain(small, side_px)
    jpeg = io.BytesIO()
    small.save(jpeg, "JPEG", quality=_QUALITY)
    return jpeg.getvalue()


def _append(dataset: Any, block: bytes | bytearray | UInt8Array) -> None:
    n = dataset.shape[0]
    dataset.resize((n + len(block),))
    dataset[n:] = np.frombuffer(block, dtype=np.uint8)
