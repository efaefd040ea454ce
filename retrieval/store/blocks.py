"""A finished descriptor store whose descriptors stay in the file and are read a block at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval.arrays import FloatArray, LongArray, ObjArray, UInt8Array, read_only
from retrieval.files.hdf5 import read_paths, read_texts
from retrieval.files.hdf5_digests import Digests
from retrieval.store.file import damage_named, open_store, read_info
from retrieval.store.info import StoreInfo
from retrieval.store.layout import DONE
from retrieval.store.store import require_finished, to_unit

BLOCK_ROWS = 8192


@dataclass(frozen=True, slots=True, eq=False)
class StoreBlocks:
    """Images of a store, and where its descriptors lie.

    image_id, path: (n,) str. state: (n,) uint8. digests: None in a store that carries none.
    """

    source: str
    image_id: ObjArray
    path: ObjArray
    state: UInt8Array
    info: StoreInfo
    offset: int
    digests: Digests | None = None

    def __post_init__(self) -> None:
        for name in ("image_id", "path", "state"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

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
        dtype = np.dtype(self.info.dtype).newbyteorder("<")
        if self.digests is not None:
            with damage_named(Path(self.source)):
                self.digests.require_rows(rows, dtype.itemsize * self.info.d)
        in_file = np.memmap(self.source, dtype, "r", self.offset, (len(self), self.info.d))
        return to_unit(in_file[rows], self.image_id[rows], self.source)

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
        return StoreBlocks(
            source=str(path),
            image_id=read_texts(file["image_id"]),
            path=read_paths(file["path"]),
            state=file["state"][:],
            info=read_info(file),
            offset=file["vectors"].id.get_offset() or 0,
            digests=digests,
        )
