"""Plan of a change to an index: which rows go, what the others are called, and which ones come."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from index.folder.changes import Kind
from index.folder.folder import IndexFolder
from index.folder.rows import Background
from index.update.local import LocalChange
from retrieval.arrays import BoolArray, FloatArray, IntArray, LongArray
from retrieval.data.names import Name
from retrieval.errors import LmrError
from retrieval.files.digest import sha256_json
from retrieval.own_columns import OwnColumns
from retrieval.texts import Texts, equal_pairs
from retrieval.words import named

NONE = np.zeros(0, dtype=np.int64)


class ConflictError(LmrError):
    """The index has something that a change contradicts, or is one that cannot be changed so."""


@dataclass(frozen=True, slots=True)
class NewRows:
    """Rows that come into an index: vectors (n, d) as they are stored, background (n,) b(i) or None.

    thumbnails: makes their JPEGs in order, by the longer side in pixels and how many are made at once. columns: the
    user's own. mapped: as of FolderInfo.
    """

    vectors: FloatArray
    image_id: Texts
    path: Texts
    landmark: IntArray
    landmarks: tuple[str, ...]
    background: FloatArray | None
    thumbnails: Callable[[int, int], Iterable[bytes]]
    columns: OwnColumns = field(default_factory=dict)
    mapped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.image_id)


@dataclass(frozen=True, slots=True)
class Change:
    """A change to an index.

    digest: of what is asked for. removed: rows that go, ascending. landmark, landmarks: the labels of all rows of
    before, as they are to be; image_id, path, columns: their names, places and own columns, None = as they are.
    background: the whole of it, None = as it is. n_moved: rows that keep their label and get another name or place.
    n_there: images asked for that are there already; n_unlabelled: without a landmark, left out; n_background: that
    come into the background or go from it.
    """

    kind: Kind
    sources: tuple[str, ...]
    digest: str
    landmark: IntArray
    landmarks: tuple[str, ...]
    image_id: Texts | None = None
    path: Texts | None = None
    columns: OwnColumns | None = None
    removed: LongArray = field(default_factory=lambda: NONE)
    added: NewRows | None = None
    background: Background | None = None
    local: LocalChange = field(default_factory=LocalChange)
    names: Mapping[str, Name] = field(default_factory=dict)
    n_relabelled: int = 0
    n_moved: int = 0
    n_there: int = 0
    n_unlabelled: int = 0
    n_unreadable: int = 0
    n_background: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Rows added, removed, relabelled and moved."""
        n_added = 0 if self.added is None else len(self.added)
        counts = {"added": n_added, "removed": len(self.removed), "relabelled": self.n_relabelled}
        return counts | {"moved": self.n_moved}

    @property
    def is_nothing(self) -> bool:
        """True where the index stays as it is."""
        has_rows = any(self.counts.values()) or self.columns is not None
        return not has_rows and self.background is None and not self.local.n_taken


def plan_removal(folder: IndexFolder, ids: Sequence[str], source: str) -> Change:
    """The images of these ids, of the rows and of the background, that go.

    Raises LmrError: no id, one twice or not there, nothing that would be left, and rows that borrow from each other.
    """
    refuse_augmented(folder, "remove")
    if not ids:
        raise LmrError("no image_id is given; give those of the images to remove")
    asked = dict.fromkeys(ids)
    if len(asked) < len(ids):
        twice = next(one for one in asked if ids.count(one) > 1)
        raise LmrError(f"{twice} is given twice; give each image_id once")
    rows = rows_named(folder.rows.image_id, asked)
    removed = np.array(sorted(rows.values()), dtype=np.int64)
    behind = {} if folder.background is None else rows_named(folder.background.image_id, asked.keys() - rows.keys())
    lacking = [one for one in asked if one not in rows and one not in behind]
    if lacking:
        raise LmrError(
            f"{named(lacking)}: {folder.path} has no such image, nothing was removed; lmr index export lists those "
            "that it has"
        )
    if len(removed) == len(folder.rows):
        raise ConflictError(f"{folder.path} would have no image left; delete the folder, or remove fewer")
    background = None
    if folder.background is not None and behind:
        if len(behind) == len(folder.background):
            raise ConflictError(f"{folder.path} would have no background left; lmr build-index makes one without it")
        stays = np.ones(len(folder.background), dtype=np.bool_)
        stays[list(behind.values())] = False
        background = Background(folder.background.vectors[stays], folder.background.image_id.select(stays))
    return Change(
        kind="remove",
        sources=(source,),
        digest=removal_digest(ids),
        landmark=folder.rows.landmark,
        landmarks=folder.rows.landmarks,
        removed=removed,
        background=background,
        n_background=len(behind),
    )


def removal_digest(ids: Sequence[str]) -> str:
    """Digest of a removal that is asked for."""
    return sha256_json(["remove", sorted(set(ids))])


def plan_relabelling(
    folder: IndexFolder, of_landmark: Mapping[str, str], of_image: Mapping[str, str], source: Path
) -> Change:
    """New labels for all rows of some landmarks, or for some images.

    of_landmark: landmark_id -> the new one; of_image: image_id -> landmark_id. Raises LmrError where neither the old
    nor the new landmark, or no such image, is in the index.
    """
    rows = folder.rows
    names = [*rows.landmarks]
    landmark = rows.landmark.copy()
    there = set(names)
    strange = [old for old, new in of_landmark.items() if old not in there and new not in there]
    if strange:
        raise LmrError(f"{source}: {named(strange)}: {folder.path} has no such landmark; correct the landmark_id")
    if of_landmark:
        code = {name: i for i, name in enumerate(dict.fromkeys([*names, *of_landmark.values()]))}
        names = list(code)
        landmark = np.array([code[of_landmark.get(name, name)] for name in rows.landmarks], dtype=np.int32)[landmark]
    found = rows_named(rows.image_id, of_image)
    if lacking := [one for one in of_image if one not in found]:
        raise LmrError(f"{source}: {named(lacking)}: {folder.path} has no such image; take the line out")
    code = {name: i for i, name in enumerate(names)}
    for image_id, row in found.items():
        landmark[row] = code.setdefault(of_image[image_id], len(code))
    names = list(code)
    before = np.array(rows.landmarks, dtype=object)[rows.landmark]
    n_changed = int((np.array(names, dtype=object)[landmark] != before).sum())
    moved = {
        new: folder.names[old] for old, new in of_landmark.items() if old in folder.names and new not in folder.names
    }
    return Change(
        kind="relabel",
        sources=(str(source),),
        digest=relabelling_digest(of_landmark, of_image),
        landmark=landmark,
        landmarks=tuple(names),
        names=moved,
        n_relabelled=n_changed,
        n_there=len(rows) - n_changed,
    )


def relabelling_digest(of_landmark: Mapping[str, str], of_image: Mapping[str, str]) -> str:
    """Digest of a relabelling that is asked for."""
    return sha256_json(["relabel", dict(of_landmark), dict(of_image)])


def refuse_augmented(folder: IndexFolder, kind: Kind) -> None:
    """An augmented row borrows from its neighbours, so that one that comes or goes changes others."""
    if folder.augmented is not None:
        raise ConflictError(
            f"{folder.path} was built with `augment`, so that its rows borrow from each other and none can be changed "
            f"alone ({kind}); run lmr build-index again with all stores"
        )


def rows_named(image_id: Texts, names: Iterable[str]) -> dict[str, int]:
    """Row of each of these names that is there."""
    wanted = list(names)
    pairs = (pair for block in equal_pairs(Texts.of(wanted), image_id) for pair in block.tolist())
    return {wanted[one]: row for one, row in pairs}


def kept_rows(n: int, removed: LongArray) -> BoolArray:
    """(n,) True for the rows that stay."""
    kept = np.ones(n, dtype=np.bool_)
    kept[removed] = False
    return kept


def join_labels(parts: Sequence[tuple[IntArray, tuple[str, ...]]]) -> tuple[IntArray, tuple[str, ...]]:
    """(n,) codes of all parts into the sorted names that are used. parts: codes, and the names they are of."""
    used = {names[code] for codes, names in parts for code in np.unique(codes).tolist()}
    code = {name: i for i, name in enumerate(sorted(used))}
    tables = [np.array([code.get(name, -1) for name in names], dtype=np.int32) for _, names in parts]
    joined = np.concatenate([table[codes] for table, (codes, _) in zip(tables, parts, strict=True)])
    return joined.astype(np.int32), tuple(code)
