"""Leakage: queries that an index knows too well for its answers to them to count as those to new images."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from index.copies import sketches, unpack_sketches
from index.folder.folder import IndexFolder
from index.folder.info import MODEL, MODEL_CARD
from index.folder.thumbnails import Thumbnails
from index.recognition import BLOCK_QUERIES, to_index_space
from index.search.base import Neighbours
from retrieval.arrays import BoolArray, LongArray, ObjArray
from retrieval.data.near_duplicates import near_pairs
from retrieval.data.request import NEAR_BITS
from retrieval.errors import UnreadableError
from retrieval.files.json_file import read_json
from retrieval.images.given import read_image
from retrieval.models.seen import record_seen, was_seen
from retrieval.parallel import run_tasks
from retrieval.progress import SILENT, Progress
from retrieval.store.store import Descriptors
from retrieval.texts import Texts, equal_pairs

# Similarity in the index's space from which on two images are looked at: of 80 photographs, 95 in 100 copies of half
# the size at JPEG quality 60 have more (EfficientNet-Lite0 untrained, half whitened), and a quarter of other queries.
COMPARED_FROM = 0.55
N_COMPARED = 3  # neighbours of a query
KINDS = ("same_picture", "near_duplicate", "calibrated_on", "trained_on")
# Of 64 bits by which the hash of a thumbnail may differ from its image's: of 120 photographs 0 to 4, where two of
# them have 18 between them and more. Below so many pixels on the shorter side it says too little (up to 26 bits).
_THUMBNAIL_BITS = 8
_THUMBNAIL_PX = 64
_IMAGES_A_TASK = 64  # fewer are done before other processes are there
_Looked = tuple[str, int]  # the path of an image, and the row whose thumbnail does in its place, -1 = none


@dataclass(frozen=True, slots=True)
class Leaks:
    """Leaked queries, (q,) bool each.

    same_picture: by their descriptor they are rows of the index. near_duplicate: they look the same as a row that is
    near. calibrated_on: the calibration was fitted on them. trained_on: their name and label are those of images
    that the network was trained on. training_unknown: it was trained, on what is not known.
    """

    same_picture: BoolArray
    near_duplicate: BoolArray
    calibrated_on: BoolArray
    trained_on: BoolArray
    training_unknown: bool

    @property
    def any(self) -> BoolArray:
        """(q,) bool: those of any kind."""
        found: BoolArray = np.any([getattr(self, name) for name in KINDS], axis=0)
        return found


def trained_on_rows(folder: IndexFolder) -> tuple[BoolArray, bool]:
    """As `trained_on`, of the rows of the index."""
    rows = folder.rows
    return trained_on(folder, rows.image_id, [rows.landmarks[code] for code in rows.landmark])


def trained_on(folder: IndexFolder, image_id: Texts, label: Sequence[str]) -> tuple[BoolArray, bool]:
    """(n,) bool: images with the name and label of some that the network was trained on.

    And whether the network was trained on images of which there is no record.
    """
    seen, unknown = np.zeros(len(image_id), dtype=np.bool_), False
    for made_by in _trainings(read_json(folder.path / MODEL / MODEL_CARD, "run lmr build-index again")):
        if "trained_on" in made_by:
            seen |= was_seen(made_by["trained_on"], image_id, label)
        else:
            unknown = True
    return seen, unknown


def seen_names(image_id: ObjArray) -> str:
    """Names of queries, for a calibration to keep."""
    return str(record_seen(image_id, [""] * len(image_id))["sha256_48"])


def find_calibrated_on(folder: IndexFolder, store: Descriptors, rows: LongArray) -> BoolArray:
    """(len(rows),) bool: the calibration was fitted on an image of this name and descriptor, by its sketch.

    The sketch alone does not tell: a network that was trained on few landmarks makes images alike. Nor does the name:
    folders number their images alike. rows: of the store; False for those that have no descriptor.
    """
    calibration, found = folder.calibration, np.zeros(len(rows), dtype=np.bool_)
    if calibration is None or calibration.query_names is None or calibration.query_sketches is None:
        return found
    done = np.flatnonzero(store.done[rows])
    rows = rows[done]
    image_id = store.image_id.select(rows)
    named = was_seen({"sha256_48": calibration.query_names}, image_id, [""] * len(image_id))
    known = unpack_sketches(calibration.query_sketches)
    own = [np.zeros(0, np.uint64)]
    for start in range(0, len(rows), BLOCK_QUERIES):
        own.append(sketches(to_index_space(folder, store.vectors[rows[start : start + BLOCK_QUERIES]])))
    joined = np.concatenate([known, *own])
    values, group = np.unique(joined, return_inverse=True)
    is_known = np.zeros(len(values), dtype=np.bool_)
    is_known[group[: len(known)]] = True
    first, second = near_pairs(values, NEAR_BITS).T
    near = is_known.copy()
    near[first] |= is_known[second]
    near[second] |= is_known[first]
    found[done] = named & near[group[len(known) :]]
    return found


def _trainings(card: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """The record in a model's card of each stage of training, of all members of an ensemble; nothing if untrained."""
    made_by = card.get("made_by") or {}
    for part in (made_by, *made_by.get("earlier_stages", ())):
        if part.get("training"):
            yield part
    for member in card.get("members", ()):
        yield from _trainings(member)


def find_near_duplicates(
    folder: IndexFolder,
    neighbours: Neighbours,
    path: Texts,
    asked: BoolArray,
    n_workers: int = 1,
    progress: Progress = SILENT,
) -> BoolArray:
    """(q,) bool: of the queries asked, those that look the same as a near row's image.

    path: (q,) of the queries, "" = none. n_workers: processes that compare images; those that cannot be read are left
    out. Raises LmrError as `run_tasks`.
    """
    rows, scores = neighbours.rows[:, :N_COMPARED], neighbours.scores[:, :N_COMPARED]
    compared = np.argwhere((rows >= 0) & (scores >= COMPARED_FROM) & asked[:, None])
    pairs = np.stack([compared[:, 0], rows[compared[:, 0], compared[:, 1]]], axis=1)
    near = np.zeros(len(path), dtype=np.bool_)
    near[pairs[look_the_same(folder, path, pairs, n_workers=n_workers, progress=progress), 0]] = True
    return near


def look_the_same(
    folder: IndexFolder, path: Texts, pairs: LongArray, *, n_workers: int = 1, progress: Progress = SILENT
) -> BoolArray:
    """(p,) bool: whether the perceptual hashes of the two images of a pair are those of copies.

    path: (q,) of the queries, "" = none. pairs: (p, 2), a query and a row of the index. The thumbnails of the folder
    rule out most; images that are left are read themselves, where they can be, by
    n_workers processes. False where there is neither.
    """
    both = _looked_at(folder, path, pairs)
    rough = _hashes(both, folder.thumbnails, n_workers, progress)
    left = [pair for pair in both if _bits(rough, pair) <= NEAR_BITS + _THUMBNAIL_BITS]
    again = [tuple(image for image in pair if image[1] >= 0) for pair in left]
    exact = {image: found for image, found in _hashes(again, None, n_workers, progress).items() if found is not None}
    hashes = rough | exact
    return np.array([_bits(hashes, pair) <= NEAR_BITS for pair in both], dtype=np.bool_)


def _looked_at(folder: IndexFolder, path: Texts, pairs: LongArray) -> list[tuple[_Looked, _Looked]]:
    """The two images of each pair; where thumbnails are kept, those of rows, and of queries that are files of rows."""
    rows, no_row = folder.rows, np.full(len(path), -1, dtype=np.int64)
    if folder.thumbnails is None:
        return [((path[query], -1), (rows.path[row], -1)) for query, row in pairs.tolist()]
    asked = np.unique(pairs[:, 0])
    for same in equal_pairs(path.select(asked), rows.path):
        no_row[asked[same[:, 0]]] = same[:, 1]
    return [((path[query], int(no_row[query])), (rows.path[row], row)) for query, row in pairs.tolist()]


def _bits(hashes: dict[_Looked, int | None], pair: tuple[_Looked, _Looked]) -> int:
    """Number of bits that differ; more than there are where one has no hash."""
    one, other = (hashes[image] for image in pair)
    return 65 if one is None or other is None else (one ^ other).bit_count()


def _hashes(
    groups: Iterable[tuple[_Looked, ...]], thumbnails: Thumbnails | None, n_workers: int, progress: Progress
) -> dict[_Looked, int | None]:
    """The hash of each image once; None where it cannot be read."""
    asked = list(dict.fromkeys(image for group in groups for image in group))
    tasks = [asked[i : i + _IMAGES_A_TASK] for i in range(0, len(asked), _IMAGES_A_TASK)]
    found: list[int | None] = []
    if tasks:
        progress.begin("looking for copies", len(asked))
    for hashes in run_tasks(_look, tasks, thumbnails, n_workers):
        found += hashes
        progress.add(len(hashes))
    progress.end()
    return dict(zip(asked, found, strict=True))


def _look(asked: list[_Looked], thumbnails: Thumbnails | None) -> list[int | None]:
    return [_hash(path, row, thumbnails) for path, row in asked]


def _hash(path: str, row: int, thumbnails: Thumbnails | None) -> int | None:
    from retrieval.images.decode import image_size
    from retrieval.images.quality import hash_image  # scipy waits until there are images to compare

    small = thumbnails.read(row) if thumbnails is not None and row >= 0 else None
    try:
        if small is not None and (min(image_size(small)) >= _THUMBNAIL_PX or not os.path.exists(path)):
            return hash_image(small)
        return hash_image(read_image(path)) if path else None
    except UnreadableError:
        return None
