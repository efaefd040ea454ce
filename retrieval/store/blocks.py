"""A finished descriptor store whose descriptors stay in the file and are read a block at a time, of unit length."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval.arrays import FloatArray, LongArray, UInt8Array, read_only
from retrieval.files.hdf5 import pack_texts
from retrieval.store.file import open_store, read_info
from retrieval.store.info import StoreInfo
from retrieval.store.layout import DONE
from retrieval.store.store import require_finished, require_share
from retrieval.store.stored import BLOCK_ROWS, StoredVectors, open_vectors, to_unit
from retrieval.texts import Texts


@dataclass(frozen=True, slots=True, eq=False)
class StoreBlocks:
    """Images of a store, and its descriptors as they are stored.

    image_id, path: (n,) columns. state: (n,) uint8.
    """

    source: str
    image_id: Texts
    path: Texts
    state: UInt8Array
    info: StoreInfo
    stored: StoredVectors

    def __post_init__(self) -> None:
        object.__setattr__(self, "state", read_only(self.state))

    def __len__(self) -> int:
        return len(self.image_id)

    @property
    def done(self) -> LongArray:
        """The rows that have a descriptor."""
        return np.flatnonzero(self.state == DONE)

    def vectors(self, rows: LongArray) -> FloatArray:
        """The descriptors of these rows, (len(rows), d) float32 of unit length.

        Raises LmrError for what is not as it was written, and for zero, NaN or infinity.
        """
        return to_unit(self.stored[rows], self.image_id.select(rows), self.source)

    def blocks(self, rows: LongArray) -> Iterator[tuple[LongArray, FloatArray]]:
        """The rows in parts of at most BLOCK_ROWS, with their descriptors."""
        for start in range(0, len(rows), BLOCK_ROWS):
            part = rows[start : start + BLOCK_ROWS]
            yield part, self.vectors(part)


def open_blocks(path: str | Path) -> StoreBlocks:
    """Opens a finished store. Raises LmrError as `read_store`."""
    path = Path(path)
    require_finished(path)
    with open_store(path) as (file, digests):
        require_share(path, info := read_info(file))
        stored = open_vectors(path, file, digests)
        return StoreBlocks(str(path), stored.image_id, pack_texts(file["path"]), stored.state, info, stored)
