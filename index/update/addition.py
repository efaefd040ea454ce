"""Plan of an addition to an index: which of the images that are given it does not have yet, and their rows."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from index.copies import SAME_NAME_TOO, same_named
from index.folder.changes import Kind
from index.folder.folder import IndexFolder
from index.folder.rows import Background
from index.folder.thumbnails import make_thumbnails
from index.update.change import Change, ConflictError, NewRows, join_labels, refuse_augmented
from index.update.images import Images, columns_now
from index.update.local import plan_local
from index.vote import background_similarity
from retrieval.arrays import BoolArray, FloatArray, LongArray
from retrieval.data.names import Name
from retrieval.errors import LmrError
from retrieval.files.digest import update_json
from retrieval.own_columns import join_columns, select_columns
from retrieval.texts import Texts, equal_pairs, repeated
from retrieval.words import named

BLOCK_ROWS = 8192  # read at a time


def plan_addition(
    folder: IndexFolder, kind: Kind, given: Sequence[Images], names: Mapping[str, Name], *, to_background: bool
) -> Change:
    """The images that are not in the index yet, with what else is to be done with those given.

    to_background: images without a landmark go into the background, instead of being left out. What an addition says
    of images that are there, in own columns, is taken over; a merge leaves their rows as they are.
    Raises LmrError: an image twice among those given, one that the index has with another descriptor or label, or has
    in its background, and an index whose rows borrow from each other.
    """
    refuse_augmented(folder, kind)
    _refuse_twice(given)
    there = [_pairs_there(folder, images) for images in given]
    new = [_not_there(folder, *one) for one in zip(given, there, strict=True)]
    others = [np.flatnonzero(images.landmark < 0) for images in given]
    n_new, n_before = sum(map(len, new)), len(background_of(folder))
    grown = grown_background(background_of(folder), given, others) if to_background else None
    background = None if grown is None or len(grown) == n_before else grown
    local = plan_local(folder, given, new)
    added = new_rows(folder, given, new, background or folder.background) if n_new else None
    columns = columns_now(folder, [*zip(given, there, strict=True)]) if kind == "add" else None
    more = {"local": local.digests, "columns": dict(columns)} if columns is not None else local.digests or None
    labels = {images.landmarks[code] for images, rows in zip(given, new, strict=True) for code in images.landmark[rows]}
    known = {label: name for images in given for label, name in images.names.items()} | dict(names)
    return Change(
        kind=kind,
        sources=tuple(dict.fromkeys(images.source for images in given)),
        digest=digest_of(kind, given, new, background, more),
        landmark=folder.rows.landmark,
        landmarks=folder.rows.landmarks,
        columns=columns,
        added=added,
        background=background,
        local=local,
        names={label: name for label, name in known.items() if label in labels or label in names},
        n_there=sum(int((images.landmark >= 0).sum()) for images in given) - n_new,
        n_unlabelled=0 if to_background else n_unlabelled(folder, given),
        n_unreadable=sum(images.n_unreadable for images in given),
        n_background=0 if background is None else len(background) - n_before,
    )


def _refuse_twice(given: Sequence[Images]) -> None:
    """An image may be given once, in one of the sources."""
    labelled = [images.image_id.select(images.landmark >= 0) for images in given]
    twice = repeated(Texts.joined(labelled))
    if twice:
        where = {images.source: None for images, ids in zip(given, labelled, strict=True) if twice[0] in ids.tolist()}
        raise LmrError(f"image_id {twice[0]} is there twice ({' and '.join(where)}); give each picture once")


def _pairs_there(folder: IndexFolder, images: Images) -> LongArray:
    """(p, 2) labelled rows that the index has, and theirs in it. Raises LmrError for one that it has otherwise."""
    rows = np.flatnonzero(images.landmark >= 0)
    found = equal_pairs(images.image_id.select(rows), folder.rows.image_id)
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *found])
    pairs[:, 0] = rows[pairs[:, 0]]
    refuse_other(folder, images, pairs[:, 0], pairs[:, 1])
    return pairs


def _not_there(folder: IndexFolder, images: Images, there: LongArray) -> LongArray:
    """The labelled rows that the index does not have. Raises LmrError for one that its background has."""
    rows = np.setdiff1d(np.flatnonzero(images.landmark >= 0), there[:, 0])
    if folder.background is None:
        return rows
    known = folder.background
    same = same_named(
        images.image_id.select(rows), lambda some: images.vectors(rows[some]), known.image_id, known.vectors.__getitem__
    )
    if same:
        raise ConflictError(
            f"{images.source}: {named(same)}: in the background of {folder.path}; lmr index remove takes out of it"
        )
    return rows


def refuse_other(folder: IndexFolder, images: Images, mine: LongArray, there: LongArray) -> None:
    """Refuses images that the index has with another label or another descriptor. there: their rows in it."""
    for start in range(0, len(mine), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        labels = [folder.rows.landmarks[code] for code in folder.rows.landmark[there[part]].tolist()]
        for row, label, known in zip(mine[part].tolist(), images.labels(mine[part]), labels, strict=True):
            if label != known:
                raise ConflictError(
                    f"{images.source}: image_id {images.image_id[row]} is {label}, in {folder.path} it is {known}; lmr "
                    "index relabel changes that, or leave it out"
                )
    for row in mine[~are_same(folder, images, mine, there)][:1]:
        raise ConflictError(
            f"{images.source}: image_id {images.image_id[row]} is in {folder.path} already, with another descriptor; "
            "lmr index remove takes that one out first"
        )


def are_same(folder: IndexFolder, images: Images, mine: LongArray, there: LongArray) -> BoolArray:
    """(len(mine),) True where an image and its row in the index have a descriptor as of one image."""
    same = np.ones(len(mine), dtype=np.bool_)
    for start in range(0, len(mine), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        one, other = images.vectors(mine[part]), folder.index.vectors(there[part])
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        same[part] = np.einsum("nd,nd->n", one, other) > SAME_NAME_TOO * lengths
    return same


def background_of(folder: IndexFolder) -> Background:
    """The background of an index, an empty one where it has none."""
    return folder.background or Background(np.zeros((0, folder.index.d), np.float32), Texts.of(()))


def grown_background(known: Background, given: Sequence[Images], others: Sequence[LongArray]) -> Background:
    """The background with the images without a landmark that it does not have."""
    vectors, image_id = [known.vectors], [known.image_id]
    for images, rows in zip(given, others, strict=True):
        ids, found = images.image_id.select(rows), images.vectors(rows)
        same = set(same_named(ids, found.__getitem__, known.image_id, known.vectors.__getitem__))
        new = np.array([one not in same for one in ids], dtype=np.bool_)
        vectors.append(found[new])
        image_id.append(ids.select(new))
    return Background(np.concatenate(vectors), Texts.joined(image_id))


def n_unlabelled(folder: IndexFolder, given: Sequence[Images]) -> int:
    """Images without a landmark that the background does not have by their name."""
    known = background_of(folder).image_id
    asked = Texts.joined([images.image_id.select(images.landmark < 0) for images in given])
    return len(asked) - len({row for block in equal_pairs(asked, known) for row in block[:, 0].tolist()})


def new_rows(
    folder: IndexFolder, given: Sequence[Images], new: Sequence[LongArray], background: Background | None
) -> NewRows:
    """The rows that come, in their order; their vectors are read in blocks and kept as the index stores them."""
    landmark, landmarks = join_labels(
        [(images.landmark[rows], images.landmarks) for images, rows in zip(given, new, strict=True)]
    )
    vectors = np.empty((len(landmark), folder.index.d), dtype=folder.index.storage)
    similarity = None if background is None else np.empty(len(landmark), dtype=np.float32)
    start = 0
    for block in _blocks(given, new):
        part = slice(start, start + len(block))
        vectors[part] = block
        if similarity is not None and background is not None:
            similarity[part] = background_similarity(block, background.vectors, folder.info.options["m"])
        start += len(block)
    return NewRows(
        vectors=vectors,
        image_id=Texts.joined([images.image_id.select(rows) for images, rows in zip(given, new, strict=True)]),
        path=Texts.joined([images.path.select(rows) for images, rows in zip(given, new, strict=True)]),
        landmark=landmark,
        landmarks=landmarks,
        background=similarity,
        thumbnails=lambda side_px, n_workers: _thumbnails(given, new, side_px, n_workers),
        mapped=tuple({text for images in given for text in images.mapped}),
        columns=join_columns(
            [(select_columns(images.columns, rows), len(rows)) for images, rows in zip(given, new, strict=True)]
        ),
    )


def _blocks(given: Sequence[Images], new: Sequence[LongArray]) -> Iterator[FloatArray]:
    for images, rows in zip(given, new, strict=True):
        for start in range(0, len(rows), BLOCK_ROWS):
            yield images.vectors(rows[start : start + BLOCK_ROWS])


def _thumbnails(given: Sequence[Images], new: Sequence[LongArray], side_px: int, n_workers: int) -> Iterator[bytes]:
    """The JPEGs of the rows that come: those that their source keeps, else made from the images."""
    for images, rows in zip(given, new, strict=True):
        if images.kept is not None:
            yield from (images.kept(row) or b"" for row in rows.tolist())
        else:
            yield from make_thumbnails(images.path.select(rows), side_px, n_workers)


def digest_of(
    kind: Kind, given: Sequence[Images], new: Sequence[LongArray], background: Background | None, more: Any = None
) -> str:
    """sha256 (hex) of what comes: ids, labels and descriptors, and of more, which `update_json` takes."""
    total = hashlib.sha256(kind.encode())
    if more is not None:
        update_json(total, more)
    for images, rows in zip(given, new, strict=True):
        update_json(total, [images.image_id.select(rows), images.landmark[rows], images.landmarks])
    for block in _blocks(given, new):
        total.update(np.ascontiguousarray(block).reshape(-1).data)
    if background is not None:
        total.update(np.ascontiguousarray(background.vectors).reshape(-1).data)
    return total.hexdigest()
