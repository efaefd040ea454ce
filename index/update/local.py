"""Local features in a change of an index: those of the rows that come, and of rows that had none."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from index.folder.folder import IndexFolder
from index.folder.local import NOWHERE, LocalPlaces, digest_of_local, joined, nowhere, require_alike
from retrieval.arrays import LongArray
from retrieval.texts import equal_pairs

if TYPE_CHECKING:
    from index.update.images import Images


@dataclass(frozen=True, slots=True)
class LocalChange:
    """Local features after a change. of_rows: of the rows of before, None = as they are; of_added: of those that come.

    n_taken: rows of before that get them; n_without: rows that come, or are given again, and have none.
    """

    of_rows: LocalPlaces | None = None
    of_added: LocalPlaces | None = None
    n_taken: int = 0
    n_without: int = 0

    @property
    def digests(self) -> list[str]:
        """Digests of the local features that come."""
        return [digest_of_local(one) for one in (self.of_rows, self.of_added) if one is not None]


def plan_local(folder: IndexFolder, given: Sequence["Images"], new: Sequence[LongArray]) -> LocalChange:
    """The local features of images that may come into an index. new: which of the images come.

    Nothing where neither the index nor any of the images has any. Raises LmrError for features of other settings.
    """
    before = folder.local.places if folder.local else None
    known = [(str(folder.path), before.card)] if before else []
    known += [(images.source, images.local.card) for images in given if images.local is not None]
    if not known:
        return LocalChange()
    first, card = known[0]
    for source, other in known[1:]:
        require_alike(other, source, card, first)
    comes = [images.local or nowhere(card, len(images.image_id)) for images in given]
    of_added = joined([one.select(rows) for one, rows in zip(comes, new, strict=True)])
    of_rows = before or nowhere(card, len(folder.rows))
    is_given = np.zeros(len(folder.rows), dtype=np.bool_)
    for images, one in zip(given, comes, strict=True):
        found = np.full((len(folder.rows), 2), NOWHERE, dtype=np.int32)
        for block in equal_pairs(images.image_id, folder.rows.image_id):
            pairs = block[images.landmark[block[:, 0]] >= 0]
            found[pairs[:, 1]] = one.place[pairs[:, 0]]
            is_given[pairs[:, 1]] = True
        of_rows = of_rows.or_else(LocalPlaces(card, one.files, found))
    return local_change(before or nowhere(card, len(folder.rows)), of_rows, of_added, np.flatnonzero(is_given))


def local_change(before: LocalPlaces, given: LocalPlaces, of_added: LocalPlaces, is_given: LongArray) -> LocalChange:
    """The change to rows of before that have no local features and are given some, and to those that come.

    given: of the rows of before. is_given: which of these are asked for.
    """
    of_rows = before.or_else(given)
    n_taken = int(of_rows.there.sum()) - int(before.there.sum())
    n_without = int((~of_added.there).sum()) + int((~of_rows.there[is_given]).sum())
    return LocalChange(of_rows if n_taken else None, of_added if of_added.there.any() else None, n_taken, n_without)
