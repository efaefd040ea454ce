"""Plan of the change that makes the rows of a folder of images those that it holds now."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from index.folder.folder import IndexFolder
from index.folder.local import NOWHERE, find_places
from index.folder.rows import Background
from index.update.addition import (
    are_same,
    background_of,
    digest_of,
    grown_background,
    n_unlabelled,
    new_rows,
    refuse_other,
)
from index.update.change import Change, refuse_augmented
from index.update.images import Images, columns_now, images_of_store
from index.update.local import LocalChange, local_change
from retrieval.arrays import BoolArray, LongArray
from retrieval.data.manifest import Manifest
from retrieval.errors import LmrError
from retrieval.store.store import Descriptors, open_descriptors
from retrieval.texts import Texts, equal_pairs, equal_rows


@dataclass(frozen=True, slots=True)
class FolderNow:
    """A folder of images as it is now.

    manifest: all of its images, unreadable ones too, whose rows stay. store: where the descriptors of the others are.
    before: its store when the index followed it the last time, None = never. extract: makes a local store of the images
    of these names, as the index has them.
    """

    root: Path
    manifest: Manifest
    store: Path
    before: Descriptors | None
    extract: Callable[[Texts], Path]


@dataclass(frozen=True, slots=True)
class _Kept:
    """Images that have a row in the index, which stays. mine: rows of the images; there: of the index."""

    mine: LongArray
    there: LongArray


def plan_sync(folder: IndexFolder, now: FolderNow, *, to_background: bool) -> Change:
    """The rows that come, go, and get another label, name, place or own columns.

    Raises LmrError for an image that the index has from elsewhere with another descriptor or label.
    """
    refuse_augmented(folder, "sync")
    rows, images = folder.rows, images_of_store(folder, now.store)
    inside = _rows_inside(folder, now)
    kept, stays = _compare(folder, images, now, inside)
    landmark, landmarks = _labels(folder, images, kept)
    image_id, path, is_moved = _names(folder, images, kept)
    columns = columns_now(folder, [(images, np.stack([kept.mine, kept.there], axis=1))])
    relabelled = np.array([*rows.landmarks], dtype=object)[rows.landmark] != np.array(landmarks, dtype=object)[landmark]
    new = np.setdiff1d(np.flatnonzero(images.landmark >= 0), kept.mine)
    local = _local(folder, now, kept, new)
    background, n_background, n_renamed = _background(folder, images, now, grows=to_background)
    if not stays.any() and not len(new):
        raise LmrError(f"{folder.path} would have no image left; give the folder that holds its images")
    removed, n_relabelled = np.flatnonzero(~stays), int((relabelled & stays).sum())
    asked = [removed, kept.there, images.image_id.select(kept.mine), images.path.select(kept.mine), landmarks, landmark]
    asked += [] if columns is None else [dict(columns)]
    return Change(
        kind="sync",
        sources=(str(now.root),),
        digest=digest_of("sync", [images], [new], background, [*asked, *local.digests]),
        landmark=landmark,
        landmarks=landmarks,
        image_id=image_id,
        path=path,
        columns=columns,
        removed=removed,
        added=new_rows(folder, [images], [new], background or folder.background) if len(new) else None,
        background=background,
        local=local,
        names=images.names,
        n_relabelled=n_relabelled,
        n_moved=int((is_moved & stays & ~relabelled).sum()) + n_renamed,
        n_there=len(kept.mine) - n_relabelled,
        n_unlabelled=0 if to_background else n_unlabelled(folder, [images]),
        n_unreadable=images.n_unreadable,
        n_background=n_background,
    )


def _rows_inside(folder: IndexFolder, now: FolderNow) -> BoolArray:
    """(n,) True for rows of the folder of images: their path lies in it, or its store has them."""
    root = os.path.abspath(now.root) + os.sep
    inside = np.fromiter((path.startswith(root) for path in folder.rows.path), np.bool_, len(folder.rows))
    if now.before is not None:
        for block in equal_pairs(now.before.image_id, folder.rows.image_id):
            inside[block[:, 1]] = True
    return inside


def _compare(folder: IndexFolder, images: Images, now: FolderNow, inside: BoolArray) -> tuple[_Kept, BoolArray]:
    """Images that have a row, by name or by content, and (n,) the rows that stay: these, unreadable ones, others'."""
    rows = folder.rows
    labelled = np.flatnonzero(images.landmark >= 0)
    pairs = _pairs(images.image_id.select(labelled), rows.image_id)
    mine, there = labelled[pairs[:, 0]], pairs[:, 1]
    refuse_other(folder, images, mine[~inside[there]], there[~inside[there]])
    same = are_same(folder, images, mine, there)
    named = _pairs(Texts.of(now.manifest.image_id[now.manifest.landmark >= 0]), rows.image_id)[:, 1]
    stays = ~inside
    stays[named] = True
    stays[there[~same]] = False
    gone = np.setdiff1d(np.flatnonzero(inside), named)
    of_gone = [rows.landmarks[code] for code in rows.landmark[gone].tolist()]
    renamed = _find_renamed(images, now, np.setdiff1d(labelled, mine), rows.image_id.select(gone), of_gone)
    renamed[:, 1] = gone[renamed[:, 1]]
    renamed = renamed[are_same(folder, images, renamed[:, 0], renamed[:, 1])]
    stays[renamed[:, 1]] = True
    return _Kept(np.append(mine[same], renamed[:, 0]), np.append(there[same], renamed[:, 1])), stays


def _find_renamed(images: Images, now: FolderNow, new: LongArray, gone: Texts, labels: Sequence[str]) -> LongArray:
    """(p, 2) images under a new name, and the position of one with their content among those whose name is gone.

    new: rows of the images. labels: of those that are gone; one of the same label comes first.
    """
    store = open_descriptors(now.store)
    facts, before = store.select(store.done).facts, now.before
    found: list[tuple[int, int]] = []
    if before is not None and before.facts is not None and facts is not None:
        of_content: dict[bytes, list[int]] = {}
        for row, at in _pairs(before.image_id, gone).tolist():
            of_content.setdefault(before.facts.sha256[row].tobytes(), []).append(at)
        for row, label in zip(new.tolist(), images.labels(new), strict=True):
            places = of_content.get(facts.sha256[row].tobytes())
            if places:
                known = [labels[at] for at in places]
                found.append((row, places.pop(known.index(label) if label in known else 0)))
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _labels(folder: IndexFolder, images: Images, kept: _Kept) -> tuple[np.ndarray, tuple[str, ...]]:
    """(n,) int32 codes of all rows as they are to be, and the names that they are of."""
    code = {name: i for i, name in enumerate(dict.fromkeys((*folder.rows.landmarks, *images.landmarks)))}
    landmark = np.array(folder.rows.landmark)
    of_image = np.array([code[name] for name in images.landmarks], dtype=np.int32)
    landmark[kept.there] = of_image[images.landmark[kept.mine]]
    return landmark, tuple(code)


def _names(folder: IndexFolder, images: Images, kept: _Kept) -> tuple[Texts, Texts, BoolArray]:
    """image_id and path of all rows as they are to be, and (n,) where one of them changes."""
    rows, where = folder.rows, _places(folder, kept)
    image_id = Texts.joined([rows.image_id, images.image_id]).select(where)
    path = Texts.joined([rows.path, images.path]).select(where)
    return image_id, path, ~(equal_rows(image_id, rows.image_id) & equal_rows(path, rows.path))


def _places(folder: IndexFolder, kept: _Kept) -> LongArray:
    """(n,) where each row gets its texts from: rows of the index, and behind them the images."""
    where = np.arange(len(folder.rows))
    where[kept.there] = len(where) + kept.mine
    return where


def _local(folder: IndexFolder, now: FolderNow, kept: _Kept, new: LongArray) -> LocalChange:
    """Local features of the rows that come, and of those that stay and have none; extracted here."""
    if folder.local is None:
        return LocalChange()
    before = folder.local.places
    bare = ~before.there[kept.there]
    store = open_descriptors(now.store)
    images = store.select(store.done)
    wanted = np.union1d(new, kept.mine[bare])
    if not len(wanted):
        return LocalChange()
    found = find_places(images, [now.extract(images.image_id.select(wanted))])
    place = np.full((len(before), 2), NOWHERE, dtype=np.int32)
    place[kept.there[bare]] = found.place[kept.mine[bare]]
    return local_change(before, replace(found, place=place), found.select(new), is_given=kept.there)


def _background(
    folder: IndexFolder, images: Images, now: FolderNow, *, grows: bool
) -> tuple[Background | None, int, int]:
    """The background without images that are gone or have a landmark now, None = as it is.

    grows: images without a landmark come into it. Gives how many came or went, and how many got another name, too.
    """
    known, others = background_of(folder), np.flatnonzero(images.landmark < 0)
    stays = np.ones(len(known), dtype=np.bool_)
    if now.before is not None:
        stays[_pairs(now.before.image_id, known.image_id)[:, 1]] = False
        without = Texts.of(now.manifest.image_id[now.manifest.landmark < 0])
        stays[_pairs(without, known.image_id)[:, 1]] = True
    gone = np.flatnonzero(~stays)
    new = np.delete(others, _pairs(images.image_id.select(others), known.image_id)[:, 0])
    renamed = _find_renamed(images, now, new, known.image_id.select(gone), [""] * len(gone))
    stays[gone[renamed[:, 1]]] = True
    where = np.arange(len(known))
    where[gone[renamed[:, 1]]] = len(known) + renamed[:, 0]
    image_id = Texts.joined([known.image_id, images.image_id]).select(where[stays])
    left = Background(known.vectors[stays], image_id)
    grown = grown_background(left, [images], [others]) if grows else left
    n_changed = int((~stays).sum()) + len(grown) - len(left)
    if len(known) and not len(grown):
        raise LmrError(f"{folder.path} would have no background left; lmr build-index makes one without it")
    return grown if n_changed or len(renamed) else None, n_changed, len(renamed)


def _pairs(one: Texts, other: Texts) -> LongArray:
    """(p, 2) rows of equal texts."""
    return np.concatenate([np.zeros((0, 2), np.int64), *equal_pairs(one, other)])
