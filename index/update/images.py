"""Images that may come into an index: rows of a store, or of another index folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from index.folder.folder import IndexFolder
from index.folder.local import LocalPlaces, find_places
from index.recognition import check_store, to_index_space
from retrieval.arrays import FloatArray, IntArray, LongArray
from retrieval.data.names import Name
from retrieval.errors import LmrError
from retrieval.local.config import refuse_weights
from retrieval.own_columns import OwnColumns, join_columns, same_columns
from retrieval.store.store import open_descriptors
from retrieval.texts import Texts


@dataclass(frozen=True, slots=True)
class Images:
    """Images that may come into an index: rows of a store, or of another index folder.

    source: for messages. image_id, path: (n,) columns; landmark: (n,) int32 into landmarks, -1 = none. vectors: from
    rows to their vectors in the space of the index, float32. kept: the JPEG of a row's thumbnail, None = it has to be
    made of the image at its path. n_unreadable: rows that have no descriptor and are none of these. local: of their
    local features, None where there are none. columns: the user's own. mapped: as of
    FolderInfo.
    """

    source: str
    image_id: Texts
    path: Texts
    landmark: IntArray
    landmarks: tuple[str, ...]
    vectors: Callable[[LongArray], FloatArray]
    names: Mapping[str, Name] = field(default_factory=dict)
    kept: Callable[[int], bytes | None] | None = None
    n_unreadable: int = 0
    local: LocalPlaces | None = None
    columns: OwnColumns = field(default_factory=dict)
    mapped: tuple[str, ...] = ()

    def labels(self, rows: LongArray) -> list[str]:
        """Labels of these rows, '' = none."""
        return [self.landmarks[code] if code >= 0 else "" for code in self.landmark[rows].tolist()]


def images_of_store(folder: IndexFolder, path: Path, local: Sequence[Path] = (), weights: Path | None = None) -> Images:
    """The images of a store. local: local stores that have their local features; weights: of a network that made them.

    Raises LmrError for one of another model, and as `find_places` and `refuse_weights`.
    """
    store = open_descriptors(path)
    check_store(folder, store)
    done = store.select(store.done)
    places = replace(find_places(done, local), weights=weights) if local else None
    if places is not None and not places.card.weights_sha256:
        refuse_weights(weights)
    return Images(
        source=str(path),
        image_id=done.image_id,
        path=done.path,
        landmark=done.landmark,
        landmarks=done.landmarks,
        vectors=lambda rows: to_index_space(folder, done.vectors[rows]),
        names={label: Name(name, "") for label, name in done.names.items()},
        n_unreadable=len(store) - len(done),
        local=places,
        columns=done.columns,
        mapped=store.info.mapped,
    )


def images_of_folder(folder: IndexFolder, other: IndexFolder) -> list[Images]:
    """The rows and the background of another index folder. Raises LmrError for one of another model or whitening."""
    if other.path.resolve() == folder.path.resolve():
        raise LmrError(f"{folder.path} is the index itself; give another folder")
    if other.fingerprint != folder.fingerprint:
        raise LmrError(
            f"{other.path} was made by model {other.fingerprint[:8]}, {folder.path} by {folder.fingerprint[:8]}; embed "
            "its images by the model of the index, and lmr index add takes them"
        )
    one, two = folder.whitening, other.whitening
    is_same = one is two or (
        one is not None
        and two is not None
        and np.array_equal(one.mean, two.mean)
        and np.array_equal(one.matrix, two.matrix)
    )
    if not is_same:
        raise LmrError(
            f"{other.path} was whitened otherwise than {folder.path}, so that their rows cannot be compared; lmr index "
            "add takes the stores that it was built from"
        )
    side_px = folder.info.thumbnails.get("side_px")
    keeps = other.thumbnails is not None and other.info.thumbnails.get("side_px") == side_px
    rows = Images(
        source=str(other.path),
        image_id=other.rows.image_id,
        path=other.rows.path,
        landmark=other.rows.landmark,
        landmarks=other.rows.landmarks,
        vectors=other.index.vectors,
        names=other.names,
        kept=other.thumbnails.read if keeps and other.thumbnails is not None else None,
        local=None if other.local is None else other.local.places,
        columns=other.rows.columns,
        mapped=other.info.mapped,
    )
    behind = other.background
    if behind is None:
        return [rows]
    n = len(behind)
    nothing = Texts.of([""] * n)
    none = np.full(n, -1, dtype=np.int32)
    return [rows, Images(str(other.path), behind.image_id, nothing, none, (), behind.vectors.__getitem__)]


def columns_now(folder: IndexFolder, given: Sequence[tuple[Images, LongArray]]) -> OwnColumns | None:
    """Own columns of all rows, with what images that are there say now; None = as they are.

    given: images, and (p, 2) rows of them and of the index. Columns that images do not have stay as they are.
    """
    rows = folder.rows
    found: OwnColumns = rows.columns
    for images, pairs in given:
        if not len(pairs):
            continue
        where = np.arange(len(rows))
        where[pairs[:, 1]] = len(rows) + pairs[:, 0]
        both = join_columns([(found, len(rows)), (images.columns, len(images.image_id))])
        found = {**found, **{name: both[name].select(where) for name in images.columns}}
    return None if same_columns(found, rows.columns) else found
