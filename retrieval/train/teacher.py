"""The descriptors that a network learns to imitate: stores of a larger model or an ensemble, without torch.

Of the run's identity `teacher.identity` is a part, since another teacher gives other weights. The teacher describes
whole images; the network learns to give the same for images that were cropped and changed.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval.arrays import BoolArray, FloatArray, LongArray, ObjArray, read_only
from retrieval.errors import LmrError
from retrieval.store.blocks import StoreBlocks, open_blocks
from retrieval.store.info import model_difference

N_NAMED = 3  # images that an error names


@dataclass(frozen=True, slots=True, eq=False)
class Teacher:
    """The stores and rows of the descriptor of each training image.

    stores: of one model. store: (n,) which of them holds training row i, -1 = none has a descriptor of it; row: (n,)
    int64, its row there. identity: sha256 (hex) over the model and which descriptors are whose.
    """

    stores: tuple[StoreBlocks, ...]
    store: LongArray
    row: LongArray
    identity: str

    def __post_init__(self) -> None:
        if self.store.shape != self.row.shape:
            raise ValueError(f"store {self.store.shape} and row {self.row.shape} must be equal")
        object.__setattr__(self, "store", read_only(self.store))
        object.__setattr__(self, "row", read_only(self.row))

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the model that made the descriptors."""
        return self.stores[0].info.fingerprint

    @property
    def d(self) -> int:
        """Length of a descriptor."""
        return self.stores[0].info.d

    def targets(self, rows: LongArray) -> tuple[FloatArray, BoolArray]:
        """Unit descriptors (b, d) float32 of these training rows, and (b,) whether there is one; else it is zero.

        Raises LmrError for a descriptor that is zero or not finite.
        """
        found = np.zeros((len(rows), self.d), dtype=np.float32)
        store = self.store[rows]
        for i, blocks in enumerate(self.stores):
            here = np.flatnonzero(store == i)
            if len(here):
                found[here] = blocks.vectors(self.row[rows[here]])
        return found, store >= 0


def open_teacher(paths: Sequence[Path], image_id: ObjArray) -> Teacher:
    """The teacher of these training images, found in the stores by their names.

    image_id: (n,) of the training rows; those that the teacher could not read have no target. Raises LmrError: stores
    of different models, an image twice, training images that no store lists, or none that has a descriptor.
    """
    stores = tuple(open_blocks(path) for path in paths)
    if not stores:
        raise ValueError("paths is empty")
    first = stores[0]
    places: dict[str, tuple[int, int]] = {}
    for i, store in enumerate(stores):
        if store.info.fingerprint != first.info.fingerprint:
            what = model_difference(store.info.made_by, first.info.made_by)
            raise LmrError(
                f"{store.source} does not fit {first.source}: {what}; a teacher is one model, which may be an ensemble"
            )
        for row, name in enumerate(store.image_id.tolist()):
            if name in places:
                raise LmrError(f"{store.source}: {name} is there twice (also in {stores[places[name][0]].source})")
            places[name] = (i, row)
    missing = [name for name in image_id.tolist() if name not in places]
    if missing:
        more = f" and {len(missing) - N_NAMED} more" if len(missing) > N_NAMED else ""
        raise LmrError(
            f"`teacher` {', '.join(map(str, paths))}: {len(missing)} of {len(image_id)} training pictures are not "
            f"there: {', '.join(missing[:N_NAMED])}{more}; "
            "run lmr embed on the training manifest with the teacher's model"
        )
    place = np.array([places[name] for name in image_id.tolist()], dtype=np.int64).reshape(-1, 2)
    done = [np.isin(np.arange(len(store)), store.done) for store in stores]
    known = np.array([done[i][row] for i, row in place.tolist()], dtype=np.bool_)
    if not known.any():
        raise LmrError(
            f"`teacher` {', '.join(map(str, paths))}: has no descriptor of any training picture; embed again"
        )
    told = "\n".join([first.info.fingerprint, *(f"{name} {k}" for name, k in zip(image_id, known, strict=True))])
    identity = hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest()
    return Teacher(stores, np.where(known, place[:, 0], -1), place[:, 1], identity)
